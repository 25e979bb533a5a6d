"""Unstructured pruning: the smallest weights of every layer become 0 and stay 0, a few at first, more and more along a cubic.

Zhu and Gupta, "To prune, or not to prune" (arXiv 1710.01878), with the same share in every layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from byol_jax.method.optimizer import is_weight

EVERY = 10  # updates between two choices of what is 0


class SparseState(NamedTuple):
    """Updates ``done``, a mask for each leaf of the encoder's params (False where a weight is 0 for good), the inner optimizer's state."""

    done: jax.Array
    keep: Any
    inner: optax.OptState


def cubic(count: Any, share: float, steps: int) -> jax.Array:
    """Which share is 0 after ``count`` updates: share (1 - (1 - count / steps)^3), and ``share`` from ``steps`` on."""
    left = 1 - jnp.minimum(jnp.asarray(count, jnp.float32) / jnp.float32(max(steps, 1)), 1)
    return jnp.float32(share) * (1 - left**3)


def sparse(tx: optax.GradientTransformation, share: float, steps: int, every: int = EVERY) -> optax.GradientTransformation:
    """``tx``, after which the smallest weights of the encoder are exactly 0; of a state over {"online": {"encoder", ...}, ...}.

    Args:
      share: of each of the encoder's weights (not of biases and norms), after ``steps`` updates.
      every: updates between two choices. In between, and after the last, what is 0 stays 0.
    """

    def init(params: Any) -> SparseState:
        keep = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params["online"]["encoder"])
        return SparseState(jnp.zeros((), jnp.int32), keep, tx.init(params))

    def update(updates: Any, state: SparseState, params: Any = None) -> tuple[Any, SparseState]:
        updates, inner = tx.update(updates, state.inner, params)
        old, change, count = params["online"]["encoder"], updates["online"]["encoder"], state.done + 1
        due = ((count % every == 0) & (count < steps)) | (count == steps)
        new = optax.apply_updates(old, change)
        keep = jax.lax.cond(due, lambda: masks(new, cubic(count, share, steps)), lambda: state.keep)
        change = jax.tree.map(lambda mask, u, p: jnp.where(mask, u, -p), keep, change, old)
        return {**updates, "online": {**updates["online"], "encoder": change}}, SparseState(count, keep, inner)

    return optax.GradientTransformation(init, update)


def masks(params: Any, share: Any) -> Any:
    """False at the ``share`` (rounded down) of every weight that is nearest to 0. Of biases and norms all is True."""

    def mask(leaf: jax.Array, weight: bool) -> jax.Array:
        if not weight:
            return jnp.ones(leaf.shape, bool)
        rank = jnp.argsort(jnp.argsort(jnp.abs(leaf).ravel())).reshape(leaf.shape)
        return rank >= jnp.floor(jnp.asarray(share, jnp.float32) * leaf.size + 1e-3).astype(rank.dtype)

    return jax.tree.map(mask, params, is_weight(params))


def masked(variables: Mapping[str, Any], keep: Any) -> dict[str, Any]:
    """An encoder's variables with 0 where ``keep``, over its params, is False."""
    return {**variables, "params": jax.tree.map(lambda leaf, mask: jnp.where(mask, leaf, 0), variables["params"], keep)}
