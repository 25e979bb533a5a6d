"""A 1x1 convolution to many channels with the BatchNorm behind it, as one product whose statistics come from its smaller input.

On a GPU, training a ResNet-50 is bound by the memory that its activations move through, and half of that is around the last convolution
of each block: 1x1, to four times the channels. What BatchNorm asks of its output y = x W, x: [N, C], W: [C, 4C], follows from x: the
mean is that of x, times W, and the variance of channel k is w_k' cov(x) w_k. So the norm is folded into W and an offset before y is
made, y is never read for its statistics, and the sum with the shortcut and the ReLU join the product. On the way back the two sums over
y's gradient follow from x' dy, which W's gradient needs in any case, and dx is dy and x, each times a small matrix: y is not even kept.

In XLA's program for an H200 a ResNet-50's step, 256 images of 224 px in bfloat16, moves 210 GB with it and 252 without, and holds 16.7 GB
of temporaries instead of 22.8 (experiments/speed/PLAN.md). The card took 84.3 ms with it, and 87.5 without and the views stacked. A CPU's
step takes 1.2 times as long with it (96 px, 8 images, 2 cores), and a TPU's moves a third more (v5e, one block a stage, 64 images): they
keep the two apart.

Of rows with a 1 behind their channels one product gives both moments, and another x' dy and the sum of dy; the offset is one more row of W.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from byol_jax.models.averages import averaged, several

WIDENS = 4  # outputs for each input from which on the covariance, of C x C, is cheap beside the product, of C x D
SPARE = 8  # channels that the ones take: tensor cores want multiples of 8
_exact = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)  # of small matrices that stand for long sums

DIMENSIONS = ("NHWC", "HWIO", "NHWC")

Normalised = tuple[jax.Array, jax.Array, jax.Array]
Kept = tuple[jax.Array, ...]


class Kernel(nn.Module):
    """The kernel [1, 1, C, D] of the ``nn.Conv`` of the same name, which made it, for a norm that takes both as one."""

    features: int

    @nn.compact
    def __call__(self, channels: int) -> jax.Array:
        return self.param("kernel", nn.initializers.zeros, (1, 1, channels, self.features), jnp.float32)


# Jitted, so that the layers of one shape are traced once.
@partial(jax.jit, static_argnums=(4, 5))
def product_norm(x: jax.Array, kernel: jax.Array, scale: jax.Array, bias: jax.Array, axis_name: Any, epsilon: float) -> Normalised:
    """``norm.batch_norm`` of the product x W: (normalised, mean, variance), [B, H, W, D], [D], [D].

    Args:
      x: [B, H, W, C], in the dtype of the product. kernel: W, [C, D], float32, as scale and bias, [D], are.
    """
    return _product_norm(x, kernel, scale, bias, axis_name, epsilon)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _product_norm(x: jax.Array, kernel: jax.Array, scale: jax.Array, bias: jax.Array, axis_name: Any, epsilon: float) -> Normalised:
    return _forward(x, kernel, scale, bias, axis_name, epsilon)[0]


def _forward(x: jax.Array, kernel: jax.Array, scale: jax.Array, bias: jax.Array, axis_name: Any, epsilon: float) -> tuple[Normalised, Kept]:
    channels, wide = x.shape[-1], kernel.dtype
    kernel = _rounded(kernel, x.dtype)  # what the product would take: statistics are of that
    x = jax.lax.optimization_barrier(_with_ones(x))  # else each product that reads it has a copy
    rows = x.reshape(-1, x.shape[-1])
    moments = _sums(rows, rows, wide) / len(rows)
    own_mean = moments[channels, :channels]
    cov = moments[:channels, :channels] - jnp.outer(own_mean, own_mean)
    x_mean, var = _over_devices(own_mean, (kernel * _exact(cov, kernel)).sum(0), kernel, axis_name)
    rsqrt = jax.lax.rsqrt(var + epsilon)
    folded = _rounded(kernel * (rsqrt * scale), x.dtype)
    offset = bias - _weighted(x_mean, folded)  # of the folded kernel as it is rounded, so that the mean stays exactly bias
    folded = folded.astype(x.dtype)
    y = _convolved(x, _with_row(folded, offset))
    return (y, _exact(x_mean, kernel), var), (x, kernel, scale, folded, own_mean, x_mean, cov, rsqrt)


def _over_devices(own_mean: jax.Array, own_var: jax.Array, kernel: jax.Array, axis_name: Any) -> tuple[jax.Array, jax.Array]:
    """(mean of x, variance of x W) over the devices."""
    if not several(axis_name):
        return own_mean, jnp.maximum(0, own_var)
    mean, square = averaged(axis_name, own_mean, own_var + jnp.square(_exact(own_mean, kernel)))
    return mean, jnp.maximum(0, square - jnp.square(_exact(mean, kernel)))


def _backward(axis_name: Any, epsilon: float, kept: Kept, gradients: Normalised) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """With s = rsqrt scale, dy of x W is s (dy - shift - (x W - mean) fall), as BatchNorm's is; here times x' and W'."""
    x, kernel, scale, folded, own_mean, x_mean, cov, rsqrt = kept
    channels = len(kernel)
    rows, dy = x.reshape(-1, x.shape[-1]), gradients[0].reshape(-1, kernel.shape[1])
    sums = _sums(rows, dy, kernel.dtype)
    along_bias = sums[channels]
    centred = sums[:channels] - jnp.outer(x_mean, along_bias)  # (x - mean)' dy
    along_scale = (kernel * centred).sum(0) * rsqrt
    shift, slope = averaged(axis_name, along_bias / len(rows), along_scale / len(rows))
    fall, factor = rsqrt * slope, rsqrt * scale
    off = own_mean - x_mean  # 0 on one device
    own_y = _exact(off, kernel)
    spread = _exact(cov, kernel) + jnp.outer(off, own_y)  # (x - mean)' (x - mean) W / N
    left = along_bias / len(rows) - shift - own_y * fall
    dkernel = (centred + len(rows) * (jnp.outer(x_mean, left) - jnp.outer(off, shift) - spread * fall)) * factor
    through = _rounded(_exact(kernel * (fall * factor), kernel.T), x.dtype)
    constant = _weighted(shift, folded.T.astype(kernel.dtype))  # as rounded as what dy meets, like through: so dx adds up to 0
    away = _with_row(-through.astype(x.dtype), _weighted(x_mean, through) - constant)
    dx = _convolved(gradients[0], folded.T) + _convolved(x, away)
    return dx, dkernel, along_scale, along_bias


