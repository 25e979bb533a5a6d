"""The regression loss (paper, equation 2): the online prediction of one view against the target's projection of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from byol_jax.method.precision import at_least_float32

if TYPE_CHECKING:
    from byol_jax.method.network import Outputs


def normalize(x: jax.Array) -> jax.Array:
    """x / |x| over the last axis, at least in float32. A vector shorter than 1e-6 is divided by 1e-6, so zero stays zero."""
    x = at_least_float32(x)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-12))


def regression(prediction: jax.Array, projection: jax.Array) -> jax.Array:
    """|p/|p| - z/|z||^2 = 2 - 2 cos(p, z) of each example, [..., P] -> [...], between 0 and 4.

    Written as a distance and not as 2 - 2 cos, which loses its digits where the two agree.
    """
    return jnp.sum(jnp.square(normalize(prediction) - normalize(projection)), axis=-1)


def regression_loss(online: Outputs, target: Outputs) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean over the batch of both terms, summed (not averaged) over the two views: between 0 and 8.

    Leaves are [2, B, ...]. Term v compares the online prediction of view v with the target's projection of the other view.

    Returns:
      The scalar loss, and the mean cosines ``cosine_1`` and ``cosine_2`` of the two terms.
    """
    other = target.projection[::-1]
    loss = regression(online.prediction, other).mean(axis=1).sum()
    cosine = jnp.sum(normalize(online.prediction) * normalize(other), axis=-1).mean(axis=1)
    return loss, {"cosine_1": cosine[0], "cosine_2": cosine[1]}
