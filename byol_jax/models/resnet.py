"""ResNet v1 as the paper trains it: 18 to 200 layers, any width, the ImageNet stem or one for small images.

Facts that differ from other ResNets: 'SAME' padding everywhere (at even sizes a strided convolution pads 0 before and 1 after), the
stride of a bottleneck in its 3x3 convolution, and a projection shortcut in the first block of every stage, also where shapes agree.
Weights trained in PyTorch want ``padding="symmetric"`` and, in ResNet-18 and 34, ``shortcut="shape"``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from byol_jax.models.convolution import convolve
from byol_jax.models.drop_path import depth_rates, drop_path
from byol_jax.models.norm import Groups, Norm, at_least_float32, relu
from byol_jax.models.pointwise import WIDENS, Kernel
from byol_jax.models.pool import relu_max_pool

# Truncated normal with standard deviation 0.8796 / sqrt(fan_in): the official code does not widen it to make up for the truncation.
fan_in_init = nn.initializers.variance_scaling(0.87962566103423978**2, "fan_in", "truncated_normal")


CHOICES = {
    "block": ("basic", "bottleneck"),
    "stem": ("imagenet", "small"),
    "padding": ("same", "symmetric"),
    "shortcut": ("first", "shape"),
    "norm": ("batch", "group"),
}


class Block(nn.Module):
    """A residual block: relu(branch(x) + shortcut(x)), [B, H, W, C] -> [B, H / stride, W / stride, channels].

    Attributes:
      kernels: sides of the branch's convolutions: (3, 3) is basic, (1, 3, 1) bottleneck, whose inner convolutions have channels / 4.
      stride: of the first 3x3 convolution, and of the projection.
      project: whether the shortcut is a 1x1 convolution with BN; otherwise it is x itself.
      conv, norm: constructors of the layers. zero_init: start the last norm's scale at 0, so that the branch starts at 0.
      joins: whether a norm may take the 1x1 convolution before it as one with itself.
      drop: how often the branch is dropped; None: never.
    """

    channels: int
    kernels: tuple[int, ...]
    stride: int
    project: bool
    conv: Any
    norm: Any
    zero_init: bool
    joins: bool
    drop: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        last = len(self.kernels) - 1
        inner = self.channels // 4 if last == 2 else self.channels
        y = x
        for i, kernel in enumerate(self.kernels):
            stride = self.stride if i == self.kernels.index(3) else 1
            scale_init = nn.initializers.zeros if i == last and self.zero_init else nn.initializers.ones
            norm = self.norm(scale_init=scale_init, relu=i < last, name=f"norm_{i}")
            y = self._normed(y, self.channels if i == last else inner, kernel, stride, f"conv_{i}", norm)
        if self.project:
            x = self._normed(x, self.channels, 1, self.stride, "shortcut_conv", self.norm(name="shortcut_norm"))
        return relu(x + drop_path(self, y, self.drop))

    def _normed(self, x: jax.Array, features: int, side: int, stride: int, name: str, norm: nn.Module) -> jax.Array:
        if self.joins and side == stride == 1 and features >= WIDENS * x.shape[-1]:
            return norm(x, kernel=Kernel(features, name=name)(x.shape[-1]))
        return norm(self.conv(features, side, strides=stride, name=name)(x))


class StandardizedConv(nn.Conv):
    """A convolution whose kernel, for each output, has mean 0 and variance 1 / fan-in before it is used (arXiv 1903.10520)."""

    def param(self, name: str, *args: Any, **kwargs: Any) -> Any:
        value = super().param(name, *args, **kwargs)
        return standardized(value) if name == "kernel" else value


def standardized(kernel: jax.Array) -> jax.Array:
    """A kernel [h, w, in, out] that has, for each output, mean 0 and variance 1 / (h w in); doing it again changes nothing."""
    centred = kernel - kernel.mean(axis=(0, 1, 2), keepdims=True)
    variance = jnp.square(centred).mean(axis=(0, 1, 2), keepdims=True)
    return centred * jax.lax.rsqrt((variance + 1e-10) * math.prod(kernel.shape[:3]))


class ResNet(nn.Module):
    """ResNet v1 without a classifier: images [B, H, W, 3] -> embeddings [B, width * channels[-1]], at least float32.

    Attributes:
      stage_sizes: blocks of every stage; each stage but the first halves the map.
      channels: outputs of every stage, before ``width``.
      block: "basic" or "bottleneck".
      width: factor on every channel count, the stem's too.
      stem: "imagenet" (7x7 stride 2, then 3x3 max pool stride 2) or "small" (3x3 stride 1, no pool).
      stem_channels: outputs of the stem, before ``width``.
      zero_init_last_bn: start every block as the identity; off in the paper.
      padding: of strided convolutions and the pool: "same" (the official code: what does not divide evenly goes after) or "symmetric"
        (PyTorch: half a kernel on each side). They differ at even sizes, agree at odd ones.
      shortcut: a projection in the first block of every stage ("first", the official code), or only where stride or channels change
        ("shape", PyTorch; the same for bottlenecks of the usual widths).
      norm: "batch", or "group": GroupNorm of 16 groups after convolutions with standardised kernels; an image then knows no other
        of its batch (arXiv 2010.10241).
      dtype: dtype of the convolutions (bfloat16 halves the traffic); parameters and batch statistics stay float32.
      bn_axis: mesh axis over which batch statistics are averaged.
      bn_momentum: how much of the running averages a step keeps.
      convolution: what computes the convolutions, called as ``jax.lax.conv_general_dilated`` is by ``nn.Conv``.
      remat: keep of a block only what enters it, and compute the rest again on the way back: less memory, about a third more operations.
      drop_path: how often the last block's branch is dropped in training, the earlier ones linearly less (stochastic depth). Above 0 it
        needs the "dropout" rng.
    """

    stage_sizes: Sequence[int]
    channels: Sequence[int]
    block: Literal["basic", "bottleneck"]
    width: int = 1
    stem: Literal["imagenet", "small"] = "imagenet"
    stem_channels: int = 64
    zero_init_last_bn: bool = False
    padding: Literal["same", "symmetric"] = "same"
    shortcut: Literal["first", "shape"] = "first"
    norm: Literal["batch", "group"] = "batch"
    dtype: Any = jnp.float32
    bn_axis: str | None = "data"
    bn_momentum: float = 0.9
    convolution: Any = convolve
    remat: bool = False
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        self._check()
        by_batch = self.norm == "batch"
        kind = nn.Conv if by_batch else StandardizedConv
        how: Any = {"use_bias": False, "dtype": self.dtype, "kernel_init": fan_in_init, "conv_general_dilated": self.convolution}
        conv: Any = partial(_conv, self.padding, kind=kind, **how)
        norm: Any = partial(Groups, num_groups=16, epsilon=1e-5)
        if by_batch:
            norm = partial(Norm, use_running_average=not train, momentum=self.bn_momentum, epsilon=1e-5, axis_name=self.bn_axis)
        kernels = (3, 3) if self.block == "basic" else (1, 3, 1)
        big = self.stem == "imagenet"
        # Nothing is kept for a way back in evaluation, and the draws of initialisers must not depend on it.
        block: Any = nn.remat(Block) if self.remat and train and not self.is_initializing() else Block

        joins = by_batch and train and not self.is_initializing() and self.convolution is convolve
        drops = iter(depth_rates(self.drop_path, sum(self.stage_sizes)) if self.drop_path and train else ())

        x = conv(self.width * self.stem_channels, 7 if big else 3, strides=2 if big else 1, name="stem_conv")(x)
        x = norm(relu=not big, name="stem_norm")(x)
        x = relu_max_pool(x, _explicit(self.padding, x.shape[1:3])) if big else x
        for s, (size, channels) in enumerate(zip(self.stage_sizes, self.channels, strict=True)):
            for b in range(size):
                stride = 2 if b == 0 and s > 0 else 1
                project = b == 0 and (self.shortcut == "first" or stride > 1 or x.shape[-1] != self.width * channels)
                name = f"stage{s}_block{b}"
                options = {"zero_init": self.zero_init_last_bn, "joins": joins, "drop": next(drops, None), "name": name}
                x = block(self.width * channels, kernels, stride, project, conv, norm, **options)(x)
        return at_least_float32(x).mean(axis=(1, 2))

    @property
    def unstacked_on(self) -> tuple[str, ...]:
        """Platforms where one view had better pass after the other: a GPU's library adds the shortcut within a joined convolution, but not
        within one that has a kernel for each view."""
        return ("gpu",) if self.block == "bottleneck" and self.norm == "batch" else ()

    def _check(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"ResNet({name}={getattr(self, name)!r}) is not one of {choices}")
        if len(self.stage_sizes) != len(self.channels):
            raise ValueError(f"ResNet has {len(self.stage_sizes)} stage_sizes but {len(self.channels)} channels; give one of each a stage")


def _conv(padding: str, features: int, side: int, *, kind: type[nn.Conv] = nn.Conv, **options: Any) -> nn.Conv:
    return kind(features, (side, side), padding=_pads(padding, side), **options)


def _pads(padding: str, side: int) -> Any:
    """What flax takes as the padding of a kernel of this side."""
    return "SAME" if padding == "same" else ((side // 2, side // 2),) * 2


def _explicit(padding: str, sides: Sequence[int]) -> Any:
    """The pool's padding, before and after: for 3x3 windows two apart SAME is (0, 1) of an even side and (1, 1) of an odd one."""
    return tuple((side % 2, 1) if padding == "same" else (1, 1) for side in sides)


