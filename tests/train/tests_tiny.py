"""The smallest encoder with batch norm."""

from __future__ import annotations

from typing import Any

from flax import linen as nn


class Tiny(nn.Module):
    """[B, H, W, 3] -> [B, 8]."""

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = nn.Dense(8)(x.reshape(x.shape[0], -1))
        return nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, axis_name="data")(x))
