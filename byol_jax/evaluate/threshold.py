"""When to say "no match": the score that a nearest neighbour must reach to be given as an answer, calibrated on known questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from byol_jax.evaluate.result import Result, percent


@dataclass(frozen=True)
class ThresholdResult(Result):
    """What becomes of questions when those whose best score is at least ``threshold`` are answered, as shares.

    Attributes:
      answered_right: of the questions with a match, those that get the right answer.
      told_none: of the questions without, those that are told so.
      balanced_accuracy: the mean of these two.
      precision: of all answers given, the right ones; 1 if none is given. It depends on how many questions of each kind there are.
      matched, unmatched: how many there are of each kind.
    """

    text_columns: ClassVar[tuple[int, ...]] = ()

    threshold: float
    answered_right: float
    told_none: float
    balanced_accuracy: float
    precision: float
    matched: int
    unmatched: int

    def rows(self) -> tuple[str, Sequence[str], Sequence[Sequence[str]]]:
        title = f'"No match" below a threshold, {self.matched:,} questions with a match and {self.unmatched:,} without'
        headings = ("threshold", "answered rightly %", "told none %", "balanced accuracy %", "precision %")
        shares = map(percent, (self.answered_right, self.told_none, self.balanced_accuracy, self.precision))
        return title, headings, [(f"{self.threshold:.4f}", *shares)]


def calibrated(matched: np.ndarray, right: np.ndarray, unmatched: np.ndarray, *, precision: float | None = None) -> ThresholdResult:
    """Chooses the threshold: of the highest balanced accuracy, or the lowest (which answers most) whose answers have a given precision.

    Args:
      matched: float[N], best score of each question that has a match. right: bool[N], whether its best hit is that match.
      unmatched: float[M], best score of each question that has none.
      precision: share of the answers given that must be right; None maximises balanced accuracy, the lower threshold among equals.

    Returns:
      The threshold, halfway between two scores that occur, and its shares on these very questions; ``at_threshold`` gives those on others.

    Raises:
      ValueError: no question of a kind, scores that are not finite, or a precision that no threshold reaches by an answer.
    """
    if precision is not None and not 0 < precision <= 1:
        raise ValueError(f"precision={precision:g}: is a share above 0, at most 1; for example 0.9")
    score = np.unique(np.concatenate([_checked(matched, "matched"), _checked(unmatched, "unmatched")]))
    halfway = [float(value) for value in (score[:-1] + score[1:]) / 2]
    candidates = [at_threshold(value, matched, right, unmatched) for value in [float(score[0]), *halfway]]
    if precision is None:
        nothing = at_threshold(float(np.nextafter(score[-1], np.inf)), matched, right, unmatched)
        return max([*candidates, nothing], key=lambda found: found.balanced_accuracy)
    good = [found for found in candidates if found.precision >= precision]
    if not good:
        highest = max(found.precision for found in candidates)
        raise ValueError(f"precision={precision:g}: no threshold reaches it; the highest that one reaches is {highest:.4g}")
    return good[0]


def at_threshold(threshold: float, matched: np.ndarray, right: np.ndarray, unmatched: np.ndarray) -> ThresholdResult:
    """What a threshold does on questions, as for ``calibrated``."""
    matched, unmatched, right = _checked(matched, "matched"), _checked(unmatched, "unmatched"), np.asarray(right, bool)
    if right.shape != matched.shape:
        raise ValueError(
            f"threshold: {len(matched)} scores of questions with a match, but right has shape {right.shape}; expected one each"
        )
    answered, wrongly = matched >= threshold, unmatched >= threshold
    hits, answers = int((answered & right).sum()), int(answered.sum() + wrongly.sum())
    shares = hits / len(matched), 1 - int(wrongly.sum()) / len(unmatched)
    precision = hits / answers if answers else 1.0
    return ThresholdResult(threshold, *shares, sum(shares) / 2, precision, len(matched), len(unmatched))


def _checked(score: np.ndarray, what: str) -> np.ndarray:
    score = np.asarray(score, np.float64)
    if score.ndim != 1 or not len(score) or not np.isfinite(score).all():
        raise ValueError(f"threshold: {what} must be one finite score a question, one question at least; got {list(score.shape)}")
    return score
