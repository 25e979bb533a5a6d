"""What a training step demands of a batch, and the two views in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Batch = dict[str, Any]
Augment = Callable[[jax.Array, Batch], Batch]


def no_augment(keys: jax.Array, batch: Batch) -> Batch:
    """For batches that hold their views already."""
    return batch


def rows_of(batch: Batch) -> int:
    """The number of examples in a batch: every leaf is [B, ...]."""
    sizes = {tuple(leaf.shape[:1]) for leaf in jax.tree.leaves(batch)}
    if len(sizes) != 1 or () in sizes:
        shapes = {name: jax.tree.map(jnp.shape, value) for name, value in batch.items()}
        raise ValueError(f"all arrays of a batch must have the same number of rows; got {shapes}")
    return int(sizes.pop()[0])


def check_rows(rows: int, devices: int, accumulate: int) -> None:
    """Raises ValueError unless every device gets the same number of rows in every micro-batch."""
    if accumulate < 1:
        raise ValueError(f"accumulate = {accumulate}; a step has at least 1 micro-batch")
    unit = devices * accumulate
    if rows == 0 or rows % unit:
        below, above = rows // unit * unit, (rows // unit + 1) * unit
        nearest = f"{below} or {above}" if below else f"{above}"
        raise ValueError(
            f"a batch of {rows} does not divide into {devices} device(s) x {accumulate} micro-batch(es); nearest valid sizes: {nearest}"
        )


def both_views(batch: Batch) -> tuple[Any, Any]:
    """view1 and view2 as the network takes them. Raises ValueError for a batch without them, or with raw pixels in them."""
    missing = [name for name in ("view1", "view2") if name not in batch]
    if missing:
        raise ValueError(f"the batch has {sorted(batch)} but no {missing}: pass augment=..., a function (keys, batch) -> views")
    view1, view2 = batch["view1"], batch["view2"]
    if any(leaf.dtype == jnp.uint8 for leaf in jax.tree.leaves((view1, view2))):
        raise ValueError("the views are uint8 pixels; pass augment=..., which makes normalised float32 of them")
    return view1, view2


def micro_batches(tree: Any, count: int) -> Any:
    """[B, ...] -> [count, B / count, ...]: micro-batch n takes the rows n, n + count, ...

    Taken so, a micro-batch holds the same examples on any number of devices.
    """
    return jax.tree.map(lambda x: x.reshape(x.shape[0] // count, count, *x.shape[1:]).swapaxes(0, 1), tree)


def mean_over_parts(fn: Callable[[Any, Any], tuple[Any, Any]], carry: Any, parts: Any, count: int, unroll: int) -> tuple[Any, Any]:
    """``fn(carry, part) -> (carry, out)`` over ``count`` stacked parts, one after the other; the last carry and the mean out.

    Only a running sum of ``out`` is kept, so that memory does not grow with ``count``.
    """
    if count == 1:
        return fn(carry, jax.tree.map(lambda x: x[0], parts))

    def add(carry_and_sum: tuple[Any, Any], part: Any) -> tuple[tuple[Any, Any], None]:
        carry, total = carry_and_sum
        carry, out = fn(carry, part)
        return (carry, jax.tree.map(jnp.add, total, out)), None

    shapes = jax.eval_shape(fn, carry, jax.tree.map(lambda x: x[0], parts))[1]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    (carry, total), _ = jax.lax.scan(add, (carry, zeros), parts, unroll=unroll)
    return carry, jax.tree.map(lambda x: x / count, total)
