"""The convolution of the ResNets: XLA's, but where a device computes the same faster in another form."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from byol_jax.models import winograd
from byol_jax.models.forms import per_platform

SMALL_MAP = 9  # pixels of the output up to which a CPU takes a product for each pixel of the kernel
MEDIUM_MAP, ROWS = 36, 48  # the same, where the products have so many rows, and as many channels as Winograd's form asks for
FEW_CHANNELS = 4  # of the input, up to which a GPU folds pixels into channels
ABREAST = (4, 2, 1)  # outputs of a row that it makes as one pixel then: as many as divide the row

Pads = tuple[tuple[int, int], ...]


def convolve(x: jax.Array, kernel: jax.Array, window_strides: Any, padding: Any, **options: Any) -> jax.Array:
    """``jax.lax.conv_general_dilated`` as ``flax.linen.Conv`` calls it, without groups or dilation.

    XLA runs a 3x3 convolution on a map of 2x2 pixels at about 1 GFLOP/s on a CPU: there every pixel of the kernel is a product of its own,
    with those pixels of the map alone that it meets, and not with the zeros around (of 3x3 pixels two fifths). With its gradients that
    takes 0.5 to 0.75 of the time of one product with slices side by side, as it was before, on 2x2 and 3x3 pixels, and 0.7 to 0.85 of
    XLA's on 4x4 to 6x6 of 256 channels, 8 images or more; as long on larger maps. Kernels of one pixel are products on any map.

    Of 3x3 convolutions that keep the map's size a CPU takes Winograd's form, in float32 and float64: with its gradients 0.4 to 0.85 of
    XLA's time (maps of 4 to 56 pixels a side, 64 to 512 channels, 8 to 128 images, 2 cores).

    A GPU's library takes many channels at a time, and an image has three: the stem's 7x7 convolution took a tenth of a ResNet-50's step
    (H200, bfloat16). There it is one of 4x2 over 2x8 pixels as channels, 48, to four outputs at once (not timed yet; over 2x2 pixels, 16
    channels, to one output, it took 0.65 ms a pass of 256 images, a third of the speed of other convolutions).

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

    pixels = _side(x, kernel, strides, pads, 0) * _side(x, kernel, strides, pads, 1)
    keeps_size = strides == (1, 1) and pads == ((1, 1), (1, 1))
    forms: dict[str, Any] = {}
    if keeps_size and pixels > SMALL_MAP and winograd.pays(x, kernel):
        forms["cpu"] = lambda x, kernel: winograd.three_by_three(x, kernel, options.get("precision"))
    elif kernel.shape[:2] == (1, 1) or pixels <= (MEDIUM_MAP if _large(x, kernel, pixels) else SMALL_MAP):
        forms["cpu"] = lambda x, kernel: _by_pixel(x, kernel, strides, pads, options.get("precision"))
    elif strides == (2, 2) and min(kernel.shape[:2]) > 1 and x.shape[-1] <= FEW_CHANNELS:
        forms["cuda"] = lambda x, kernel: _by_depth(x, kernel, pads, options)
    return per_platform(x, kernel, **forms, default=by_xla) if forms else by_xla(x, kernel)


def _side(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], pads: Pads, axis: int) -> int:
    """Of the output."""
    return (x.shape[1 + axis] + sum(pads[axis]) - kernel.shape[axis]) // strides[axis] + 1


def _large(x: jax.Array, kernel: jax.Array, pixels: int) -> bool:
    is_open = jax.export.is_symbolic_dim(x.shape[0])  # how many images, in a file
    return not is_open and x.shape[0] * pixels >= ROWS and min(kernel.shape[2:]) >= winograd.CHANNELS


