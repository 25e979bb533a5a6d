"""How far a long evaluation is: one line on stderr, rewritten in a terminal, now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import jax

Item = TypeVar("Item")
LOG_SECONDS, TERMINAL_SECONDS = 60.0, 0.5


def tracked(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """The items themselves, while the main process tells how many of ``total`` are done and how long the rest may take.

    What takes less than half a second (in a log: a minute) is not talked about.
    """
    if jax.process_index():
        yield from items
        return
    interval = TERMINAL_SECONDS if sys.stderr.isatty() else LOG_SECONDS
    start = last = time.monotonic()
    shown = False
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - last >= interval:
            last, shown = now, True
            _say(f"{what}: {done:,} of {total:,} steps, {_duration((now - start) * (total - done) / max(done, 1))} left")
        yield item
    if shown:
        _say(f"{what}: {total:,} steps in {_duration(time.monotonic() - start)}", last=True)


def _say(text: str, *, last: bool = False) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[2K{text}" + "\n" * last)
    else:
        sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _duration(seconds: float) -> str:
    """``4000 -> "1:06:40"``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
