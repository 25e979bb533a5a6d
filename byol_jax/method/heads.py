"""The projector and the predictor: small multi-layer perceptrons (paper section 3.3)."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from byol_jax.method.precision import at_least_float32

# Truncated normal on [-2 s, 2 s] with s = 1 / sqrt(fan_in), not widened again to make up for the truncation, as in the
# official code: the standard deviation is 0.8796 / sqrt(fan_in). Flax widens, hence the factor that takes it back.
fan_in_init = nn.initializers.variance_scaling(0.87962566103423978**2, "fan_in", "truncated_normal")


class MLP(nn.Module):
    """Linear -> BN -> ReLU, repeated, then a Linear without bias or BN: [B, D] -> [B, out], at least float32.

    Attributes:
      hidden: units of every hidden layer.
      out: units of the output.
      layers: number of linear layers; 2 in the paper, 1 is a single bias-free projection (compared in Table 14a).
      dtype: dtype of the matrix products; parameters and batch statistics stay float32.
      bn_axis: mesh axis over which batch statistics are averaged.
      norm: of the hidden layers: "batch" (the paper), "group" (GroupNorm, 16 groups: no batch statistics, arXiv 2010.10241) or "none".
    """

    hidden: int = 4096
    out: int = 256
    layers: int = 2
    dtype: Any = jnp.float32
    bn_axis: str | None = "data"
    norm: Literal["batch", "group", "none"] = "batch"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.layers < 1:
            raise ValueError(f"MLP(layers={self.layers}): a head has at least 1 linear layer; use layers=1 for a plain projection")
        for i in range(self.layers - 1):
            x = nn.Dense(self.hidden, dtype=self.dtype, kernel_init=fan_in_init, name=f"linear_{i}")(x)
            x = nn.relu(self._normed(at_least_float32(x), train, f"norm_{i}"))
        last = nn.Dense(self.out, use_bias=False, dtype=self.dtype, kernel_init=fan_in_init, name=f"linear_{self.layers - 1}")
        return at_least_float32(last(x))

    def _normed(self, x: jax.Array, train: bool, name: str) -> jax.Array:
        if self.norm == "batch":
            return nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, axis_name=self.bn_axis, name=name)(x)
        if self.norm == "group":
            return nn.GroupNorm(num_groups=16, epsilon=1e-5, name=name)(x)
        if self.norm == "none":
            return x
        raise ValueError(f"MLP(norm={self.norm!r}): choose batch, group or none")


class NoHead(nn.Module):
    """Passes its input on: a network without a predictor (paper Table 19)."""

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return x
