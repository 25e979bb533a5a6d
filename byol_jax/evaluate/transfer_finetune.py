"""Transfer to other data sets by fine-tuning the whole network (paper, Table 3 and Appendix D).

Batches of 256 for 20,000 steps; of 7 rates and 8 weight decays the best on the validation images, then trained again on training and
validation images together, and scored on the test images. Running averages keep max(1 - 10 / s, 0.9), s being the steps of an epoch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from byol_jax import parallel
from byol_jax.data.records import TfdsStream
from byol_jax.evaluate import finetune
from byol_jax.evaluate.encoder import Encoder
from byol_jax.evaluate.features import features
from byol_jax.evaluate.finetune import Setting, fitting_batch, transfer_bn_momentum, transfer_grid
from byol_jax.evaluate.grid import choose, digest, fingerprint, run_grid
from byol_jax.evaluate.metrics import METRICS
from byol_jax.evaluate.tasks import TASKS, Task
from byol_jax.evaluate.transfer import TransferResult, draw_validation, each_task, open_split, say_once, targets_of


class Numbered:
    """Images of several sources in a row; the label of each is its number there, and ``targets[number]`` what it stands for."""

    def __init__(self, parts: Sequence[tuple[Any, np.ndarray, np.ndarray]]) -> None:
        """parts: (source, positions in it, target of each of these positions)."""
        self._places = [(source, int(row)) for source, rows, _ in parts for row in rows]
        self.targets = np.concatenate([target for _, _, target in parts])
        self.labels = np.arange(len(self._places), dtype=np.int32)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        source, row = self._places[index]
        return {"image": source[row]["image"], "label": index}

    def encoded(self, index: int) -> tuple[bytes, int]:
        """The image's bytes, and its number."""
        source, row = self._places[index]
        return source.encoded(row)[0], index

    def describe(self, index: int) -> str:
        """As its source calls it."""
        source, row = self._places[index]
        return source.describe(row)


def transfer_fine_tune(
    encoder: Encoder,
    tasks: Sequence[str] = tuple(TASKS),
    *,
    settings: Sequence[Setting] = transfer_grid(),
    batch_size: int = 256,
    seed: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
) -> TransferResult:
    """Fine-tunes on the tasks, one after the other; arguments and errors as for ``transfer``, and:

    Args:
      settings: the grid, 56 by default; each finished one is kept below ``folder``.
      batch_size: of all devices together.
    """
    facts = {"encoder": fingerprint(encoder), "batch_size": batch_size, "seed": seed}

    def one(task: Task, place: Path) -> dict[str, Any]:
        say_once(say, f"{task.name}: fine-tuning at {len(settings)} settings")
        inner = None if folder is None else Path(folder) / task.name
        return run_task(task, encoder, *open_parts(task, place), settings=settings, batch_size=batch_size, seed=seed, folder=inner)

    every = {**facts, "settings": [setting.name for setting in settings]}
    return TransferResult("fine-tuned", *each_task(tasks, one, data_dir=data_dir, folder=folder, facts=every, say=say))


def run_task(
    task: Task,
    encoder: Encoder,
    train: Numbered,
    valid: Numbered,
    both: Numbered,
    test: Numbered,
    *,
    settings: Sequence[Setting],
    batch_size: int,
    seed: int,
    folder: Path | None,
) -> dict[str, Any]:
    """Chooses the setting on ``valid``, trains again on ``both``, scores on ``test``. Returns the entry of a ``TransferResult``."""
    metric, targets = METRICS[task.metric], [part.targets for part in (both, test)]
    classes = targets[0].shape[1] if targets[0].ndim == 2 else 1 + int(max(target.max() for target in targets))

    def score(setting: Setting, source: Numbered, judged: Numbered) -> float:
        momentum = transfer_bn_momentum(len(source), fitting_batch(batch_size, len(source), parallel.data_mesh()))
        options: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "bn_momentum": momentum, "targets": source.targets}
        logits = features(finetune.train(encoder, source, setting, classes, **options), judged)
        return metric(logits.embedding, judged.targets[logits.label])

    facts = {"encoder": fingerprint(encoder), "batch_size": batch_size, "seed": seed, "train": digest(train.targets)}
    facts |= {"valid": digest(valid.targets)}
    tried = run_grid(settings, lambda setting: {"validation": score(setting, train, valid)}, folder, facts)
    validation = {setting: scores["validation"] for setting, scores in tried.items()}
    choice = choose(validation)
    result = {"score": score(choice, both, test), "metric": task.metric, "choice": choice.name}
    sizes = [len(train), len(valid), len(test)]
    return {**result, "validation": {setting.name: value for setting, value in validation.items()}, "sizes": sizes}


def open_parts(task: Task, place: Path) -> tuple[Numbered, Numbered, Numbered, Numbered]:
    """Training images, validation images, both, test images.

    Raises:
      ValueError: a split in TFRecord files, which cannot be read in any order.
    """
    opened = [_open(task, place, split) for split in (*task.splits, task.test)]
    everything = [(source, np.arange(len(source)), target) for source, target in opened]
    *learnt, test = everything
    if len(learnt) == 1:
        source, _, target = learnt[0]
        learnt = [(source, rows, target[rows]) for rows in draw_validation(task, len(source))]
    return Numbered(learnt[:1]), Numbered(learnt[1:]), Numbered(learnt), Numbered([test])


def _open(task: Task, place: Path, split: str) -> tuple[Any, np.ndarray]:
    source = open_split(task, place, split)
    if isinstance(source, TfdsStream):
        raise ValueError(f"{task.name}: stands in TFRecord files, fine-tuning wants array_record: in another --data-dir, {task.prepare()}")
    return source, targets_of(task, source)
