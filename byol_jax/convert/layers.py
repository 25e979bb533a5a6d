"""A ResNet's layers under two names: torchvision's (``layer1.0.conv1``) and ours (``stage0_block0/conv_0``), with their shapes.

Names in PyTorch: stem ``conv1``, ``bn1``; block b of stage s ``layer{s+1}.{b}.conv{j}``, ``bn{j}``; projection ``downsample.0``, ``.1``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from byol_jax.convert.weights import encoder_fields
from byol_jax.models import ResNet

Tensors = Mapping[str, np.ndarray]
NORM = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


@dataclass(frozen=True)
class Net:
    """What the shapes of a ResNet's weights say. ``channels`` and ``stem_channels`` are what they are, any width included."""

    block: str
    stages: tuple[int, ...]
    channels: tuple[int, ...]
    stem_channels: int
    stem: str
    shortcut: str

    @classmethod
    def of(cls, module: ResNet) -> Net:
        channels = tuple(module.width * c for c in module.channels)
        return cls(module.block, tuple(module.stage_sizes), channels, module.width * module.stem_channels, module.stem, module.shortcut)

    def spec(self) -> dict[str, Any]:
        """The fields of ``EncoderSpec`` that build it."""
        for width in range(16, 0, -1):
            if self.stem_channels % width or any(c % width for c in self.channels):
                continue
            narrow = [c // width for c in self.channels]
            fields = encoder_fields(self.stages, narrow, block=self.block, width=width, stem_channels=self.stem_channels // width)
            if fields["name"] != "resnet":
                break
        return fields | {"stem": self.stem, "shortcut": self.shortcut}


@dataclass(frozen=True)
class Layer:
    """A convolution (``shape`` [out, in, height, width]) or a batch norm ([channels])."""

    theirs: str
    ours: tuple[str, ...]
    shape: tuple[int, ...]


def layers(net: Net) -> Iterator[Layer]:
    """All layers, in the order in which they run."""
    side = 7 if net.stem == "imagenet" else 3
    yield Layer("conv1", ("stem_conv",), (net.stem_channels, 3, side, side))
    yield Layer("bn1", ("stem_norm",), (net.stem_channels,))
    into = net.stem_channels
    for s, (size, out) in enumerate(zip(net.stages, net.channels, strict=True)):
        for b in range(size):
            project = b == 0 and (net.shortcut == "first" or s > 0 or into != out)
            yield from _block(f"layer{s + 1}.{b}", f"stage{s}_block{b}", net.block, into, out, project)
            into = out


def _block(theirs: str, ours: str, block: str, into: int, out: int, project: bool) -> Iterator[Layer]:
    inner = out if block == "basic" else out // 4
    kernels = [(inner, into, 3), (out, inner, 3)] if block == "basic" else [(inner, into, 1), (inner, inner, 3), (out, inner, 1)]
    for j, (wide, narrow, side) in enumerate(kernels):
        yield Layer(f"{theirs}.conv{j + 1}", (ours, f"conv_{j}"), (wide, narrow, side, side))
        yield Layer(f"{theirs}.bn{j + 1}", (ours, f"norm_{j}"), (wide,))
    if project:
        yield Layer(f"{theirs}.downsample.0", (ours, "shortcut_conv"), (out, into, 1, 1))
        yield Layer(f"{theirs}.downsample.1", (ours, "shortcut_norm"), (out,))


def expected(net: Net) -> dict[str, tuple[int, ...]]:
    """Key of a state dict -> shape."""
    return {
        f"{layer.theirs}.{leaf}": layer.shape for layer in layers(net) for leaf in (("weight",) if len(layer.shape) == 4 else tuple(NORM))
    }


def to_torch(net: Net, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Our encoder's variables as a state dict; convolutions turn from [H, W, in, out] to [out, in, H, W]."""
    tensors: dict[str, np.ndarray] = {}
    for layer in layers(net):
        if len(layer.shape) == 4:
            tensors[f"{layer.theirs}.weight"] = np.asarray(_at(variables["params"], layer.ours)["kernel"]).transpose(3, 2, 0, 1)
            continue
        for leaf, (kind, name) in NORM.items():
            tensors[f"{layer.theirs}.{leaf}"] = np.asarray(_at(variables[kind], layer.ours)[name])
    return {key: np.ascontiguousarray(value) for key, value in tensors.items()}


def from_torch(net: Net, tensors: Tensors) -> dict[str, Any]:
    """The way back: a state dict with the keys of ``expected`` as {"params", "batch_stats"}."""
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for layer in layers(net):
        if len(layer.shape) == 4:
            kernel = tensors[f"{layer.theirs}.weight"].transpose(2, 3, 1, 0)
            _at(variables["params"], layer.ours)["kernel"] = np.ascontiguousarray(kernel)
            continue
        for leaf, (kind, name) in NORM.items():
            _at(variables[kind], layer.ours)[name] = tensors[f"{layer.theirs}.{leaf}"]
    return variables


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        tree = tree.setdefault(name, {}) if isinstance(tree, dict) else tree[name]
    return tree
