"""ResNets: shapes, dtypes, initial values, and errors. Their numbers are in test_golden_resnet.py."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from byol_jax import models
from byol_jax.models.resnet import StandardizedConv, _conv

TINY = {"stage_sizes": (1, 1), "channels": (8, 16)}


IMAGES = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype(np.float32)


def born(model: models.ResNet) -> dict:
    """Its variables; compiled without optimisation, since initialisers are many and run once."""
    init = jax.jit(lambda key: model.init(key, IMAGES, True))
    return init(jax.random.key(0))


@pytest.mark.parametrize(
    ("make", "features", "convolutions"),
    [
        (models.resnet18, 512, 21),
        (models.resnet34, 512, 37),
        (models.resnet50, 2048, 53),
        (models.resnet101, 2048, 104),
        (models.resnet152, 2048, 155),
        (models.resnet200, 2048, 203),
    ],
)
def test_depth_and_width(make, features: int, convolutions: int) -> None:
    """The number in the name counts a classifier, which is not there, but not the 4 convolutions in shortcuts: 18 - 1 + 4 = 21."""
    model = make(width=2)
    x = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    out, variables = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, True), x)
    kernels = [path for path, leaf in flatten_dict(variables["params"]).items() if leaf.ndim == 4]
    assert (out.shape, out.dtype) == ((2, 2 * features), jnp.float32)
    assert len(kernels) == convolutions


def maps(model, side: int) -> list[int]:
    """Sides of the map after the stem's convolution and after every block."""
    _, state = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), jnp.zeros((1, side, side, 3)), False, capture_intermediates=True)
    )
    found = state["intermediates"]
    return [found["stem_conv"]["__call__"][0].shape[1]] + [v["__call__"][0].shape[1] for k, v in found.items() if k.startswith("stage")]


@pytest.mark.parametrize(("small", "sides"), [(True, [32, 32, 16]), (False, [16, 8, 4])])
def test_stems(small: bool, sides: list[int]) -> None:
    assert maps(models.resnet(**TINY, small_inputs=small), 32) == sides


def embedded(side: int, padding: str, *, small: bool) -> np.ndarray:
    """What a net with that padding makes of a random image; the weights are the same for every padding and side."""
    model = models.resnet(**TINY, small_inputs=small, padding=padding, bn_axis=None)
    image = np.random.default_rng(side).normal(size=(1, side, side, 3)).astype(np.float32)
    return np.asarray(jax.jit(lambda v, x: model.apply(v, x, False))(born(model), image))


@pytest.mark.parametrize(("side", "small", "differs"), [(16, True, True), (17, True, False), (32, False, True), (33, False, False)])
def test_padding_matters_at_even_sizes_only(side: int, small: bool, differs: bool) -> None:
    """33 stays odd through the stem, the pool and the stage (17, 9, 5); at 32 everything strided shifts by a pixel."""
    same, symmetric = (embedded(side, padding, small=small) for padding in ("same", "symmetric"))
    apart = float(np.abs(same - symmetric).max() / np.abs(same).mean())
    assert apart > 0.02 if differs else apart < 1e-6


def test_symmetric_padding_by_hand() -> None:
    """An impulse in the corner of 4x4 pixels: a 3x3 kernel with stride 2 that pads 1 before sees it at place (1, 1), SAME at (0, 0)."""
    image = np.zeros((1, 4, 4, 1), np.float32)
    image[0, 0, 0, 0] = 1
    kernel = np.arange(1, 10, dtype=np.float32).reshape(3, 3, 1, 1)
    out = {}
    for padding in ("same", "symmetric"):
        conv = _conv(padding, 1, 3, strides=2, use_bias=False)
        out[padding] = np.asarray(conv.apply({"params": {"kernel": kernel}}, image))[0, :, :, 0]
    np.testing.assert_array_equal(out["same"], [[1, 0], [0, 0]])
    np.testing.assert_array_equal(out["symmetric"], [[5, 0], [0, 0]])


@pytest.mark.parametrize(
    ("make", "first", "shape"),
    [(models.resnet18, (0, 1, 2, 3), (1, 2, 3)), (models.resnet50, (0, 1, 2, 3), (0, 1, 2, 3))],
)
def test_where_a_shortcut_is_a_projection(make, first: tuple[int, ...], shape: tuple[int, ...]) -> None:
    for shortcut, stages in (("first", first), ("shape", shape)):
        model = make(shortcut=shortcut)
        variables = jax.eval_shape(lambda m=model: m.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), False))
        found = {path[0] for path in flatten_dict(variables["params"]) if path[1] == "shortcut_conv"}
        assert found == {f"stage{s}_block0" for s in stages}


