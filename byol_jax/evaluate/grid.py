"""A grid of fine-tuning settings: every point trained once, its numbers kept as a file, the best on held-out images chosen."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import jax
import numpy as np

from byol_jax.data.source import labels_of
from byol_jax.evaluate import finetune
from byol_jax.evaluate.encoder import Encoder
from byol_jax.evaluate.features import Features, features
from byol_jax.evaluate.finetune import Setting
from byol_jax.evaluate.linear import score_logits, several_classes
from byol_jax.evaluate.result import Result, percent
from byol_jax.workdir import folder as folder_of
from byol_jax.workdir import write_text

Scores = dict[str, Any]


class Named(Protocol):
    """A point of a grid: hashable, and its name is that of its file."""

    @property
    def name(self) -> str:
        """Unique in its folder."""


Point = TypeVar("Point", bound=Named)


@dataclass(frozen=True)
class FineTuneResult(Result):
    """Test accuracy, as shares, of the setting that was best on the held-out images; ``held_out``: their top-1 accuracy by setting."""

    text_columns: ClassVar[tuple[int, ...]] = (0,)

    top1: float
    top5: float
    choice: str
    held_out: dict[str, float]
    train_examples: int
    held_out_examples: int
    test_examples: int
    classes: int

    def rows(self) -> tuple[str, Sequence[str], Sequence[Sequence[str]]]:
        title = f"Fine-tuned on {self.train_examples:,} images, chosen on {self.held_out_examples:,}, {self.test_examples:,} test examples"
        chosen = {self.choice: (percent(self.top1), percent(self.top5))}
        cells = [(name, percent(held), *chosen.get(name, ("", ""))) for name, held in self.held_out.items()]
        return title, ("setting", "held-out top-1 %", "test top-1 %", "test top-5 %"), cells


def fine_tune(
    encoder: Encoder,
    train: Any,
    held_out: Any,
    test: Any,
    *,
    settings: Sequence[Setting],
    batch_size: int = 1024,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
) -> FineTuneResult:
    """Fine-tunes at every setting on ``train``, chooses on ``held_out``, reports on ``test``: the paper's semi-supervised protocol.

    Args:
      encoder: what to start from; not changed.
      train, held_out, test: labelled sources, disjoint.
      settings: the grid; see ``finetune.semi_supervised_grid``.
      folder: where each finished setting is kept; going on with the same encoder, data and seed, these are not trained again.

    Raises:
      ValueError: no settings, an example without a label, or a single class.
    """
    if not settings:
        raise ValueError("settings: is empty; give at least one, see finetune.semi_supervised_grid")
    label = {name: _labels(source) for name, source in (("train", train), ("held_out", held_out), ("test", test))}
    classes = several_classes(*(Features(np.zeros((len(rows), 1), np.float32), rows) for rows in label.values()))
    facts = {"encoder": fingerprint(encoder), "batch_size": batch_size, "seed": seed}
    facts |= {name: digest(rows) for name, rows in label.items()}

    def one(setting: Setting) -> Scores:
        tuned = finetune.train(encoder, train, setting, classes, batch_size=batch_size, seed=seed)
        held, tested = (score_logits(features(tuned, source)) for source in (held_out, test))
        return {"held_out_top1": held[0], "held_out_loss": held[2], "test_top1": tested[0], "test_top5": tested[1]}

    scores = run_grid(settings, one, folder, facts)
    choice = choose({setting: (s["held_out_top1"], -s["held_out_loss"]) for setting, s in scores.items()})
    held = {setting.name: s["held_out_top1"] for setting, s in scores.items()}
    best = scores[choice]
    sizes = (len(train), len(held_out), len(test))
    return FineTuneResult(best["test_top1"], best["test_top5"], choice.name, held, *sizes, classes)


def run_grid(
    points: Sequence[Point], one: Callable[[Point], Scores | None], folder: str | os.PathLike[str] | None, facts: Mapping[str, Any]
) -> dict[Point, Scores]:
    """The scores of every point: read from ``folder`` where they stand there with these very facts, else computed and written.

    A point without scores (None) is left out. What stands in the folder is read before the first point runs, so that all processes of a
    run agree on it.
    """
    known = {point: found for point in points if (found := _read(folder, point, facts)) is not None}
    scores = {}
    for point in points:
        found = known[point] if point in known else one(point)
        if found is None:
            continue
        scores[point] = found
        if folder is not None and point not in known and jax.process_index() == 0:
            content = {"facts": dict(facts), "scores": found}
            write_text(folder_of(folder) / f"{point.name}.json", json.dumps(content, indent=1) + "\n")
    return scores


def choose(scores: Mapping[Setting, Any]) -> Setting:
    """The setting of the highest score; among equals the first."""
    return max(scores, key=lambda setting: scores[setting])


def fingerprint(encoder: Encoder) -> str:
    """Sixteen digits that change with the weights, the network or how images are prepared."""
    told = hashlib.sha256(f"{encoder.module!r} {encoder.views!r}".encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(encoder.variables):
        told.update(jax.tree_util.keystr(path).encode() + np.ascontiguousarray(leaf).tobytes())
    return told.hexdigest()[:16]


def digest(rows: np.ndarray) -> str:
    """Number of rows and eight digits that change with their values: enough to tell one part of a data set from another."""
    return f"{len(rows)}:{hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()[:8]}"


def _labels(source: Any) -> np.ndarray:
    found = labels_of(source)
    return np.full(len(source), -1, np.int32) if found is None else found


def _read(folder: str | os.PathLike[str] | None, point: Named, facts: Mapping[str, Any]) -> Scores | None:
    file = None if folder is None else folder_of(folder) / f"{point.name}.json"
    if file is None or not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return content["scores"] if content["facts"] == dict(facts) else None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file}: is no result of an evaluation ({type(error).__name__}: {error}); delete it, and it is done again"
        ) from error
