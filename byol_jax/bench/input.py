"""Speed of the host's part: from files or arrays to batches of two views."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from byol_jax import build
from byol_jax.bench.result import Result, Row
from byol_jax.bench.setup import training_stream
from byol_jax.bench.timing import Lap, take_turns
from byol_jax.config import ConfigError, Spec
from byol_jax.views import Views

PEER = "official form: two decodings, float32"
WINDOW = 2.0  # seconds that a repeat measures, at least
SKIPPED = 2  # batches after the first that are not counted: buffers fill while it is waited for
HOW = f"A repeat opens the input anew, skips {SKIPPED + 1} batches and counts {WINDOW:g} s. Files were read before."


class Stopwatch:
    """Opens an input, waits for its first batch, then measures seconds a batch.

    Attributes:
      first: seconds to the first batch of every repeat.
    """

    def __init__(self, begin: Callable[[], contextlib.AbstractContextManager[Iterator[Any]]]) -> None:
        self.begin, self.first = begin, list[float]()

    def __call__(self) -> Lap:
        began = time.perf_counter()
        with self.begin() as batches:
            next(batches)
            self.first.append(time.perf_counter() - began)
            for _ in range(SKIPPED):
                next(batches)
            began, cpu, count = time.perf_counter(), time.process_time(), 0
            while count == 0 or time.perf_counter() - began < WINDOW:
                next(batches)
                count += 1
            return Lap((time.perf_counter() - began) / count, (time.process_time() - cpu) / count)


def host_input(spec: Spec, *, repeats: int, synthetic: bool, baseline: bool) -> Result:
    """Two-view samples a second as a run would get them; with ``baseline`` the official recipe's input in turns with it.

    Raises:
      ConfigError: synthetic data has no input; or a baseline of views of the user's own.
    """
    if synthetic:
        raise ConfigError(["--synthetic: bench input reads real files or arrays; experiments/speed/make_jpegs.py makes a folder of images"])
    source, views = build.train_source(spec), build.training_views(spec)
    watches = {"input": Stopwatch(lambda: training_stream(spec, source))}
    if baseline:
        if not isinstance(views, Views):
            raise ConfigError([f"--baseline: the official input knows no views.function = {spec.views.function!r}"])
        from byol_jax.data.decode_twice import official_batches  # needs TensorFlow, which arrays do without

        make = official_batches
        make(source, views, batch_size=spec.batch_size, seed=spec.seed)  # its errors before anything is measured
        watches[PEER] = Stopwatch(lambda: contextlib.nullcontext(make(source, views, batch_size=spec.batch_size, seed=spec.seed)))
    times = take_turns(watches, repeats, warm=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rows = tuple(Row(name, timed, spec.batch_size) for name, timed in times.items())
    facts = {
        "cores": cores,
        "samples_per_second_per_core": spec.batch_size / times["input"].median / cores,
        "first_batch_s": {name: statistics.median(watch.first[1:]) for name, watch in watches.items()},
    }
    return Result(rows, PEER if baseline else None, facts, (HOW,))
