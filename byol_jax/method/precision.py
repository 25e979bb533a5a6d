"""Loss and batch statistics are taken in float32 whatever the networks compute in."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def at_least_float32(x: jax.Array) -> jax.Array:
    """x, or x as float32 if its dtype is narrower (bfloat16, float16)."""
    return x if jnp.finfo(x.dtype).bits >= 32 else x.astype(jnp.float32)
