"""From one CPU to every chip of a pod: start-up, the mesh, and the way between a process's rows and a global array.

All parallelism is over the data: the batch is split over the mesh axis ``"data"``; parameters are replicated or, between two steps,
split too.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"
_EXPLICIT = ("BYOL_COORDINATOR", "BYOL_PROCESS_COUNT", "BYOL_PROCESS_INDEX")
_FAILED, _LOOK_EVERY = "byol_jax/failed", 0.5  # a key in the store that all processes share; seconds
_giving_up = threading.Event()


def initialize() -> None:
    """Joins the other processes of this run, if there are any; call it before anything asks for a device.

    In this order: ``BYOL_COORDINATOR`` (host:port), ``BYOL_PROCESS_COUNT`` and ``BYOL_PROCESS_INDEX``, all three, for any
    machines; a SLURM or Open MPI step with more than one task, a TPU pod: found by JAX itself. On a plain machine nothing
    happens. ``BYOL_DISTRIBUTED=0`` switches the search off, ``=1`` leaves it all to ``jax.distributed.initialize``.
    From then on the processes share their fate: an exception that nobody catches in one of them ends them all, see ``give_up``.

    Raises:
      ValueError: the three variables are incomplete, not numbers, or the index is not below the count; or there are others, as it seems,
        but JAX does not find them.
    """
    if jax.distributed.is_initialized():
        return
    if any(name in os.environ for name in _EXPLICIT):
        coordinator, count, index = _explicit()
        jax.distributed.initialize(coordinator, num_processes=count, process_id=index)
    elif _inside_a_cluster():
        _join()
    if _others() is not None:
        thread = threading.Thread(target=_look_out, name="byol_jax.parallel", daemon=True)
        thread.start()
        atexit.register(_leave, thread)
        sys.excepthook = _give_up_after(sys.excepthook)


def joined() -> int:
    """How many processes ``initialize`` has brought together; asks for no device, as ``jax.process_count`` does."""
    others = _others()
    return 1 if others is None else int(others.num_processes)


def give_up(code: int, reason: str) -> None:
    """Ends this process with exit code ``code``, and within seconds all others with 1, after an error that has been told here.

    Returns where there are no others. Else the others would wait for this one in a collective, and this one at its exit for them:
    300 s, JAX's own limit. No ``finally`` runs, here or there: what the background is writing is lost, as by a kill.
    """
    others = _others()
    if others is None:
        return
    if not _giving_up.is_set():
        _giving_up.set()
        with contextlib.suppress(Exception):  # another was first, or process 0, which keeps the store, is gone
            first_line = (reason.strip().splitlines() or ["unknown"])[0]
            others.client.key_value_set(_FAILED, f"process {others.process_id} ({socket.gethostname()}) failed: {first_line}")
    time.sleep(4 * _LOOK_EVERY)  # till all have looked: once this one is gone they would only see a broken connection
    _exit(code)


def _others() -> Any:
    """JAX's record of its processes (client, process_id, num_processes), which has no public name; None where there is but one.

    Should it move, nothing breaks: processes then end by JAX's own time-outs.
    """
    state: Any = getattr(getattr(multihost_utils, "distributed", None), "global_state", None)
    return state if getattr(state, "client", None) is not None and state.num_processes > 1 else None


def _look_out() -> None:
    while not _giving_up.wait(_LOOK_EVERY):
        others = _others()
        if others is None:  # JAX has shut down
            return
        with contextlib.suppress(Exception):  # no such key: all is well
            _stop_with(others.client.key_value_try_get(_FAILED), others)


def _leave(thread: threading.Thread) -> None:
    """At exit: waits for the others, looking out all the while, and then for the thread.

    Python ends a thread that comes back from C++ into an interpreter on its way out, and JAX's bindings abort the process over it. Left to
    JAX, the processes would part after this, and nothing could run between that and the end of the interpreter.
    """
    try:
        jax.distributed.shutdown()
    finally:
        _giving_up.set()
        thread.join(timeout=10)


def _stop_with(told: str, others: Any) -> None:
    _giving_up.set()
    with contextlib.suppress(OSError):
        print(f"byol_jax: {told}\nprocess {others.process_id} of {others.num_processes} stops too", file=sys.stderr)
    if others.process_id == 0:  # it keeps the store, and JAX aborts whoever loses it: the last to go
        time.sleep(6 * _LOOK_EVERY)
    _exit(1)


def _give_up_after(show: Any) -> Any:
    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not _giving_up.is_set():  # else this one only follows from what another has told
            show(kind, error, trace)
        give_up(1, f"{kind.__name__}: {error}")

    return hook


def _exit(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def _explicit() -> tuple[str, int, int]:
    missing = [name for name in _EXPLICIT if not os.environ.get(name)]
    if missing:
        raise ValueError(f"{', '.join(missing)}: not set; a run over several processes needs all of {', '.join(_EXPLICIT)}")
    coordinator, count, index = (os.environ[name] for name in _EXPLICIT)
    if ":" not in coordinator:
        raise ValueError(f"BYOL_COORDINATOR = {coordinator!r}: must be host:port of process 0, for example 10.0.0.1:1234")
    if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
        raise ValueError(f"BYOL_PROCESS_INDEX = {index!r}, BYOL_PROCESS_COUNT = {count!r}: must be whole numbers, 0 <= index < count")
    return coordinator, int(count), int(index)


def _join() -> None:
    try:
        jax.distributed.initialize()
    except ValueError as error:  # such as Open MPI 5, whose variables JAX 0.10 does not know, or a TPU without Google's metadata server
        raise ValueError(
            f"this looks like one process of several, but JAX cannot tell which and of how many ({error}); "
            f"set {', '.join(_EXPLICIT)}, or BYOL_DISTRIBUTED=0 to run alone"
        ) from error


def _inside_a_cluster() -> bool:
    wish = os.environ.get("BYOL_DISTRIBUTED")
    if wish is not None:
        if wish not in ("0", "1"):
            raise ValueError(f"BYOL_DISTRIBUTED = {wish!r}: must be 0 (never) or 1 (always)")
        return wish == "1"
    tasks = (os.environ.get(name, "1") for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "MEGASCALE_NUM_SLICES"))
    hosts = (os.environ.get(name, "") for name in ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES"))
    if any(task.isdecimal() and int(task) > 1 for task in tasks) or any("," in names for names in hosts):
        return True
    return _on_a_tpu_machine() and (os.environ.get("JAX_PLATFORMS") or "tpu").startswith("tpu")


def _on_a_tpu_machine() -> bool:
    """Device files of a TPU and its library: a pod's workers look like a single host's until they have been started."""
    return importlib.util.find_spec("libtpu") is not None and any(Path(p).exists() for p in ("/dev/accel0", "/dev/vfio/0"))


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of all devices (or the given ones) along one axis, ``"data"``.

    Devices stand in order of their process, so that process i of n holds rows [i * B / n, (i + 1) * B / n) of a global batch.
    ``jax.make_mesh`` may order them otherwise on a TPU; for one axis and all-reduces alone the order costs nothing.
    """
    chosen = sorted(devices if devices is not None else jax.devices(), key=lambda d: (d.process_index, d.id))
    if not chosen:
        raise ValueError("devices: is empty; give at least one device")
    return Mesh(np.array(chosen), (AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole: the state of a run."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Every leaf whole on every device of the mesh; each process must give the same values."""
    sharding = replicated(mesh)
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x), np.shape(x)), tree)


