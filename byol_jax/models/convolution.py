"""The convolution of the ResNets: XLA's, but where a device computes the same faster in another form."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from byol_jax.models import winograd

SMALL_MAP = 9  # pixels of the output up to which a CPU takes a matrix product
FEW_CHANNELS = 4  # of the input, up to which a GPU folds 2x2 pixels into channels

Pads = tuple[tuple[int, int], ...]


def convolve(x: jax.Array, kernel: jax.Array, window_strides: Any, padding: Any, **options: Any) -> jax.Array:
    """``jax.lax.conv_general_dilated`` as ``flax.linen.Conv`` calls it, without groups or dilation.

    XLA runs a 3x3 convolution on a map of 2x2 pixels at about 1 GFLOP/s on a CPU: there the kernel's shifted, strided slices of the input
    stand side by side and are multiplied once. Training steps of configs/digits.py and configs/cifar10.py:small came 1.5 to 1.6 times as
    fast (2 cores, shared). With its gradients such a product takes 0.6 of the convolution's time on 3x3 pixels of 512 channels, the same on
    4x4 of 256, and longer on larger maps. Kernels of one pixel are products on any map: 0.65 to 0.85 of the time.

    Of 3x3 convolutions that keep the map's size a CPU takes Winograd's form, in float32 and float64: with its gradients 0.4 to 0.85 of
    XLA's time (maps of 4 to 56 pixels a side, 64 to 512 channels), on 2x2 pixels 0.6 to 0.8 of the slices'.

    A GPU's matrix units take eight channels or more, and an image has three: the stem's 7x7 convolution took a tenth of a ResNet-50's
    step (H200, bfloat16). There it is one of 4x4 on a quarter of the pixels, which have four times the channels.

    Args:
      x: [B, H, W, C].
      kernel: [h, w, C, D].

    Returns:
      [B, H', W', D].
    """
    strides, pads = tuple(window_strides), padding
    if isinstance(pads, str):
        pads = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, pads)
    pads = tuple((int(low), int(high)) for low, high in pads)

    def by_xla(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, window_strides, padding, **options)

    forms: dict[str, Any] = {}
    if strides == (1, 1) and pads == ((1, 1), (1, 1)) and winograd.pays(x, kernel):
        forms["cpu"] = lambda x, kernel: winograd.three_by_three(x, kernel, options.get("precision"))
    elif kernel.shape[:2] == (1, 1) or _side(x, kernel, strides, pads, 0) * _side(x, kernel, strides, pads, 1) <= SMALL_MAP:
        forms["cpu"] = lambda x, kernel: _by_slices(x, kernel, strides, pads, options.get("precision"))
    elif strides == (2, 2) and min(kernel.shape[:2]) > 1 and x.shape[-1] <= FEW_CHANNELS:
        forms["cuda"] = lambda x, kernel: _by_depth(x, kernel, pads, options)
    return jax.lax.platform_dependent(x, kernel, **forms, default=by_xla) if forms else by_xla(x, kernel)


def _side(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], pads: Pads, axis: int) -> int:
    """Of the output."""
    return (x.shape[1 + axis] + sum(pads[axis]) - kernel.shape[axis]) // strides[axis] + 1


def _by_slices(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], pads: Pads, precision: Any) -> jax.Array:
    spans = [(_side(x, kernel, strides, pads, axis) - 1) * strides[axis] + 1 for axis in range(2)]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    taps = [(i, j) for i in range(kernel.shape[0]) for j in range(kernel.shape[1])]
    patches = jnp.concatenate([x[:, i : i + spans[0] : strides[0], j : j + spans[1] : strides[1]] for i, j in taps], axis=-1)
    # As a product of two matrices: XLA takes longer for one with batch dimensions.
    flat = jnp.matmul(patches.reshape(-1, patches.shape[-1]), kernel.reshape(-1, kernel.shape[-1]), precision=precision)
    return flat.reshape(*patches.shape[:-1], kernel.shape[-1])


def _by_depth(x: jax.Array, kernel: jax.Array, pads: Pads, options: dict[str, Any]) -> jax.Array:
    """Two strides of a kernel are one of a kernel of half its side over 2x2 pixels as channels. What is odd gets a row of zeros first."""
    outputs = [_side(x, kernel, (2, 2), pads, axis) for axis in range(2)]
    kernel = jnp.pad(kernel, (*((0, size % 2) for size in kernel.shape[:3]), (0, 0)))
    sides = [2 * (count - 1) + side for count, side in zip(outputs, kernel.shape[:2], strict=True)]
    edges = [(pads[axis][0], sides[axis] - x.shape[1 + axis] - pads[axis][0], 0) for axis in range(2)]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *edges, (0, x.shape[-1] % 2, 0)))
    deep = _folded(x, 1)
    return jax.lax.conv_general_dilated(deep, _folded(kernel, 0), (1, 1), "VALID", **options)


def _folded(x: jax.Array, axis: int) -> jax.Array:
    """Two neighbours along ``axis`` and the next one become channels: [..., 2 h, 2 w, C, ...] -> [..., h, w, 4 C, ...]."""
    before, (height, width, channels), after = x.shape[:axis], x.shape[axis : axis + 3], x.shape[axis + 3 :]
    split = x.reshape(*before, height // 2, 2, width // 2, 2, channels, *after)
    return jnp.moveaxis(split, axis + 1, axis + 2).reshape(*before, height // 2, width // 2, 4 * channels, *after)
