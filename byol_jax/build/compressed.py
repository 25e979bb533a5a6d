"""What compression gained and cost: accuracy, size, latency and throughput of every level beside the original."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from byol_jax import compress, data, evaluate, parallel
from byol_jax.build import objects, runs
from byol_jax.build.compress import LEVELS, Settings, check_levels, make, origin
from byol_jax.checkpoint import Checkpoints
from byol_jax.config import ConfigError, Spec
from byol_jax.evaluate.result import percent
from byol_jax.workdir import folder

ORIGINAL = "original"
ROWS = 64  # of a batch whose throughput is measured


@dataclass(frozen=True)
class Row:
    """One encoder.

    Attributes:
      knn, linear: top-1 accuracy as shares; None without labelled test data.
      bytes: of a checkpoint of the encoder alone, as Orbax writes it, compressed by zstd.
      parameters: that are not 0. embedding: its dimensions.
      latency: median seconds of one example, from the host's array to the host's embedding; throughput: examples a second, 64 at a time.
      processor: median seconds of processor time of such a 64, which other work on the machine moves less.
    """

    knn: float | None
    linear: float | None
    bytes: int
    parameters: int
    embedding: int
    latency: float
    throughput: float
    processor: float


@dataclass(frozen=True)
class CompressResult(evaluate.Result):
    """Rows by level, the original first; ``device`` and ``repeats`` of the timing (there and back), and how the levels were made."""

    levels: dict[str, Row]
    device: str
    repeats: int
    settings: dict[str, Any]

    def rows(self) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
        first = self.levels[ORIGINAL]
        title = f"compression, latency of 1 and throughput of {ROWS} on {self.device}, median of {2 * self.repeats}"
        headings = ("level", "k-NN %", "linear %", "kB", "size", "parameters", "D", "ms", "a second", "faster", "CPU ms")
        return title, headings, [_cells(name, row, first) for name, row in self.levels.items()]


def _cells(name: str, row: Row, first: Row) -> tuple[str, ...]:
    accuracy = ("-" if value is None else percent(value) for value in (row.knn, row.linear))
    size = (f"{row.bytes / 1000:,.0f}", f"{row.bytes / first.bytes:.2f}", f"{row.parameters:,}", str(row.embedding))
    return (
        name,
        *accuracy,
        *size,
        f"{1000 * row.latency:.2f}",
        f"{row.throughput:,.0f}",
        f"{row.throughput / first.throughput:.2f}",
        f"{1000 * row.processor:.2f}",
    )


def compressed(
    workdir: str | os.PathLike[str],
    spec: Spec,
    to: str | os.PathLike[str],
    *,
    levels: tuple[str, ...] = LEVELS,
    settings: Settings = Settings(),
    step: int | None = None,
    repeats: int = 10,
) -> tuple[CompressResult, Any]:
    """Makes every level of the run as a run below ``to``, and measures all; (the result, the JSON file it was saved in).

    A level that stands there already is not made again, and one whose training was interrupted goes on.

    Raises:
      ConfigError: among others, a level of another making is in its folder.
    """
    if jax.process_count() > 1:
        raise ConfigError(["compress: is made for one process; start it on one host"])
    if repeats < 1:
        raise ConfigError([f"--repeats {repeats}: must be 1 or more"])
    check_levels(levels, settings)
    run = origin(workdir, spec, step, settings)
    folders = {level: make(run, level, to, settings) for level in levels}
    alone = parallel.data_mesh(jax.local_devices()[:1])  # one example is not to be spread over devices
    encoders = {ORIGINAL: runs.load_encoder(workdir, step=step, spec=spec, mesh=alone)}
    encoders |= {level: runs.load_encoder(place, mesh=alone) for level, place in folders.items()}
    stored = {ORIGINAL: variables_of(workdir, step)} | {level: variables_of(place) for level, place in folders.items()}
    examples = _examples(spec)
    seconds = _seconds(encoders, examples, repeats)
    accuracy = _accuracies(spec, encoders)
    width = {name: encoder(examples[:1]).shape[1] for name, encoder in encoders.items()}
    found = {name: Row(*accuracy[name], *_size(stored[name]), width[name], *seconds[name]) for name in encoders}
    result = CompressResult(found, jax.local_devices()[0].device_kind, repeats, asdict(settings))
    return result, evaluate.save(to, "compress", result, runs.measured_on(workdir, spec, step))


def variables_of(workdir: str | os.PathLike[str], step: int | None = None) -> dict[str, Any]:
    """The online encoder's variables as they are stored."""
    checkpoints = Checkpoints(folder(workdir) / "checkpoints", read_only=True)
    try:
        online = checkpoints.restore_raw(["online"], step)["online"]
    finally:
        checkpoints.close()
    return {kind: tree["encoder"] for kind, tree in online.items() if "encoder" in tree}


