"""The target network: a slow average of the online one. It is never trained (paper section 3.1)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax


def ema_decay(base: float, steps: int) -> optax.Schedule:
    """tau_k = 1 - (1 - base) (cos(pi k / steps) + 1) / 2: from ``base`` at step 0 to 1 at ``steps``, and 1 afterwards.

    0.996 is the paper's base for 1000 epochs, 0.99 for 300 and 100.
    """
    _check_decay(base)
    if steps < 1:
        raise ValueError(f"ema_decay(steps={steps}): the run must have at least 1 step")

    def tau(step: jax.typing.ArrayLike) -> jax.Array:
        done = jnp.minimum(jnp.asarray(step), steps) / steps
        return 1 - (1 - base) * (jnp.cos(jnp.pi * done) + 1) / 2

    return tau


def constant_decay(tau: float) -> optax.Schedule:
    """The same tau at every step (paper Table 5a). 0 makes the target a copy of the online network, 1 never moves it."""
    _check_decay(tau)
    return optax.constant_schedule(tau)


def update(target: Any, online: Any, tau: jax.typing.ArrayLike) -> Any:
    """tau * target + (1 - tau) * online, leaf by leaf, over parameters only: batch statistics are the target's own."""
    return optax.incremental_update(online, target, step_size=1 - jnp.asarray(tau))


def _check_decay(tau: float) -> None:
    if not 0 <= tau <= 1:
        raise ValueError(f"tau = {tau} is not in [0, 1]; nearest valid: {min(max(tau, 0), 1)}. It is the share of the target that is kept")
