"""SIGTERM and Ctrl-C become a wish that the loop grants between two steps; several processes agree on the step."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopWish:
    """Context in which the first SIGTERM or SIGINT is only noted; a second SIGINT interrupts at once.

    With several processes, one of them may be told alone, and all must save the same step: there JAX's preemption service, which
    ``jax.distributed.initialize`` has put behind SIGTERM, settles a step for all; Ctrl-C is passed on to it.
    """

    def __init__(self, enabled: bool = True) -> None:
        self._enabled = enabled and threading.current_thread() is threading.main_thread()
        self._several = jax.process_count() > 1
        self._wished = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopWish:
        if self._enabled:
            for number in (signal.SIGINT,) if self._several else _SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def granted(self, done: int) -> bool:
        """Whether to stop after ``done`` updates; every process must ask after every one."""
        if self._enabled and self._several:
            return bool(multihost_utils.reached_preemption_sync_point(done))
        return self._wished

    def _note(self, number: int, _: FrameType | None) -> None:
        if self._wished and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._wished = True
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
