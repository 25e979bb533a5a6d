"""BYOL (Bootstrap Your Own Latent, Grill et al. 2020) in JAX and Flax, for GPU and TPU.

    import byol_jax as byol

    data = byol.data.digits("train")
    method = byol.Byol(encoder=byol.models.resnet18(small_inputs=True))
    run = byol.pretrain(method, data, views=byol.views.gray(16), epochs=60, batch_size=256, workdir="runs/mine")
    encoder = run.encoder()  # uint8[B, H, W, 3] -> float32[B, D]

Names are loaded when they are first used, so that the command line answers at once.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_ROOMS = ("augment", "checkpoint", "data", "evaluate", "method", "models", "parallel", "report", "train", "views")
_HOME = {
    "Byol": "method",
    "ByolState": "method",
    "MLP": "method",
    "Outputs": "method",
    "ema_decay": "method",
    "init": "method",
    "make_train_step": "method",
    "regression_loss": "method",
    "warmup_cosine": "method",
    "adamw": "method",
    "lars": "method",
    "sgd": "method",
    "Encoder": "evaluate",
    "Run": "train",
    "pretrain": "train",
    "load_encoder": "build",
    "load_sentence_encoder": "build",
}
__all__ = sorted([*_HOME, *_ROOMS])


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
