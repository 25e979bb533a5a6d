"""The tf.data road: order -> files read (Python, many threads) -> decoding and views (without Python) -> batch -> prefetch.

Same numbers in, same batches out.
"""

from __future__ import annotations

import contextlib
import functools
import traceback
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np

from byol_jax.data import fetch, order, reading
from byol_jax.data.fetch import Candidates, Census, Fetch
from byol_jax.data.order import Shard, Step
from byol_jax.data.prefetch import Batch, Batches
from byol_jax.data.reading import Recipe
from byol_jax.data.records import Window, WindowedSource
from byol_jax.data.source import Source
from byol_jax.data.vision import tf

AT_ONCE = 8  # examples a call of Python reads: a call costs as much as decoding a small image


def train_batches(
    source: Source,
    views: Recipe | Callable[..., dict[str, Any]],
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    shard: Shard,
    augment_on: str,
    max_bad_share: float,
    threads: int | None,
) -> Batches:
    """See ``byol_jax.data.pipeline.train_batches``, which has checked the arguments."""
    n, rows = len(source), shard.rows(batch_size)
    census, kind = Census(n, max_bad_share), reading.of(source)
    find: Callable[[int, int], Candidates]
    if isinstance(source, WindowedSource):
        waiting = Waiting()
        find = functools.partial(waiting.take, fetch.Packer(n, None))
        steps = _in_order(_epochs(source, seed, start_step * batch_size), n, batch_size, start_step * batch_size, rows, waiting)
    else:
        find = fetch.neighbours(n, kind.loader(source, None))
        steps = order.batches(n=n, batch_size=batch_size, seed=seed, start_step=start_step, shard=shard)
    make_views = views if callable(views) else functools.partial(_recipe, kind=kind, views=views, photometric=augment_on == "host")

    def finish(content: Any, label: Any, index: Any, seed_pair: Any) -> dict[str, Any]:
        made = make_views({kind.content: content, "label": label}, seed_pair)
        if not isinstance(made, dict) or not {"view1", "view2"} <= made.keys():
            got = sorted(made) if isinstance(made, dict) else type(made).__name__
            raise ValueError(f"your views returned {got}; they must return a dict with 'view1' and 'view2'")
        return {"view1": made["view1"], "view2": made["view2"], "label": label}

    get = Fetch(find, census, replace=True)
    return _run(steps, get, kind.decoded, finish, seed=seed, rows=len(rows), endless=True, threads=threads)


def _recipe(example: dict[str, Any], seed: Any, *, kind: reading.Reading, views: Recipe, photometric: bool) -> dict[str, Any]:
    return kind.two_views(example[kind.content], seed, views, photometric)


