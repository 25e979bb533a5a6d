"""Batch statistics over the devices that share a batch: what all of a norm needs travels in one message, and one device sends none."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp


def several(axis_name: Any) -> bool:
    """Whether more than one device lies along the mesh axis; None is no axis."""
    return axis_name is not None and jax.lax.axis_size(axis_name) > 1


def averaged(axis_name: Any, *vectors: jax.Array) -> tuple[jax.Array, ...]:
    """The mean of each over the devices, [C] to [C], of equal or other lengths."""
    if not several(axis_name):
        return vectors
    ends = list(itertools.accumulate(map(len, vectors)))
    together = jax.lax.pmean(jnp.concatenate(vectors), axis_name)
    return tuple(together[end - len(vector) : end] for vector, end in zip(vectors, ends, strict=True))
