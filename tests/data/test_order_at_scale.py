"""The order of the data for 1 to 2,048 processes: each reads alone; together they read every example once an epoch."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from byol_jax.data import order, stream
from byol_jax.data.order import Shard
from byol_jax.data.records import Window

MOST, IMAGENET = 2048, 1_281_167


def together(count: int, steps: int, **run: int) -> tuple[np.ndarray, np.ndarray]:
    """What ``count`` processes, each with a stream of its own, read in ``steps`` batches: (example, epoch), each [steps, global batch]."""
    streams = [order.batches(shard=Shard(i, count), **run) for i in range(count)]
    batches = [tuple(map(np.concatenate, zip(*map(next, streams), strict=True))) for _ in range(steps)]
    index, epoch = zip(*batches, strict=True)
    return np.stack(index), np.stack(epoch)


def assert_once(index: np.ndarray, epoch: np.ndarray, n: int, which: range) -> None:
    for one in which:
        np.testing.assert_array_equal(np.bincount(index[epoch == one], minlength=n), np.ones(n, int), err_msg=f"epoch {one}")


def assert_same(got: tuple[np.ndarray, np.ndarray], wanted: tuple[np.ndarray, np.ndarray]) -> None:
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@st.composite
def runs(draw: st.DrawFn) -> dict[str, int]:
    count = draw(st.one_of(st.integers(0, 11).map(lambda power: 2**power), st.integers(1, MOST)))
    batch = count * draw(st.integers(1, max(3, 512 // count)))
    return {
        "count": count,
        "batch_size": batch,
        "n": draw(st.integers(1, 5 * batch)),
        "first": draw(st.integers(0, 10**6)),  # epoch
        "epochs": draw(st.integers(1, 2)),
        "seed": draw(st.integers(0, 2**64 - 1)),
        "resumed": draw(st.integers(0, 12)),  # batches after the first one
    }


@settings(max_examples=40, deadline=None)
@example(run={"count": 2048, "batch_size": 4096, "n": 10_007, "first": 999, "epochs": 2, "seed": 0, "resumed": 2})  # a prime
@example(run={"count": 2047, "batch_size": 2047, "n": 2048, "first": 0, "epochs": 3, "seed": 1, "resumed": 1})
@example(run={"count": 2048, "batch_size": 2048, "n": 1, "first": 0, "epochs": 4096, "seed": 2, "resumed": 1})  # 2048 epochs a batch
@given(run=runs())
def test_every_example_once_an_epoch_whatever_the_number_of_processes_and_from_any_step_on(run):
    count, resumed, first, epochs = (run[name] for name in ("count", "resumed", "first", "epochs"))
    how = {name: run[name] for name in ("batch_size", "n", "seed")}
    start = first * how["n"] // how["batch_size"]  # the batch that holds the first position of the first epoch
    steps = -(-(first + epochs) * how["n"] // how["batch_size"]) - start  # to the one that holds the last position of the last epoch
    read = together(count, steps, start_step=start, **how)
    assert_once(*read, how["n"], range(first, first + epochs))
    for other in {1, *(count // part for part in (2, 3) if count % part == 0)}:
        assert_same(together(other, steps, start_step=start, **how), read)
    resumed = min(resumed, steps - 1)
    index, epoch = read
    assert_same(together(count, steps - resumed, start_step=start + resumed, **how), (index[resumed:], epoch[resumed:]))


def test_an_epoch_of_imagenet_on_64_processes_and_its_end_on_2048():
    run = {"n": IMAGENET, "batch_size": 4096, "seed": 0}
    index, epoch = together(64, 313, start_step=0, **run)
    assert (epoch == 0).sum() == IMAGENET
    assert_once(index, epoch, IMAGENET, range(1))
    assert_same(together(2048, 2, start_step=311, **run), (index[311:], epoch[311:]))  # ends in the middle of batch 312


class Recorded:
    """A stream of windows that shuffles nothing: example i stands at position i of every epoch."""

    def __init__(self, n: int, window: int) -> None:
        self._n, self._window = n, window

    def __len__(self) -> int:
        return self._n

    def shuffled(self, seed: int, epoch: int, place: int):
        for start in range(place // self._window * self._window, self._n, self._window):
            yield Window(start, np.arange(start, min(start + self._window, self._n)), load=lambda *_: None)


@settings(max_examples=25, deadline=None)
@example(n=97, window=10, count=128, rows=1, start=1)
@given(n=st.integers(1, 200), window=st.integers(1, 60), count=st.integers(1, 24), rows=st.integers(1, 8), start=st.integers(0, 30))
def test_files_that_are_only_read_from_front_to_back_are_shared_out_in_the_same_way(n, window, count, rows, start):
    batch, source, steps = count * rows, Recorded(n, window), 3

    def process(i: int) -> tuple[np.ndarray, np.ndarray]:
        rows_of_it = Shard(i, count).rows(batch)
        taken = stream._in_order(stream._epochs(source, 0, start * batch), n, batch, start * batch, rows_of_it, stream.Waiting())
        index, epoch = zip(*itertools.islice(taken, steps), strict=True)
        return np.stack(index), np.stack(epoch)

    index, epoch = (np.concatenate(parts, axis=1) for parts in zip(*map(process, range(count)), strict=True))
    positions = np.arange(start * batch, (start + steps) * batch)
    np.testing.assert_array_equal(index.ravel(), positions % n)
    np.testing.assert_array_equal(epoch.ravel(), positions // n)