def spread(tree: Any, mesh: Mesh) -> Any:
    """For each leaf of a state the sharding of a share on every device: its largest axis that divides, over ``"data"``.

    Whole on every device stays what no axis of divides, and what has less than two axes: biases and norms, which are many and small.
    """

    def share(leaf: Any) -> NamedSharding:
        fitting = [axis for axis, size in enumerate(leaf.shape) if size % mesh.size == 0] if len(leaf.shape) > 1 else []
        if not fitting:
            return replicated(mesh)
        chosen = max(fitting, key=lambda axis: leaf.shape[axis])  # the first of equals: a TPU wants its last axis long
        return NamedSharding(mesh, PartitionSpec(*[None] * chosen, AXIS))

    return jax.tree.map(share, tree)


def split(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its rows over ``"data"``."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def to_global(batch: Any, mesh: Mesh) -> Any:
    """This process's rows [b, ...] become its part of global arrays [b * processes, ...], split over ``"data"``."""
    sharding = split(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def gather_to_host(tree: Any) -> Any:
    """Global arrays, however they are split, as whole numpy arrays on every process; all processes must call it together."""
    return jax.tree.map(_gather, tree)


def _gather(x: Any) -> np.ndarray:
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
        return np.asarray(multihost_utils.process_allgather(x, tiled=True))
    return np.asarray(x)


def largest_of_all(count: int) -> int:
    """The largest of the counts that the processes give, for all of them; they must call it together."""
    return count if jax.process_count() == 1 else int(np.max(multihost_utils.process_allgather(np.int64(count))))


def of_main(fact: bool) -> bool:
    """What process 0 says, for all of them; they must call it together. Only process 0's own ``fact`` counts: files may differ by host."""
    return fact if jax.process_count() == 1 else bool(multihost_utils.broadcast_one_to_all(np.bool_(fact)))


def process_shard() -> tuple[int, int]:
    """(index, count) of this process among all."""
    return jax.process_index(), jax.process_count()


def is_main() -> bool:
    """Whether this process is the one that writes logs and reports."""
    return jax.process_index() == 0


def check_batch(batch_size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Every device must get the same whole number of examples in every micro-batch.

    Raises:
      ValueError: names the rule and the nearest batch sizes that keep it.
    """
    if accumulate < 1:
        raise ValueError(f"accumulate = {accumulate}: must be 1 or more")
    unit = mesh.size * accumulate
    if batch_size >= 1 and batch_size % unit == 0:
        return
    below, above = batch_size // unit * unit, (batch_size // unit + 1) * unit
    nearest = f"{below} or {above}" if below >= unit else f"{unit}"
    parts = f"{mesh.size} devices" + (f" times accumulate = {accumulate}" if accumulate > 1 else "")
    raise ValueError(f"batch_size = {batch_size}: must be a multiple of {unit} ({parts}); nearest: {nearest}")
