"""False pairs: two views that share no object, a text beside another's translation. Those that look most like it count less, or not.

A pair is judged by what the step computes anyway: the cosine of the target's two projections. The pairs that agree least, a given share of
them, are dropped or given less weight; the cosine below which they lie is followed from step to step by a moving average.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from byol_jax.method.loss import Metrics, cosines, normalize, regression
from byol_jax.method.placement import mean_over_devices, whole_batch

if TYPE_CHECKING:
    from byol_jax.method.network import Outputs


def bounded(q: float) -> Callable[[jax.Array], jax.Array]:
    """d -> (1 - exp(-q d)) / q: a pair's loss d, between 0 and 4, that ends at 1 / q; near q = 0 it is d.

    Up to constants the positive term of RINCE (arXiv 2201.04309), -exp(q s / t) / q for a cosine s = 1 - d / 2 and t = 1 / 2: a pair's
    gradient is weighted by exp(-q d), so that those that disagree pull least.
    """
    if q <= 0:
        raise ValueError(f"bounded(q={q}): must be above 0")
    return lambda loss: -jnp.expm1(-q * loss) / q


def of_pairs(shape: Callable[[jax.Array], jax.Array]) -> Callable[[Outputs, Outputs], tuple[jax.Array, Metrics]]:
    """``regression_loss`` with every term, of an example and a view, changed by ``shape`` before the mean."""

    def loss(online: Outputs, target: Outputs) -> tuple[jax.Array, Metrics]:
        terms = shape(regression(online.prediction, target.projection[::-1]))
        return terms.mean(axis=1).sum(), cosines(online, target)

    return loss


@dataclass(frozen=True)
class Denoised:
    """``regression_loss`` over the pairs that are trusted; a ``MemoryLoss``, for ``Byol(loss=...)``. Runs inside ``shard_map``.

    Attributes:
      share: of the pairs of a global batch (or micro-batch) that are not trusted, those whose target projections agree least.
      softness: 0 drops them; above, a pair's weight is sigmoid((cosine - threshold) / softness). Weights have the mean 1.
      warmup: batches (or micro-batches) before the first pair is dropped, while the target has learned nothing.
      decay: of the threshold's moving average, the share of the old value kept; at first the mean of all so far.
      shape: of a single term of the loss, such as ``bounded(1.0)``.

    Metrics are those of ``regression_loss``, "dropped", the share of the weight that was taken away, and "threshold".
    """

    share: float
    softness: float = 0.0
    warmup: int = 0
    decay: float = 0.99
    shape: Callable[[jax.Array], jax.Array] = lambda loss: loss

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError(f"Denoised(share={self.share}): must be at least 0 and below 1")
        if self.softness < 0 or self.warmup < 0 or not 0 <= self.decay < 1:
            told = f"softness={self.softness}, warmup={self.warmup}, decay={self.decay}"
            raise ValueError(f"Denoised({told}): none may be below 0, and decay must be below 1")

    def start(self) -> dict[str, jax.Array]:
        return {"threshold": jnp.zeros((), jnp.float32), "batches": jnp.zeros((), jnp.int32)}

    def __call__(self, online: Outputs, target: Outputs, memory: dict[str, Any]) -> tuple[jax.Array, Metrics, dict[str, jax.Array]]:
        first, second = jax.lax.stop_gradient(target.projection)
        agreement = jnp.sum(normalize(first) * normalize(second), axis=-1).astype(jnp.float32)
        lowest = jnp.quantile(whole_batch(agreement), self.share)
        kept = jnp.minimum(self.decay, memory["batches"] / (memory["batches"] + 1)).astype(jnp.float32)
        threshold = kept * memory["threshold"] + (1 - kept) * lowest

        trusted = agreement >= threshold if self.softness == 0 else jax.nn.sigmoid((agreement - threshold) / self.softness)
        weight = jnp.where(memory["batches"] < self.warmup, jnp.ones_like(agreement), trusted.astype(jnp.float32))
        mean = mean_over_devices(weight.mean())
        terms = self.shape(regression(online.prediction, target.projection[::-1]))
        loss = (terms * weight.astype(terms.dtype)).mean(axis=1).sum() / jnp.maximum(mean, 1e-6).astype(terms.dtype)
        metrics = {**cosines(online, target), "dropped": 1 - mean, "threshold": threshold}
        return loss, metrics, {"threshold": threshold, "batches": memory["batches"] + 1}
