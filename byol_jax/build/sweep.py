"""Runs a sweep, point after point, going on where it stopped, and writes its page."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from byol_jax import evaluate, parallel
from byol_jax.build import objects, runs
from byol_jax.config import ConfigError, Spec
from byol_jax.config.sweep import Point, Sweep
from byol_jax.config.tree import measured, measured_differences
from byol_jax.report.sweep import PAGE, write_page
from byol_jax.train.loop import Diverged
from byol_jax.workdir import folder as folder_of

RESULTS = "results.jsonl"


def sweep(study: Sweep, scale: str, folder: Path, workdir: str | os.PathLike[str], say: Callable[[str], None] = print) -> Path:
    """Trains and measures every point that ``folder/results.jsonl`` does not hold yet, seed by seed, and writes the page anew after each.

    A point whose run diverged is a result too: it is noted and the sweep goes on. Of several processes the first reads and writes
    ``folder``; all train what it finds missing.

    Args:
      folder: of the sweep's file, for its results and page.
      workdir: for the runs, one folder each below that of the scale; an interrupted run goes on from its checkpoint.

    Returns:
      The page's path.

    Raises:
      ConfigError: a point was measured with another configuration.
    """
    if parallel.is_main():
        _refuse_others(study, scale, folder)
    runs_in = folder_of(workdir) / scale
    todo = [(seed, point) for seed in study.scales[scale].seeds for point in study.at(scale)]
    for number, (seed, point) in enumerate(todo, 1):
        if parallel.of_main(parallel.is_main() and (scale, point.name, seed) in _known(folder)):
            continue
        say(f"[{number}/{len(todo)}] {point.name}, seed {seed}")
        spec = study.spec(point, scale, seed)
        of = {"scale": scale, "point": point.name, "seed": seed, "config": measured(spec)}
        row = {**of, **measure(spec, runs_in / _place(point, seed))}
        if parallel.is_main():
            add_result(folder, row)
            write_page(study, results(folder), folder)
    if parallel.is_main():
        write_page(study, results(folder), folder)
    return folder / PAGE


def _refuse_others(study: Sweep, scale: str, folder: Path) -> None:
    """Raises ConfigError for points that were another configuration's. Rows of earlier versions do not say so, and are believed."""
    points, errors = {point.name: point for point in study.at(scale)}, []
    for line, row in enumerate(results(folder), 1):
        if row["scale"] != scale or row["point"] not in points or "config" not in row:
            continue
        if others := measured_differences(row["config"], measured(study.spec(points[row["point"]], scale, row["seed"]))):
            text = f"point {row['point']!r}, seed {row['seed']}, was measured with another configuration: {'; '.join(others)}"
            errors.append(f"{folder / RESULTS}, line {line}: {text}; delete the line, and it runs again, or take the old values back")
    if errors:
        raise ConfigError(errors)


def _known(folder: Path) -> set[tuple[str, str, int]]:
    return {(row["scale"], row["point"], row["seed"]) for row in results(folder)}


def add_result(folder: Path, row: dict[str, Any]) -> None:
    """Notes what was measured, so that it is not measured again."""
    with (folder / RESULTS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def results(folder: Path) -> list[dict[str, Any]]:
    """The rows measured so far. Raises ConfigError for a line that cannot be read: a result is not dropped in silence."""
    file = folder / RESULTS
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines() if file.exists() else [], 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ConfigError(
                [f"{file}, line {number}: is no JSON ({error}); mend it or delete the line, and that point runs again"]
            ) from error
    return rows


def _place(point: Point, seed: int) -> Path:
    return Path(re.sub(r"[^\w.=-]+", "_", point.name).strip("_")) / f"seed{seed}"


def measure(spec: Spec, workdir: os.PathLike[str]) -> dict[str, Any]:
    """Trains as configured and judges the features; {"metrics": shares, ...} or, where the run diverged, {"diverged": why, ...}."""
    began = time.monotonic()
    try:
        run = runs.pretrain(spec, workdir)
    except Diverged as error:
        return {"diverged": str(error), "device": device()}
    trained = time.monotonic() - began
    spread: dict[str, float] = {name: run.metrics[name] for name in ("loss", "embedding_std", "rankme") if name in run.metrics}
    metrics = {**accuracies(spec, runs.load_encoder(workdir, spec=spec)), **spread}
    return {"metrics": metrics, "steps": run.step, "train_seconds": round(trained, 1), "device": device()}


def device() -> str:
    """What the numbers were measured on."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def accuracies(spec: Spec, encoder: evaluate.Encoder) -> dict[str, float]:
    """Top-1 by k-NN (k = 20), by L-BFGS with all labels and with 10 a class (mean of 3 draws), and by the paper's SGD."""
    train, test = evaluate.features(encoder, objects.labelled_source(spec)), evaluate.features(encoder, runs.test_or_error(spec))
    few = evaluate.few_labels({"BYOL": (train, test)}, labels=(10,))
    return {
        "knn": evaluate.knn_features(train, test, k=20).top1[20],
        "linear": evaluate.linear_features(train, test).top1,
        "linear_10": few.mean("BYOL", "linear", 10),
        "linear_sgd": evaluate.sgd_features(train, test).top1,
    }
