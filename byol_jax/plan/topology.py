"""Machines that can be planned for without having them: what their chips can do, and the devices their compiler compiles for."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import topologies

from byol_jax.config import ConfigError
from byol_jax.config.check import nearest
from byol_jax.plan import cuda
from byol_jax.plan.chips import TPUS, Chip, known
from byol_jax.plan.cuda import CARDS

FLAT = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))  # the slices of v5e and v6e
SMALL_CUBES = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))  # of v4 and v5p; from 4x4x4 on every side is a multiple of 4
OTHERS = ", ".join(CARDS) + " or a TPU"  # that need not be there
LARGEST_CUBE = {"v4": (12, 16, 16), "v5p": (16, 16, 24)}


@dataclass(frozen=True)
class Topology:
    """Devices to compile for. ``attached`` ones are really there."""

    name: str
    chip: Chip
    devices: tuple[Any, ...]
    attached: bool

    @property
    def hosts(self) -> int:
        """Processes that a run on it has, each of which feeds its own devices."""
        return len({device.process_index for device in self.devices})


def parse(name: str) -> tuple[str, tuple[int, ...]]:
    """("v5e", (16, 16)), ("h100", (1, 8)), ("gpu", ()) or ("cpu", (8,)).

    Raises:
      ConfigError: unknown, or a shape that is not offered; the nearest one that is, is named.
    """
    kind, colon, sides = name.partition(":")
    kinds = (*TPUS, *CARDS, "gpu", "cpu")
    if kind not in kinds:
        raise ConfigError([f"--topology {name}: must be one of {', '.join(kinds)}, such as v5e:16x16{nearest(kind, kinds)}"])
    if kind in TPUS:
        return kind, _slice(name, kind, sides)
    if kind in CARDS:
        return kind, _boxes(name, kind, sides if colon else "1")
    if not colon:
        return kind, () if kind == "gpu" else (1,)
    if not re.fullmatch("[1-9][0-9]{0,2}", sides):
        raise ConfigError([f"--topology {name}: after {kind}: comes a number of devices, such as {kind}:8"])
    return kind, (int(sides),)


def _boxes(name: str, kind: str, sides: str) -> tuple[int, int]:
    """(hosts, cards in each)."""
    match = re.fullmatch("(?:([1-9][0-9]{0,3})x)?([1-9]|1[0-6])", sides)
    if not match:
        rule = "comes a number of cards in one host, up to 16, or hosts x cards"
        raise ConfigError([f"--topology {name}: after {kind}: {rule}, such as {kind}:8 or {kind}:4x8"])
    return int(match[1] or 1), int(match[2])


def _slice(name: str, kind: str, sides: str) -> tuple[int, ...]:
    shapes = offered(kind)
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sides):
        raise ConfigError([f"--topology {name}: must name the shape of a slice, such as {kind}:{_text(shapes[3])}"])
    shape = tuple(map(int, sides.split("x")))
    if shape in shapes:
        return shape
    near = min(shapes, key=lambda offer: _distance(offer, shape))
    rule = "slices are " + ", ".join(map(_text, shapes)) if kind not in LARGEST_CUBE else _rule(kind)
    raise ConfigError([f"--topology {name}: {kind} has no such slice: {rule} (did you mean {f'{kind}:{_text(near)}'!r}?)"])


def _distance(offer: tuple[int, ...], asked: tuple[int, ...]) -> tuple[bool, float, int]:
    """The same sides in another order are nearest, then about as many chips, of these the most compact."""
    return sorted(offer) != sorted(asked), abs(math.log(math.prod(offer) / math.prod(asked))), sum(offer)


def offered(kind: str) -> tuple[tuple[int, ...], ...]:
    """Shapes of the slices of a kind of TPU, as its documentation (``Chip.source``) lists them."""
    if kind not in LARGEST_CUBE:
        return FLAT
    largest = LARGEST_CUBE[kind]
    sides = itertools.combinations_with_replacement(range(4, max(largest) + 1, 4), 3)
    return *SMALL_CUBES, *(cube for cube in sides if all(side <= most for side, most in zip(cube, largest, strict=True)))


def _rule(kind: str) -> str:
    return f"{', '.join(map(_text, SMALL_CUBES))}, or three rising multiples of 4 up to {_text(LARGEST_CUBE[kind])}"


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def find(name: str) -> Topology:
    """The devices of a topology. Call it before anything else asks JAX for a device: but for "gpu", no accelerator is looked for.

    Raises:
      ConfigError: see ``parse``; the compiler for it is not installed; no GPU is there, or fewer than asked for.
    """
    kind, shape = parse(name)
    if kind in TPUS:
        return Topology(name, TPUS[kind], _tpus(name, kind, shape), attached=False)
    if kind in CARDS:
        return Topology(name, cuda.chip(CARDS[kind]), cuda.devices(name, CARDS[kind], *shape), attached=False)
    if kind == "gpu":
        devices = _attached(name, "gpu", shape[0] if shape else None)
        return Topology(name, _gpu(devices[0]), devices, attached=True)
    try:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", shape[0])
    except RuntimeError:
        pass  # JAX has started: the devices it has must do
    chip = Chip("CPU", None, None, None, "a CPU is not judged")
    return Topology(name, chip, _attached(name, "cpu", shape[0]), attached=True)


def _attached(name: str, platform: str, count: int | None) -> tuple[Any, ...]:
    try:
        devices = jax.devices(platform)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            [f"--topology {name}: JAX finds no {platform} here ({reason}); plan for {OTHERS} instead, or plan there"]
        ) from None
    if count is not None and count > len(devices):
        raise ConfigError([f"--topology {name}: only {len(devices)} of them are here; nearest: {platform}:{len(devices)}"])
    return tuple(devices[:count])


def _gpu(device: Any) -> Chip:
    """The card's own memory limit; its speeds if it is a known one."""
    memory = (device.memory_stats() or {}).get("bytes_limit")
    chip = known(device.device_kind) or Chip(device.device_kind, None, None, None, "its speeds are not known here")
    return dataclasses.replace(chip, name=device.device_kind, memory=memory)


def _tpus(name: str, kind: str, shape: tuple[int, ...]) -> tuple[Any, ...]:
    # A machine without a TPU has none of these, and libtpu would ask a metadata server for them and wait.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # its lock is on chips, and none is touched
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", f"{kind}-{math.prod(shape)}")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    jax.config.update("jax_platforms", "cpu")
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError([f"--topology {name}: needs the TPU compiler, which is not installed here: pip install 'byol-jax[tpu-plan]'"])
    options: dict[str, Any] = {"chip_config_name": "megacore"} if kind == "v4" else {}  # one device a chip, as a v4 runs by default
    if math.prod(shape) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        return tuple(topologies.get_topology_desc(name, "tpu", **options).devices)
    except RuntimeError as error:
        raise ConfigError([f"--topology {name}: the TPU compiler does not start: {str(error).splitlines()[0]}"]) from error
