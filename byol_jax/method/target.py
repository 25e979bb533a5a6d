"""The target: whose projections are predicted. In BYOL a slow average of the online network, never trained (paper section 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

if TYPE_CHECKING:
    from byol_jax.method.network import Network, Outputs

Variables = dict[str, Any]  # {"params", "batch_stats"}, or {} where there is no network beside the online one


class Target:
    """What a step asks of a target; this one is the online network's own projections, as constants."""

    def given(self) -> Variables:
        """Variables that it brings along."""
        return {}

    def begin(self, fresh: Callable[[], Variables], given: Variables) -> Variables:
        """Its variables at step 0; ``fresh`` makes those of a network like the online one."""
        return {}

    def look(self, network: Network, apply: Callable[..., Any], variables: Variables, stats: Any, views: Any, noise: Any) -> Any:
        """(its outputs for both views, leaves [2, B, ...], or None where those are the online network's; its new batch_stats)."""
        return None, stats

    def wanted(self, online: Outputs, seen: Any) -> Outputs:
        """What the loss compares the online outputs with; ``seen``: what ``look`` gave."""
        return jax.lax.stop_gradient(online if seen is None else seen)

    def move(self, variables: Variables, stats: Any, online: Any, tau: Callable[[], jax.Array]) -> tuple[Variables, dict[str, jax.Array]]:
        """After a step: its new variables, from the new online parameters; and metrics."""
        return variables, {}


class _Online(Target):
    """The same with their gradient, as SimCLR has it (paper Table 19)."""

    def wanted(self, online: Outputs, seen: Any) -> Outputs:
        return online


class _Ema(Target):
    """A network that follows the online one. Its batch statistics are its own."""

    def begin(self, fresh: Callable[[], Variables], given: Variables) -> Variables:
        return fresh()

    def look(self, network: Network, apply: Callable[..., Any], variables: Variables, stats: Any, views: Any, noise: Any) -> Any:
        return apply(network, {**variables, "batch_stats": stats}, views, noise)

    def move(self, variables: Variables, stats: Any, online: Any, tau: Callable[[], jax.Array]) -> tuple[Variables, dict[str, jax.Array]]:
        kept = tau()
        return {"params": update(variables["params"], online, kept), "batch_stats": stats}, {"tau": kept}


class Teacher(Target):
    """Distillation: a trained network that stays as it is (the target branch replaced by a teacher, as in RoB, arXiv 2301.09451).

    It sees both views in evaluation mode, so its batch statistics do not move, and its projections are what the student predicts: the
    student's predictor must be as wide (``MLP(out=...)``). A run's checkpoints hold its variables too.

    Args:
      network: the encoder and what follows it; with ``NoHead()`` as projector the student predicts the teacher's embedding.
      variables: {"params"[, "batch_stats"]} of that network.
    """

    def __init__(self, network: Network, variables: Variables) -> None:
        self.network, self.variables = network, {"batch_stats": {}, **variables}

    def given(self) -> Variables:
        return self.variables

    def begin(self, fresh: Callable[[], Variables], given: Variables) -> Variables:
        # a copy: the state's buffers are donated to the step, the teacher's stay the caller's
        return jax.tree.map(lambda x: jnp.array(x, copy=True), given)

    def look(self, network: Network, apply: Callable[..., Any], variables: Variables, stats: Any, views: Any, noise: Any) -> Any:
        rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), views)
        outputs = self.network.apply({**variables, "batch_stats": stats}, rows, False)
        return jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), outputs), stats


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


TARGETS: dict[str, Target] = {"ema": _Ema(), "stop_gradient": Target(), "online": _Online()}


def _check_decay(tau: float) -> None:
    if not 0 <= tau <= 1:
        raise ValueError(f"tau = {tau} is not in [0, 1]; nearest valid: {min(max(tau, 0), 1)}. It is the share of the target that is kept")