_product_norm.defvjp(_forward, _backward)


def _sums(a: jax.Array, b: jax.Array, dtype: Any) -> jax.Array:
    """a' b: of each column of the one with each of the other, over the rows."""
    return jax.lax.dot_general(a, b, (((0,), (0,)), ((), ())), preferred_element_type=dtype)


def _weighted(weights: jax.Array, rows: jax.Array) -> jax.Array:
    """The sum of the rows, each times its weight. Apart from what uses it: in one kernel, a GPU made it again for each of many threads."""
    return jax.lax.optimization_barrier(_exact(weights, rows))


def _convolved(x: jax.Array, weights: jax.Array) -> jax.Array:
    """[B, H, W, C] by [C, D]; as a convolution, to whose result cuDNN adds another as it writes it."""
    return jax.lax.conv_general_dilated(x, weights[None, None], (1, 1), "VALID", dimension_numbers=DIMENSIONS)


def _with_ones(x: jax.Array) -> jax.Array:
    """[..., C] -> [..., C + 8]: two ones behind the channels, and zeros."""
    channels = x.shape[-1]
    ones = jnp.pad(jnp.ones(2, x.dtype), (channels, SPARE - 2))
    return jnp.pad(x, (*((0, 0) for _ in x.shape[:-1]), (0, SPARE))) + ones


def _with_row(weights: jax.Array, row: jax.Array) -> jax.Array:
    """[C, D] -> [C + 8, D]: what the two ones meet adds up to ``row``, to twice the digits that a narrow dtype has."""
    high = _rounded(row, weights.dtype)
    low = (row - high).astype(weights.dtype)
    high = high.astype(weights.dtype)
    return jnp.concatenate([weights, high[None], low[None], jnp.zeros((SPARE - 2, weights.shape[1]), weights.dtype)])


def _rounded(x: jax.Array, dtype: Any) -> jax.Array:
    """``x`` with the digits of ``dtype``. A cast there and back says the same, but XLA leaves both out unless told not to."""
    info = jnp.finfo(dtype)
    return jax.lax.reduce_precision(x, exponent_bits=info.nexp, mantissa_bits=info.nmant)
