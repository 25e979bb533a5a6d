"""Features of a whole source: computed once, then shared by k-NN, linear evaluation, collapse metrics and the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from byol_jax.augment import Recipe, preprocess
from byol_jax.data.order import Shard
from byol_jax.data.pipeline import eval_batches
from byol_jax.evaluate.encoder import Encoder
from byol_jax.views import Views


@dataclass(frozen=True)
class Features:
    """Embeddings of N examples, in the order of their source.

    Attributes:
      embedding: float32 [N, D].
      label: int32 [N]; -1 where there is none.
      index: int64 [N], position of each example in its source (files that could not be decoded are left out); 0 to N - 1 if not given.
      weighted: the dimensions' sizes are weights, as of TF-IDF, and stay in proportion where features are standardised.
    """

    embedding: np.ndarray
    label: np.ndarray
    index: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    weighted: bool = False

    def __post_init__(self) -> None:
        if not len(self.index):
            object.__setattr__(self, "index", np.arange(len(self.label)))
        if self.embedding.ndim != 2 or self.label.shape != (len(self.embedding),):
            raise ValueError(f"features: embedding {self.embedding.shape} and label {self.label.shape}; expected [N, D] and [N]")

    def __len__(self) -> int:
        return len(self.label)

    def take(self, index: np.ndarray) -> Features:
        """The examples at these positions."""
        return Features(self.embedding[index], self.label[index], self.index[index], self.weighted)


def features(encoder: Encoder, source: Any, *, batch_size: int = 256, max_bad_share: float | None = None) -> Features:
    """Embeds every example of a source, the last partial batch included.

    With several processes each embeds its share and all of them get the whole.

    Args:
      encoder: the frozen encoder.
      source: a data set (``__len__`` and ``__getitem__``), see ``byol_jax.data``.
      batch_size: rows this process sends to its devices at a time.
      max_bad_share: largest share of files that may be undecodable; these are left out, as ``index`` shows. None: as the
        source says, or 0.01.

    Returns:
      Features of all N examples in the source's order.
    """
    return _collect(source, encoder.views, batch_size, lambda examples: encoder(examples, pad_to=batch_size), max_bad_share)


def pixels(source: Any, views: Views, *, batch_size: int = 256, max_size: int = 32) -> Features:
    """The images themselves as features, in [0, 1]: the baseline that any encoder should beat.

    Cropped as for the encoder, at no more than ``max_size`` pixels a side; channels that are all equal (gray images) count once.
    """
    plain = dataclasses.replace(views, size=min(views.size, max_size), mean=(0.0,) * 3, std=(1.0,) * 3)
    shrink = jax.jit(lambda images: preprocess(images, plain))
    numbers = 3 * plain.size**2  # -1 would not do: a process may have no row
    raw = _collect(source, plain, batch_size, lambda images: np.asarray(shrink(jnp.asarray(images))).reshape(len(images), numbers))
    channels = raw.embedding.reshape(len(raw), plain.size**2, 3)
    gray = bool(np.all(channels == channels[..., :1]))
    return dataclasses.replace(raw, embedding=np.ascontiguousarray(channels[..., 0])) if gray else raw


def labelled(*sets: Features) -> int:
    """Number of classes, after checking that every example of every set has a label and every number is finite."""
    for part in sets:
        if not len(part):
            raise ValueError("features: the set is empty; evaluation needs at least one example")
        if (part.label < 0).any():
            raise ValueError(f"labels: {int((part.label < 0).sum())} of {len(part)} examples have none; evaluation needs a labelled source")
        if not np.isfinite(part.embedding).all():
            raise ValueError("features: some embeddings are NaN or infinite; was the checkpoint written by a run that diverged?")
    if len({part.embedding.shape[1] for part in sets}) > 1:
        raise ValueError(f"features: dimensions differ, {[part.embedding.shape for part in sets]}; use one encoder for all sets")
    return int(max(part.label.max() for part in sets)) + 1


def _collect(
    source: Any, views: Recipe, batch_size: int, embed: Callable[[np.ndarray], np.ndarray], max_bad_share: float | None = None
) -> Features:
    shard = Shard(jax.process_index(), jax.process_count())
    batches = eval_batches(source, views, batch_size=batch_size * shard.count, shard=shard, max_bad_share=max_bad_share)
    parts = [(embed(batch[views.content]), batch["label"], batch["index"]) for batch in batches]
    embedding, label, index = gather_rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    order = np.argsort(index, kind="stable")
    return Features(np.asarray(embedding[order], np.float32), np.asarray(label[order], np.int32), index[order])


def gather_rows(*columns: np.ndarray) -> list[np.ndarray]:
    """Rows of all processes, one after the other; they need not have the same number of them."""
    if jax.process_count() == 1:
        return list(columns)
    counts = np.asarray(multihost_utils.process_allgather(np.int32(len(columns[0]))))
    longest = int(counts.max())
    padded = [np.concatenate([c, np.zeros((longest - len(c), *c.shape[1:]), c.dtype)]) for c in columns]
    gathered = [np.asarray(multihost_utils.process_allgather(c)) for c in padded]
    return [np.concatenate([rows[:count] for rows, count in zip(g, counts, strict=True)]) for g in gathered]
