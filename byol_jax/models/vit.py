"""Vision Transformers as MoCo v3 sets them up (arXiv 2104.02057, section 4): a fixed random patch projection, fixed sin-cos positions.

Where the projection is trained, its gradients have spikes that make training unstable (section 4.2). Here it is a constant, drawn from
``patch_seed``: there is no parameter that an optimizer could move or decay, and online and target network share it.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from byol_jax.models.norm import at_least_float32
from byol_jax.models.transformer import LayerNorm, Stack, check_shape


class ViT(nn.Module):
    """Images float32[B, H, W, 3] -> the class token after the last norm, float32[B, hidden]; H and W any multiples of ``patch``.

    Attributes:
      layers, hidden, heads, mlp: of the Transformer; hidden is divisible by 4 (positions are sines and cosines of two coordinates).
      patch: pixels of a patch's side.
      patch_seed: what the patch projection is drawn from.
      epsilon: of the layer norms.
      dtype: of the computation; parameters, softmax and statistics stay float32.
      remat, scan: as of ``transformer.Stack``: less memory for more operations; one compiled layer for all.
      drop_path: of its last layer, see ``transformer.Stack``; above 0 it needs the "dropout" rng in training.
    """

    layers: int = 12
    hidden: int = 384
    heads: int = 12
    mlp: int = 1536
    patch: int = 16
    patch_seed: int = 0
    epsilon: float = 1e-6
    dtype: Any = jnp.float32
    remat: bool = False
    scan: bool = False
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Raises ValueError for images that patches do not fill."""
        check_shape("ViT", self.hidden, self.heads)
        rows, columns = self._grid(x)
        patches = x.reshape(len(x), rows, self.patch, columns, self.patch, 3).swapaxes(2, 3).reshape(len(x), rows * columns, -1)
        projection = jnp.asarray(patch_projection(self.patch, self.hidden, self.patch_seed), self.dtype)
        cls = self.param("cls", nn.initializers.normal(1e-6), (self.hidden,))
        # Position 0, the class token's, is zero.
        tokens = at_least_float32(patches.astype(self.dtype) @ projection) + positions(rows, columns, self.hidden)
        tokens = jnp.concatenate([jnp.broadcast_to(cls, (len(x), 1, self.hidden)), tokens], axis=1).astype(self.dtype)
        block = {"heads": self.heads, "mlp": self.mlp, "norm_first": True, "epsilon": self.epsilon, "dtype": self.dtype}
        tokens = Stack(self.layers, block, self.remat, self.scan, self.drop_path, name="stack")(tokens, None, train)
        return LayerNorm(self.epsilon, name="norm")(at_least_float32(tokens[:, 0]))

    def _grid(self, x: jax.Array) -> tuple[int, int]:
        sides = x.shape[1:3]
        if x.ndim != 4 or x.shape[3] != 3 or any(side < self.patch or side % self.patch for side in sides):
            near = " x ".join(str(max(1, round(side / self.patch)) * self.patch) for side in sides)
            raise ValueError(
                f"ViT(patch={self.patch}) takes images [B, H, W, 3] whose sides are multiples of {self.patch}; it was given "
                f"{list(x.shape)}" + (f"; the nearest size: {near}" if x.ndim == 4 and x.shape[3] == 3 else "")
            )
        return sides[0] // self.patch, sides[1] // self.patch


def patch_projection(patch: int, hidden: int, seed: int) -> np.ndarray:
    """float32[patch * patch * 3, hidden] for pixels in the order row, column, channel: uniform within +-sqrt(6 / (3 patch^2 + hidden)).

    From numpy's RandomState, whose stream never changes: a checkpoint needs the same projection in years to come.
    """
    bound = math.sqrt(6 / (3 * patch * patch + hidden))
    return np.random.RandomState(seed).uniform(-bound, bound, (patch * patch * 3, hidden)).astype(np.float32)


def positions(rows: int, columns: int, hidden: int) -> np.ndarray:
    """float32[rows * columns, hidden]: sine and cosine of a patch's row, then of its column, times 10000^(-i / (hidden / 4)).

    Raises ValueError if hidden is not divisible by 4.
    """
    if hidden % 4:
        raise ValueError(f"ViT(hidden={hidden}): sin-cos positions want hidden divisible by 4; nearest: {max(1, round(hidden / 4)) * 4}")
    frequencies = 10000.0 ** -(np.arange(hidden // 4) / (hidden // 4))
    row, column = np.divmod(np.arange(rows * columns), columns)
    angles = [place[:, None] * frequencies for place in (row, column)]
    return np.concatenate([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=1).astype(np.float32)


def vit_s16(**options: Any) -> ViT:
    """384 features, 12 layers of 12 heads (MoCo v3's small ViT has 12, where DeiT's has 6), patches of 16 x 16."""
    return ViT(**{"hidden": 384, "mlp": 1536, **options})


def vit_b16(**options: Any) -> ViT:
    """768 features, 12 layers of 12 heads, patches of 16 x 16."""
    return ViT(**{"hidden": 768, "mlp": 3072, **options})
