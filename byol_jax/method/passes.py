"""What the online network sees in a step: the two views as they are, or more passes over views that were changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Pass(NamedTuple):
    """One pass of the online network over both views.

    Attributes:
      name: metrics of every pass but the first are reported as "NAME_...".
      views: a pytree of [2, B, ...] arrays, view first.
      weight: of this pass in the loss.
      keeps_statistics: whether the running averages of batch statistics move with it.
    """

    name: str
    views: Any
    weight: float
    keeps_statistics: bool = True


# (the loss as a function of the views, for this device's rows; the views; a key for each row) -> the passes of a step
Passes = Callable[[Callable[[Any], jax.Array], Any, jax.Array], tuple[Pass, ...]]


def clean(loss: Callable[[Any], jax.Array], views: Any, keys: jax.Array) -> tuple[Pass, ...]:
    """BYOL's own: one pass over the views as they are."""
    del loss, keys
    return (Pass("clean", views, 1.0),)
