"""Rows of many callers in few calls of the encoder: a bounded queue, a short wait for rows that are on their way, and a few fixed sizes.

It knows neither HTTP nor jax: ``call`` may be anything that maps rows to rows. All of it but ``call`` runs in one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

Shape = tuple[int, ...]
Plans = Mapping[Shape, Mapping[int, float]]
"""By the shape of a row: the sizes of a batch that are compiled, and how many seconds a call of each takes."""
Call = Callable[[Sequence[np.ndarray], int], np.ndarray]
"""(rows of one shape, size to pad to) -> one row of answers each; runs in a thread of its own."""
Watch = Callable[[int, int, float], None]
"""Told (rows, size, seconds) after each call."""


class Full(Exception):
    """No room for more rows: come again."""


@dataclass
class _Waiting:
    row: np.ndarray
    answer: asyncio.Future[np.ndarray]


class Batcher:
    """A queue of rows before one encoder.

    Rows go out in the order they came, those of one shape together. The size of a batch is the one that answers most rows a second,
    by the seconds in ``plans``: where time grows with the size few rows are padded, where it does not (a large GPU) many are.

    Args:
      call: the encoder.
      plans: what is compiled; a row of another shape is refused.
      capacity: rows that callers may hold at once, waiting, running or still being read.
      window: seconds that a batch waits for rows that are being prepared while it is called together; nobody waits for nothing.
      watch: for metrics.
    """

    def __init__(self, call: Call, plans: Plans, *, capacity: int, window: float = 0.002, watch: Watch | None = None) -> None:
        self.plans, self.capacity, self.window = plans, capacity, window
        self.held = 0
        self._call, self._watch = call, watch or (lambda rows, size, seconds: None)
        self._waiting: list[_Waiting] = []
        self._coming = 0
        self._arrived = asyncio.Event()
        self._largest = max(size for plan in plans.values() for size in plan)

    @property
    def waiting(self) -> int:
        """Rows in the queue, those that run left out."""
        return len(self._waiting)

    @contextlib.contextmanager
    def room(self) -> Iterator[Room]:
        """A caller's share of the capacity, until it leaves. It begins with one row, so that callers who say nothing yet are bounded too.

        Raises:
          Full: every place is taken.
        """
        room = Room(self)
        room.take(1)
        try:
            yield room
        finally:
            self.held -= room.rows
            self._coming -= room.coming

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The queue is worked off within."""
        self._arrived = asyncio.Event()  # of this event loop
        with ThreadPoolExecutor(1, "encoder") as worker:
            task = asyncio.create_task(self._work(worker))
            try:
                yield
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _work(self, worker: ThreadPoolExecutor) -> None:
        while True:
            while not self._waiting:
                await self._change()
            await self._gather()
            if batch := self._next():
                await self._answer(batch, worker)

    async def _change(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()

    async def _gather(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.window):
                while self._coming and len(self._waiting) < self._largest:
                    await self._change()

    def _next(self) -> list[_Waiting]:
        """Takes the oldest row and those that go with it out of the queue; rows whose caller has left are dropped."""
        self._waiting = [one for one in self._waiting if not one.answer.done()]
        if not self._waiting:
            return []
        shape = self._waiting[0].row.shape
        alike = [one for one in self._waiting if one.row.shape == shape]
        batch = alike[: self._size(shape, len(alike))]
        taken = set(map(id, batch))
        self._waiting = [one for one in self._waiting if id(one) not in taken]
        return batch

    def _size(self, shape: Shape, rows: int) -> int:
        """The size for so many rows: of the most rows a second, the larger among equals."""
        plan = self.plans[shape]
        return max(sorted(plan, reverse=True), key=lambda size: min(rows, size) / plan[size])

    async def _answer(self, batch: list[_Waiting], worker: ThreadPoolExecutor) -> None:
        rows = [one.row for one in batch]
        size = self._size(rows[0].shape, len(rows))
        start = time.perf_counter()
        try:
            answers = await asyncio.get_running_loop().run_in_executor(worker, self._call, rows, size)
        except Exception as error:  # it is the callers' to hear, not the queue's to end by
            for one in batch:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        self._watch(len(rows), size, time.perf_counter() - start)
        for one, answer in zip(batch, answers, strict=True):
            if not one.answer.done():
                one.answer.set_result(answer)


class Room:
    """What one caller holds of a batcher's capacity."""

    def __init__(self, batcher: Batcher) -> None:
        self.rows = self.coming = 0
        self._batcher = batcher

    def take(self, rows: int) -> None:
        """Holds so many rows in all. Raises Full where there is no room for them."""
        more, its = rows - self.rows, self._batcher
        if its.held + more > its.capacity:
            raise Full(f"{its.held} of {its.capacity} rows are held, {more} more were wanted")
        its.held += more
        self.rows = rows

    def announce(self) -> None:
        """Its rows will come shortly: a batch may wait for them."""
        self._batcher._coming += self.rows - self.coming
        self.coming = self.rows

    async def answers(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """The encoder's answers [N, ...] to N rows, at most as many as are held.

        Raises:
          ValueError: a row of a shape that is not compiled. What ``call`` raises is raised here too.
        """
        its, loop = self._batcher, asyncio.get_running_loop()
        its._coming -= self.coming
        self.coming = 0
        if strange := {row.shape for row in rows} - its.plans.keys():
            raise ValueError(f"rows of shape {sorted(strange)}; compiled are {sorted(its.plans)}")
        mine = [_Waiting(row, loop.create_future()) for row in rows]
        its._waiting += mine
        its._arrived.set()
        try:
            return np.stack(await asyncio.gather(*(one.answer for one in mine)))
        finally:
            for one in mine:
                one.answer.cancel()  # of a caller that gives up; those answered do not mind
