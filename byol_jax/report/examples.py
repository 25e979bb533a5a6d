"""Which examples a report shows, and which lie nearest to them: for any kind of example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from byol_jax.data.source import labels_of, subset
from byol_jax.evaluate.features import Features, features
from byol_jax.evaluate.knn import nearest


@dataclass(frozen=True)
class Neighbours:
    """M examples, and K neighbours of each, nearest first.

    Attributes:
      query: positions int64 [M] in the source of the queries; found: positions int64 [M, K] in the bank.
      cosine: float32 [M, K].
      query_label: int32 [M]; label: int32 [M, K]; -1 where there is none.
    """

    query: np.ndarray
    found: np.ndarray
    cosine: np.ndarray
    query_label: np.ndarray
    label: np.ndarray

    @property
    def same(self) -> np.ndarray | None:
        """bool [M, K], whether a neighbour is of its query's class; None where no classes are known."""
        known = bool((self.query_label >= 0).any() and (self.label >= 0).any())
        return self.label == self.query_label[:, None] if known else None

    @property
    def digits(self) -> int:
        """Of a cosine as it is shown: an untrained network's embeddings are all much alike."""
        return 2 if self.cosine.min() < 0.97 else 4


def one_of_each_class(source: Any, count: int, seed: int) -> np.ndarray:
    """``count`` positions, classes taking turns; random ones if there are no labels."""
    label = labels_of(source)
    order = np.random.default_rng(seed).permutation(len(source))
    if label is None:
        return order[:count]
    turn = np.zeros(len(source), np.int64)  # how many of its class come before each example
    for c in np.unique(label):
        members = order[label[order] == c]
        turn[members] = np.arange(len(members))
    return np.array(sorted(order, key=lambda i: (turn[i], label[i]))[:count])


def neighbours_of_some(encoder: Any, queries: Any, bank: Any, found: Features, *, rows: int, k: int, seed: int) -> Neighbours | None:
    """Nearest neighbours in ``bank`` (whose features are ``found``) of some examples of ``queries``; None if the bank has no other.

    If both are one source, no example is its own neighbour.
    """
    positions = one_of_each_class(queries, rows, seed)
    asked = features(encoder, subset(queries, positions), batch_size=len(positions), max_bad_share=1.0)
    positions = positions[asked.index]  # without those that could not be decoded
    own = 1 if queries is bank else 0
    if len(found) <= own:
        return None
    cosine, index = nearest(asked.embedding, found.embedding, k=k + own)
    if own:
        itself = found.index[index] == positions[:, None]
        itself[~itself.any(1), -1] = True  # behind more of its equals than are shown
        cosine, index = (part[~itself].reshape(len(part), -1) for part in (cosine, index))
    return Neighbours(positions, found.index[index], cosine, asked.label, found.label[index])


def class_names(label: Sequence[int] | np.ndarray, names: list[str] | None) -> list[str]:
    """What to write for each label: its name, else its number; nothing for none."""
    return ["" if c < 0 else names[c] if names else str(c) for c in label]
