"""Pruned channels: which go, what a network of dead ones then computes, and what cannot be pruned."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from byol_jax.compress import narrower
from byol_jax.compress.channels import layers, strength
from byol_jax.compress.plan import at, how_many, strongest
from byol_jax.models import ResNet, resnet

IMAGES = np.random.default_rng(1).standard_normal((3, 9, 9, 3), np.float32)


def made(**options) -> tuple[ResNet, dict]:
    """A small ResNet whose norms hold random numbers, as a trained one's."""
    module = resnet((2, 1), (8, 16), **{"stem_channels": 8, **options})
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(1), IMAGES, False))

    def drawn(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        return (rng.normal(0, 0.3, leaf.shape) if leaf.ndim == 4 else rng.uniform(0.5, 1.5, leaf.shape)).astype(np.float32)

    return module, jax.tree.map(drawn, shapes)


def embed(module: ResNet, variables: dict) -> np.ndarray:
    return np.asarray(jax.jit(lambda v: module.apply(v, IMAGES, False))(variables))


def kill(variables: dict, norm: tuple[str, ...], channels: list[int]) -> None:
    for leaf in ("scale", "bias"):
        at(variables, ("params", *norm, leaf))[channels] = 0


def test_the_strongest_stay_in_their_order() -> None:
    np.testing.assert_array_equal(strongest(np.array([0.1, 3.0, 2.0, 2.0, 0.0]), 3), [1, 2, 3])
    np.testing.assert_array_equal(strongest(np.array([1.0, 1.0, 1.0]), 2), [0, 1])


def test_how_many_stay() -> None:
    assert [how_many(8, 0.5), how_many(8, 0.99), how_many(10, 0.25), how_many(64, 0.9, multiple=4)] == [4, 1, 8, 8]


def test_strength_is_the_root_mean_square_of_what_a_norm_gives_out() -> None:
    params = {"norm": {"scale": np.array([3.0, 0.0, 0.0, 5.0]), "bias": np.array([4.0, 2.0, 0.0, 0.0])}}
    stats = {"norm": {"mean": np.zeros(4), "var": np.array([1e3, 1e3, 1e3, 0.0])}}
    np.testing.assert_allclose(strength({"params": params, "batch_stats": stats}, ("norm",)), [5, 2, 0, 0], rtol=1e-6)


def test_a_stream_is_chosen_by_all_that_write_to_it() -> None:
    module, variables = made()
    params = variables["params"]
    writers = [layer.norm for layer in layers(module) if layer.writes == "stage0"]
    assert writers == [("stage0_block0", "norm_1"), ("stage0_block0", "shortcut_norm"), ("stage0_block1", "norm_1")]
    for block, norm in writers:
        params[block][norm]["bias"][:] = 0
        variables["batch_stats"][block][norm]["var"][:] = 1e6
    # Of one writer alone channels 4 to 7 would stay; the sums are 9, 9, 9, 9, 4, 4, 4, 4.
    params["stage0_block0"]["norm_1"]["scale"][:] = [0, 0, 0, 0, 2, 2, 2, 2]
    params["stage0_block0"]["shortcut_norm"]["scale"][:] = [8, 8, 8, 8, 1, 1, 1, 1]
    params["stage0_block1"]["norm_1"]["scale"][:] = [1, 1, -1, 1, 1, 1, 1, -1]
    plan = narrower(module, variables, 0.5)
    for block, conv in (("stage0_block0", "conv_1"), ("stage0_block0", "shortcut_conv"), ("stage0_block1", "conv_1")):
        np.testing.assert_array_equal(plan.cuts["params", block, conv, "kernel"][3], [0, 1, 2, 3])
    np.testing.assert_array_equal(plan.cuts["params", "stage0_block1", "conv_0", "kernel"][2], [0, 1, 2, 3])
    np.testing.assert_array_equal(plan.cuts["params", "stage1_block0", "shortcut_conv", "kernel"][2], [0, 1, 2, 3])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shortcut": "shape"},
        {"block": "bottleneck"},
        {"block": "bottleneck", "shortcut": "shape"},
        {"width": 2},
        {"small_inputs": False},
    ],
    ids=str,
)
def test_without_its_dead_channels_a_network_gives_the_same(options: dict) -> None:
    module, variables = made(**options)
    rng = np.random.default_rng(0)
    groups: dict[str, list[int]] = {}
    for layer in layers(module):
        size = len(at(variables, ("params", *layer.norm, "scale")))
        dead = groups.setdefault(layer.writes, sorted(rng.permutation(size)[: size // 2].tolist()))
        kill(variables, layer.norm, dead)
    plan = narrower(module, variables, 0.5)
    small, cut = module.clone(**plan.fields), plan.cut(variables)
    expected = jax.eval_shape(lambda: small.init(jax.random.key(0), IMAGES, False))
    assert jax.tree.map(np.shape, cut) == jax.tree.map(np.shape, expected)
    whole = embed(module, variables)
    np.testing.assert_allclose(embed(small, cut), whole[:, plan.embedding], rtol=1e-5, atol=1e-6)
    assert not np.delete(whole, plan.embedding, axis=1).any()
    assert plan.fields["channels"] == tuple(module.width * c // 2 for c in module.channels)


def test_the_stem_of_7_by_7_is_spared_where_it_is_a_group_of_its_own() -> None:
    module, variables = made(small_inputs=False)
    assert narrower(module, variables, 0.5).fields["stem_channels"] == 8
    shared = module.clone(shortcut="shape")
    variables["params"]["stage0_block0"].pop("shortcut_conv")
    assert narrower(shared, variables, 0.5).fields["stem_channels"] == 4


def test_channels_of_a_group_norm_cannot_go() -> None:
    module = resnet((1,), (16,), norm="group")
    with pytest.raises(ValueError, match=r"encoder.norm = 'group': .* it must be 'batch'"):
        narrower(module, {}, 0.5)
