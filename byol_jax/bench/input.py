"""Speed of the host's part: from files or arrays to batches of two views."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from byol_jax import build
from byol_jax.bench import lightly
from byol_jax.bench.result import OFFICIAL, Result, Row, cores
from byol_jax.bench.setup import training_stream
from byol_jax.bench.timing import Lap, take_turns
from byol_jax.config import ConfigError, Spec
from byol_jax.views import Views

PEER = "official form: two decodings, float32"
WINDOW = 2.0  # seconds that a repeat measures, at least
SKIPPED = 2  # batches after the first that are not counted: buffers fill while it is waited for
HOW = f"A repeat opens the input anew, skips {SKIPPED + 1} batches or more and counts {WINDOW:g} s or more. Files were read before."

NOT_OF_A_RUN = "data.on_device = True: a run's host sends indices alone. What was measured is its input with data.on_device = False."


class Stopwatch:
    """Opens an input, waits for its first batch, then measures seconds a batch.

    Attributes:
      together: batches that are made at the same time, one by each worker: whole rounds of them are skipped and counted.
      first: seconds to the first batch of every repeat.
    """

    def __init__(self, begin: Callable[[], contextlib.AbstractContextManager[Iterator[Any]]], together: int = 1) -> None:
        self.begin, self.together, self.first = begin, together, list[float]()

    def __call__(self) -> Lap:
        began = time.perf_counter()
        with self.begin() as batches:
            next(batches)
            self.first.append(time.perf_counter() - began)
            for _ in range(SKIPPED + -(1 + SKIPPED) % self.together):
                next(batches)
            began, cpu, count = time.perf_counter(), processor_time(), 0
            while count == 0 or count % self.together or time.perf_counter() - began < WINDOW:
                next(batches)
                count += 1
            return Lap((time.perf_counter() - began) / count, (processor_time() - cpu) / count)


def processor_time() -> float:
    """Seconds of this process's threads, and of its worker processes that live, as far as /proc (Linux) tells of them."""
    files = [Path(f"/proc/{child.pid}/stat") for child in multiprocessing.active_children()]
    # After the command's name, which may hold anything and ends in the last bracket: utime and stime are the 12th and 13th field.
    fields = [file.read_text().rpartition(")")[2].split() for file in files if file.exists()]
    ticks = sum(int(each[11]) + int(each[12]) for each in fields)
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


Inputs = dict[str, Stopwatch]


def host_input(spec: Spec, *, repeats: int, synthetic: bool, baseline: bool, peer: str | None) -> Result:
    """Two-view samples a second as a run would get them; with ``baseline`` the official recipe's input, with ``peer`` lightly's, in turns.

    Raises:
      ConfigError: synthetic data has no input; or a source or views that a peer cannot have.
    """
    if synthetic:
        raise ConfigError(["--synthetic: bench input reads real files or arrays; experiments/speed/make_jpegs.py makes a folder of images"])
    module = lightly.for_input(spec) if peer else None
    source = build.train_source(spec)
    peers = (_official(spec, source) if baseline else {}) | (_lightly(spec, source, module) if module else {})
    watches = {"input": Stopwatch(lambda: training_stream(spec, source)), **peers}
    times = take_turns(watches, repeats, warm=True)
    rows = tuple(Row(name, timed, spec.batch_size) for name, timed in times.items())
    facts = {
        "cores": cores(),
        "samples_per_second_per_core": spec.batch_size / times["input"].median / cores(),
        "first_batch_s": {name: statistics.median(watch.first[1:]) for name, watch in watches.items()},
    }
    names = {OFFICIAL if name == PEER else name: name for name in peers}
    notes = [NOT_OF_A_RUN] * spec.data.on_device + [HOW] + ([lightly.input_note(spec)] if peer else [])
    return Result(rows, names, facts, tuple(notes))


def _official(spec: Spec, source: Any) -> Inputs:
    views = build.training_views(spec)
    if not isinstance(views, Views):
        key, value = ("views.function", spec.views.function) if callable(views) else ("text.preset", spec.text.preset)
        raise ConfigError([f"--baseline: the official input knows no {key} = {value!r}"])
    from byol_jax.data.decode_twice import official_batches  # needs TensorFlow, which arrays do without

    make = official_batches
    make(source, views, batch_size=spec.batch_size, seed=spec.seed)  # its errors before anything is measured
    return {PEER: Stopwatch(lambda: contextlib.nullcontext(make(source, views, batch_size=spec.batch_size, seed=spec.seed)))}


def _lightly(spec: Spec, source: Any, theirs: Any) -> Inputs:
    recipe = spec.views.recipe()
    transforms = {lightly.NAME: theirs.whole(recipe)}
    if spec.data.augment_on == "device":
        transforms[lightly.CROPS] = theirs.crops(recipe)
    return {name: Stopwatch(partial(theirs.batches, source, made, spec.batch_size), cores()) for name, made in transforms.items()}
