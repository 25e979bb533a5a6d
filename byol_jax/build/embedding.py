"""``embed``: images or texts named on the command line, through the encoder of a run, into a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from byol_jax import data, evaluate, parallel
from byol_jax.build import objects, runs, texts
from byol_jax.config import ConfigError, Spec, digest
from byol_jax.data.texts import SUFFIXES
from byol_jax.views import TextViews, Views


def embed(
    workdir: str | os.PathLike[str],
    spec: Spec,
    given: str,
    output: str | os.PathLike[str],
    *,
    step: int | None = None,
    batch_size: int = 256,
) -> Path:
    """Embeds what ``given`` names with the run's encoder; see ``evaluate.embed`` for the file."""
    source = input_source(spec, given)
    encoder = runs.load_encoder(workdir, step=step, spec=spec)
    facts = {"input": given, "workdir": str(workdir), "config": digest(spec), "step": runs.checkpoint_note(workdir, step)["step"]}
    with Progress("embed", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), disable=not parallel.is_main()) as bar:
        task = bar.add_task("embed", total=len(source))
        return evaluate.embed(
            encoder, source, output, facts=facts, batch_size=batch_size, progress=lambda done, _: bar.update(task, completed=done)
        )


def input_source(spec: Spec, given: str) -> Any:
    """What ``given`` names, read as the run reads its examples. Raises ConfigError where there is no such thing."""
    return _SOURCES[objects.recipe(spec).content](spec, given)


def _images(spec: Spec, given: str) -> Any:
    """A folder of images, ``FILE.npz[:SPLIT]`` or ``tfds:NAME[:SPLIT]``; the split is "train" if not given."""
    del spec
    if given.startswith(_TFDS):
        return data.tfds(*_tfds_parts(given))
    path, _, split = given.partition(":") if not Path(given).exists() else (given, "", "")
    if path.endswith(".npz"):
        return data.npz(path, split or "train")
    if not Path(path).is_dir():
        raise ConfigError([f"--input {given}: there is no such folder; give a folder of images, FILE.npz[:SPLIT] or tfds:NAME[:SPLIT]"])
    return data.folder(path)


def _texts(spec: Spec, given: str) -> Any:
    """A file or a folder of texts (see ``data.text_files``), or ``tfds:NAME[:SPLIT]``; columns have the names that they have in the run."""
    names = {"text": spec.text.column, "label": spec.text.label_column}
    if given.startswith(_TFDS):
        return data.tokenised(data.tfds_texts(*_tfds_parts(given), **names), texts.tokenizer(spec))
    if not Path(given).exists():
        kinds = ", ".join(SUFFIXES)
        raise ConfigError(
            [f"--input {given}: there is no such file or folder; give a file ({kinds}), a folder of them, or tfds:NAME[:SPLIT]"]
        )
    found = data.text_files(given, max_bad_share=spec.data.max_bad_share, **names)
    return data.tokenised(found, texts.tokenizer(spec))


def _tfds_parts(given: str) -> tuple[str, str]:
    """(name, split) of ``tfds:NAME[:SPLIT]``."""
    name, _, split = given.removeprefix(_TFDS).partition(":")
    return name, split or "train"


_TFDS = "tfds:"
_SOURCES: dict[str, Callable[[Spec, str], Any]] = {Views.content: _images, TextViews.content: _texts}
