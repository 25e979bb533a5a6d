"""Weights out: the whole encoder, pixels to embedding, as ONNX by jax2onnx; what onnxruntime runs otherwise is not kept."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from byol_jax.convert.export import write_facts
from byol_jax.convert.stablehlo import INSIDE, forward, signature
from byol_jax.convert.state_dict import needed
from byol_jax.convert.weights import ConvertError
from byol_jax.models.forms import as_jax_has_it
from byol_jax.models.resnet import ResNet, standardized
from byol_jax.views import Views

NEAR = 1e-4  # of the embeddings' root mean square
OTHERS = "nothing was written; take --to stablehlo"


def to_onnx(path: str | Path, module: Any, variables: Any, *, views: Views, source: dict[str, Any]) -> list[Path]:
    """Writes uint8[b, S, S, 3] -> float32[b, D] with the weights inside, for any b; ``.preprocess.json`` beside it.

    A ResNet that computes in bfloat16 is written as one that computes in float32. The file is run by onnxruntime on noise, with two
    sizes of the batch, before it is kept.

    Args:
      path: ends in ``.onnx``; replaced where it is there.
      module, variables, views, source: as for ``to_stablehlo``.

    Returns:
      the two files.

    Raises:
      ConvertError: another ending, the extra "onnx" is missing, the encoder cannot be converted, or gives other embeddings then.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ConvertError(f"{path}: the file's name must end in .onnx")
    converter, runtime = (needed(package, "onnx", path) for package in ("jax2onnx", "onnxruntime"))
    if isinstance(module, ResNet):
        module = module.clone(dtype=jnp.float32)
    content = _converted(converter, convertible(module, variables, views), views.size, type(module).__name__)
    width = _check(runtime, content, jax.jit(forward(module, variables, views)), views.size, type(module).__name__)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)
    return [path, write_facts(path, signature(views, width) | {"inside": INSIDE, "source": source})]


def convertible(module: Any, variables: Any, views: Views) -> Callable[[jax.Array], jax.Array]:
    """``forward`` without what jax2onnx 0.17.1 loses (padding of ``nn.max_pool``, standardising of norm="group") or lacks (platforms)."""
    if isinstance(module, ResNet) and module.norm == "group":
        variables = variables | {"params": jax.tree.map(lambda leaf: standardized(leaf) if leaf.ndim == 4 else leaf, variables["params"])}
    run = forward(module, variables, views)

    def embed(images: jax.Array) -> jax.Array:
        with _pools_pad_first(), as_jax_has_it():
            return run(images)

    return embed


@contextmanager
def _pools_pad_first() -> Iterator[None]:
    """Within it ``nn.max_pool`` pads by an operation of its own; the one found, which may be the converter's, then pools."""
    pool = nn.max_pool

    def padded(inputs: jax.Array, window_shape: Any, strides: Any = None, padding: Any = "VALID") -> jax.Array:
        if not isinstance(padding, str):
            inputs = jnp.pad(inputs, [(0, 0), *padding, (0, 0)], constant_values=-jnp.inf)
            padding = "VALID"
        return pool(inputs, window_shape=window_shape, strides=strides or (1,) * len(window_shape), padding=padding)

    nn.max_pool = padded
    try:
        yield
    finally:
        nn.max_pool = pool


def _converted(converter: Any, run: Callable[[jax.Array], jax.Array], size: int, name: str) -> bytes:
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    try:
        model = converter.to_onnx(run, [jax.ShapeDtypeStruct(("b", size, size, 3), jnp.uint8)], model_name="byol_jax")
    except Exception as error:  # its own kinds, and any of the module's
        raise ConvertError(f"{name}: jax2onnx does not convert it: {_first_line(error)}; {OTHERS}") from error
    del model.graph.value_info[:]  # the converter's notes on shapes inside are wrong in places; runtimes find them themselves
    return bytes(model.SerializeToString())


def _check(runtime: Any, content: bytes, run: Any, size: int, name: str) -> int:
    """The embeddings' width. Raises ConvertError where the file does not run, or embeds otherwise than the encoder."""
    rng = np.random.default_rng(0)
    for batch in (2, 3):
        images = rng.integers(0, 256, (batch, size, size, 3), np.uint8)
        try:
            session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
            found = session.run(None, {session.get_inputs()[0].name: images})[0]
        except Exception as error:  # its kinds have no common one below it
            raise ConvertError(f"{name}: onnxruntime does not run what jax2onnx made of it: {_first_line(error)}; {OTHERS}") from error
        wanted = np.asarray(run(images))
        if found.shape != wanted.shape or not np.abs(found - wanted).max() <= NEAR * np.sqrt(np.mean(wanted**2)):
            raise ConvertError(f"{name}: jax2onnx turned it into a network that gives other embeddings; {OTHERS}")
    return int(wanted.shape[1])


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
