"""Gaussian blur of one image, as planes: float32[3, H, W]."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def radius(height: int) -> int:
    """Half-width of the kernel: the paper's kernel spans a tenth of the image's height (224 -> 23 taps, 32 -> 3, below 20 -> 1)."""
    return int(height / 10 / 2)


def kernel(sigma: jax.typing.ArrayLike, half: int) -> jax.Array:
    """float32[half + 1]: the right half of a normalised Gaussian, centre first. ``sigma`` in pixels."""
    sigma = jnp.asarray(sigma, jnp.float32)
    offsets = jnp.arange(half + 1, dtype=jnp.float32)
    weights = jnp.exp(-(offsets**2) / (2.0 * sigma**2))
    return weights / (2.0 * jnp.sum(weights) - 1.0)  # the centre, exp(0), counts once


def blur(image: jax.Array, weights: jax.Array) -> jax.Array:
    """Convolves rows, then columns, with a symmetric kernel; zeros outside the image (so borders darken, as in the official code).

    Args:
      image: float32[3, H, W].
      weights: float32[r + 1], right half of the kernel, centre first.

    Shifted sums rather than a convolution: every image has its own kernel, which XLA would run as a grouped convolution
    of batch x 3 groups, slow on every backend.
    """
    return _along(_along(image, weights, axis=-1), weights, axis=-2)


def _along(image: jax.Array, weights: jax.Array, axis: int) -> jax.Array:
    half, length = weights.shape[0] - 1, image.shape[axis]
    pads = [(0, 0)] * image.ndim
    pads[axis] = (half, half)
    padded = jnp.pad(image, pads)

    def shifted(offset: int) -> jax.Array:
        return jax.lax.slice_in_dim(padded, half + offset, half + offset + length, axis=axis)

    total = weights[0] * image
    for offset in range(1, half + 1):
        total = total + weights[offset] * (shifted(offset) + shifted(-offset))
    return total
