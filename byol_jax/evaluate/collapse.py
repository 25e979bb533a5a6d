"""Signs of collapse: whether embeddings still spread over their space, and whether two views of an example still agree."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.augment import kind_of
from byol_jax.data.order import Shard
from byol_jax.data.pipeline import train_batches
from byol_jax.data.source import spread
from byol_jax.evaluate.encoder import Encoder
from byol_jax.evaluate.features import Features, features, gather_rows
from byol_jax.evaluate.result import Result
from byol_jax.method import diagnostics

COLLAPSED_STD = 0.02  # of 1; a small untrained ResNet, whose embedding still tells images apart, has 0.08 on the digits


@dataclass(frozen=True)
class CollapseResult(Result):
    """``alignment`` is None where no views were compared. What each number means stands in its table."""

    text_columns: ClassVar[tuple[int, ...]] = (0, 2)

    embedding_std: float
    rankme: float
    uniformity: float
    alignment: float | None
    examples: int
    dimensions: int

    @property
    def collapsed(self) -> bool:
        """Whether nearly all embeddings point the same way."""
        return self.embedding_std < COLLAPSED_STD

    def rows(self) -> tuple[str, Sequence[str], Sequence[Sequence[str]]]:
        state = "COLLAPSED" if self.collapsed else "no collapse"
        cells = [
            ("embedding std", f"{self.embedding_std:.3f}", "0: every example gives the same embedding; 1: spread over the whole sphere"),
            ("RankMe", f"{self.rankme:.1f}", f"dimensions in use, of {min(self.dimensions, self.examples)} possible"),
            ("uniformity", f"{self.uniformity:.3f}", "0: one point; lower is more uniform, about -4 over the whole sphere"),
        ]
        if self.alignment is not None:
            cells.append(
                ("alignment", f"{self.alignment:.3f}", "mean squared distance of two views of an example: 0 to 4, 2 for unrelated ones")
            )
        return f"Collapse check on {self.examples:,} examples: {state}", ("metric", "value", "meaning"), cells


def collapse(encoder: Encoder, source: Any, *, limit: int = 4096, batch_size: int = 256, seed: int = 0) -> CollapseResult:
    """Collapse metrics of an encoder on ``limit`` examples spread evenly over a source and on pairs of augmented views of some of them."""
    plain = features(encoder, spread(source, limit), batch_size=batch_size)
    return collapse_features(plain, _pairs(encoder, source, min(limit, len(source)), batch_size, seed))


def collapse_features(plain: Features, pairs: tuple[np.ndarray, np.ndarray] | None = None) -> CollapseResult:
    """Collapse metrics from features [N, D] (labels are not needed) and, if given, embeddings [M, D] of two views of the same examples."""
    if len(plain) < 2:
        raise ValueError(f"collapse: {len(plain)} example; the spread of embeddings needs at least two")
    z = jnp.asarray(plain.embedding)
    align = None if pairs is None else float(diagnostics.alignment(jnp.asarray(pairs[0]), jnp.asarray(pairs[1])))
    return CollapseResult(
        embedding_std=float(diagnostics.embedding_std(z)),
        rankme=float(diagnostics.rankme(z)),
        uniformity=float(diagnostics.uniformity(z)),
        alignment=align,
        examples=len(plain),
        dimensions=plain.embedding.shape[1],
    )


def _pairs(encoder: Encoder, source: Any, wanted: int, batch_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of two augmented views of ``wanted`` examples at least (a whole number of batches), as training would draw them."""
    shard = Shard(jax.process_index(), jax.process_count())
    size = batch_size * shard.count
    make = jax.jit(kind_of(encoder.views).views(encoder.views, "device"))
    parts = []
    with contextlib.closing(train_batches(source, encoder.views, batch_size=size, seed=seed, shard=shard)) as stream:
        for step in range(-(-wanted // size)):
            keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), step), size)[np.asarray(shard.rows(size))]
            batch = make(keys, next(stream))
            parts.append([np.asarray(encoder.views_of(batch[view])) for view in ("view1", "view2")])
    first, second = gather_rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return first, second
