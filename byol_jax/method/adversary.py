"""Adversarial views: the online network sees views that were changed, inside a ball, to be as far as they can from the target's.

As BYORL has it (Gowal et al., ICLR 2021 submission bgQek2O63w): projected gradient ascent on BYOL's own loss, against the target's
projections of the views as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from byol_jax.method.attack import Ball, Space, ascend, usual_step
from byol_jax.method.passes import Pass


@dataclass(frozen=True)
class Adversary:
    """The passes of a step with adversarial views; for ``Byol(passes=...)``.

    Attributes:
      space: where views are changed: ``augment.Pixels``, or ``augment.Embeddings`` of texts.
      ball: how far.
      steps: of the ascent; each costs a forward and a backward pass of the online network.
      step_size: None: 1.25 radii for one step, else 2.5 radii / steps.
      weight: of the adversarial pass in the loss, above 0; 1 (BYORL) leaves the pass over clean views out, and with less it has the rest.
      separate_statistics: the running averages of batch statistics are of clean views alone. (In training each pass is normalised by
        its own batch in any case.)
      random_start: from anywhere in the ball and not from no change at all, which one step needs (arXiv 2001.03994).
    """

    space: Space
    ball: Ball
    steps: int = 1
    step_size: float | None = None
    weight: float = 1.0
    separate_statistics: bool = False
    random_start: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"Adversary(steps={self.steps}): must be at least 1")
        if not 0 < self.weight <= 1:
            raise ValueError(f"Adversary(weight={self.weight}): must be above 0, and 1 at most")
        if self.separate_statistics and self.weight == 1:
            raise ValueError("Adversary(separate_statistics=True): there must be a pass over clean views, whose they are: weight below 1")

    def __call__(self, loss: Callable[[Any], jax.Array], views: Any, keys: jax.Array) -> tuple[Pass, ...]:
        """Called in a step: views [2, B, ...], and a key for each of the B rows."""
        change = self.space.zeros(views)
        if self.random_start:
            # After augmentation's own draws from the same keys.
            draws = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, 2**31 - 1)))(keys)
            change = jax.vmap(jax.vmap(self.ball.sample))(jnp.swapaxes(draws, 0, 1), change)
        size = usual_step(self.ball, self.steps) if self.step_size is None else self.step_size
        limit = partial(self.space.limit, views)
        options: dict[str, Any] = {"steps": self.steps, "size": size, "lead": 2, "limit": limit}
        change = ascend(lambda c: loss(self.space.add(views, c)), limit(change), self.ball, **options)
        adversarial = Pass("adversarial", self.space.add(views, change), self.weight, not self.separate_statistics)
        return (adversarial,) if self.weight == 1 else (Pass("clean", views, 1 - self.weight), adversarial)
