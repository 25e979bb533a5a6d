"""Weights and activations of 8 bits, by qwix: a matrix or kernel has a scale for each output, an activation one that calibration fixes.

Stored, a weight is {"qvalue": int8, "scale": float32}; its layer has the activation's scale beside it. So a checkpoint tells by itself that
it is one of 8 bits. Tables of embeddings, which are looked up and never multiplied, have a scale for each row and are float32 once loaded.
Norms, biases and the products inside attention (of activations with each other) stay float32. qwix multiplies integers with floats as they
are: none of this runs under ``jax_numpy_dtype_promotion = "strict"``.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.models import ResNet

OPERATIONS = ("dot_general", "conv_general_dilated")
QVALUE, SCALE, TABLE = "qvalue", "scale", "embedding"
ACTIVATION = tuple(f"{name}0_lhs_scale" for name in OPERATIONS)  # as qwix names the scale of what enters a layer


class MissingQwix(ValueError):
    """8 bits need the package qwix."""

    def __init__(self) -> None:
        super().__init__("8 bits need qwix, which is not installed: pip install 'byol-jax[compress]'")


def fake_int8(module: nn.Module) -> nn.Module:
    """The module, computing in float32 as if with 8 bits: for quantisation-aware training. Its variables are those of ``module``.

    Ranges are those of the numbers at hand, for weights of every output and for activations of every example (of texts: every token).
    Gradients pass the rounding as if it were not there. Raises ValueError without qwix.
    """
    return _intercepted(module, "QtProvider", static=False)


def quantized(module: nn.Module, variables: Mapping[str, Any], batches: Iterable[jax.Array]) -> dict[str, Any]:
    """The variables of an encoder as 8 bits store them.

    Args:
      module: the encoder in float32.
      variables: its own.
      batches: what it takes, [B, ...] each, from training data. An activation's range is the mean over examples (and tokens) of each one's
        largest absolute value, and what lies beyond is cut off.

    Raises:
      ValueError: no batch, or qwix is missing.
    """
    tables, rest = _with_tables(variables["params"])
    params = {**variables, "params": jax.tree.map(jnp.asarray, rest)}
    watching = _intercepted(module, "QtProvider", static=True)
    stats: Any = {}
    x = None
    for x in batches:
        # Not compiled: qwix keeps statistics from within a function that JAX would trace by itself.
        stats = watching.apply({**params, **stats}, x, False, mutable=["quant_stats"])[1]
    if x is None:
        raise ValueError("calibration: there is no batch; give one at least")
    made = _qwix().quantize_params(params["params"], _abstract(module, x), stats["quant_stats"])
    return {**variables, "params": _merged(_plain(made), tables)}


def is_int8(variables: Mapping[str, Any]) -> bool:
    """Whether an encoder's variables are such as ``quantized`` makes."""
    return any(np.dtype(leaf.dtype) == np.int8 for leaf in jax.tree.leaves(variables))


def loaded(module: nn.Module, stored: Mapping[str, Any], seen: jax.ShapeDtypeStruct) -> tuple[nn.Module, dict[str, Any]]:
    """(a module that computes with 8 bits, its variables), of what ``quantized`` made of ``module``.

    Args:
      seen: shape and dtype of what the module takes, [B, ...].
    """
    running = _intercepted(module, "PtqProvider", static=True)
    params = _boxed(stored["params"], _abstract(module, seen))
    return running, {**stored, "params": jax.tree.map(jnp.asarray, params)}  # qwix overlooks numpy's arrays


def floating(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The variables in float32, for the module as it was: the weights are those of 8 bits, activations will not be rounded."""
    return {**stored, "params": _floating(stored["params"])}


def _floating(node: Any) -> Any:
    if not isinstance(node, Mapping):
        return node
    if QVALUE in node:
        return np.asarray(node[QVALUE], np.float32) * np.asarray(node[SCALE])
    return {name: _floating(child) for name, child in node.items() if name not in ACTIVATION}


def _with_tables(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(tables of embeddings as they are stored, all params with the tables as they are once loaded)."""
    tables: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, child in params.items():
        if isinstance(child, Mapping):
            below, rest[name] = _with_tables(child)
            tables |= {name: below} if below else {}
        elif name == TABLE:
            made = _qwix().quantize(jnp.asarray(child), jnp.int8, channelwise_axes=[0])
            tables[name] = {QVALUE: made.qvalue, SCALE: made.scale}
            rest[name] = _floating(tables[name])
        else:
            rest[name] = child
    return tables, rest


def _plain(node: Any) -> Any:
    """qwix's params as nested dicts of arrays."""
    if isinstance(node, Mapping):
        return {name: _plain(child) for name, child in node.items()}
    array = getattr(node, "array", node)  # a weight or a scale, with how it was made
    return {QVALUE: array.qvalue, SCALE: array.scale} if hasattr(array, QVALUE) else array


def _boxed(node: Any, like: Any) -> Any:
    """The way back; ``like`` knows which of the arrays are qwix's."""
    if isinstance(like, Mapping):
        return {name: _boxed(node[name], child) for name, child in like.items()}
    if not hasattr(like, "array"):
        return _floating(node)
    inner = like.array
    array = inner.replace(qvalue=node[QVALUE], scale=node[SCALE]) if hasattr(inner, QVALUE) else node
    return like.replace(array=array)


def _merged(tree: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _merged(child, over[name]) if isinstance(child, Mapping) and name in over else over.get(name, child)
        for name, child in tree.items()
    }


def _abstract(module: nn.Module, x: Any) -> Any:
    """Shapes of the params as qwix keeps them for inference."""
    running = _intercepted(module, "PtqProvider", static=True)
    return jax.eval_shape(lambda x: running.init(jax.random.key(0), x, False), x)["params"]


def _intercepted(module: nn.Module, provider: str, *, static: bool) -> nn.Module:
    qwix = _qwix()
    if isinstance(module, ResNet):
        module = module.clone(convolution=_convolve)  # products in place of convolutions would hide their weights from qwix
    axes = (0, 1)  # examples; of texts tokens too, of images rows, whose range is that of the whole image already
    rule = qwix.QtRule if provider == "QtProvider" else qwix.QuantizationRule
    made = rule(op_names=OPERATIONS, weight_qtype=jnp.int8, act_qtype=jnp.int8, act_static_scale=static, act_batch_axes=axes)
    return qwix.quantize_model(module, getattr(qwix, provider)([made]))


def _convolve(*args: Any, **options: Any) -> jax.Array:
    """Looked up at each call: qwix puts its own in this place while a module runs."""
    return jax.lax.conv_general_dilated(*args, **options)


def _qwix() -> Any:
    try:
        return importlib.import_module("qwix")
    except ImportError as error:
        raise MissingQwix from error
