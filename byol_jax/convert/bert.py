"""A text encoder's tensors under two names: those of Hugging Face's BERT and RoBERTa, and ours, with their shapes.

PyTorch keeps a matrix as [out, in], we as [in, out], and in attention the side of the heads as two axes, [heads, hidden / heads].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from byol_jax.convert.weights import ConvertError
from byol_jax.models import TextEncoder
from byol_jax.models.transformer import stacked, unstacked

Tensors = Mapping[str, np.ndarray]
Shape = tuple[int, ...]
# By the first word of their names: what stands beside the encoder, for tasks that are not ours; and tables that hold no weights.
HEADS = ("pooler", "cls", "lm_head", "classifier", "qa_outputs")
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
FIRST = "embeddings.word_embeddings.weight"


@dataclass(frozen=True)
class Tensor:
    """Names and shapes, theirs and ours."""

    theirs: str
    ours: tuple[str, ...]
    their_shape: Shape
    our_shape: Shape

    def read(self, tensor: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(tensor.T if self._turned else tensor).reshape(self.our_shape)

    def written(self, leaf: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(leaf.reshape(self.their_shape[::-1]).T if self._turned else leaf.reshape(self.their_shape))

    @property
    def _turned(self) -> bool:
        return self.ours[-1] == "kernel"


def tensors(module: TextEncoder) -> Iterator[Tensor]:
    """All but the query of attention pooling, which has no name there; layers as ``scan=False`` names them."""
    hidden, mlp = module.hidden, module.mlp
    for ours, theirs, rows in (
        ("word", "word", module.vocab),
        ("position", "position", module.positions),
        ("type", "token_type", module.types),
    ):
        yield Tensor(f"embeddings.{theirs}_embeddings.weight", (ours, "embedding"), (rows, hidden), (rows, hidden))
    yield from _norm("embeddings.LayerNorm", ("norm",), hidden)
    split = (module.heads, module.head_width or hidden // module.heads)
    for i in range(module.layers):
        theirs, block = f"encoder.layer.{i}", ("stack", f"block_{i}")
        for name in ("query", "key", "value"):
            yield from _dense(f"{theirs}.attention.self.{name}", (*block, "attention", name), (hidden,), split)
        yield from _dense(f"{theirs}.attention.output.dense", (*block, "attention", "out"), split, (hidden,))
        yield from _norm(f"{theirs}.attention.output.LayerNorm", (*block, "attention_norm"), hidden)
        yield from _dense(f"{theirs}.intermediate.dense", (*block, "mlp_0"), (hidden,), (mlp,))
        yield from _dense(f"{theirs}.output.dense", (*block, "mlp_1"), (mlp,), (hidden,))
        yield from _norm(f"{theirs}.output.LayerNorm", (*block, "mlp_norm"), hidden)


def _norm(theirs: str, ours: tuple[str, ...], size: int) -> Iterator[Tensor]:
    yield Tensor(f"{theirs}.weight", (*ours, "scale"), (size,), (size,))
    yield Tensor(f"{theirs}.bias", (*ours, "bias"), (size,), (size,))


def _dense(theirs: str, ours: tuple[str, ...], into: Shape, out: Shape) -> Iterator[Tensor]:
    rows, columns = int(np.prod(out)), int(np.prod(into))
    yield Tensor(f"{theirs}.weight", (*ours, "kernel"), (rows, columns), (*into, *out))
    yield Tensor(f"{theirs}.bias", (*ours, "bias"), (rows,), out)


def from_tensors(module: TextEncoder, found: Tensors, where: object) -> tuple[dict[str, Any], list[str]]:
    """({"params"} of the encoder, names of the heads that were left out).

    Args:
      found: the tensors of a file, with "bert." or "roberta." before their names or without.
      where: what an error begins with.

    Raises:
      ConvertError: tensors are missing, wrongly shaped or of another network; it names every one.
    """
    named, heads = _named(found, where)
    expected = {tensor.theirs: tensor for tensor in tensors(module)}
    wrong = [f"{name} is missing" for name in expected if name not in named]
    wrong += [f"{name} is not of this architecture" for name in named if name not in expected]
    for name, tensor in expected.items():
        if name in named and named[name].shape != tensor.their_shape:
            wrong.append(f"{name} is {list(named[name].shape)}, where config.json says {list(tensor.their_shape)}")
    if wrong:
        raise ConvertError(f"{where}: {len(wrong)} tensor(s) do not fit: " + "; ".join(wrong))
    params: dict[str, Any] = {}
    for name, tensor in expected.items():
        *path, leaf = tensor.ours
        node = params
        for step in path:
            node = node.setdefault(step, {})
        node[leaf] = tensor.read(named[name])
    return {"params": params | {"stack": stacked(params["stack"])} if module.scan else params}, heads


def _named(found: Tensors, where: object) -> tuple[dict[str, np.ndarray], list[str]]:
    """The encoder's tensors without prefix, norms by their later names; and the heads."""
    prefixes = [name.removesuffix(FIRST) for name in found if name in (FIRST, f"bert.{FIRST}", f"roberta.{FIRST}")]
    if not prefixes:
        raise ConvertError(f"{where}: has no {FIRST} (nor bert. or roberta. before it), but {', '.join(sorted(found)[:3])}, ...")
    named, heads = {}, set()
    for full, tensor in found.items():
        name = full.removeprefix(prefixes[0])
        first = name.split(".")[0]
        if first in HEADS:
            heads.add(first)
        elif name not in BUFFERS:
            # as files have them that began in TensorFlow
            named[name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")] = tensor
    return named, sorted(heads)


def to_tensors(module: TextEncoder, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The way back, float32, without prefix. Raises ConvertError if the variables are not of this module."""
    params = {**variables["params"], "stack": unstacked(variables["params"]["stack"])}
    made = {}
    for tensor in tensors(module):
        node: Any = params
        for name in tensor.ours:
            node = node.get(name, {})
        if np.shape(node) != tensor.our_shape:
            got = list(np.shape(node)) if hasattr(node, "shape") else "missing"
            raise ConvertError(f"params/{'/'.join(tensor.ours)}: must be {list(tensor.our_shape)}, is {got}: variables of another encoder?")
        made[tensor.theirs] = tensor.written(np.asarray(node, np.float32))
    return made


def with_all_heads(module: TextEncoder, variables: Mapping[str, Any]) -> tuple[TextEncoder, dict[str, Any]]:
    """(a module of hidden / head_width heads, its variables): the embeddings are the same, for the added heads are 0.

    Raises ConvertError for heads whose width does not divide ``hidden``.
    """
    width = module.head_width
    if width is None:
        return module, dict(variables)
    most, rest = divmod(module.hidden, width)
    if rest or most < module.heads:
        raise ConvertError(f"head_width = {width}: a BERT's heads, {module.heads} here, must make up hidden = {module.hidden}")

    def filled(path: tuple[Any, ...], leaf: Any) -> np.ndarray:
        leaf, axis = np.asarray(leaf), _axis_of_heads([entry.key for entry in path])
        return leaf if axis is None else np.pad(leaf, [(0, (most - module.heads) * (i == axis)) for i in range(leaf.ndim)])

    stack = jax.tree_util.tree_map_with_path(filled, unstacked(variables["params"]["stack"]))
    return module.clone(heads=most, head_width=None, scan=False), {**variables, "params": {**variables["params"], "stack": stack}}


def _axis_of_heads(names: list[str]) -> int | None:
    *_, layer, leaf = names
    if layer in ("query", "key", "value"):
        return {"kernel": 1, "bias": 0}[leaf]
    return 0 if (layer, leaf) == ("out", "kernel") else None
