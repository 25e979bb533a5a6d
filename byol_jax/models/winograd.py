"""The 3x3 convolution with 16 products where it has 36: Winograd's F(2x2, 3x3), as in Lavin and Gray, arXiv:1509.09308, section 4.1.

Tiles of 4x4 pixels, two apart, and the kernel are each taken to 16 numbers; their products, summed over the channels, are taken to the 2x2
pixels of the output. All that the compiler sees is slices, sums and 16 products of matrices.
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
MIRRORED = (3, 1, 2, 0)  # the rows of KERNEL, for a kernel the other way round

TILES, CHANNELS, SHARE = 48, 32, 0.7  # from so many on, and up to this share of the products, it pays


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def three_by_three(x: jax.Array, kernel: jax.Array, precision: Any = None) -> jax.Array:
    """The convolution of stride 1 whose output has the size of its input: zeros lie around the image.

    Both gradients take 16 products for 36 too; kept for them are ``x`` and ``kernel``.

    Args:
      x: [B, H, W, C].
      kernel: [3, 3, C, D], of the same dtype.
      precision: of the products, as of ``jax.lax.dot``.

    Returns:
      [B, H, W, D].
    """
    return _convolved(x, kernel, precision)


def _forward(x: jax.Array, kernel: jax.Array, precision: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return three_by_three(x, kernel, precision), (x, kernel)


def _backward(precision: Any, kept: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    return _convolved(dy, kernel, precision, back=True), _along_kernel(x, dy, precision)


three_by_three.defvjp(_forward, _backward)


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


# Jitted, so that the layers of one shape are traced once.
@partial(jax.jit, static_argnames=("precision", "back"))
def _convolved(x: jax.Array, kernel: jax.Array, precision: Any, back: bool = False) -> jax.Array:
    """With ``back``, of the output's gradient: with the kernel the other way round, from its outputs to its inputs."""
    batch, height, width, _ = x.shape
    taken = _along_both(KERNEL, [list(row) for row in kernel])
    if back:
        taken = [[taken[i][j] for j in MIRRORED] for i in MIRRORED]
    products = _products(_along_both(TILE, _tiles(x)), taken, (1, 1 if back else 0), precision)
    pixels, down, right = _along_both(OUTPUT, products), _count(height), _count(width)
    rows = [jnp.stack([pixel.reshape(batch, down, right, -1) for pixel in row], axis=3) for row in pixels]
    return jnp.stack(rows, axis=2).reshape(batch, 2 * down, 2 * right, -1)[:, :height, :width]


@partial(jax.jit, static_argnames="precision")
def _along_kernel(x: jax.Array, dy: jax.Array, precision: Any) -> jax.Array:
    """The kernel's gradient."""
    padded = jnp.pad(dy, ((0, 0), *((0, size % 2) for size in dy.shape[1:3]), (0, 0)))
    pixels = [[padded[:, i::2, j::2].reshape(-1, dy.shape[-1]) for j in range(2)] for i in range(2)]
    products = _products(_along_both(TILE, _tiles(x)), _along_both(_turned(OUTPUT), pixels), (0, 0), precision)
    return jnp.stack([jnp.stack(row) for row in _along_both(_turned(KERNEL), products)])


def _count(size: int) -> int:
    """Of the tiles along a side: each makes two pixels."""
    return -(-size // 2)


def _tiles(x: jax.Array) -> Grid:
    """Pixel (i, j) of every tile: 4 x 4 of [tiles, C]."""
    down, right = (_count(size) for size in x.shape[1:3])
    padded = jnp.pad(x, ((0, 0), *((1, 1 + size % 2) for size in x.shape[1:3]), (0, 0)))
    return [[padded[:, i : i + 2 * down - 1 : 2, j : j + 2 * right - 1 : 2].reshape(-1, x.shape[-1]) for j in range(4)] for i in range(4)]


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


def _products(left: Grid, right: Grid, over: tuple[int, int], precision: Any) -> Grid:
    """Of two matrices each, summed over these axes of theirs."""
    axes = (((over[0],), (over[1],)), ((), ()))
    return [
        [jax.lax.dot_general(a, b, axes, precision=precision) for a, b in zip(*rows, strict=True)] for rows in zip(left, right, strict=True)
    ]
