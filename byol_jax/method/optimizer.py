"""Optimizers as optax transformations. All of them leave biases and norm scales without weight decay (paper section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

Rate = float | Callable[[Any], Any]  # a number, or a schedule by step


def is_weight(params: Any) -> Any:
    """A tree of bools: True where weight decay and LARS apply, that is for leaves of more than one dimension not named "bias" or "scale".

    Biases have two where attention keeps one for each head, and biases and scales of norms where ``nn.scan`` stacks layers. LARS takes
    the norm of a stacked kernel over all its layers; AdamW and SGD treat a stacked network as they do the same one in layers.
    """

    def rule(path: tuple[Any, ...], leaf: Any) -> bool:
        name = getattr(path[-1], "key", None) if path else None
        return leaf.ndim > 1 and name not in ("bias", "scale")

    return jax.tree.map_with_path(rule, params)


def lars(
    learning_rate: Rate, *, weight_decay: float = 1.5e-6, momentum: float = 0.9, trust_coefficient: float = 1e-3
) -> optax.GradientTransformation:
    """LARS as BYOL uses it: the learning rate multiplies after the momentum.

    ``optax.lars`` multiplies before it, so that its momentum remembers old rates: under a changing rate that is another optimizer.

    u = g + weight_decay * p;  u = u * trust_coefficient * |p| / |u|;  m = momentum * m + u;  p = p - learning_rate * m.
    Biases and norms skip the first two; where |p| or |u| is 0 the second is skipped.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay, is_weight),
        optax.masked(_trust_ratio(trust_coefficient), is_weight),
        optax.trace(momentum),
        optax.scale_by_learning_rate(learning_rate),
    )


def _trust_ratio(coefficient: float) -> optax.GradientTransformation:
    """Each update times coefficient |p| / |u|, or 1 where either norm is 0.

    ``optax.scale_by_trust_ratio`` ends in the same numbers. It could be differentiated through, and pays for that with every norm taken
    twice, the second time of a copy.
    """

    def scale(update: jax.Array, param: jax.Array) -> jax.Array:
        of_param, of_update = jnp.linalg.norm(param), jnp.linalg.norm(update)
        ratio = jnp.where((of_param > 0) & (of_update > 0), coefficient * of_param / of_update, 1)
        return update * ratio.astype(update.dtype)

    return optax.stateless(lambda updates, params: jax.tree.map(scale, updates, params))


def adamw(
    learning_rate: Rate, *, weight_decay: float = 1e-4, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """AdamW with decoupled weight decay: for small networks and small batches."""
    tx = optax.adamw(learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=is_weight)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to the power of its integer step count
            return tx.update(updates, state, params)

    return optax.GradientTransformation(tx.init, update)


def sgd(learning_rate: Rate, *, weight_decay: float = 0.0, momentum: float = 0.9, nesterov: bool = False) -> optax.GradientTransformation:
    """SGD with momentum; weight decay is added to the gradient."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay, is_weight),
        optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov),
    )


def multiply_rates(tx: optax.GradientTransformation, factors: Mapping[str, float]) -> optax.GradientTransformation:
    """``tx`` with the learning rate of some parts multiplied: {"predictor": 10.0} is the paper's study without a moving average (Table 21).

    A part is named as anywhere in the trained tree: "probe", or one below "online" ("encoder", "projector", "predictor").
    """

    def update(updates: Any, state: optax.EmptyState, params: Any = None) -> tuple[Any, optax.EmptyState]:
        def scale(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
            return leaf * math.prod(factors.get(str(getattr(entry, "key", entry)), 1.0) for entry in path[:2])

        return jax.tree.map_with_path(scale, updates), state

    return optax.chain(tx, optax.GradientTransformation(lambda params: optax.EmptyState(), update))
