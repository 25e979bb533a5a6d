"""The step that a run would take, compiled for devices that need not be there."""

from __future__ import annotations

import functools
import importlib.metadata
import math
import time
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.sharding import Mesh

from byol_jax import parallel
from byol_jax.build import methods, objects
from byol_jax.config import Spec
from byol_jax.method import ByolState, init
from byol_jax.method.placement import WHOLE_BATCH
from byol_jax.plan import hlo
from byol_jax.plan.inputs import Inputs
from byol_jax.plan.kernels import moved
from byol_jax.plan.products import looped, micro_batch_turns, operations
from byol_jax.plan.topology import Topology
from byol_jax.train import resident, start

ALLOWED = "all-reduce"
# The TPU's compiler writes a gather that runs beside other work three times under one channel; in bfloat16, where that is the dtype of the
# computation, or of what a matrix unit takes. So the text of a program had 1.6 times the bytes of the parameters.
GATHER, SCATTER = "all-gather", "reduce-scatter"  # of a state that is split over the devices: its parameters, and their gradients
UPDATE_PASSES = 5  # of optimizer and target over all they hold, reads and writes; generous, so that the rest comes out low


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of one step, on each device; plain values, so that it can be kept as JSON. Sizes are bytes.

    Attributes:
      arguments: the state, this device's rows, and ``data``, its share of a data set that lies on the devices.
      outputs: the new state and metrics, of which ``aliased`` lie where arguments lay.
      temporaries: what a step needs beside them; code: the program itself.
      overflow: the compiler's words, if it found no way to fit the program into the chip's memory; then all sizes and costs are 0.
      flops, moved: operations, and bytes between memory and cores, by the compiler's own count; of a loop over micro-batches it counts
        one turn, so all but the optimizer's part (for bytes: ``UPDATE_PASSES`` over the arguments; its operations are a thousandth) is
        taken as often as the loop turns. Of a GPU's program: ``products``, and what its ``kernels`` move.
      looped: whether more than micro-batches loops: then operations are ``products``, and of ``moved`` one turn of each such loop is known.
      collectives: kind -> [how many in a step, bytes of their results].
      strangers: collectives that are no all-reduce, and none that a split state or a loss over the whole batch needs: kind, bytes, and the
        part of the model.
      gathered: parameters of both networks that the devices share and gather for a step; 0: each holds them whole.
      fetched: kind -> bytes of the collectives that fetch the batch's rows from ``data``.
      gradients, statistics: what must be reduced: gradients once, batch statistics of both views in each pass.
    """

    devices: int
    hosts: int
    rows: int
    arguments: int = 0
    data: int = 0
    outputs: int = 0
    aliased: int = 0
    temporaries: int = 0
    code: int = 0
    overflow: str | None = None
    flops: float = 0.0
    moved: float = 0.0
    looped: bool = False
    collectives: dict[str, list[int]] | None = None
    strangers: tuple[str, ...] = ()
    gathered: int = 0
    fetched: dict[str, int] = field(default_factory=dict)
    gradients: int = 0
    statistics: int = 0
    seconds: float = 0.0

    @property
    def peak(self) -> int:
        """The most that is held at once: everything, but outputs that lie where arguments lay only once."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code

    def faults(self) -> list[str]:
        """What the collectives say against the step: others than it needs, or of more, or less, than there is to reduce and to gather."""
        if self.overflow or self.devices == 1:
            return []
        may = "gradients, batch statistics and metrics" + ", and parameters before the step," * bool(self.gathered)
        found = [f"{stranger}: only {may} may cross chips" for stranger in self.strangers]
        moved = {kind: (self.collectives or {}).get(kind, [0, 0])[1] - self.fetched.get(kind, 0) for kind in (ALLOWED, GATHER, SCATTER)}
        reduced, wanted = moved[ALLOWED], self.gradients + self.statistics
        if self.gathered:
            reduced += self.devices * moved[SCATTER]  # of what it reduces each device gets its share
            if not self.strangers and moved[GATHER] > 2 * self.gathered:
                found.append(
                    f"all-gathers of {moved[GATHER]:,} bytes, where the parameters have {self.gathered:,}: something else is gathered"
                )
        if reduced < self.gradients:
            found.append(f"all-reduces of {reduced:,} bytes are fewer than the gradients' {self.gradients:,}: some are not averaged")
        if reduced > 1.01 * wanted + 2**16:
            found.append(
                f"all-reduces of {reduced:,} bytes, where gradients and batch statistics have {wanted:,}: something else is reduced"
            )
        return found


def compile_step(spec: Spec, topology: Topology, inputs: Inputs) -> Compiled:
    """Compiles the very step that ``byol_jax.train.pretrain`` jits, for all devices of the topology.

    Raises:
      ValueError: the devices cannot share the batch, or hold the data; or the model cannot be built.
    """
    mesh = parallel.data_mesh(topology.devices)
    parallel.check_batch(spec.batch_size, mesh, spec.optimizer.accumulate)
    if inputs.held:
        resident.check_memory(*inputs.held, mesh.size, topology.chip.memory)
    began = time.perf_counter()
    state, traced = trace(spec, mesh, inputs)
    known: dict[str, Any] = {
        "devices": mesh.size,
        "hosts": topology.hosts,
        "rows": spec.batch_size // mesh.size,
        "data": resident.bytes_per_device(*inputs.held, mesh.size) if inputs.held else 0,
        "gathered": _gathered(state),
        "gradients": size_of(state.trained),
        "statistics": _statistics(spec, state),
    }
    try:
        compiled = _with_its_names(traced.lower())
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Compiled(**known, overflow=str(error), seconds=time.perf_counter() - began)
    platform = topology.devices[0].platform
    parts = spec.optimizer.accumulate
    found = read(compiled, micro_batch_turns(platform, parts), spec.optimizer.shard_state, known["data"])
    found["flops"] = operations(traced, compiled, platform, mesh.size, parts) / mesh.size
    if platform == "gpu":  # without a card XLA counts nothing
        found["moved"] = float(moved(compiled.as_text()))
    else:
        found["looped"] = looped(traced, platform, parts)
    return Compiled(**known, **found, seconds=time.perf_counter() - began)


