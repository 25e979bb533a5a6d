"""The encoder of a run -> a file of another format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from byol_jax import evaluate
from byol_jax.build import runs
from byol_jax.checkpoint import Checkpoints
from byol_jax.config import Spec
from byol_jax.convert.export import to_safetensors
from byol_jax.convert.stablehlo import to_stablehlo


def _safetensors(encoder: evaluate.Encoder, output: Path, source: dict[str, Any]) -> list[Path]:
    return to_safetensors(output, encoder.module, encoder.variables, views=encoder.views, source=source)


def _stablehlo(encoder: evaluate.Encoder, output: Path, source: dict[str, Any]) -> list[Path]:
    return to_stablehlo(output, encoder.module, encoder.variables, views=encoder.views, source=source)


# (the encoder, the path asked for, where the weights came from) -> the files written
FORMATS: dict[str, Callable[[evaluate.Encoder, Path, dict[str, Any]], list[Path]]] = {
    "safetensors": _safetensors,
    "stablehlo": _stablehlo,
}


def export(kind: str, workdir: str | Path, spec: Spec, output: str | Path, *, step: int | None = None) -> list[Path]:
    """Writes the encoder of the run in ``workdir`` in a format of ``FORMATS``; returns the files.

    Raises:
      ValueError: no run, no such step, or the format cannot hold this encoder.
    """
    return FORMATS[kind](runs.load_encoder(workdir, step=step, spec=spec), Path(output), source_of(workdir, step))


def source_of(workdir: str | Path, step: int | None = None) -> dict[str, Any]:
    """Where the weights came from: the step, the version that wrote it, the configuration's digest or what the run was converted from."""
    checkpoints = Checkpoints(Path(workdir) / "checkpoints", read_only=True)
    try:
        return checkpoints.note(step)
    finally:
        checkpoints.close()
