"""The queue before the encoder, with an encoder that is a few lines of numpy."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byol_jax.serve import Batcher, Full
from byol_jax.serve.batcher import Plans

FLAT = {(2,): {1: 1.0, 8: 1.0, 32: 1.0}}  # as a large device: any size takes as long
LINEAR = {(2,): {1: 1.0, 8: 8.0, 32: 32.0}, (3,): {1: 1.0, 8: 8.0, 32: 32.0}}  # as a small one


class Encoder:
    """Twice each row; notes its calls, and waits in each for ``go`` if it is told to."""

    def __init__(self, *, gated: bool = False) -> None:
        self.calls: list[tuple[int, int]] = []
        self.go = threading.Semaphore(0)
        self.gated = gated

    def __call__(self, rows: Sequence[np.ndarray], size: int) -> np.ndarray:
        if self.gated:
            assert self.go.acquire(timeout=10)
        self.calls.append((len(rows), size))
        if any(row[0] < 0 for row in rows):
            raise ValueError("below zero")
        return 2 * np.stack(rows)


def within(batcher: Batcher, scenario: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with batcher.running():
            await asyncio.wait_for(scenario(), 20)

    asyncio.run(whole())


async def ask(batcher: Batcher, *rows: Sequence[float]) -> list[list[float]]:
    with batcher.room() as room:
        room.take(len(rows))
        return (await room.answers([np.array(row, np.float32) for row in rows])).tolist()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_each_caller_gets_its_own_answers() -> None:
    encoder = Encoder()
    batcher = Batcher(encoder, FLAT, capacity=10)

    async def scenario() -> None:
        found = await asyncio.gather(ask(batcher, [1, 2], [3, 4]), ask(batcher, [5, 6]))
        assert found == [[[2, 4], [6, 8]], [[10, 12]]]
        assert (batcher.held, batcher.waiting) == (0, 0)

    within(batcher, scenario)
    assert encoder.calls == [(3, 32)]  # all sizes take as long: the largest, so that nobody is left out


def test_callers_that_come_during_a_call_share_the_next() -> None:
    encoder = Encoder(gated=True)
    batcher = Batcher(encoder, {(2,): {1: 1.0, 8: 1.0}}, capacity=100)

    async def scenario() -> None:
        first = asyncio.create_task(ask(batcher, [0, 0]))
        await until(lambda: batcher.held == 1 and not batcher.waiting)
        rest = [asyncio.create_task(ask(batcher, [i, i])) for i in range(1, 16)]
        await until(lambda: batcher.waiting == 15)
        encoder.go.release(3)
        assert await first == [[0, 0]]
        assert await asyncio.gather(*rest) == [[[2 * i, 2 * i]] for i in range(1, 16)]

    within(batcher, scenario)
    assert encoder.calls == [(1, 8), (8, 8), (7, 8)]  # 16 callers, 3 calls


@pytest.mark.parametrize(
    ("plans", "rows", "calls"),
    [
        (LINEAR, 9, [(8, 8), (1, 1)]),
        (LINEAR, 3, [(1, 1), (1, 1), (1, 1)]),
        (FLAT, 9, [(9, 32)]),
        (FLAT, 33, [(32, 32), (1, 32)]),
        ({(2,): {1: 1.0, 8: 3.0}}, 3, [(3, 8)]),  # 3 rows in 3 seconds either way: in fewer calls
        ({(2,): {1: 1.0, 8: 3.1}}, 3, [(1, 1)] * 3),
    ],
)
def test_the_size_is_the_one_that_answers_most_rows_a_second(plans: Plans, rows: int, calls: list[tuple[int, int]]) -> None:
    encoder = Encoder()
    batcher = Batcher(encoder, plans, capacity=100)

    async def scenario() -> None:
        assert await ask(batcher, *[[i, 0] for i in range(rows)]) == [[2 * i, 0] for i in range(rows)]

    within(batcher, scenario)
    assert encoder.calls == calls


def test_rows_of_one_shape_go_together_the_oldest_first() -> None:
    encoder = Encoder()
    batcher = Batcher(encoder, {(2,): {4: 1.0}, (3,): {4: 1.0}}, capacity=100)

    async def scenario() -> None:
        both = asyncio.gather(ask(batcher, [1, 1, 1]), ask(batcher, [2, 2]), ask(batcher, [3, 3, 3]))
        assert await both == [[[2, 2, 2]], [[4, 4]], [[6, 6, 6]]]

    within(batcher, scenario)
    assert encoder.calls == [(2, 4), (1, 4)]


def test_a_full_queue_turns_away_and_recovers() -> None:
    encoder = Encoder(gated=True)
    batcher = Batcher(encoder, FLAT, capacity=3)

    async def scenario() -> None:
        first = asyncio.create_task(ask(batcher, [1, 0], [2, 0]))
        await until(lambda: batcher.held == 2)
        with pytest.raises(Full, match="3 of 3 rows are held, 1 more were wanted"):
            await ask(batcher, [3, 0], [4, 0])
        assert batcher.held == 2  # the one turned away holds nothing
        second = asyncio.create_task(ask(batcher, [5, 0]))
        await until(lambda: batcher.held == 3)
        with pytest.raises(Full, match="3 of 3 rows are held"):
            await ask(batcher, [6, 0])
        encoder.go.release(5)
        assert await first == [[2, 0], [4, 0]]
        assert await second == [[10, 0]]
        assert await ask(batcher, [7, 0], [8, 0], [9, 0]) == [[14, 0], [16, 0], [18, 0]]

    within(batcher, scenario)


def test_an_error_is_told_to_those_in_the_call_alone() -> None:
    batcher = Batcher(Encoder(), {(2,): {2: 1.0}}, capacity=10)

    async def scenario() -> None:
        found = await asyncio.gather(ask(batcher, [1, 0]), ask(batcher, [-1, 0]), ask(batcher, [2, 0]), return_exceptions=True)
        assert [str(one) for one in found[:2]] == ["below zero", "below zero"]
        assert found[2] == [[4, 0]]

    within(batcher, scenario)


def test_rows_of_a_caller_that_gave_up_are_not_computed() -> None:
    encoder = Encoder(gated=True)
    batcher = Batcher(encoder, {(2,): {1: 1.0}}, capacity=10)

    async def scenario() -> None:
        first = asyncio.create_task(ask(batcher, [1, 0]))
        await until(lambda: batcher.held == 1 and not batcher.waiting)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(batcher, [2, 0]), 0.02)
        last = asyncio.create_task(ask(batcher, [3, 0]))
        encoder.go.release(3)
        assert (await first, await last) == ([[2, 0]], [[6, 0]])

    within(batcher, scenario)
    assert encoder.calls == [(1, 1), (1, 1)]


def test_a_batch_waits_for_announced_rows_and_for_nothing_else() -> None:
    encoder = Encoder()
    batcher = Batcher(encoder, {(2,): {8: 1.0}}, capacity=10, window=5.0)

    async def scenario() -> None:
        with batcher.room() as room:
            room.announce()
            early = asyncio.create_task(ask(batcher, [1, 0]))
            await asyncio.sleep(0.05)  # the other's row is being prepared
            assert encoder.calls == []
            assert (await room.answers([np.array([2, 0])])).tolist() == [[4, 0]]
            assert await early == [[2, 0]]
        assert encoder.calls == [(2, 8)]
        start = time.perf_counter()
        with batcher.room():  # a body that is still arriving is not waited for
            await ask(batcher, [3, 0])
        assert time.perf_counter() - start < 2

    within(batcher, scenario)


def test_a_batch_waits_no_longer_than_the_window() -> None:
    encoder = Encoder()
    batcher = Batcher(encoder, {(2,): {8: 1.0}}, capacity=10, window=0.05)

    async def scenario() -> None:
        with batcher.room() as room:
            room.announce()
            start = time.perf_counter()
            assert await ask(batcher, [1, 0]) == [[2, 0]]
            assert time.perf_counter() - start >= 0.045

    within(batcher, scenario)


def test_a_shape_that_is_not_compiled_is_refused() -> None:
    batcher = Batcher(Encoder(), FLAT, capacity=10)

    async def scenario() -> None:
        with pytest.raises(ValueError, match=r"rows of shape \[\(5,\)\]; compiled are \[\(2,\)\]"):
            await ask(batcher, [1, 2, 3, 4, 5])

    within(batcher, scenario)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.tuples(st.sampled_from([2, 3]), st.integers(0, 99)), min_size=1, max_size=40), min_size=1, max_size=12))
def test_whatever_comes_is_answered(callers: list[list[tuple[int, int]]]) -> None:
    encoder = Encoder()
    batcher = Batcher(encoder, LINEAR, capacity=10_000)

    async def one(rows: list[tuple[int, int]]) -> None:
        with batcher.room() as room:
            room.take(len(rows))
            given_rows = [np.full(width, value) for width, value in rows if width == rows[0][0]]
            assert (await room.answers(given_rows)).tolist() == [[2 * value] * width for width, value in rows if width == rows[0][0]]

    async def scenario() -> None:
        await asyncio.gather(*map(one, callers))
        assert (batcher.held, batcher.waiting) == (0, 0)

    within(batcher, scenario)
    assert all(rows <= size in (1, 8, 32) for rows, size in encoder.calls)