def stored_bytes(variables: Any) -> int:
    """Bytes of the files that a checkpoint of an encoder alone takes, by what it holds."""
    with tempfile.TemporaryDirectory() as place:
        checkpoints = Checkpoints(Path(place) / "checkpoints")
        try:
            checkpoints.save(0, {"online": {kind: {"encoder": tree} for kind, tree in variables.items()}}, force=True)
        finally:
            checkpoints.close()
        return sum(file.stat().st_size for file in (Path(place) / "checkpoints" / "0" / "state").rglob("*") if file.is_file())


def _size(variables: Any) -> tuple[int, int]:
    weights = compress.floating(variables)["params"]
    return stored_bytes(variables), sum(int(np.count_nonzero(leaf)) for leaf in jax.tree.leaves(weights))


def _examples(spec: Spec) -> np.ndarray:
    """A batch as a user hands it to the encoder."""
    views = objects.recipe(spec)
    source = data.spread(objects.test_source(spec) or objects.train_source(spec), ROWS)
    with data.eval_batches(source, views, batch_size=ROWS, max_bad_share=1.0) as batches:
        given = next(batches)[views.content]
    return np.resize(given, (ROWS, *given.shape[1:]))


def _seconds(encoders: dict[str, evaluate.Encoder], examples: np.ndarray, repeats: int) -> dict[str, tuple[float, float, float]]:
    """(seconds of one, examples a second, processor seconds of 64), medians of the levels measured in turns.

    Half of the rounds go backwards: on a shared machine whoever follows the slowest gets less of the processor.
    """
    from byol_jax.bench.timing import in_turns  # bench looks at build

    def medians(rows: int) -> dict[str, tuple[float, ...]]:
        calls: dict[str, Callable[[], Any]] = {name: partial(encoder, examples[:rows]) for name, encoder in encoders.items()}
        there, back = in_turns(calls, repeats), in_turns(dict(reversed(calls.items())), repeats)
        pairs = {name: (there[name], back[name]) for name in calls}
        return {name: tuple(_median(pair, kind) for kind in ("seconds", "cpu")) for name, pair in pairs.items()}

    one, many = medians(1), medians(ROWS)
    return {name: (one[name][0], ROWS / many[name][0], many[name][1]) for name in encoders}


def _median(pair: tuple[Any, Any], kind: str) -> float:
    return statistics.median([second for timed in pair for second in getattr(timed, kind)])


def _accuracies(spec: Spec, encoders: dict[str, evaluate.Encoder]) -> dict[str, tuple[float | None, float | None]]:
    train, test = objects.labelled_source(spec), objects.test_source(spec)
    if test is None or any(label is None or (label < 0).any() for label in (data.labels_of(train), data.labels_of(test))):
        return dict.fromkeys(encoders, (None, None))
    found: dict[str, tuple[float | None, float | None]] = {}
    for name, encoder in encoders.items():
        both = evaluate.features(encoder, train), evaluate.features(encoder, test)
        k = spec.evaluation.knn_k
        found[name] = evaluate.knn_features(*both, k=k).top1[k], evaluate.linear_features(*both).top1
    return found
