"""Weights out: the whole encoder, pixels to embedding, as one serialized ``jax.export`` artifact (StableHLO). Its user needs only jax."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.augment.image import preprocess
from byol_jax.convert.export import prepared, write_facts
from byol_jax.convert.weights import ConvertError
from byol_jax.views import Views

PLATFORMS = ("cpu", "cuda", "tpu")
INSIDE = "the file divides by 255, subtracts mean and divides by std itself; crop and size are the user's"


def to_stablehlo(path: str | Path, module: Any, variables: Any, *, views: Views, source: dict[str, Any]) -> list[Path]:
    """Writes uint8[b, S, S, 3] -> float32[b, D] with the weights inside, for any b and CPU, CUDA and TPU; ``.preprocess.json`` beside it.

    Args:
      path: ends in ``.stablehlo``; replaced where it is there.
      module: any encoder ``(x, train) -> [b, D]``, also one of no ResNet.
      variables: its variables.
      views: how images are prepared for it; ``views.size`` is S.
      source: where it came from, as JSON.

    Returns:
      the two files.

    Raises:
      ConvertError: another ending, or the encoder cannot be traced with a batch of open size.
    """
    path = Path(path)
    if path.suffix != ".stablehlo":
        raise ConvertError(f"{path}: the file's name must end in .stablehlo")
    batch = jax.export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((*batch, views.size, views.size, 3), jnp.uint8)
    try:
        exported = jax.export.export(jax.jit(forward(module, variables, views)), platforms=PLATFORMS)(images)
    except jax.errors.InconclusiveDimensionOperation as error:
        reason = str(error).splitlines()[0]
        raise ConvertError(f"{type(module).__name__}: needs to know the size of the batch, which the file leaves open: {reason}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(exported.serialize())
    partial.replace(path)
    facts = signature(views, int(exported.out_avals[0].shape[1])) | {"platforms": list(PLATFORMS), "inside": INSIDE}
    return [path, write_facts(path, facts | {"jax": jax.__version__, "source": source})]


def forward(module: Any, variables: Any, views: Views) -> Callable[[jax.Array], jax.Array]:
    """uint8[b, S, S, 3] -> float32[b, D], in evaluation mode, its weights as constants."""
    constants = jax.tree.map(np.asarray, jax.device_get(variables))  # off the mesh: the file is for one device

    def embed(images: jax.Array) -> jax.Array:
        return module.apply(constants, preprocess(images, views), False).astype(jnp.float32)

    return embed


def signature(views: Views, width: int) -> dict[str, Any]:
    """What goes in, what comes out and how an image gets there, as JSON."""
    s = views.size
    return {"input": f"uint8[b, {s}, {s}, 3], RGB", "output": f"float32[b, {width}]", **prepared(views)}