def eval_batches(source: Source, views: Recipe, *, batch_size: int, shard: Shard, max_bad_share: float, threads: int | None) -> Batches:
    """See ``byol_jax.data.pipeline.eval_batches``, which has checked the arguments."""
    n, rows = len(source), shard.rows(batch_size)
    kind = reading.of(source)
    crop = kind.crop(views)
    find: Callable[[int, int], Candidates]
    if isinstance(source, WindowedSource):
        waiting = Waiting()
        find = functools.partial(waiting.take, fetch.Packer(n, crop))
        steps = _in_order(((0, window) for window in source.in_order()), n, batch_size, 0, rows, waiting)
    else:
        find = fetch.neighbours(n, kind.loader(source, crop))
        steps = ((index, np.zeros_like(index)) for index in order.one_pass(n, batch_size, rows))

    def finish(content: Any, label: Any, index: Any, seed_pair: Any) -> dict[str, Any]:
        return {kind.content: kind.prepared(content, views), "label": label, "index": index}

    get = Fetch(find, Census(n, max_bad_share), replace=False)
    lengths: dict[str, Any] = {"rows": len(rows), "endless": False, "batches": -(-n // batch_size)}
    return _run(steps, get, kind.decoded, finish, seed=0, threads=threads, **lengths)


class Waiting:
    """Records that have been read from a stream and wait for a thread to decode them."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, int], tuple[Window, int]] = {}

    def put(self, epoch: int, window: Window, place: int) -> int:
        """Keeps a record; its index."""
        index = int(window.index[place])
        self._places[epoch, index] = window, place
        return index

    def take(self, pack: fetch.Packer, index: int, epoch: int) -> Candidates:
        """The record and, should it be bad, those after it in its window, all around."""
        window, place = self._places.pop((epoch, index))
        for offset in range(len(window.index)):
            at = (place + offset) % len(window.index)
            number = int(window.index[at])
            yield number, functools.partial(_load, pack, window, at, number)


def _load(pack: fetch.Packer, window: Window, place: int, index: int) -> tuple[fetch.Packed, int]:
    data, label = window.load(place)
    return pack(index, data, functools.partial(window.name, place)), label


def _epochs(source: WindowedSource, seed: int, position: int) -> Iterator[tuple[int, Window]]:
    """Windows of one epoch after another, beginning with the one that holds the position."""
    epoch, place = divmod(position, len(source))
    while True:
        for window in source.shuffled(seed, epoch, place):
            yield epoch, window
            place = window.start + len(window.index)
        if place != len(source):
            raise ValueError(f"{source!r}: {place} records were read where {len(source)} are announced; prepare the data set again")
        epoch, place = epoch + 1, 0


def _in_order(
    windows: Iterator[tuple[int, Window]], n: int, batch_size: int, position: int, rows: range, waiting: Waiting
) -> Generator[Step, None, None]:
    """This process's rows of each batch, from windows read in order; what is not its own is never decoded."""
    mine: list[tuple[int, int]] = []
    for epoch, window in windows:
        for place in range(max(0, position - (epoch * n + window.start)), len(window.index)):
            row = position % batch_size
            if row in rows:
                mine.append((waiting.put(epoch, window, place), epoch))
            position += 1
            if position % batch_size == 0:
                yield _step(mine)
                mine = []
    if mine:
        yield _step(mine)


def _step(pairs: list[tuple[int, int]]) -> Step:
    index, epoch = np.array(pairs, np.int64).reshape(-1, 2).T
    return index, epoch


def _run(
    steps: Generator[Step, None, None],
    get: Fetch,
    decoded: Callable[[Any, Any], Any],
    finish: Callable[..., dict[str, Any]],
    *,
    seed: int,
    rows: int,
    endless: bool,
    threads: int | None,
    batches: int = 0,
) -> Batches:
    """Joins the parts into one tf.data pipeline, and wraps its iterator."""
    parallel = threads or tf.data.AUTOTUNE

    def feed() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        with get.remembering(), contextlib.closing(steps):  # left to the garbage collector, the end of a reader took it 25 s
            for index, epoch in steps:
                for some in (slice(start, start + AT_ONCE) for start in range(0, len(index), AT_ONCE)):
                    if get.stop.is_set():
                        return
                    yield index[some], epoch[some], order.example_seed(seed, epoch[some], index[some])

    def read(index: Any, epoch: Any, seed_pairs: Any) -> tuple[Any, ...]:
        data, sizes, labels, index = tf.numpy_function(get, [index, epoch], [tf.string, tf.int32, tf.int32, tf.int64], stateful=True)
        shapes = ([None], [None, 2], [None], [None])
        columns = [tf.ensure_shape(x, shape) for x, shape in zip((data, sizes, labels, index), shapes, strict=True)]
        return *columns, seed_pairs

    def example(data: Any, size: Any, label: Any, index: Any, seed_pair: Any) -> dict[str, Any]:
        return finish(decoded(data, size), label, index, seed_pair)

    def make() -> Iterator[Batch]:
        signature = (tf.TensorSpec([None], tf.int64), tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 2], tf.int64))
        data = tf.data.Dataset.from_generator(feed, output_signature=signature)
        data = data.map(read, num_parallel_calls=parallel, deterministic=True).unbatch()
        data = data.map(example, num_parallel_calls=parallel, deterministic=True)
        data = data.batch(rows, drop_remainder=endless).prefetch(2)
        return _plain(data, get) if endless else _kept(_plain(data, get), batches, data.element_spec)

    return Batches(make, ahead=1, bad_files=get.census.names, stop=get.stop)


def _plain(data: Any, get: Fetch) -> Iterator[Batch]:
    """The data set's batches as numpy arrays; errors as they were raised, not as tf.data reports them."""
    try:
        yield from data.as_numpy_iterator()
    except tf.errors.OpError as error:
        _let_go(error)
        if get.error is None:
            raise
        raise get.error from error


def _let_go(error: BaseException | None) -> None:
    """The frames of an error hold the iterator, whose threads work on until it is gone."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _kept(plain: Iterator[Batch], batches: int, spec: dict[str, Any]) -> Iterator[Batch]:
    """Evaluation batches without the rows given up, and empty ones of ``spec`` at the end if this shard has fewer than the others."""
    for batch in plain:
        kept = batch["index"] >= 0
        yield {key: value[kept] for key, value in batch.items()}
        batches -= 1
    for _ in range(batches):
        yield {key: np.empty((0, *one.shape[1:]), one.dtype.as_numpy_dtype) for key, one in spec.items()}
