"""The norms of the ResNets, each with the ReLU that may follow it.

Training a ResNet on a GPU is bound by the memory that its activations move through, and half of that is BatchNorm. So its way back is
written out here: of an activation it keeps the convolution's output alone, and passes over it twice, once for the two sums that it needs
and once to apply them. What automatic differentiation makes of the same formula passes over it four times. A ResNet-50's step at 224 px
moved 256 GB for a batch of 256 with this file and ``pool``, and 279 GB without (counted in XLA's program for an H200; ``pointwise`` came
later). A CPU's step takes 6 to 8% less time (configs/digits.py, configs/cifar10.py:small). A TPU's compiler joins the derivative of the
formula to the convolutions before and after it, and moves a tenth less with it: there it is left alone.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from byol_jax.models import pointwise
from byol_jax.models.averages import averaged
from byol_jax.models.convolution import convolve
from byol_jax.models.forms import per_platform
from byol_jax.models.pointwise import Normalised

Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


class Norm(nn.BatchNorm):
    """BatchNorm that takes statistics and normalises at least in float32, and returns the dtype it was given.

    Attributes:
      relu: whether a ReLU follows.
    """

    relu: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        use_running_average: bool | None = None,
        *,
        mask: jax.Array | None = None,
        kernel: jax.Array | None = None,
    ) -> jax.Array:
        """``kernel``: [1, 1, C, D], in training only: of a convolution between x and the norm, which a GPU joins to it (``pointwise``)."""
        if mask is not None:
            raise ValueError("Norm(x, mask=...): statistics are of all pixels; flax.linen.BatchNorm takes a mask")
        frozen = nn.merge_param("use_running_average", self.use_running_average, use_running_average)
        channels = (x.shape[-1] if kernel is None else kernel.shape[-1],)
        scale = self.param("scale", self.scale_init, channels, jnp.float32)
        bias = self.param("bias", self.bias_init, channels, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        if frozen:
            if kernel is not None:
                raise ValueError("Norm(x, kernel=...) takes batch statistics: with running averages, convolve x before")
            return normalized(x, scale, bias, mean.value, jax.lax.rsqrt(var.value + self.epsilon), self.relu)
        how = None if self.is_initializing() else self.axis_name, self.epsilon, self.relu
        y, batch_mean, batch_var = batch_norm(x, scale, bias, *how) if kernel is None else product_norm(x, kernel, scale, bias, *how)
        if not self.is_initializing():
            mean.value = self.momentum * mean.value + (1 - self.momentum) * batch_mean
            var.value = self.momentum * var.value + (1 - self.momentum) * batch_var
        return y


class Groups(nn.GroupNorm):
    """GroupNorm that normalises at least in float32, and returns the dtype it was given.

    Attributes:
      relu: whether a ReLU follows.
    """

    relu: bool = False

    def __call__(self, x: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
        y = super().__call__(at_least_float32(x), *args, **kwargs).astype(x.dtype)
        return relu(y) if self.relu else y


def normalized(x: jax.Array, scale: jax.Array, bias: jax.Array, mean: jax.Array, rsqrt: jax.Array, with_relu: bool) -> jax.Array:
    """scale (x - mean) rsqrt + bias, and its positive part if asked; computed at least in float32, returned as ``x``'s dtype."""
    y = ((at_least_float32(x) - mean) * (rsqrt * scale) + bias).astype(x.dtype)
    return nn.relu(y) if with_relu else y  # of the narrower dtype: a TPU keeps it for the way back


def batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, axis_name: Any, epsilon: float, with_relu: bool) -> Normalised:
    """(normalised x, mean, variance): [..., C], [C], [C]; statistics over all axes but the last, and over ``axis_name``.

    The variance is the mean square less the squared mean, so that one pass gives both. Mean and variance are for running averages: no
    gradient comes back through them.
    """

    def derived(x: jax.Array, scale: jax.Array, bias: jax.Array) -> Normalised:
        return _forward(x, scale, bias, axis_name, epsilon, with_relu)[0]

    def written(x: jax.Array, scale: jax.Array, bias: jax.Array) -> Normalised:
        return _traced_once(x, scale, bias, axis_name, epsilon, with_relu)

    y, mean, var = per_platform(x, scale, bias, tpu=derived, default=written)
    return y, jax.lax.stop_gradient(mean), jax.lax.stop_gradient(var)


