"""Projected gradient ascent in a ball: the change of an example, no larger than allowed, that raises a loss most (arXiv 1706.06083)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import jax
import jax.numpy as jnp

from byol_jax.method.precision import at_least_float32

Norm = Literal["linf", "l2"]
_SMALL = 1e-12


class Space(Protocol):
    """Where examples are changed. Leading axes of a view, such as [2, B], are left to the caller."""

    def zeros(self, view: jax.Array) -> jax.Array:
        """No change: an array with the view's leading axes."""

    def limit(self, view: jax.Array, change: jax.Array) -> jax.Array:
        """The part of a change that keeps the view valid. (Were it cut off by ``add``, no gradient would lead back.)"""

    def add(self, view: jax.Array, change: jax.Array) -> Any:
        """The changed view, as the network takes it."""


@dataclass(frozen=True)
class Ball:
    """Changes of one example whose greatest number ("linf"), or whose length over all its numbers ("l2"), is ``radius`` at most.

    Methods take a change [lead..., ...] and how many leading axes number the examples.
    """

    norm: Norm
    radius: float

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise ValueError(f"norm = {self.norm!r}: choose linf or l2")
        if self.radius < 0:
            raise ValueError(f"radius = {self.radius}: must be at least 0")

    def project(self, change: jax.Array, lead: int) -> jax.Array:
        """The nearest change that is in the ball."""
        if self.norm == "linf":
            return jnp.clip(change, -self.radius, self.radius)
        length = _length(change, lead)
        return change * jnp.where(length > self.radius, self.radius / jnp.maximum(length, _SMALL), jnp.ones_like(length))

    def steepest(self, gradient: jax.Array, lead: int) -> jax.Array:
        """The change of size 1 along which the loss rises fastest; 0 where the gradient is."""
        if self.norm == "linf":
            return jnp.sign(gradient)
        # Scaled first: the square of a gradient that was divided by the batch size may be too small for float32.
        scaled = gradient / jnp.maximum(jnp.max(jnp.abs(gradient), axis=_own(gradient, lead), keepdims=True), 1e-37)
        return scaled / jnp.maximum(_length(scaled, lead), _SMALL)

    def sample(self, key: jax.Array, like: jax.Array) -> jax.Array:
        """A change of one example, drawn evenly from the ball."""
        if self.norm == "linf":
            return jax.random.uniform(key, like.shape, like.dtype, -self.radius, self.radius)
        direction_key, size_key = jax.random.split(key)
        direction = jax.random.normal(direction_key, like.shape, like.dtype)
        size = self.radius * jax.random.uniform(size_key, (), like.dtype) ** (1 / like.size)
        return direction * size / jnp.maximum(_length(direction, 0), _SMALL)


def usual_step(ball: Ball, steps: int) -> float:
    """A step's size: 1.25 radii for one step (arXiv 2001.03994), 2.5 radii shared by several (arXiv 1706.06083)."""
    return ball.radius * (1.25 if steps == 1 else 2.5 / steps)


def ascend(
    loss: Callable[[jax.Array], jax.Array],
    change: jax.Array,
    ball: Ball,
    *,
    steps: int,
    size: float,
    lead: int,
    limit: Callable[[jax.Array], jax.Array] = lambda change: change,
) -> jax.Array:
    """``change`` after so many steps of this size uphill, each brought back into the ball and then within ``limit``.

    Args:
      loss: of the change, one number; examples may share it (its gradient's length is not used), as in a mean over the batch.
      change: where to start, [lead..., ...].
      lead: how many leading axes number the examples.
    """

    def step(change: jax.Array, _: None) -> tuple[jax.Array, None]:
        return limit(ball.project(change + size * ball.steepest(jax.grad(loss)(change), lead), lead)), None

    # XLA computes convolutions in a loop's body some 30 times slower on a CPU.
    unroll = steps if jax.default_backend() == "cpu" else 1
    return jax.lax.stop_gradient(jax.lax.scan(step, change, length=steps, unroll=unroll)[0])


def _own(change: jax.Array, lead: int) -> tuple[int, ...]:
    return tuple(range(lead, change.ndim))


def _length(change: jax.Array, lead: int) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.square(at_least_float32(change)), axis=_own(change, lead), keepdims=True))
