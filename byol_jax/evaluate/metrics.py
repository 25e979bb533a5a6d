"""Metrics of a classifier in numpy, those of the transfer study among them, from logits [N, C] and targets. All are shares in [0, 1]."""

from __future__ import annotations

import numpy as np


def top1(logits: np.ndarray, label: np.ndarray) -> float:
    """Share of examples whose label has the highest logit; among equal logits the higher class wins, as in all our accuracies."""
    return float((predicted_class(logits) == label).mean())


def mean_per_class(logits: np.ndarray, label: np.ndarray) -> float:
    """Top-1 accuracy within each class that occurs, averaged over these classes."""
    hit = predicted_class(logits) == label
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


def macro_f1(predicted: np.ndarray, label: np.ndarray, classes: int) -> float:
    """Mean over classes of F1, the harmonic mean of precision and recall: scikit-learn's ``f1_score(average="macro")``.

    Args:
      predicted: int[N], the class given to each example; -1 is none, which is right for no class.
      label: int[N], the true class.
      classes: their number. A class that is neither anybody's label nor predicted is left out; one that is never hit counts 0.
    """
    if not len(label):
        raise ValueError("macro F1: there is no example")
    counts = (np.bincount(rows[rows >= 0], minlength=classes) for rows in (label, predicted, label[predicted == label]))
    true, given, hits = counts
    occurs = true + given > 0
    return float(np.mean(2 * hits[occurs] / (true + given)[occurs]))


def predicted_class(logits: np.ndarray) -> np.ndarray:
    """int[N], the class of the highest logit of each row [N, C], the higher class among equals; -1 where a logit is NaN."""
    highest = logits.shape[1] - 1 - np.argmax(logits[:, ::-1], axis=1)
    return np.where(np.isnan(logits).any(axis=1), -1, highest)


METRICS = {"top-1": top1, "mean per class": mean_per_class, "11-point mAP": eleven_point_map}
