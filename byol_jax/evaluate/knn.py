"""Weighted k-nearest-neighbour classification as DINO measures it (arXiv 2104.14294): no training, no choice to make.

Embeddings are l2-normalised; each of the k most similar training examples votes for its class with weight exp(cosine / temperature).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from byol_jax.evaluate.encoder import Encoder
from byol_jax.evaluate.features import Features, features, labelled
from byol_jax.evaluate.metrics import macro_f1
from byol_jax.evaluate.result import Result, percent
from byol_jax.method.probe import in_top_k

TEST_CHUNK, TRAIN_CHUNK = 1024, 65536  # rows a similarity matrix holds at once: 256 MB, and training sets of any size


@dataclass(frozen=True)
class KnnResult(Result):
    """Accuracy and macro F1 by k, as shares. A class that no neighbour voted for counts neither in the top 1 nor in the top 5."""

    top1: dict[int, float]
    top5: dict[int, float]
    macro_f1: dict[int, float]
    temperature: float
    train_examples: int
    test_examples: int
    classes: int

    def rows(self) -> tuple[str, Sequence[str], Sequence[Sequence[str]]]:
        title = f"k-NN, {self.train_examples:,} training and {self.test_examples:,} test examples, temperature {self.temperature:g}"
        cells = [(str(k), *(percent(by[k]) for by in (self.top1, self.top5, self.macro_f1))) for k in self.top1]
        return title, ("k", "top-1 %", "top-5 %", "macro F1 %"), cells


def knn(
    encoder: Encoder,
    train: Any,
    test: Any,
    *,
    k: int | Sequence[int] = (10, 20, 100, 200),
    temperature: float = 0.07,
    batch_size: int = 256,
) -> KnnResult:
    """k-NN accuracy of an encoder: embeds both sources, then classifies the test examples by the training examples."""
    return knn_features(
        features(encoder, train, batch_size=batch_size), features(encoder, test, batch_size=batch_size), k=k, temperature=temperature
    )


def knn_features(train: Features, test: Features, *, k: int | Sequence[int] = (10, 20, 100, 200), temperature: float = 0.07) -> KnnResult:
    """k-NN accuracy from features.

    Args:
      train, test: labelled features of the same dimension.
      k: numbers of neighbours; a k beyond the training set uses all of it.
      temperature: of the votes' weights.

    Returns:
      top-1 and top-5 accuracy and macro F1 for each k. Equal votes go to the higher class, as in all our accuracies; equal similarities
      to the earlier example.
    """
    ks = (k,) if isinstance(k, int) else tuple(k)
    if not ks or min(ks) < 1:
        raise ValueError(f"k={k}: every k is at least 1 (DINO uses 10, 20, 100, 200)")
    if temperature <= 0:
        raise ValueError(f"temperature={temperature}: must be above 0 (DINO uses 0.07)")
    classes = labelled(train, test)
    similarity, index = nearest(test.embedding, train.embedding, k=max(ks))
    neighbour_label = train.label[index]
    counts, predicted = np.zeros((len(ks), 2), np.int64), np.zeros((len(ks), len(test)), np.int32)
    for start in range(0, len(test), TEST_CHUNK):
        rows = slice(start, start + TEST_CHUNK)
        found = _vote(similarity[rows], neighbour_label[rows], test.label[rows], temperature, ks, classes)
        counts, predicted[:, rows] = counts + np.asarray(found[0]), found[1]
    top1, top5 = ({kk: float(c) / len(test) for kk, c in zip(ks, column, strict=True)} for column in counts.T)
    f1 = {kk: macro_f1(row, test.label, classes) for kk, row in zip(ks, predicted, strict=True)}
    return KnnResult(top1, top5, f1, temperature, len(train), len(test), classes)


def nearest(query: np.ndarray, bank: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of the bank most similar to each query, by cosine.

    Args:
      query: [M, D]. bank: [N, D].
      k: neighbours wanted; cut to N.

    Returns:
      (cosine float32 [M, k], index int32 [M, k]), most similar first; the earlier row first among equals.
    """
    k = min(k, len(bank))
    queries = [jnp.asarray(query[i : i + TEST_CHUNK], jnp.float32) for i in range(0, len(query), TEST_CHUNK)]
    best = [(jnp.full((len(q), 0), -jnp.inf, jnp.float32), jnp.zeros((len(q), 0), jnp.int32)) for q in queries]
    for start in range(0, len(bank), TRAIN_CHUNK):  # outside, so that each piece of a large bank is sent to the device once
        piece = jnp.asarray(bank[start : start + TRAIN_CHUNK], jnp.float32)
        best = [_merge(q, piece, *found, jnp.int32(start), k) for q, found in zip(queries, best, strict=True)]
    return np.concatenate([np.asarray(s) for s, _ in best]), np.concatenate([np.asarray(i) for _, i in best])


@functools.partial(jax.jit, static_argnums=5)
def _merge(
    query: jax.Array, piece: jax.Array, similarity: jax.Array, index: jax.Array, start: jax.Array, k: int
) -> tuple[jax.Array, jax.Array]:
    """Best k of those found so far and of one more piece of the bank."""
    cosine_MxN = jnp.matmul(_normalise(query), _normalise(piece).T, precision="highest")
    new, new_index = lax.top_k(cosine_MxN, min(k, len(piece)))
    similarity, index = jnp.concatenate([similarity, new], 1), jnp.concatenate([index, new_index + start], 1)
    similarity, position = lax.top_k(similarity, min(k, similarity.shape[1]))
    return similarity, jnp.take_along_axis(index, position, 1)


@functools.partial(jax.jit, static_argnums=(4, 5))
def _vote(
    similarity: jax.Array, neighbour_label: jax.Array, label: jax.Array, temperature: float, ks: tuple[int, ...], classes: int
) -> tuple[jax.Array, jax.Array]:
    """Counts of top-1 and top-5 hits, int32 [len(ks), 2], and the classes of the most votes, int32 [len(ks), B]."""
    weight_MxK = jnp.exp((similarity - similarity[:, :1]) / temperature)  # relative to the best: votes only compare, and none overflows
    rows = jnp.arange(len(label))[:, None]
    hits, predicted = [], []
    for k in ks:
        votes = jnp.zeros((len(label), classes), jnp.float32).at[rows, neighbour_label[:, :k]].add(weight_MxK[:, :k])
        voted = votes[rows[:, 0], label] > 0
        hits.append(jnp.stack([(voted & in_top_k(votes, label, n)).sum() for n in (1, 5)]))
        predicted.append(classes - 1 - jnp.argmax(votes[:, ::-1], axis=1))
    return jnp.stack(hits), jnp.stack(predicted)


def _normalise(x: jax.Array) -> jax.Array:
    return x * lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), jnp.float32(1e-12)))
