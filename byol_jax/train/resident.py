"""Data that lives on the devices: the images are uploaded once, and the step itself fetches the rows of its batch.

Each device holds an equal share of the images. What the host sends for a step is the batch's int32 indices, 4 bytes an example, made
ahead by the same arithmetic as ever (``data.order``): so the rows, their order and their place in the batch are those of a run whose
images come from the host, and the run ends with the same bits. The method never learns of it: a fetch is put before its step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from byol_jax.data import InMemory
from byol_jax.data.source import UNLABELLED
from byol_jax.models.forms import traced_for
from byol_jax.parallel import AXIS, replicated, spread
from byol_jax.views import Views

SHARE = 0.5  # of a device's memory; the rest is for the network
Rows = dict[str, jax.Array]
Step = Callable[[Any, Any], tuple[Any, dict[str, Any]]]


class Resident:
    """A data set on the devices of a mesh.

    Attributes:
      rows: "image" uint8[N', H * W * 3] and "label" int32[N'], split over ``"data"``; N' is N, filled up to a multiple of the devices.
        A row is flat, since a TPU fills the last axis of an array up to 128 elements.
      shape: (H, W, 3) of an image.
    """

    def __init__(self, source: InMemory, mesh: Mesh) -> None:
        """Raises ValueError if a device's share is more than ``SHARE`` of its memory, as far as it tells how much that is."""
        stored = source.stored
        self._mesh, self.shape = mesh, stored.images.shape[1:]
        check_memory(len(stored), self.shape, mesh.size, _memory(mesh.local_devices))
        labels = np.full(len(stored), UNLABELLED, np.int32) if stored.labels is None else stored.labels
        self.rows = {"image": _upload(stored.images, mesh), "label": _upload(labels, mesh)}

    def shapes(self, index: jax.ShapeDtypeStruct) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of the batch that is fetched for ``index``, int32[B]."""
        image = jax.ShapeDtypeStruct((*index.shape, *self.shape), jnp.uint8)
        return {"image": image, "label": jax.ShapeDtypeStruct(index.shape, jnp.int32)}

    def fetch(self, rows: Rows, index: jax.Array) -> Rows:
        """The examples of a batch: int32[B], split over the devices -> "image" uint8[B, H, W, 3] and "label" int32[B], split alike.

        Between devices it costs one reduce-scatter of the batch's bytes, and as many bytes of memory on each for a moment.

        Args:
          rows: ``self.rows``, handed in so that they are an argument of the compiled step and not a constant in it.
        """
        taken = jax.shard_map(_exchange, mesh=self._mesh, in_specs=(P(AXIS), P(AXIS)), out_specs=P(AXIS))(rows, index)
        taken["image"] = taken["image"].reshape(-1, *self.shape)
        return jax.lax.optimization_barrier(taken)  # else XLA may fuse the fetch into the crops, and round them otherwise


class Planned(Resident):
    """A data set that need not be there, on devices that need not be either: its rows are shapes, for a step to be traced with."""

    def __init__(self, images: int, shape: tuple[int, ...], mesh: Mesh) -> None:
        self._mesh, self.shape = mesh, shape
        count, where = -(-images // mesh.size) * mesh.size, NamedSharding(mesh, P(AXIS))
        pixels = jax.ShapeDtypeStruct((count, int(np.prod(shape))), jnp.uint8, sharding=where)
        self.rows: Any = {"image": pixels, "label": jax.ShapeDtypeStruct((count,), jnp.int32, sharding=where)}


def _exchange(shard: Rows, index: jax.Array) -> Rows:
    """On each device: looks up all indices, gives what it owns and zeros for the rest, and keeps the sum over devices of its own rows."""
    wanted = jax.lax.all_gather(index, AXIS, tiled=True)
    count = len(shard["label"])
    place = wanted - jax.lax.axis_index(AXIS) * count
    place = jnp.where((place >= 0) & (place < count), place, count)  # count: outside, which gives zeros

    def sent(rows: jax.Array) -> jax.Array:
        return jax.lax.psum_scatter(rows.at[place].get(mode="fill", fill_value=0), AXIS, scatter_dimension=0, tiled=True)

    return jax.tree.map(sent, shard)


def _upload(array: np.ndarray, mesh: Mesh) -> jax.Array:
    """[N, ...] -> [N', ...] flattened to one row an example; each process reads and sends the rows of its own devices only."""
    count = -(-len(array) // mesh.size)
    width = array.shape[1:] and (int(np.prod(array.shape[1:])),)

    def part(where: Any) -> np.ndarray:
        start = where[0].start or 0
        found = array[start : start + count]
        filled = np.zeros((count, *width), array.dtype)
        filled[: len(found)] = found.reshape(len(found), *width)
        return filled

    return jax.make_array_from_callback((count * mesh.size, *width), NamedSharding(mesh, P(AXIS)), part)


def bytes_per_device(examples: int, shape: tuple[int, ...], devices: int) -> int:
    """What the images and labels take on each of so many devices."""
    return -(-examples // devices) * (int(np.prod(shape)) + np.dtype(np.int32).itemsize)


def check_memory(examples: int, shape: tuple[int, ...], devices: int, memory: float | None) -> None:
    """Raises ValueError if a device's share of the data is more than ``SHARE`` of its ``memory`` bytes; None: unknown, all is well."""
    size = bytes_per_device(examples, shape, devices)
    if memory is None or size <= SHARE * memory:
        return
    enough = -(-examples // max(int(SHARE * memory) // bytes_per_device(1, shape, 1), 1))
    raise ValueError(
        f"data_on_device: {examples:,} images of {shape[0]}x{shape[1]} take {size / 1e6:,.1f} MB on each of {devices} device(s), more than "
        f"{SHARE:.0%} of its {memory / 1e6:,.1f} MB; take {enough} devices, or leave the images on the host "
        "(data_on_device=False; in a config data.on_device = False)"
    )


def _memory(devices: Sequence[jax.Device]) -> int | None:
    """Bytes of the smallest of the devices, if they tell (CPUs do not)."""
    told = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
    return min((limit for limit in told if limit), default=None)


def hold(data: Any, views: Any, augment_on: str, mesh: Mesh) -> Resident:
    """The data on the devices of the mesh.

    Raises:
      ValueError: see ``check``; or the data is too large.
    """
    check(data, views, augment_on)
    return Resident(data, mesh)


def check(data: Any, views: Any, augment_on: str) -> None:
    """Raises ValueError if the data is not in memory, or its views are not made by the step."""
    if not isinstance(data, InMemory):
        known = "byol.data.from_arrays, npz, idx, digits or tfds(..., in_memory=True)"
        raise ValueError(f"data_on_device = True: {type(data).__name__} is not in memory as one array; pass what {known} give")
    if not isinstance(views, Views):
        raise ValueError("data_on_device = True: views of your own run on the host, in tf.data; give a recipe, such as byol.views.small()")
    if augment_on != "device":
        raise ValueError(f"data_on_device = True with augment_on = {augment_on!r}: images that stay on the device are augmented there")


def seen(resident: Resident | None, batch: Any) -> Any:
    """Shapes of a batch as the method sees it, from those of what the host sends."""
    return batch if resident is None else resident.shapes(batch["index"])


def compiled(step: Step, resident: Resident | None, mesh: Mesh, shard_state: bool = False) -> Step:
    """The step under ``jit``, its state donated; before it, with resident data, the fetch: then a batch is {"index": int32[B]}.

    ``shard_state``: the new state lies as ``parallel.spread`` says, where without it is whole on every device.
    """
    program, held = jitted(step, resident, mesh, shard_state)
    return Fetching(program, held) if held else program


@dataclass(frozen=True)
class Fetching:
    """A jitted step that takes ``held`` between state and batch; to be called, or traced, without them."""

    program: Any
    held: tuple[Rows, ...]

    def __call__(self, state: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
        return self.program(state, *self.held, batch)

    def trace(self, state: Any, batch: Any) -> jax.stages.Traced:
        return self.program.trace(state, *self.held, batch)


def jitted(step: Step, resident: Resident | None, mesh: Mesh, shard_state: bool = False) -> tuple[Any, tuple[Rows, ...]]:
    """(what ``compiled`` runs, what it takes between state and batch): ``program(state, *held, batch)``, which can be traced too."""
    options: dict[str, Any] = {"donate_argnums": 0, "out_shardings": replicated(mesh)}
    if shard_state:
        step, options["out_shardings"] = _spread_after(step, mesh), (None, replicated(mesh))
    if resident is None:
        return jax.jit(traced_for(mesh, step), **options), ()

    def fetch_and_step(state: Any, rows: Rows, batch: Any) -> tuple[Any, dict[str, Any]]:
        return step(state, resident.fetch(rows, batch["index"]))

    return jax.jit(traced_for(mesh, fetch_and_step), **options), (resident.rows,)


def _spread_after(step: Step, mesh: Mesh) -> Step:
    """What the step leaves is split at once: so the compiler updates on each device its share alone."""

    def spread_step(state: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
        state, metrics = step(state, batch)
        return jax.lax.with_sharding_constraint(state, spread(state, mesh)), metrics

    return spread_step
