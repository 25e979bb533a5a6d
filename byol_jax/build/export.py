"""The encoder of a run -> a file of another format."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byol_jax import evaluate
from byol_jax.build import runs
from byol_jax.build.hub import story_of
from byol_jax.build.kept import read_spec
from byol_jax.build.texts import TOKENIZER
from byol_jax.config import ConfigError, Spec
from byol_jax.convert import huggingface
from byol_jax.convert.export import to_safetensors
from byol_jax.convert.hub import to_hub
from byol_jax.convert.onnx import to_onnx
from byol_jax.convert.stablehlo import to_stablehlo
from byol_jax.models import TextEncoder
from byol_jax.views import TextViews
from byol_jax.workdir import folder


@dataclass(frozen=True)
class Order:
    """What is to be written, and where: the encoder, the run it is of, and where its weights came from."""

    encoder: evaluate.Encoder
    output: Path
    source: dict[str, Any]
    workdir: Any
    licence: str


def _safetensors(order: Order) -> list[Path]:
    encoder = order.encoder
    return to_safetensors(order.output, encoder.module, encoder.variables, views=encoder.image_views, source=order.source)


def _stablehlo(order: Order) -> list[Path]:
    encoder = order.encoder
    return to_stablehlo(order.output, encoder.module, encoder.variables, views=encoder.image_views, source=order.source)


def _onnx(order: Order) -> list[Path]:
    encoder = order.encoder
    return to_onnx(order.output, encoder.module, encoder.variables, views=encoder.image_views, source=order.source)


def _hub(order: Order) -> list[Path]:
    encoder, story = order.encoder, story_of(order.workdir, int(order.source["step"]))
    options: dict[str, Any] = {"views": encoder.image_views, "source": order.source, "story": story, "licence": order.licence}
    return to_hub(order.output, encoder.module, encoder.variables, **options)


def _huggingface(order: Order) -> list[Path]:
    module, views = order.encoder.module, order.encoder.views
    if not isinstance(module, TextEncoder) or not isinstance(views, TextViews):
        raise ConfigError([f"--to huggingface: is for text encoders of byol_jax.models, not for {type(module).__name__}"])
    fields = {field.name: getattr(module, field.name) for field in dataclasses.fields(module) if field.name not in ("parent", "name")}
    return huggingface.write(order.output, fields, order.encoder.variables, order.workdir / TOKENIZER, views.length)


FORMATS: dict[str, Callable[[Order], list[Path]]] = {
    "safetensors": _safetensors,
    "stablehlo": _stablehlo,
    "hub": _hub,
    "onnx": _onnx,
    "huggingface": _huggingface,
}
OF_8_BITS = ("stablehlo",)  # what can hold an encoder of 8 bits; the others get its weights in float32


def export(
    kind: str,
    workdir: str | os.PathLike[str],
    spec: Spec,
    output: str | os.PathLike[str],
    *,
    step: int | None = None,
    licence: str | None = None,
) -> list[Path]:
    """Writes the encoder of the run in ``workdir`` in a format of ``FORMATS``; returns the files.

    Args:
      licence: on the card of a hub, as its identifier; None leaves it open.

    Raises:
      ValueError: no run, no such step, the format cannot hold this encoder, a licence for another format than "hub",
        or for it a ``spec`` that is not the run's.
    """
    if licence is not None and kind != "hub":
        raise ConfigError([f"--licence {licence}: stands on the card of --to hub; {kind} has no place for it"])
    if kind == "hub" and spec != read_spec(workdir):
        raise ConfigError(["--to hub: the card tells the run as it was; leave out --config.KEY=..."])
    floating = kind not in OF_8_BITS or spec.encoder.fake_int8  # weights become constants, which qwix would not know for weights
    encoder = runs.load_encoder(workdir, step=step, spec=spec, floating=floating)
    return FORMATS[kind](Order(encoder, Path(output), runs.checkpoint_note(workdir, step), folder(workdir), licence or "other"))
