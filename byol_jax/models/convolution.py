"""The convolution of the ResNets: XLA's, but on a CPU, for small maps, one matrix product."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

SMALL_MAP = 4  # pixels of the output up to which a CPU takes the matrix product


def convolve(x: jax.Array, kernel: jax.Array, window_strides: Any, padding: Any, **options: Any) -> jax.Array:
    """``jax.lax.conv_general_dilated`` as ``flax.linen.Conv`` calls it, without groups or dilation.

    XLA runs a 3x3 convolution on a map of 2x2 pixels at about 1 GFLOP/s on a CPU: there the kernel's shifted, strided slices of the input
    stand side by side and are multiplied once. Training steps of configs/digits.py and configs/cifar10.py:small came 1.5 to 1.6 times as
    fast (2 cores, shared); at 16, 25 and 64 pixels for SMALL_MAP 1.5, 1.4 and 1.3 times.

    Args:
      x: [B, H, W, C].
      kernel: [h, w, C, D].

    Returns:
      [B, H', W', D].
    """

    def by_xla(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, window_strides, padding, **options)

    strides, pads = tuple(window_strides), padding
    if isinstance(pads, str):
        pads = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, pads)
    sides = [
        (size + sum(pad) - window) // stride + 1
        for size, pad, window, stride in zip(x.shape[1:3], pads, kernel.shape[:2], strides, strict=True)
    ]
    if sides[0] * sides[1] > SMALL_MAP:
        return by_xla(x, kernel)

    def by_slices(x: jax.Array, kernel: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        spans = [(side - 1) * stride + 1 for side, stride in zip(sides, strides, strict=True)]
        taps = [(i, j) for i in range(kernel.shape[0]) for j in range(kernel.shape[1])]
        patches = [x[:, i : i + spans[0] : strides[0], j : j + spans[1] : strides[1]] for i, j in taps]
        flat = kernel.reshape(-1, kernel.shape[-1])
        return jnp.matmul(jnp.concatenate(patches, axis=-1), flat, precision=options.get("precision"))

    return jax.lax.platform_dependent(x, kernel, cpu=by_slices, default=by_xla)
