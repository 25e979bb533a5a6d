"""The 3x3 convolution with 16 products where it has 36: Winograd's F(2x2, 3x3), as in Lavin and Gray, arXiv:1509.09308, section 4.1.

Tiles of 4x4 pixels, two apart, and the kernel are each taken to 16 numbers; their products, summed over the channels, are taken to the 2x2
pixels of the output. All that the compiler sees is slices, sums and 16 products of matrices, and the way back is the same way turned round:
the output's gradient is taken to 16 numbers once, for the gradients of both the image and the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

Grid = list[list[jax.Array]]
Rows = tuple[tuple[float, ...], ...]

# The paper's B^T, G and A^T: what goes along both axes of a tile, of the kernel, and of the products.
TILE: Rows = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
KERNEL: Rows = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
OUTPUT: Rows = ((1, 1, 1, 0), (0, 1, -1, -1))

TILES, CHANNELS, SHARE = 48, 32, 0.7  # from so many on, and up to this share of the products, it pays


# Jitted, so that the layers of one shape are traced once; and what is kept for the way back is x and the kernel, not the tiles of x.
@partial(jax.jit, static_argnums=2)
@partial(jax.checkpoint, static_argnums=(2,))
def three_by_three(x: jax.Array, kernel: jax.Array, precision: Any) -> jax.Array:
    """The convolution of stride 1 whose output has the size of its input: zeros lie around the image.

    Both gradients take 16 products for 36 too; kept for them are ``x`` and ``kernel``.

    Args:
      x: [B, H, W, C].
      kernel: [3, 3, C, D], of the same dtype.
      precision: of the products, as of ``jax.lax.dot``.

    Returns:
      [B, H, W, D].
    """
    size = (x.shape[1], x.shape[2])
    kernels = _along_both(KERNEL, taps(kernel))
    products = [
        [jnp.matmul(tile, taken, precision=precision) for tile, taken in zip(*rows, strict=True)]
        for rows in zip(_tiles(x, size), kernels, strict=True)
    ]
    return _woven(_apart(_along_both(OUTPUT, products), size), size)


def pays(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether it is faster on a CPU than XLA's convolution, and no less exact.

    It is not for few rows or columns of the products; nor where a side is so small, and odd, that the last tiles are mostly empty. Nor is
    it taken where a file leaves the number of rows open.
    """
    if jax.export.is_symbolic_dim(x.shape[0]):
        return False
    rows = x.shape[0] * _count(x.shape[1]) * _count(x.shape[2])
    products, defined = 16 * rows, 9 * x.shape[0] * x.shape[1] * x.shape[2]
    large = rows >= TILES and min(kernel.shape[2:]) >= CHANNELS and products <= SHARE * defined
    return kernel.shape[:2] == (3, 3) and large and jnp.finfo(x.dtype).bits >= 32


def taps(kernel: jax.Array) -> Grid:
    """[h, w, C, D] -> h x w of [C, D], whose gradients are laid side by side: those of indices JAX would fill up with zeros and add."""
    height, width, *channels = kernel.shape
    parts = iter(jax.lax.split(kernel.reshape(height * width, *channels), (1,) * (height * width)))
    return [[next(parts).reshape(channels) for _ in range(width)] for _ in range(height)]


def _count(size: int) -> int:
    """Of the tiles along a side: each makes two pixels."""
    return -(-size // 2)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _tiles(x: jax.Array, size: tuple[int, int]) -> Grid:
    """What is made of the 16 pixels of every tile: 4 x 4 of [tiles, C]. ``size`` is the image's."""
    down, right = map(_count, size)
    padded = jnp.pad(x, ((0, 0), *((1, 1 + side % 2) for side in size), (0, 0)))
    pixels = [[padded[:, i : i + 2 * down - 1 : 2, j : j + 2 * right - 1 : 2] for j in range(4)] for i in range(4)]
    return [[entry.reshape(-1, x.shape[-1]) for entry in row] for row in _along_both(TILE, pixels)]


def _tiles_forward(x: jax.Array, size: tuple[int, int]) -> tuple[Grid, None]:
    return _tiles(x, size), None


def _tiles_backward(size: tuple[int, int], _: None, grads: Grid) -> tuple[jax.Array]:
    """The sums over the tiles that a pixel lies in: what JAX makes of the slices has the convolution take a fifth longer."""
    pixels = _apart(_along_both(_turned(TILE), grads), size)
    columns = [_overlaid(column, axis=1) for column in zip(*pixels, strict=True)]
    return (_woven([_overlaid(row, axis=2) for row in zip(*columns, strict=True)], size),)


_tiles.defvjp(_tiles_forward, _tiles_backward)


def _overlaid(lines: Sequence[jax.Array], axis: int) -> list[jax.Array]:
    """The even and the odd lines of an image, of the four lines of its tiles: each lies in two tiles."""
    return [lines[1] + _shifted(lines[3], axis, 1), lines[2] + _shifted(lines[0], axis, -1)]


def _shifted(lines: jax.Array, axis: int, by: int) -> jax.Array:
    """By so many tiles, after zeros."""
    edges = [(by, -by, 0) if i == axis else (0, 0, 0) for i in range(lines.ndim)]
    return jax.lax.pad(lines, jnp.zeros((), lines.dtype), edges)


def _apart(grid: Grid, size: tuple[int, int]) -> Grid:
    """[tiles, C] each -> [B, tiles down, tiles right, C]."""
    return [[entry.reshape(-1, *map(_count, size), entry.shape[-1]) for entry in row] for row in grid]


def _woven(pixels: Grid, size: tuple[int, int]) -> jax.Array:
    """The image of 2 x 2 pixels for each tile."""
    image = jnp.stack([jnp.stack(row, axis=3) for row in pixels], axis=2)
    down, right = map(_count, size)
    return image.reshape(-1, 2 * down, 2 * right, image.shape[-1])[:, : size[0], : size[1]]


def _along_both(weights: Rows, grid: Grid) -> Grid:
    """weights @ grid @ weights^T, entry by entry."""
    rows = [[_sum(row, column) for column in zip(*grid, strict=True)] for row in weights]
    return [[_sum(column, row) for column in weights] for row in rows]


def _sum(weights: Sequence[float], terms: Sequence[jax.Array]) -> jax.Array:
    first, *others = [_times(weight, term) for weight, term in zip(weights, terms, strict=True) if weight]
    return sum(others, first)


def _times(weight: float, term: jax.Array) -> jax.Array:
    return term if weight == 1 else -term if weight == -1 else jnp.asarray(weight, term.dtype) * term


def _turned(weights: Rows) -> Rows:
    return tuple(zip(*weights, strict=True))
