"""Stochastic depth (Huang et al. 2016, arXiv 1603.09382): in training, whole residual branches are left out at random."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn


def depth_rates(rate: float, depth: int) -> tuple[float, ...]:
    """How often each of ``depth`` branches is dropped: linearly more with depth, the last one at ``rate`` (the paper's linear decay)."""
    if not 0 <= rate < 1:
        raise ValueError(f"drop_path = {rate}: it must be at least 0 and below 1")
    return tuple(rate * (layer + 1) / depth for layer in range(depth))


def drop_path(module: nn.Module, branch: jax.Array, rate: float | jax.Array | None) -> jax.Array:
    """What a branch adds, [B, ...]: of each example all of it or nothing, divided by 1 - ``rate``, so that its mean stays as it is.

    Draws from the module's "dropout" rng; None drops nothing and draws nothing.
    """
    if rate is None:
        return branch
    keep = 1 - jnp.asarray(rate, jnp.float32)
    kept = jax.random.bernoulli(module.make_rng("dropout"), keep, (branch.shape[0], *(1,) * (branch.ndim - 1)))
    return jnp.where(kept, branch / keep.astype(branch.dtype), jnp.zeros((), branch.dtype))