def product_norm(
    x: jax.Array, kernel: jax.Array, scale: jax.Array, bias: jax.Array, axis_name: Any, epsilon: float, with_relu: bool
) -> Normalised:
    """``batch_norm`` of the convolution of x, [B, H, W, C], by a kernel [1, 1, C, D]; as one on a GPU."""

    def apart(x: jax.Array, kernel: jax.Array, scale: jax.Array, bias: jax.Array) -> Normalised:
        y = convolve(x, kernel.astype(x.dtype), (1, 1), "VALID", dimension_numbers=pointwise.DIMENSIONS)
        return batch_norm(y, scale, bias, axis_name, epsilon, with_relu)

    def joined(x: jax.Array, kernel: jax.Array, scale: jax.Array, bias: jax.Array) -> Normalised:
        y, mean, var = pointwise.product_norm(x, kernel[0, 0], scale, bias, axis_name, epsilon)
        return relu(y) if with_relu else y, jax.lax.stop_gradient(mean), jax.lax.stop_gradient(var)

    return per_platform(x, kernel, scale, bias, cuda=joined, default=apart)


def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, axis_name: Any, epsilon: float, with_relu: bool
) -> tuple[Normalised, Residuals]:
    wide, over = at_least_float32(x), tuple(range(x.ndim - 1))
    mean, square = averaged(axis_name, wide.mean(over), jnp.square(wide).mean(over))
    var = jnp.maximum(0, square - jnp.square(mean))
    rsqrt = jax.lax.rsqrt(var + epsilon)
    return (normalized(x, scale, bias, mean, rsqrt, with_relu), mean, var), (x, scale, bias, mean, rsqrt)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _written_out(x: jax.Array, scale: jax.Array, bias: jax.Array, axis_name: Any, epsilon: float, with_relu: bool) -> Normalised:
    return _forward(x, scale, bias, axis_name, epsilon, with_relu)[0]


def _backward(
    axis_name: Any, epsilon: float, with_relu: bool, residuals: Residuals, gradients: Normalised
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, scale, bias, mean, rsqrt = residuals
    over, rows = tuple(range(x.ndim - 1)), x.size // x.shape[-1]

    def parts(x: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        centred, dy = at_least_float32(x) - mean, at_least_float32(dy)
        # Not "+ bias > 0", which is the same: a GPU's program then keeps the answer from the way there, a byte for each number.
        return centred, jnp.where(centred * (rsqrt * scale) > -bias, dy, 0) if with_relu else dy

    centred, dy = parts(x, gradients[0])
    # The barrier keeps XLA from writing what both passes share to memory, and from adding up the views' sums in a third one. And what is
    # the same for all rows stays outside of the sum: a CPU's would have it written for each row.
    x, again, along_bias, along_centred = jax.lax.optimization_barrier((x, gradients[0], dy.sum(over), (dy * centred).sum(over)))
    along_scale = along_centred * rsqrt
    shift, slope = averaged(axis_name, along_bias / rows, along_scale / rows)
    centred, dy = parts(x, again)
    dx = (dy - shift - centred * (rsqrt * slope)) * (rsqrt * scale)
    return dx.astype(x.dtype), along_scale, along_bias


_written_out.defvjp(_forward, _backward)
_traced_once = jax.jit(_written_out, static_argnums=(3, 4, 5))  # of the layers of one shape


def relu(x: jax.Array) -> jax.Array:
    """The positive part. Its way back looks at the result, which the next layer keeps anyway, and not at ``x``; on a TPU as JAX has it."""
    return per_platform(x, tpu=nn.relu, default=jax.jit(_relu))


@jax.custom_vjp
def _relu(x: jax.Array) -> jax.Array:
    return jnp.maximum(x, 0)


def _relu_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = jax.lax.optimization_barrier(jnp.maximum(x, 0))  # else XLA makes it again where the next block adds to it
    return y, y


def _relu_backward(y: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(y > 0, dy, 0),)


_relu.defvjp(_relu_forward, _relu_backward)


def at_least_float32(x: jax.Array) -> jax.Array:
    """``x``, in float32 if its dtype is a narrower one."""
    return x if jnp.finfo(x.dtype).bits >= 32 else x.astype(jnp.float32)
