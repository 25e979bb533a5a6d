"""Interleaved timing: machines are shared and drift, so what is compared is measured in turns, and medians are compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax


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


def lap(call: Callable[[], Any]) -> Lap:
    """A call, until what it returns is there."""
    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(call())
    return Lap(time.perf_counter() - wall, time.process_time() - cpu)


def in_turns(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Timed]:
    """Times every call once a round, ``repeats`` rounds, after one round that compiles and is not counted.

    Raises:
      ValueError: no repeat.
    """
    return take_turns({name: partial(lap, call) for name, call in calls.items()}, repeats, warm=True)


def take_turns(measures: Mapping[str, Callable[[], Lap]], repeats: int, *, warm: bool) -> dict[str, Timed]:
    """The same for what measures its own seconds; ``warm``: the first round is not counted. Raises ValueError for no repeat."""
    if repeats < 1:
        raise ValueError(f"--repeats {repeats}: must be 1 or more")
    rounds = [[measure() for measure in measures.values()] for _ in range(repeats + warm)]
    columns = zip(*rounds[warm:], strict=True)
    return {name: Timed(*zip(*laps, strict=True)) for name, laps in zip(measures, columns, strict=True)}
