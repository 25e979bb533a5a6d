"""How far a handful of labels goes: accuracy with 1 and 10 labels a class and with all, for several kinds of features.

Every kind sees the same draws of labelled examples. k-NN: k = 20, or all labelled examples where they are fewer. Linear: logistic
regression on features standardised over the whole training set (which takes no labels), with penalty l2 = 1; with all labels the
penalty is chosen on a held-out part instead. (A few labels leave nothing to choose by; on the digits' pixels any penalty from 0.01 to
10 gives the same within half a point.)
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from byol_jax.evaluate.features import Features
from byol_jax.evaluate.knn import knn_features
from byol_jax.evaluate.linear import linear_features, several_classes
from byol_jax.evaluate.result import Result, percent
from byol_jax.evaluate.scaling import standardised

ALL = 0  # "all labels" among the numbers of labels a class
COLUMNS = 3  # numbers of labels that a table shows side by side
PENALTIES = tuple(10.0**e for e in range(-3, 5))  # of those to choose from with all labels: coarser than L2_PATH, five times as fast


@dataclass(frozen=True)
class FewLabelsResult(Result):
    """``accuracy[features][classifier][labels a class]`` is the top-1 accuracy of each draw, as shares; 0 labels means all of them."""

    accuracy: dict[str, dict[str, dict[int, list[float]]]]
    labels: tuple[int, ...]
    draws: int
    k: int
    test_examples: int
    classes: int

    def mean(self, kind: str, classifier: str, labels: int) -> float:
        """Mean accuracy over the draws."""
        return float(np.mean(self.accuracy[kind][classifier][labels]))

    def rows(self) -> tuple[str, Sequence[str], Sequence[Sequence[str]]]:
        title = f"Top-1 % on {self.test_examples:,} test examples, mean ± standard deviation of {self.draws} draws of the labels"
        if len(self.labels) > COLUMNS:
            return title, ("features", "labels", "k-NN", "linear"), self._curves()
        headings = ["features", *(f"{c}, {_amount(n)}" for c in ("k-NN", "linear") for n in self.labels)]
        cells = [[kind, *(_cell(by[c][n]) for c in ("k-NN", "linear") for n in self.labels)] for kind, by in self.accuracy.items()]
        return title, headings, cells

    def _curves(self) -> list[tuple[str, ...]]:
        """One line for each kind of features and number of labels: for more numbers than fit beside each other."""
        lines = itertools.product(self.accuracy.items(), self.labels)
        return [(kind, _amount(n), _cell(by["k-NN"][n]), _cell(by["linear"][n])) for (kind, by), n in lines]


def few_labels(
    sets: Mapping[str, tuple[Features, Features]], *, labels: Sequence[int] = (1, 10, ALL), draws: int = 3, k: int = 20, seed: int = 0
) -> FewLabelsResult:
    """Accuracy of each kind of features with few labels.

    Args:
      sets: name -> (training features, test features); all of the same examples in the same order.
      labels: labelled examples a class; 0 for all.
      draws: how many times the labelled examples are drawn.
      k: neighbours that vote.
      seed: of the draws.
    """
    if not sets or draws < 1 or not labels or min(labels) < 0:
        raise ValueError(
            f"few_labels: {len(sets)} kinds of features, labels={labels}, draws={draws}; give at least one of each, labels >= 0"
        )
    first_train, first_test = next(iter(sets.values()))
    classes = several_classes(first_train, first_test)
    for name, (train, test) in sets.items():
        if not (np.array_equal(train.label, first_train.label) and np.array_equal(test.label, first_test.label)):
            raise ValueError(f"few_labels: the examples of {name!r} are not those of {next(iter(sets))!r} (their labels differ)")
    drawn = {n: [draw(first_train.label, n, seed + i) for i in range(draws)] for n in labels if n != ALL}
    accuracy = {name: _accuracies(train, test, drawn, labels, k, seed) for name, (train, test) in sets.items()}
    return FewLabelsResult(accuracy, tuple(labels), draws, k, len(first_test), classes)


def draw(label: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Positions of ``per_class`` random examples of each class, sorted."""
    rng = np.random.default_rng(seed)
    chosen = []
    for c in np.unique(label):
        members = np.flatnonzero(label == c)
        if len(members) < per_class:
            raise ValueError(
                f"few_labels: class {c} has {len(members)} training examples, {per_class} wanted; nearest valid: {len(members)}"
            )
        chosen.append(rng.choice(members, per_class, replace=False))
    return np.sort(np.concatenate(chosen))


def _accuracies(
    train: Features, test: Features, drawn: Mapping[int, list[np.ndarray]], labels: Sequence[int], k: int, seed: int
) -> dict[str, dict[int, list[float]]]:
    scaled_train, scaled_test = standardised(train, train, test)
    neighbours: dict[int, list[float]] = {}
    linear: dict[int, list[float]] = {}
    for n in labels:
        if n == ALL:
            neighbours[n] = [knn_features(train, test, k=k).top1[k]]
            linear[n] = [linear_features(scaled_train, scaled_test, l2=PENALTIES, standardise=False, seed=seed).top1]
        else:
            neighbours[n] = [knn_features(train.take(rows), test, k=k).top1[k] for rows in drawn[n]]
            linear[n] = [linear_features(scaled_train.take(rows), scaled_test, l2=1.0, standardise=False).top1 for rows in drawn[n]]
    return {"k-NN": neighbours, "linear": linear}


def _amount(labels: int) -> str:
    return "all" if labels == ALL else f"{labels}/class"


def _cell(shares: Sequence[float]) -> str:
    return percent(float(np.mean(shares))) + (f" ± {percent(float(np.std(shares, ddof=1)))}" if len(shares) > 1 else "")