def _with_its_names(lowered: Any) -> Any:
    """Compiled, though JAX's own cache may hold the same program with other names in it, of an older version: ``read`` goes by them."""
    key = "jax_compilation_cache_include_metadata_in_key"
    before = getattr(jax.config, key)
    jax.config.update(key, True)
    try:
        return lowered.compile()
    finally:
        jax.config.update(key, before)


def trace(spec: Spec, mesh: Mesh, inputs: Inputs) -> tuple[ByolState, Any]:
    """(shapes of the state, the traced step)."""
    schedule = objects.learning_rate(spec, inputs.examples)
    method, tx = methods.byol(spec, inputs.classes), objects.optimizer(spec, schedule)
    _, augment = start.augmentation(objects.training_views(spec), None, spec.data.augment_on)
    held = resident.Planned(*inputs.held, mesh) if inputs.held else None
    key, step = start.training_step(
        method,
        tx,
        ema=objects.tau(spec, inputs.examples),
        augment=augment,
        seed=spec.seed,
        mesh=mesh,
        accumulate=spec.optimizer.accumulate,
        log={"learning_rate": schedule},
        held=held,
        shard_state=spec.optimizer.shard_state,
    )
    batch = {name: jax.ShapeDtypeStruct((spec.batch_size, *row), dtype) for name, (row, dtype) in inputs.batch.items()}
    shapes = jax.eval_shape(functools.partial(init, method, tx, batch=resident.seen(held, batch), augment=augment, mesh=mesh), key)
    state = start.placed(shapes, start.layout(shapes, mesh, spec.optimizer.shard_state))
    return state, step.trace(state, start.placed(batch, jax.tree.map(lambda _: parallel.split(mesh), batch)))


def read(compiled: Any, loop: int, shard_state: bool = False, data: int = 0) -> dict[str, Any]:
    """Sizes, costs and collectives of a ``jax.stages.Compiled``, as fields of ``Compiled``.

    Args:
      loop: micro-batches of the loop in the program, whose body the compiler's costs count once; 1: there is none.
      shard_state: parameters are gathered where the networks begin, and their gradients may be scattered.
      data: bytes of the arguments that no optimizer goes over, and from which the batch is fetched.
    """
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {"bytes accessed": 0.0}
    found = hlo.collectives(compiled.as_text(), loop)
    # The TPU's compiler leaves these no name. Gradients, statistics and metrics are no whole numbers; pixels, labels and indices are.
    fetching = [one for one in found if data and one.whole]
    moved_outside = min(UPDATE_PASSES * (memory.argument_size_in_bytes - data), cost["bytes accessed"])
    return {
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes,
        "aliased": memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
        "moved": float(cost["bytes accessed"] - moved_outside) * loop + moved_outside,
        "collectives": {kind: list(total) for kind, total in hlo.totals(found).items()},
        "fetched": {kind: size for kind, (_, size) in hlo.totals(fetching).items()},
        "strangers": tuple(
            f"{one.kind} of {one.times} x {one.bytes:,} bytes in {one.name}"
            for one in found
            if not (one in fetching or _needed(one, shard_state))
        ),
    }


def _needed(one: hlo.Collective, shard_state: bool) -> bool:
    """Whether a step is meant to have it. What layers gather by mistake bears their name behind that of the ``shard_map``."""
    if WHOLE_BATCH in one.name:
        return True
    at_its_edge = one.name.endswith("/shard_map") if one.kind == GATHER else one.kind == SCATTER
    return one.kind == ALLOWED or (shard_state and at_its_edge)


def _gathered(state: ByolState) -> int:
    """Bytes of the parameters that no device holds whole."""
    networks = {"trained": state.trained, "target": state.target.get("params", {})}
    return sum(size_of(leaf) for leaf in jax.tree.leaves(networks) if not leaf.sharding.is_fully_replicated)


def size_of(tree: Any) -> int:
    """Bytes of all leaves."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _statistics(spec: Spec, state: ByolState) -> int:
    """Mean and mean square of both views: on the way through each network, and on the way back through the online one."""
    target = state.target["batch_stats"] if state.target else {}
    return 2 * (2 * size_of(state.online["batch_stats"]) + size_of(target)) * spec.optimizer.accumulate


def versions(topology: Topology) -> dict[str, str]:
    """Of what compiles."""
    kind = topology.devices[0].platform
    compilers = [] if topology.attached else ["libtpu"] if kind == "tpu" else ["jax-cuda13-pjrt", "jax-cuda12-pjrt"]
    found = {each.name: each.version for each in importlib.metadata.distributions() if each.name in ("jax", "jaxlib", *compilers)}
    return dict(sorted(found.items()))