def test_stem_is_as_narrow_as_the_first_stage_unless_said() -> None:
    assert models.resnet(**TINY).stem_channels == 8
    assert models.resnet50().stem_channels == 64
    assert models.resnet(**TINY, stem_channels=64).stem_channels == 64


def test_initial_values() -> None:
    """Convolutions as in the official code: truncated at 2 s, s = 1 / sqrt(fan_in), not widened; norms at 1 and 0."""
    params = born(models.resnet((1,), (128,)))["params"]
    kernel = params["stage0_block0"]["conv_1"]["kernel"]
    assert float(kernel.std()) * (9 * 128) ** 0.5 == pytest.approx(0.8796, abs=0.005)
    assert float(jnp.abs(kernel).max()) * (9 * 128) ** 0.5 <= 2 + 1e-5
    assert {float(leaf.min()) for path, leaf in flatten_dict(params).items() if path[-1] == "scale"} == {1.0}


@pytest.mark.parametrize(("block", "last"), [("basic", "norm_1"), ("bottleneck", "norm_2")])
def test_zero_init_of_the_last_scale_makes_blocks_begin_as_their_shortcut(block: str, last: str) -> None:
    model = models.resnet((1, 1), (8, 16), block=block, zero_init_last_bn=True)
    params = flatten_dict(born(model)["params"])
    zeros = {path for path, leaf in params.items() if path[-1] == "scale" and float(jnp.abs(leaf).max()) == 0}
    assert zeros == {(f"stage{s}_block0", last, "scale") for s in (0, 1)}


def test_bfloat16_keeps_parameters_statistics_and_output_float32() -> None:
    half, full = models.resnet(**TINY, dtype=jnp.bfloat16, bn_axis=None), models.resnet(**TINY, bn_axis=None)
    variables = born(full)

    def apply(model):
        return jax.jit(lambda v: model.apply(v, IMAGES, True, mutable=["batch_stats"]))(variables)

    (out, changed), (expected, expected_stats) = apply(half), apply(full)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((out, changed, born(half)))}
    assert dtypes == {jnp.dtype("float32")}
    assert 0 < float(jnp.abs(out - expected).max()) < 0.05  # computed in bfloat16 indeed, and no worse than that
    for a, b in zip(jax.tree.leaves(changed), jax.tree.leaves(expected_stats), strict=True):
        np.testing.assert_allclose(a, b, rtol=0.02, atol=0.01)


def test_standardised_kernels_by_numpy() -> None:
    """Mean 0 and variance 1 / 27 of each output's 27 weights, whatever the parameter is."""
    conv = StandardizedConv(4, (3, 3), use_bias=False)
    kernel = np.random.default_rng(1).normal(3, 2, size=(3, 3, 3, 4)).astype(np.float32)
    expected = (kernel - kernel.mean((0, 1, 2))) / kernel.std((0, 1, 2)) / 27**0.5
    got = conv.apply({"params": {"kernel": kernel}}, IMAGES)
    plain = nn.Conv(4, (3, 3), use_bias=False).apply({"params": {"kernel": expected}}, IMAGES)
    np.testing.assert_allclose(got, plain, atol=1e-5)


def test_groups_know_no_other_image() -> None:
    """Without batch statistics an image's embedding is its own, in training too; with them it is not."""
    for norm, independent in (("group", True), ("batch", False)):
        model = models.ResNet((1, 1), (16, 32), "basic", stem="small", stem_channels=16, norm=norm, bn_axis=None)
        variables = born(model)
        assert ("batch_stats" in variables) != independent
        train = jax.jit(lambda images, m=model, v=variables: m.apply(v, images, True, mutable=["batch_stats"])[0])
        alone, together = train(IMAGES[:2]), train(IMAGES)
        assert np.allclose(alone, together[:2], atol=1e-5) == independent


def test_settings_that_do_not_exist() -> None:
    x = jnp.zeros((1, 8, 8, 3))
    for model, match in [
        (models.resnet(**TINY, block="wide"), r"block='wide'\) is not one of \('basic', 'bottleneck'\)"),
        (models.ResNet((1,), (8,), "basic", stem="tiny"), "stem='tiny'"),
        (models.resnet(**TINY, padding="valid"), r"padding='valid'\) is not one of \('same', 'symmetric'\)"),
        (models.resnet(**TINY, shortcut="none"), r"shortcut='none'\) is not one of \('first', 'shape'\)"),
        (models.ResNet((1, 1), (8,), "basic"), "2 stage_sizes but 1 channels"),
    ]:
        with pytest.raises(ValueError, match=match):
            model.init(jax.random.key(0), x, True)
