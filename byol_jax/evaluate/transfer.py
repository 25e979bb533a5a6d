"""Transfer to other data sets by a linear classifier on frozen features (paper, Table 3 and Appendix D).

Logistic regression by L-BFGS with an L2 penalty, multinomial or, where an image has several labels, one class against the rest. No
augmentation: the central square of each image. The penalty is chosen among 45 values from 1e-6 to 1e5 on the validation images; then
everything is fitted again on training and validation images together, and scored on the test images. Features are used as they are.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import numpy as np

from byol_jax import data
from byol_jax.data.files import folder_classes
from byol_jax.data.prepared import prepared_length
from byol_jax.data.records import several_labels
from byol_jax.evaluate.encoder import Encoder
from byol_jax.evaluate.features import features
from byol_jax.evaluate.grid import fingerprint, run_grid
from byol_jax.evaluate.linear import L2_PATH, fit_arrays, logits_of
from byol_jax.evaluate.metrics import METRICS
from byol_jax.evaluate.progress import tracked
from byol_jax.evaluate.result import Result, percent
from byol_jax.evaluate.tasks import TASKS, Task


@dataclass(frozen=True)
class Part:
    """Features [N, D] of one part of a task, and targets: int[N], or [N, C] of 1, 0 and -1 (not counted) for several labels."""

    embedding: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.target)

    def take(self, rows: np.ndarray) -> Part:
        return Part(self.embedding[rows], self.target[rows])


@dataclass(frozen=True)
class TransferResult(Result):
    """What each task gave: ``score`` as a share, ``metric``, ``choice``, ``validation`` by what there was to choose, ``sizes``; and which
    were not there, with how to prepare them."""

    text_columns: ClassVar[tuple[int, ...]] = (0, 1)

    protocol: Literal["linear", "fine-tuned"]
    tasks: dict[str, dict[str, Any]]
    skipped: dict[str, str]

    def rows(self) -> tuple[str, Sequence[str], Sequence[Sequence[str]]]:
        count = f"{len(self.tasks)} of {len(self.tasks) + len(self.skipped)}"
        title = f"Transfer, {self.protocol}, on {count} data sets; paper: BYOL, ResNet-50, 1000 epochs"
        cells = [self._row(TASKS[name], found) for name, found in self.tasks.items()]
        cells += [(name, TASKS[name].metric, "not there", self._paper(TASKS[name]), "", "") for name in self.skipped]
        return title, ("data set", "metric", "%", "paper", "chosen", "train/valid/test"), cells

    def _row(self, task: Task, found: Mapping[str, Any]) -> tuple[str, ...]:
        sizes = "/".join(map(str, found["sizes"])) + ("" if tuple(found["sizes"]) == task.sizes else " (not the paper's)")
        return task.name, task.metric, percent(found["score"]), self._paper(task), found["choice"], sizes

    def _paper(self, task: Task) -> str:
        return f"{task.linear if self.protocol == 'linear' else task.fine_tuned:.1f}"


def transfer(
    encoder: Encoder,
    tasks: Sequence[str] = tuple(TASKS),
    *,
    data_dir: str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    penalties: Sequence[float] = L2_PATH,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
) -> TransferResult:
    """Runs the tasks, one after the other; one whose data is not prepared is skipped, and ``say`` tells how to prepare it.

    Args:
      encoder: frozen; images are resized to its views' size.
      tasks: names among ``TASKS``.
      data_dir: of the prepared data; None is TFDS's own default ($TFDS_DATA_DIR, or ~/tensorflow_datasets).
      folder: where each finished task is kept as JSON; with the same encoder, penalties and ``data_dir`` it is not run again.
      penalties: to choose among.

    Raises:
      ValueError: an unknown task; or none of them is there, with what to do for each.
    """
    square = Encoder(encoder.module, encoder.variables, dataclasses.replace(encoder.image_views, eval_crop=1.0))

    def one(task: Task, place: Path) -> dict[str, Any]:
        say_once(say, f"{task.name}: embedding its images")
        return run_task(task, *load(task, square, place), penalties)

    facts = {"encoder": fingerprint(square), "penalties": list(penalties)}
    return TransferResult("linear", *each_task(tasks, one, data_dir=data_dir, folder=folder, facts=facts, say=say))


def each_task(
    tasks: Sequence[str],
    one: Callable[[Task, Path], dict[str, Any]],
    *,
    data_dir: str | os.PathLike[str] | None,
    folder: str | os.PathLike[str] | None,
    facts: Mapping[str, Any],
    say: Callable[[str], None],
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """(what ``one(task, data_dir)`` gave, by task; what to do for those that are not there). Arguments and errors as for ``transfer``."""
    chosen = [_task(name) for name in tasks]
    place = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    skipped: dict[str, str] = {}

    def run(task: Task) -> dict[str, Any] | None:
        if is_prepared(task, place):
            return one(task, place)
        skipped[task.name] = task.prepare().replace("DATA_DIR", str(place))
        say_once(say, f"{task.name}: is not in {place}; skipped. {skipped[task.name]}")
        return None

    found = run_grid(chosen, run, folder, {**facts, "data_dir": str(place)})
    if not found:
        raise ValueError("\n  ".join([f"--data-dir {place}: none of the data sets is there; prepare one:", *skipped.values()]))
    return {task.name: scores for task, scores in found.items()}, skipped


def run_task(task: Task, train: Part, valid: Part, test: Part, penalties: Sequence[float] = L2_PATH) -> dict[str, Any]:
    """Chooses the penalty on ``valid``, fits again on both, scores on ``test``. Returns the entry of a ``TransferResult``."""
    metric = METRICS[task.metric]
    targets = [part.target for part in (train, valid, test)]
    classes = targets[0].shape[1] if targets[0].ndim == 2 else 1 + int(max(target.max() for target in targets))
    validation: dict[float, float] = {}
    classifier = None
    falling = sorted(penalties, reverse=True)  # each fit is the start of the next
    for l2 in tracked(falling, len(falling), f"{task.name}, penalties"):
        classifier = fit_arrays(train.embedding, train.target, l2, classes, start=classifier, max_iterations=500, tolerance=1e-5)
        validation[l2] = metric(logits_of(classifier, valid.embedding), valid.target)
    choice = max(validation, key=lambda l2: validation[l2])  # the stronger penalty among equals
    both = np.concatenate([train.embedding, valid.embedding]), np.concatenate([train.target, valid.target])
    final = fit_arrays(*both, choice, classes, max_iterations=1000)
    score = metric(logits_of(final, test.embedding), test.target)
    sizes = [len(train), len(valid), len(test)]
    by_penalty = {f"{l2:.4g}": validation[l2] for l2 in sorted(penalties)}
    return {"score": score, "metric": task.metric, "choice": f"l2 {choice:.3g}", "validation": by_penalty, "sizes": sizes}


def load(task: Task, encoder: Encoder, place: Path) -> tuple[Part, Part, Part]:
    """Features of the training, validation and test images."""
    train, *valid = (embed(task, encoder, place, split) for split in task.splits)
    test = embed(task, encoder, place, task.test)
    if valid:
        return train, valid[0], test
    kept, held = draw_validation(task, len(train))
    return train.take(kept), train.take(held), test


def draw_validation(task: Task, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the training and of the validation images, sorted, where there is one split for both: the same for every run."""
    held = np.sort(np.random.default_rng(0).permutation(examples)[: round(task.held_out * examples)])
    return np.setdiff1d(np.arange(examples), held), held


