"""``embed``: images named on the command line, through the encoder of a run, into a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from byol_jax import data, evaluate, parallel
from byol_jax.build import runs
from byol_jax.config import ConfigError, Spec, digest


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
    source = input_source(given)
    encoder = runs.load_encoder(workdir, step=step, spec=spec)
    facts = {"input": given, "workdir": str(workdir), "config": digest(spec), "step": runs.checkpoint_note(workdir, step)["step"]}
    with Progress("embed", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), disable=not parallel.is_main()) as bar:
        task = bar.add_task("embed", total=len(source))
        return evaluate.embed(
            encoder, source, output, facts=facts, batch_size=batch_size, progress=lambda done, _: bar.update(task, completed=done)
        )


def input_source(given: str) -> Any:
    """A folder of images, ``FILE.npz[:SPLIT]`` or ``tfds:NAME[:SPLIT]``; the split is "train" if not given. Raises ConfigError."""
    if given.startswith("tfds:"):
        name, _, split = given.removeprefix("tfds:").rpartition(":") if given.count(":") > 1 else (given[5:], "", "train")
        return data.tfds(name, split)
    path, _, split = given.partition(":") if not Path(given).exists() else (given, "", "")
    if path.endswith(".npz"):
        return data.npz(path, split or "train")
    if not Path(path).is_dir():
        raise ConfigError([f"--input {given}: there is no such folder; give a folder of images, FILE.npz[:SPLIT] or tfds:NAME[:SPLIT]"])
    return data.folder(path)
