"""A network that compiles in a second, a batch for it, and meshes of some of the eight fake devices."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType, Mesh

from byol_jax import method as m


class Tiny(nn.Module):
    """A convolution, BN, mean: [B, H, W, 3] -> [B, 6]."""

    bn_axis: str | None = "data"
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.Conv(6, (3, 3), name="conv")(x)
        x = nn.BatchNorm(not train, momentum=self.momentum, axis_name=self.bn_axis, name="norm")(x)
        return nn.relu(x).mean(axis=(1, 2))


@pytest.fixture
def tiny() -> type[Tiny]:
    return Tiny


@pytest.fixture
def method() -> m.Byol:
    return m.Byol(Tiny(), m.MLP(8, 4), m.MLP(8, 4), num_classes=3)


@pytest.fixture
def batch() -> dict:
    """16 examples of 4 x 4 pixels; a quarter of them has no label."""
    draw = np.random.default_rng(0)
    views = {name: draw.normal(size=(16, 4, 4, 3)).astype(np.float32) for name in ("view1", "view2")}
    return {**views, "label": np.asarray([0, 1, 2, -1] * 4, np.int32)}


@pytest.fixture
def mesh() -> Callable[[int], Mesh]:
    return lambda devices: jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
