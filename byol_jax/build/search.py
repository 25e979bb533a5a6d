"""Runs a search, trial after trial, going on where it stopped, and writes its page."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from byol_jax import data
from byol_jax.build import objects, runs
from byol_jax.build.suggest import STATES, optuna_or_error, suggest
from byol_jax.build.sweep import RESULTS, accuracies, add_result, device, results
from byol_jax.checkpoint import CheckpointError
from byol_jax.config import ConfigError, Spec, digest
from byol_jax.config.search import Search
from byol_jax.config.tree import measured_differences
from byol_jax.report.history import read_metrics
from byol_jax.report.search import write_page
from byol_jax.train import Diverged, Judge, Stopped
from byol_jax.train.start import evaluation_interval
from byol_jax.workdir import folder as folder_of

Stops = Callable[[int, float], bool]  # (number of the evaluation, k-NN accuracy) -> whether the run ends there
Train = Callable[[Search, Spec, Any, Stops], dict[str, Any]]
HOPELESS = 3  # failed trials, and no other, that end a search: the mistake is a general one


def search(
    study: Search, folder: Path, workdir: str | os.PathLike[str], say: Callable[[str], None] = print, train: Train | None = None
) -> Path:
    """Runs every trial that ``folder/results.jsonl`` does not hold yet, and writes the page anew after each.

    A trial that was interrupted goes on from its checkpoint. One that is stopped early, diverges, or cannot be run with its values
    (settings that do not fit together, not enough memory) is a result too.

    Args:
      folder: of the search's file, for its results and page.
      workdir: for the runs, one folder each.
      train: runs one trial; its row of results.jsonl, less number and values.

    Returns:
      The page's path.

    Raises:
      ConfigError: Optuna is missing, there are several processes, the data has no labels, or the results are of another search.
      ValueError: the first trials all failed; this is the error of the last.
    """
    if jax.process_count() > 1:
        raise ConfigError(
            [f"SEARCH: a search runs in one process, on all its devices; here are {jax.process_count()}: start it on one host"]
        )
    optuna_or_error()
    if train is None:
        _refuse_unlabelled(study)
        train = functools.partial(trained, examples=len(objects.train_source(study.spec({}))))
    for number in range(study.trials):
        if number not in trials(study, folder):
            _trial(study, number, folder, folder_of(workdir), say, train)
    return write_page(study, list(trials(study, folder).values()), folder)


def _refuse_unlabelled(study: Search) -> None:
    """Raises ConfigError where the accuracy could not be measured, which else the end of the first run would show."""
    spec, errors = study.spec({}), []
    known, test = objects.labelled_source(spec), runs.test_or_error(spec)
    enough, rule, advice = np.all, "each", "give a split or a folder with labels, or metric = 'knn', which takes those that have one"
    if study.metric == "knn":
        known = data.spread(known, spec.evaluation.monitor_examples)  # as the run itself does
        enough, rule, advice = np.any, "at least one", "give a split or a folder with labels"
    voters = "labelled_split" if spec.data.labelled_split else "split"
    asked = "test_split" if spec.data.test_path is None else "test_path"
    for key, source in ((voters, known), (asked, test)):
        label = data.labels_of(source)
        if label is None or not enough(label >= 0):
            some = 0 if label is None else int((label >= 0).sum())
            told = f"data.{key} = {getattr(spec.data, key)!r}: {some} of {len(source)} examples have a label"
            errors.append(f"{told}; metric = {study.metric!r} needs a label of {rule}: {advice}")
    if errors:
        raise ConfigError(errors)


def _trial(study: Search, number: int, folder: Path, workdir: Any, say: Callable[[str], None], train: Train) -> None:
    """A function of its own, so that a failed run's arrays, which its error holds, are gone before the next run."""
    before = [row for other, row in sorted(trials(study, folder).items()) if other < number]
    suggestion = suggest(study, before, number)
    say(f"[{number + 1}/{study.trials}] " + ", ".join(f"{key} = {value!r}" for key, value in suggestion.values.items()))
    row, error = _outcome(study, suggestion.values, workdir / f"trial{number:03d}", suggestion.stops, train)
    of = {"metric": study.metric, "config": study.measured()}
    add_result(folder, {"trial": number, "values": suggestion.values, **row, **of, "device": device()})
    say(f"  {row['state']}" + (f", {study.metric} {row['value']:.4f}" if row["state"] == "complete" else ""))
    rows = list(trials(study, folder).values())
    write_page(study, rows, folder)
    if error is not None and len(rows) >= HOPELESS and all(row["state"] == "failed" for row in rows):
        raise error


