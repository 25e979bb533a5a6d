"""Learning rates over the steps of a run (paper section 3.3): warm-up, then cosine, in proportion to the batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax


def scaled(base: float, batch_size: int) -> float:
    """The rate for this batch size, from the rate for 256 (linear scaling)."""
    return base * batch_size / 256


def warmup_cosine(base: float, *, batch_size: int, steps: int, warmup_steps: int) -> optax.Schedule:
    """Linear from 0 to base * batch_size / 256 over ``warmup_steps``, then a cosine down to 0 at ``steps``.

    Step 0 of a warm-up has rate 0, as in the official code.

    Raises:
      ValueError: if there is no step, or the warm-up is negative or leaves none for the cosine.
    """
    if steps < 1:
        raise ValueError(f"steps = {steps}: a schedule has at least 1 step")
    if not 0 <= warmup_steps < steps:
        nearest = min(max(warmup_steps, 0), steps - 1)
        raise ValueError(f"warmup_steps = {warmup_steps} must be in [0, steps) = [0, {steps}); nearest valid: {nearest}")
    peak = scaled(base, batch_size)

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        now = jnp.minimum(jnp.asarray(step, jnp.float32), steps)  # exact up to 16.7 million steps
        warm = now / max(warmup_steps, 1)
        decayed = (1 + jnp.cos(jnp.pi * (now - warmup_steps) / (steps - warmup_steps))) / 2
        return peak * jnp.where(now < warmup_steps, warm, decayed)

    return rate


def cosine(base: float, *, batch_size: int, steps: int) -> optax.Schedule:
    """``warmup_cosine`` without a warm-up: the schedule of the linear evaluation (paper Appendix C.1)."""
    return warmup_cosine(base, batch_size=batch_size, steps=steps, warmup_steps=0)


def constant(base: float, *, batch_size: int) -> optax.Schedule:
    """base * batch_size / 256 at every step."""
    return optax.constant_schedule(scaled(base, batch_size))
