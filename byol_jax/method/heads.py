"""The projector and the predictor: small multi-layer perceptrons (paper section 3.3)."""

from __future__ import annotations

from typing import Any

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
    """

    hidden: int = 4096
    out: int = 256
    layers: int = 2
    dtype: Any = jnp.float32
    bn_axis: str | None = "data"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.layers < 1:
            raise ValueError(f"MLP(layers={self.layers}): a head has at least 1 linear layer; use layers=1 for a plain projection")
        for i in range(self.layers - 1):
            x = nn.Dense(self.hidden, dtype=self.dtype, kernel_init=fan_in_init, name=f"linear_{i}")(x)
            norm = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, axis_name=self.bn_axis, name=f"norm_{i}")
            x = nn.relu(norm(at_least_float32(x)))
        last = nn.Dense(self.out, use_bias=False, dtype=self.dtype, kernel_init=fan_in_init, name=f"linear_{self.layers - 1}")
        return at_least_float32(last(x))
