"""Where the state of a run lives: a copy on every device of a mesh whose axis "data" holds the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from byol_jax.method.state import ByolState

AXIS = "data"
WHOLE_BATCH = "whole_batch"  # stands in the names of a program's operations: what is gathered on purpose


def data_mesh(mesh: Mesh | None) -> Mesh:
    """The mesh given, or all devices along "data". Raises ValueError for a mesh without that axis."""
    if mesh is None:
        return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))
    if AXIS not in mesh.axis_names:
        raise ValueError(f"the mesh has axes {mesh.axis_names}; name the one that holds the batch {AXIS!r}")
    return mesh


def born_replicated(fresh: Callable[..., ByolState], given: tuple[Any, ...], mesh: Mesh) -> ByolState:
    """fresh(*given), on every device of the mesh.

    A state that begins where a step leaves it does not make the second step compile again. Initialisers are hundreds of small loops
    that run once, and XLA for CPUs takes minutes to polish those of a ResNet-50: there it is told not to.
    """
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(given))  # an outer jit compiles as it likes
    once = {"xla_backend_optimization_level": "0"} if mesh.devices.flat[0].platform == "cpu" and not traced else None
    return jax.jit(fresh, out_shardings=NamedSharding(mesh, P()), compiler_options=once)(*given)


def whole_batch(rows: jax.Array, axis: int = 0) -> jax.Array:
    """This device's rows along ``axis`` -> those of all devices, for a loss that compares an example with others than its own view."""
    with jax.named_scope(WHOLE_BATCH):
        return jax.lax.all_gather(rows, AXIS, axis=axis, tiled=True)


def mean_over_devices(tree: Any, axis_name: str = AXIS) -> Any:
    """A pytree's mean over the devices along the axis, inside ``shard_map``.

    One device sends no message: XLA for CPUs would make it a copy of every gradient, and a place where both views wait for each other
    (4% of a ResNet-50's step, 10% of configs/digits.py's, on 2 cores).
    """
    return tree if jax.lax.axis_size(axis_name) == 1 else jax.lax.pmean(tree, axis_name)
