"""PyTorch's files as flat dicts of numpy arrays: ``.safetensors`` without torch, ``.pth`` and the like with torch's weights-only loader."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from byol_jax.convert.weights import ConvertError

TORCH = (".pth", ".pt", ".ckpt", ".tar", ".bin")
SAFE = 2, 6  # before that version of torch, its weights-only loader could be made to run code: CVE-2025-32434


def load(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All arrays of a file, and the texts in its header.

    Nested dicts are flattened: ``{"state_dict": {"conv1.weight": ...}}`` gives ``state_dict.conv1.weight``. Floats become float32.

    Raises:
      ConvertError: no such file, another kind of file, a damaged one, more than weights in it, or the package to read it is missing
        or too old.
    """
    path = Path(path)
    if not path.is_file():
        raise ConvertError(f"{path}: there is no such file")
    if path.suffix == ".safetensors":
        return _safetensors(path)
    if path.suffix in TORCH:
        return {name: _numpy(tensor) for name, tensor in _tensors(_torch(path))}, {}
    raise ConvertError(f"{path}: a PyTorch checkpoint ends in .safetensors, {', '.join(TORCH[:-1])} or {TORCH[-1]}")


def _safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    safetensors = needed("safetensors", "safetensors", path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
            return {name: _float32(array) for name, array in arrays.items()}, dict(file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise ConvertError(f"{path}: is not a whole .safetensors file: {error}") from error


def _torch(path: Path) -> Any:
    torch = needed("torch", "torch", path)
    if tuple(map(int, torch.__version__.split(".")[:2])) < SAFE:
        raise ConvertError(
            f"{path}: is not loaded by torch {torch.__version__}, whose weights-only loader can be made to run code (CVE-2025-32434); "
            "take 2.6 or newer: pip install -U 'torch>=2.6'"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line), str(error).splitlines()[0])
        raise ConvertError(
            f"{path}: holds more than weights, and is not loaded, since unpickling it could run any code ({reason[:200]}). "
            "If you trust its source, save its state dict alone, as .safetensors, with the program that wrote it"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ConvertError(
            f"{path}: is not a whole PyTorch file: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
        ) from error


def needed(module: str, extra: str, path: Path) -> Any:
    """An optional package; where it is missing, a ConvertError says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConvertError(f"{path}: this needs {module}, which is not installed: pip install 'byol-jax[{extra}]'") from error


def _tensors(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key, child in tree.items():
            yield from _tensors(child, f"{name}.{key}" if name else str(key))
    elif hasattr(tree, "is_floating_point"):
        yield name, tree


def _numpy(tensor: Any) -> np.ndarray:
    return np.asarray((tensor.detach().float() if tensor.is_floating_point() else tensor.detach()).numpy())


def _float32(array: np.ndarray) -> np.ndarray:
    """Floats of any kind (bfloat16 is none of numpy's own) as float32."""
    return array if array.dtype.kind in "biu" else array.astype(np.float32)
