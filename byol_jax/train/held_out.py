"""The loss on examples that training never sees, measured as training measures its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from byol_jax import parallel
from byol_jax.data.order import Shard
from byol_jax.method.network import Byol
from byol_jax.method.state import ByolState
from byol_jax.method.step import make_metrics
from byol_jax.models.forms import traced_for
from byol_jax.train.hooks import Evaluation


def held_out_loss(
    method: Byol,
    read: Callable[..., Any],
    data: Any,
    augment: Callable[..., Any],
    *,
    examples: int,
    batch_size: int,
    seed: int,
    mesh: Mesh,
    accumulate: int,
    every_steps: int,
    steps: int,
) -> list[Evaluation]:
    """The hook that finds "held_out_loss", the mean over the same views of the same batches each time; none if one of the numbers is 0.

    Args:
      read: makes the training batches of a source; data: the held-out examples.
      examples: how many are looked at, rounded to whole batches; one batch at least.

    Raises:
      ValueError: there is no data.
    """
    if not every_steps or not examples:
        return []
    if data is None:
        raise ValueError(f"held_out_examples = {examples}: needs test_data, whose loss is measured; or 0")
    metrics = make_metrics(method, augment=augment, key=jax.random.key(seed), mesh=mesh, accumulate=accumulate)
    measure = jax.jit(traced_for(mesh, metrics))
    count = max(round(examples / batch_size), 1)

    def look(state: ByolState) -> dict[str, float]:
        with contextlib.closing(read(data, shard=Shard(*parallel.process_shard()))) as stream:
            losses = [float(measure(state, parallel.to_global(next(stream), mesh))["loss"]) for _ in range(count)]
        return {"held_out_loss": float(np.mean(losses))}

    return [Evaluation(look, every_steps=every_steps, steps=steps)]
