"""The encoder of a run -> a file of another format."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from byol_jax import evaluate
from byol_jax.build import runs
from byol_jax.config import Spec
from byol_jax.convert.export import to_safetensors


def _safetensors(encoder: evaluate.Encoder, output: Path, source: dict[str, Any]) -> list[Path]:
    return to_safetensors(output, encoder.module, encoder.variables, views=encoder.views, source=source)


# (the encoder, the path asked for, where the weights came from) -> the files written
FORMATS: dict[str, Callable[[evaluate.Encoder, Path, dict[str, Any]], list[Path]]] = {
    "safetensors": _safetensors,
}


def export(kind: str, workdir: str | os.PathLike[str], spec: Spec, output: str | Path, *, step: int | None = None) -> list[Path]:
    """Writes the encoder of the run in ``workdir`` in a format of ``FORMATS``; returns the files.

    Raises:
      ValueError: no run, no such step, or the format cannot hold this encoder.
    """
    return FORMATS[kind](runs.load_encoder(workdir, step=step, spec=spec), Path(output), runs.checkpoint_note(workdir, step))
