"""Running averages of two stacked views, for any momentum; and norms that would go wrong silently are refused."""

from __future__ import annotations

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from byol_jax import method as m
from byol_jax.method.norms import apply_to_views, check_norms


class Mixed(nn.Module):
    """Norms of different momentum, one applied twice, one that is frozen."""

    axis: str | None = "data"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.BatchNorm(not train, momentum=0.5, axis_name=self.axis)(x)
        twice = nn.BatchNorm(not train, momentum=0.8, axis_name=self.axis)
        x = twice(nn.relu(twice(x)))
        return nn.BatchNorm(use_running_average=True, axis_name=self.axis)(x)


def network(encoder: nn.Module) -> m.Network:
    return m.Network(encoder, m.MLP(4, 3, layers=1), m.MLP(4, 3, layers=1))


def test_stacked_views_end_as_two_calls_do() -> None:
    views = np.random.default_rng(0).normal(size=(2, 16, 5)).astype(np.float32) + np.float32([[[1]], [[3]]])
    together, apart = network(Mixed()), network(Mixed(axis=None))
    variables = together.init(jax.random.key(0), views[0], True)
    variables["batch_stats"] = jax.tree.map(lambda x: x + 0.25, variables["batch_stats"])

    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = {"in_specs": (P(), P(None, "data")), "out_specs": (P(None, "data"), P())}
    outputs, stats = jax.jit(jax.shard_map(partial(apply_to_views, together), mesh=mesh, check_vma=False, **specs))(variables, views)

    expected, old = [], variables["batch_stats"]
    for view in views:
        made, changed = apart.apply({**variables, "batch_stats": old}, view, True, mutable=["batch_stats"])
        old = changed["batch_stats"]
        expected.append(made)
    stats = jax.device_get(stats)
    chex.assert_trees_all_close(stats, jax.device_get(old), rtol=1e-6, atol=1e-6)
    chex.assert_trees_all_equal(stats["encoder"]["BatchNorm_2"], jax.device_get(variables["batch_stats"]["encoder"]["BatchNorm_2"]))
    chex.assert_trees_all_close(jax.device_get(outputs), m.Outputs(*map(np.stack, zip(*expected, strict=True))), rtol=1e-5, atol=1e-5)


def check(encoder: nn.Module, devices: int) -> None:
    check_norms(network(encoder), jnp.zeros((2, 5)), "data", devices)


def test_a_norm_without_an_axis_is_refused_on_several_devices_only() -> None:
    check(Mixed(axis=None), 1)
    with pytest.raises(ValueError, match=r"BatchNorm encoder/BatchNorm_0 has no axis_name.*8 devices.*axis_name='data'"):
        check(Mixed(axis=None), 8)


def test_a_norm_over_another_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="axis_name='batch', but the batch is spread over 'data'"):
        check(Mixed(axis="batch"), 1)


def test_running_averages_of_an_unknown_kind_are_refused() -> None:
    class Spectral(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return nn.SpectralNorm(nn.Dense(3))(x, update_stats=train)

    with pytest.raises(ValueError, match=r"batch_stats of encoder/SpectralNorm_0 are not kept by a flax.linen.BatchNorm"):
        check(Spectral(), 1)


def test_other_collections_are_refused() -> None:
    class Counter(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            self.variable("memory", "calls", jnp.zeros, ())
            return x

    with pytest.raises(ValueError, match=r"\['memory'\].*'params' and 'batch_stats' only"):
        check(Counter(), 1)
