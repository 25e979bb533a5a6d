"""Interleaved timing: machines are shared and drift, so what is compared is measured in turns, and medians are compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax


@dataclass(frozen=True)
class Timed:
    """Seconds of the repeats, in the order in which they were measured."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """In seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """In seconds: between the quarters, so that one interrupted repeat does not count. 0 of a single repeat."""
        if len(self.seconds) == 1:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return high - low


def ratio(other: Timed, ours: Timed) -> float:
    """How many times as long the other took: the median over pairs measured one after the other."""
    return statistics.median(a / b for a, b in zip(other.seconds, ours.seconds, strict=True))


def seconds_of(call: Callable[[], Any]) -> float:
    """Wall time of a call, until what it returns is there."""
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def in_turns(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Timed]:
    """Times every call once a round, ``repeats`` rounds, after one round that compiles and is not counted.

    Raises:
      ValueError: no repeat.
    """
    return take_turns({name: lambda call=call: seconds_of(call) for name, call in calls.items()}, repeats, warm=True)  # type: ignore[misc]


def take_turns(measures: Mapping[str, Callable[[], float]], repeats: int, *, warm: bool) -> dict[str, Timed]:
    """The same for what measures its own seconds; ``warm``: the first round is not counted. Raises ValueError for no repeat."""
    if repeats < 1:
        raise ValueError(f"--repeats {repeats}: must be 1 or more")
    rounds: list[Sequence[float]] = [[measure() for measure in measures.values()] for _ in range(repeats + warm)]
    return {name: Timed(times) for name, times in zip(measures, zip(*rounds[warm:], strict=True), strict=True)}
