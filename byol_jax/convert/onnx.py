"""Weights out: the whole encoder, pixels to embedding, as ONNX by jax2onnx; what onnxruntime runs otherwise is not kept."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.convert.export import write_facts
from byol_jax.convert.stablehlo import INSIDE, forward, signature
from byol_jax.convert.state_dict import needed
from byol_jax.convert.weights import ConvertError
from byol_jax.views import Views

NEAR = 1e-4  # of the embeddings' root mean square


def to_onnx(path: str | Path, module: Any, variables: Any, *, views: Views, source: dict[str, Any]) -> list[Path]:
    """Writes uint8[b, S, S, 3] -> float32[b, D] with the weights inside, for any b; ``.preprocess.json`` beside it.

    The file is run by onnxruntime on noise, with two sizes of the batch, before it is kept.

    Args:
      path: ends in ``.onnx``; replaced where it is there.
      module, variables, views, source: as for ``to_stablehlo``.

    Returns:
      the two files.

    Raises:
      ConvertError: another ending, the extra "onnx" is missing, or the converted encoder gives other embeddings.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ConvertError(f"{path}: the file's name must end in .onnx")
    converter, runtime = (needed(package, "onnx", path) for package in ("jax2onnx", "onnxruntime"))
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    run, s = forward(module, variables, views), views.size
    model = converter.to_onnx(run, [jax.ShapeDtypeStruct(("b", s, s, 3), jnp.uint8)], model_name="byol_jax")
    del model.graph.value_info[:]  # the converter's notes on shapes inside are wrong in places; runtimes find them themselves
    content = model.SerializeToString()
    width = _check(runtime.InferenceSession(content, providers=["CPUExecutionProvider"]), jax.jit(run), s, type(module).__name__)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)
    return [path, write_facts(path, signature(views, width) | {"inside": INSIDE, "source": source})]


def _check(session: Any, run: Any, size: int, name: str) -> int:
    """The embeddings' width. Raises ConvertError where the file embeds otherwise than the encoder."""
    rng = np.random.default_rng(0)
    for batch in (2, 3):
        images = rng.integers(0, 256, (batch, size, size, 3), np.uint8)
        found, wanted = session.run(None, {session.get_inputs()[0].name: images})[0], np.asarray(run(images))
        if found.shape != wanted.shape or not np.abs(found - wanted).max() <= NEAR * np.sqrt(np.mean(wanted**2)):
            text = "jax2onnx turned it into a network that gives other embeddings, and nothing was written"
            raise ConvertError(f"{name}: {text}; take --to stablehlo or safetensors")
    return int(wanted.shape[1])
