"""The metrics of the transfer study, from logits [N, C] and targets, in numpy. All are shares in [0, 1]."""

from __future__ import annotations

import numpy as np


def top1(logits: np.ndarray, label: np.ndarray) -> float:
    """Share of examples whose label has the highest logit; among equal logits the higher class wins, as in all our accuracies."""
    return float((_predicted(logits) == label).mean())


def mean_per_class(logits: np.ndarray, label: np.ndarray) -> float:
    """Top-1 accuracy within each class that occurs, averaged over these classes."""
    hit = _predicted(logits) == label
    return float(np.mean([hit[label == c].mean() for c in np.unique(label)]))


def eleven_point_map(logits: np.ndarray, target: np.ndarray) -> float:
    """Mean over classes of the 11-point interpolated average precision of PASCAL VOC 2007.

    Args:
      logits: [N, C].
      target: [N, C]: 1 where the class is there, 0 where not, -1 where it is not to be counted. Classes that are nowhere are left out.
    """
    found = [average_precision(logits[:, c], target[:, c]) for c in range(target.shape[1]) if (target[:, c] == 1).any()]
    if not found:
        raise ValueError("11-point mAP: no class has a positive example")
    return float(np.mean(found))


def average_precision(score: np.ndarray, target: np.ndarray) -> float:
    """Mean of the highest precision at a recall of at least 0, 0.1, ..., 1.0: score [N], target [N] as for ``eleven_point_map``."""
    counted = target >= 0
    ranked = target[counted][np.argsort(-score[counted], kind="stable")]
    hits = np.cumsum(ranked)
    precision = hits / np.arange(1, len(ranked) + 1)
    # Recall >= t / 10, in whole numbers: rounding may not decide which point a hit belongs to.
    reached = [precision[10 * hits >= t * hits[-1]] for t in range(11)]
    return float(np.mean([part.max() for part in reached]))


def _predicted(logits: np.ndarray) -> np.ndarray:
    return logits.shape[1] - 1 - np.argmax(logits[:, ::-1], axis=1)


METRICS = {"top-1": top1, "mean per class": mean_per_class, "11-point mAP": eleven_point_map}
