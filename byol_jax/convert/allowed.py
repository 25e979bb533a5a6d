"""What a checkpoint's pickle may build: the names that may stand in it, and what we make of each. None of them is ever imported."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from byol_jax.convert.weights import ConvertError

_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_DTYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
Spend = Callable[[int], None]  # told how much a call copies


@dataclass(frozen=True)
class Global:
    """A name the file refers to; inert."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Record:
    """A named tuple's class: its fields."""

    fields: tuple[str, ...]


@dataclass
class Unfilled:
    """An array between ``_reconstruct`` and BUILD, and where the memo holds it."""

    keys: list[int] = field(default_factory=list)


def refuse(reason: str) -> NoReturn:
    raise ConvertError(f"{reason}; a checkpoint holds arrays and plain containers and nothing else, nothing was run")


def word(value: Any) -> str:
    return str(value) if isinstance(value, Global) else type(value).__name__.strip("_").lower()


def named(module: str, name: str) -> Any:
    if (module, name) in _RECORDS:
        return Record(_RECORDS[module, name])
    if (module, name) not in CALLS and (module, name) != ("numpy", "ndarray"):
        refuse(f"asks for {module}.{name}")
    return Global(module, name)


def is_plain(state: Any) -> bool:
    """Whether a dtype's state says: little-endian, no fields, nothing special."""
    return isinstance(state, tuple) and len(state) >= 5 and state[1] in ("<", "|", "=") and all(part is None for part in state[2:5])


def array_of(state: Any) -> np.ndarray:
    """From what ``ndarray.__reduce__`` gives: (version, shape, dtype, whether Fortran order, bytes)."""
    version, shape, dtype, fortran, data = state
    if not isinstance(shape, tuple) or len(shape) > 32:
        refuse("has an array without a shape")
    if version != 1 or not isinstance(dtype, np.dtype) or type(data) is not bytes or not all(type(n) is int and n >= 0 for n in shape):
        refuse("has an array whose content is not numbers")
    if math.prod(shape) * dtype.itemsize != len(data):
        claim = f"{'x'.join(map(str, shape))} numbers of {dtype.itemsize} bytes"
        refuse(f"has an array said to hold {claim}, with {len(data)} bytes")
    flat = np.frombuffer(data, dtype) if data else np.zeros(0, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


# What may be called. Each takes the machine, then the arguments in the file.


def _reconstruct(_: Spend, kind: Any, shape: Any, code: Any) -> Unfilled:
    if kind != Global("numpy", "ndarray") or shape != (0,) or code not in (b"b", "b"):
        refuse("reconstructs something that is not a plain array")
    return Unfilled()


def _whole_array(spend: Spend, call: Any, arguments: Any, state: Any, extra: Any = None) -> np.ndarray:
    """dill's and jax's: ``_reconstruct`` and its BUILD in one call. ``extra``: attributes of a subclass, or jax's weak type."""
    if not isinstance(call, Global) or call.name != "_reconstruct" or (extra and set(extra) - {"weak_type", "named_shape"}):
        refuse("reconstructs something that is not a plain array")
    _reconstruct(spend, *arguments)
    return array_of(state)


def _dtype(_: Spend, code: Any, *flags: Any) -> np.dtype:
    if code not in _DTYPES or not all(type(flag) in (bool, int) for flag in flags):
        refuse(f"has an array of dtype {code!r}, which is no plain number")
    return np.dtype(code)


def _scalar(_: Spend, dtype: Any, data: Any) -> Any:
    return array_of((1, (), dtype, False, data))[()]


def _encode(spend: Spend, text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding != "latin1":
        refuse(f"encodes a text as {encoding!r}")
    spend(len(text))
    return text.encode("latin1")


def _no_bytes(_: Spend, *content: Any) -> bytes:
    """How protocol 2 writes b""."""
    if content:
        refuse("makes bytes from something else")
    return b""


def _record(_: Spend, name: Any, fields: Any, module: Any, defaults: Any = None) -> Record:
    del name, module, defaults
    if not isinstance(fields, tuple) or not all(isinstance(f, str) for f in fields):
        refuse("has a named tuple without names")
    return Record(fields)


def _mapping(spend: Spend, content: Any = ()) -> dict[str, Any]:
    if isinstance(content, dict):
        return content
    spend(len(content))
    return dict(content)


CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    **{(module, "_reconstruct"): _reconstruct for module in _MULTIARRAY},
    **{(module, "scalar"): _scalar for module in _MULTIARRAY},
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    ("dill._dill", "_create_array"): _whole_array,
    ("dill._dill", "_create_namedtuple"): _record,
    ("jax._src.array", "_reconstruct_array"): _whole_array,
    ("jax._src.device_array", "reconstruct_device_array"): _whole_array,
    ("jax.interpreters.xla", "reconstruct_device_array"): _whole_array,
    ("haiku._src.data_structures", "FlatMapping"): _mapping,
    ("haiku._src.data_structures", "frozendict"): _mapping,
    ("collections", "OrderedDict"): _mapping,
}
# The named tuples of the official code, for a file that was written again without dill.
_NETWORKS = ("online_params", "target_params", "online_state", "target_state", "opt_state")
_BACKBONE = ("backbone_params", "classif_params", "backbone_state", "backbone_opt_state", "classif_opt_state")
_RECORDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("byol.byol_experiment", "_ByolExperimentState"): _NETWORKS,
    ("byol.eval_experiment", "_EvalExperimentState"): _BACKBONE,
    ("byol.utils.optimizers", "AddWeightDecayState"): (),
    ("byol.utils.optimizers", "ScaleByLarsState"): ("mu",),
    ("optax._src.transform", "ScaleState"): (),
    ("optax._src.transform", "TraceState"): ("trace",),
    ("optax._src.transform", "EmptyState"): (),
    ("optax._src.base", "EmptyState"): (),
}