def resnet(
    stage_sizes: Sequence[int] = (1, 1, 1),
    channels: Sequence[int] = (32, 64, 128),
    *,
    block: Literal["basic", "bottleneck"] = "basic",
    small_inputs: bool = True,
    stem_channels: int | None = None,
    **kwargs: Any,
) -> ResNet:
    """A ResNet of any size; by default six convolutions for images of 16 to 32 pixels. The stem is as narrow as the first stage."""
    stem_channels = min(64, channels[0]) if stem_channels is None else stem_channels
    stem: Literal["imagenet", "small"] = "small" if small_inputs else "imagenet"
    return ResNet(tuple(stage_sizes), tuple(channels), block, stem=stem, stem_channels=stem_channels, **kwargs)


_basic = partial(resnet, channels=(64, 128, 256, 512), block="basic")
_bottleneck = partial(resnet, channels=(256, 512, 1024, 2048), block="bottleneck")


def resnet18(*, small_inputs: bool = False, width: int = 1, **kwargs: Any) -> ResNet:
    """512 * width features. ``small_inputs``: the stem for images of about 32 pixels."""
    return _basic((2, 2, 2, 2), small_inputs=small_inputs, width=width, **kwargs)


def resnet34(*, small_inputs: bool = False, width: int = 1, **kwargs: Any) -> ResNet:
    """512 * width features."""
    return _basic((3, 4, 6, 3), small_inputs=small_inputs, width=width, **kwargs)


def resnet50(*, small_inputs: bool = False, width: int = 1, **kwargs: Any) -> ResNet:
    """2048 * width features; the paper's encoder."""
    return _bottleneck((3, 4, 6, 3), small_inputs=small_inputs, width=width, **kwargs)


def resnet101(*, small_inputs: bool = False, width: int = 1, **kwargs: Any) -> ResNet:
    """2048 * width features."""
    return _bottleneck((3, 4, 23, 3), small_inputs=small_inputs, width=width, **kwargs)


def resnet152(*, small_inputs: bool = False, width: int = 1, **kwargs: Any) -> ResNet:
    """2048 * width features."""
    return _bottleneck((3, 8, 36, 3), small_inputs=small_inputs, width=width, **kwargs)


def resnet200(*, small_inputs: bool = False, width: int = 1, **kwargs: Any) -> ResNet:
    """2048 * width features; with width 2, the paper's largest."""
    return _bottleneck((3, 24, 36, 3), small_inputs=small_inputs, width=width, **kwargs)