def _by_pixel(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], pads: Pads, precision: Any) -> jax.Array:
    """Summed in float32 at least, as XLA does within a product."""
    sides = [_side(x, kernel, strides, pads, axis) for axis in range(2)]
    wide = x.dtype if jnp.finfo(x.dtype).bits >= 32 else jnp.float32
    total = jnp.zeros((x.shape[0], *sides, kernel.shape[-1]), wide)
    met = [list(_met(x.shape[1 + axis], sides[axis], kernel.shape[axis], strides[axis], pads[axis][0])) for axis in range(2)]
    taps = winograd.taps(kernel)
    for (i, rows, down), (j, columns, right) in itertools.product(*met):
        seen = x[:, rows, columns]
        # As a product of two matrices: XLA takes longer for one with batch dimensions.
        flat = jnp.matmul(seen.reshape(-1, seen.shape[-1]), taps[i][j], precision=precision, preferred_element_type=wide)
        total += jnp.pad(flat.reshape(*seen.shape[:-1], -1), ((0, 0), down, right, (0, 0)))
    return total.astype(x.dtype)


def _met(size: int, side: int, taps: int, stride: int, low: int) -> Iterator[tuple[int, slice, tuple[int, int]]]:
    """Along one axis: every pixel of the kernel that meets the map, what it meets there, and how many outputs before and after lack it."""
    for tap in range(taps):
        first, last = max(0, -((tap - low) // stride)), min(side - 1, (size - 1 + low - tap) // stride)
        if first <= last:
            start = first * stride + tap - low
            yield tap, slice(start, start + (last - first) * stride + 1, stride), (first, side - 1 - last)


def _by_depth(x: jax.Array, kernel: jax.Array, pads: Pads, options: dict[str, Any]) -> jax.Array:
    """Two strides of a kernel are one of a kernel of half its side over 2x2 pixels as channels. What is odd gets a row of zeros first.

    And several outputs of a row, each with a kernel that is moved on, are one of more channels, over more columns as channels.
    """
    outputs = [_side(x, kernel, (2, 2), pads, axis) for axis in range(2)]
    abreast = next(count for count in ABREAST if outputs[1] % count == 0)
    fold, spare = (2, 2 * abreast), x.shape[-1] % 2 if abreast == 1 else 0  # a multiple of 8 channels, folded
    down, right = kernel.shape[0], kernel.shape[1] + 2 * (abreast - 1)
    down, right = down + down % 2, right + -right % fold[1]
    moved = [_grown(kernel, down, right, spare, 2 * place) for place in range(abreast)]
    kernel = jnp.stack(moved, axis=3).reshape(down, right, -1, abreast * kernel.shape[-1])
    sides = 2 * (outputs[0] - 1) + down, 2 * (outputs[1] - abreast) + right
    edges = [(pads[axis][0], sides[axis] - x.shape[1 + axis] - pads[axis][0], 0) for axis in range(2)]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *edges, (0, spare, 0)))
    y = jax.lax.conv_general_dilated(_folded(x, 1, fold), _folded(kernel, 0, fold), (1, 1), "VALID", **options)
    return y.reshape(x.shape[0], *outputs, y.shape[-1] // abreast)


def _grown(kernel: jax.Array, down: int, right: int, spare: int, place: int) -> jax.Array:
    """With zeros: ``down`` x ``right`` pixels, the kernel's from column ``place`` on, and so many channels more."""
    height, width = kernel.shape[:2]
    return jnp.pad(kernel, ((0, down - height), (place, right - width - place), (0, spare), (0, 0)))


def _folded(x: jax.Array, axis: int, fold: tuple[int, int]) -> jax.Array:
    """So many neighbours along ``axis`` and the next one become channels: [..., f h, g w, C, ...] -> [..., h, w, f g C, ...]."""
    before, (height, width, channels), after = x.shape[:axis], x.shape[axis : axis + 3], x.shape[axis + 3 :]
    rows, columns = fold
    split = x.reshape(*before, height // rows, rows, width // columns, columns, channels, *after)
    return jnp.moveaxis(split, axis + 1, axis + 2).reshape(*before, height // rows, width // columns, rows * columns * channels, *after)