def trials(study: Search, folder: Path) -> dict[int, dict[str, Any]]:
    """Number -> row of the trials measured so far. Raises ConfigError for a line that is not of this search.

    Rows of earlier versions do not say what was measured, and are believed.
    """
    found: dict[int, dict[str, Any]] = {}
    here = study.measured()
    for line, row in enumerate(results(folder), 1):
        where = f"{folder / RESULTS}, line {line}"
        if row.get("state") not in STATES or "trial" not in row:
            raise ConfigError([f"{where}: is no trial of a search; a search wants a folder of its own"])
        values = row["values"]
        wrong = [
            key
            for key in {**study.space, **values}
            if key not in study.space or key not in values or not study.space[key].holds(values[key])
        ]
        if wrong:
            text = f"trial {row['trial']} was made in another space: {wrong[0]} = {values.get(wrong[0], 'not there')!r}"
            raise ConfigError([f"{where}: {text}; move the file away to search anew, or take the old space back"])
        others = [f"metric: {row['metric']!r} there, {study.metric!r} here"] if row.get("metric", study.metric) != study.metric else []
        if others := others + measured_differences(row.get("config", here), here):
            text = f"trial {row['trial']} is of another search: {'; '.join(others)}"
            raise ConfigError([f"{where}: {text}; move the file away to search anew, or take the old values back"])
        found[row["trial"]] = row
    return found


def _outcome(study: Search, values: dict[str, Any], place: Any, stops: Stops, train: Train) -> tuple[dict[str, Any], Exception | None]:
    """The row of a trial, and the error where it could not be run."""
    try:
        spec = study.spec(values)
        return train(study, spec, place.with_name(f"{place.name}-{digest(spec)}"), stops), None
    except CheckpointError:  # the disk, not the values
        raise
    except (ValueError, jax.errors.JaxRuntimeError) as error:
        return {"state": "failed", "knn": [], "why": str(error)[:500]}, error


def trained(study: Search, spec: Spec, workdir: Any, stops: Stops, *, examples: int) -> dict[str, Any]:
    """Runs one trial, or goes on with it: {"state": "complete", "pruned" or "diverged", "knn": [[evaluation, accuracy], ...], ...}."""
    began, seen, steps = time.monotonic(), dict[int, float](), objects.steps(spec, examples)
    every = evaluation_interval(spec.evaluation.every_epochs, steps, examples, spec.batch_size)

    def judge(done: int, accuracy: float) -> bool:
        evaluation = -(-done // every)
        seen[evaluation] = accuracy
        return stops(evaluation, accuracy) and done < steps

    for done, accuracy in earlier(workdir):
        judge(done, accuracy)
    row: dict[str, Any]
    try:
        run = runs.pretrain(spec, workdir, hooks=[Judge("knn_top1", judge)])
        value = run.metrics["knn_top1"] if study.metric == "knn" else accuracies(spec, runs.load_encoder(workdir, spec=spec))[study.metric]
        row = {"state": "complete", "value": value, "epoch": run.step * spec.batch_size / examples}
    except Stopped as stopped:
        row = {"state": "pruned", "epoch": stopped.done * spec.batch_size / examples}
    except Diverged as error:
        row = {"state": "diverged", "why": str(error)}
    return {**row, "knn": sorted(seen.items()), "seconds": round(time.monotonic() - began, 1)}


def earlier(workdir: Any) -> list[tuple[int, float]]:
    """(updates made, k-NN accuracy) of the evaluations before a run was interrupted."""
    curve = read_metrics(workdir).get("knn_top1") if (workdir / "metrics.jsonl").is_file() else None
    return [] if curve is None else list(zip(curve.steps.tolist(), curve.values.tolist(), strict=True))
