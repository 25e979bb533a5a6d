"""Interleaved timing: machines are shared and drift, so what is compared is measured in turns, and medians are compared."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax

from byol_jax.parallel import largest_of_all

LEAST = 0.2  # seconds of a repeat: of short calls several, so that a device has its next one before it has done the last


class Lap(NamedTuple):
    """Seconds by the clock, and seconds of processor time of all this process's threads."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Timed:
    """Seconds of the repeats, in the order in which they were measured: by the clock, and of the processor's time."""

    seconds: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def median(self) -> float:
        """In seconds."""
        return statistics.median(self.seconds)

    @property
    def median_cpu(self) -> float:
        """Of the processor's time, in seconds."""
        return statistics.median(self.cpu)

    @property
    def spread(self) -> float:
        """In seconds: between the quarters, so that one interrupted repeat does not count. 0 of a single repeat."""
        if len(self.seconds) == 1:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return high - low


def ratio(other: Sequence[float], ours: Sequence[float]) -> float:
    """How many times as long the other took: the median over pairs measured one after the other."""
    return statistics.median(a / b for a, b in zip(other, ours, strict=True))


def what_is_left(whole: Timed, *parts: Timed) -> Timed:
    """The whole without its parts, round by round."""
    seconds, cpu = (
        tuple(first - sum(others) for first, *others in zip(*columns, strict=True))
        for columns in ([timed.seconds for timed in (whole, *parts)], [timed.cpu for timed in (whole, *parts)])
    )
    return Timed(seconds, cpu)


def lap(call: Callable[[], Any], times: int = 1) -> Lap:
    """One of so many calls, begun as a run begins its steps (``byol_jax.train.fit``): two at most are on their way.

    With more than 32 on their way XLA for CPUs stands still where a call runs on several devices and sums over them: one device waits for a
    free place and the others for its sum, until the process is ended after 40 s (jaxlib 0.10.2).
    """
    wall, cpu = time.perf_counter(), time.process_time()
    before = None
    for _ in range(times):
        made = call()
        jax.block_until_ready(before)
        before = made
    jax.block_until_ready(before)
    return Lap((time.perf_counter() - wall) / times, (time.process_time() - cpu) / times)


def in_turns(calls: Mapping[str, Callable[[], Any]], repeats: int, least: float = LEAST) -> dict[str, Timed]:
    """Times every call once a round, ``repeats`` rounds, after a call each that compiles and is not counted.

    Nor is the first call of a turn: after another program's a ResNet-50's step took 15% longer on a CPU, mostly system time.

    Args:
      least: seconds that a repeat measures; a call that takes less is made more than once.

    Raises:
      ValueError: no repeat.
    """
    measures = {name: partial(_settled, call, _how_often(call, least)) for name, call in calls.items()}
    return take_turns(measures, repeats, warm=False)


def _settled(call: Callable[[], Any], times: int) -> Lap:
    jax.block_until_ready(call())
    return lap(call, times)


def _how_often(call: Callable[[], Any], least: float) -> int:
    lap(call)
    return largest_of_all(max(1, math.ceil(least / lap(call).wall)))


def take_turns(measures: Mapping[str, Callable[[], Lap]], repeats: int, *, warm: bool) -> dict[str, Timed]:
    """The same for what measures its own seconds; ``warm``: the first round is not counted. Raises ValueError for no repeat."""
    if repeats < 1:
        raise ValueError(f"--repeats {repeats}: must be 1 or more")
    rounds = [[measure() for measure in measures.values()] for _ in range(repeats + warm)]
    columns = zip(*rounds[warm:], strict=True)
    return {name: Timed(*zip(*laps, strict=True)) for name, laps in zip(measures, columns, strict=True)}