def embed(task: Task, encoder: Encoder, place: Path, split: str) -> Part:
    """Features and targets of one split."""
    source = open_split(task, place, split)
    found = features(encoder, source)
    return Part(found.embedding, targets_of(task, source)[found.index])


def open_split(task: Task, place: Path, split: str) -> Any:
    """The images of one split, as a source; the classes of folders are those of the first split, the training images."""
    if task.tfds is not None:
        return data.tfds(task.tfds, split, data_dir=place)
    return data.folder(place / task.name / split, class_names=folder_classes(place / task.name / task.splits[0]))


def targets_of(task: Task, source: Any) -> np.ndarray:
    """Targets of every example of a split, as in ``Part``. Raises ValueError where an image has none."""
    if task.certain is not None:
        return several_labels(source, task.labels, task.certain)
    label = data.labels_of(source)
    if label is None or (label < 0).any():
        raise ValueError(f"{task.name}: {source!r} has images without a label")
    return label


def is_prepared(task: Task, place: Path) -> bool:
    """Whether all the splits stand on this disk. Reads notes and folders only: no TensorFlow, no download."""
    splits = (*task.splits, task.test)
    if task.tfds is None:
        return all((place / task.name / split).is_dir() for split in splits)
    return all(prepared_length(task.tfds, split, place) is not None for split in splits)


def _task(name: str) -> Task:
    if name not in TASKS:
        raise ValueError(f"--tasks {name}: is not one of {', '.join(TASKS)}{data.arrays.nearest(name, TASKS)}")
    return TASKS[name]


def say_once(say: Callable[[str], None], text: str) -> None:
    if jax.process_index() == 0:
        say(text)
