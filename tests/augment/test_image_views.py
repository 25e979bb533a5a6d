"""The public functions: probabilities, independence, the two batch forms, devices, dtypes and errors."""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from byol_jax import augment, views
from byol_jax.augment import image as recipe
from byol_jax.views import View

PLAIN = dict.fromkeys(("rotation", "flip", "jitter", "grayscale", "blur", "solarize"), 0.0)


def still(size: int, **changes) -> views.Views:
    """A recipe that changes nothing but what is named: whole image, no normalisation."""
    nothing = views.Views(size=size, mean=(0.0,) * 3, std=(1.0,) * 3).both(crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0), **PLAIN)
    return nothing.both(**changes)


def pixels(count: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


def draw(view: View, count: int, seed: int = 0) -> recipe.Draws:
    return jax.vmap(lambda key: recipe.sample(key, view))(keys(count, seed))


def test_nothing_asked_gives_the_image_twice():
    data = pixels(3, 8)
    out = jax.jit(augment.image_views(still(8)))(keys(3), {"image": data, "label": np.arange(3, dtype=np.int32)})
    chex.assert_trees_all_close(out["view1"], data / np.float32(255), atol=1e-6)
    chex.assert_trees_all_close(out["view2"], data / np.float32(255), atol=1e-6)
    np.testing.assert_array_equal(out["label"], [0, 1, 2])


@pytest.mark.parametrize("make", [views.imagenet, views.small, views.gray])
def test_presets_give_normalised_float32_views(make):
    preset = make(32)
    out = jax.jit(augment.image_views(preset))(keys(8), {"image": pixels(8, 30)})
    chex.assert_shape([out["view1"], out["view2"]], (8, 32, 32, 3))
    chex.assert_type([out["view1"], out["view2"]], jnp.float32)
    assert set(out) == {"view1", "view2"}
    for view in (out["view1"], out["view2"]):
        back = np.asarray(view) * np.array(preset.std, np.float32) + np.array(preset.mean, np.float32)
        assert back.min() > -1e-6
        assert back.max() < 1 + 1e-6
        assert back.std() > 0.05
    assert not np.allclose(out["view1"], out["view2"])


def test_gray_images_stay_gray_under_the_gray_preset():
    data = np.repeat(pixels(6, 28)[..., :1], 3, axis=-1)
    out = jax.jit(augment.image_views(views.gray()))(keys(6), {"image": data})
    np.testing.assert_allclose(out["view1"], np.repeat(out["view1"][..., :1], 3, axis=-1), atol=1e-6)


@pytest.mark.parametrize("field", ["flip", "jitter", "grayscale", "blur", "solarize"])
def test_probabilities_hold_for_each_view_alone(field):
    """4000 draws of probability 0.3: within four standard deviations; and the other choices are independent of it."""
    view = View(flip=0.5, jitter=0.5, grayscale=0.5, blur=0.5, solarize=0.5)
    draws = draw(dataclasses.replace(view, **{field: 0.3}), 4000)
    chosen = np.asarray(getattr(draws, field), np.float64)
    assert abs(chosen.mean() - 0.3) < 4 * np.sqrt(0.21 / 4000)
    for other in {"flip", "jitter", "grayscale", "blur", "solarize"} - {field}:
        assert abs(np.corrcoef(chosen, np.asarray(getattr(draws, other), np.float64))[0, 1]) < 4 / np.sqrt(4000), other


@pytest.mark.parametrize("field", ["flip", "jitter", "grayscale", "blur", "solarize"])
def test_probability_one_always_happens_and_zero_never(field):
    assert getattr(draw(View(**{field: 1.0}), 2000), field).all()
    assert not getattr(draw(View(**{field: 0.0}), 2000), field).any()


@pytest.mark.parametrize(
    ("field", "low", "high"),
    [
        ("brightness", -0.4, 0.4),
        ("contrast", 0.6, 1.4),
        ("saturation", 0.8, 1.2),
        ("hue", -0.1, 0.1),
        ("sigma", 0.1, 2.0),
        ("rotation", -0.3, 0.3),
    ],
)
def test_strengths_are_uniform(field, low, high):
    """Kolmogorov-Smirnov against the uniform distribution, 4000 draws, level 0.001."""
    values = np.sort(np.asarray(getattr(draw(View(rotation=0.3), 4000, 1), field), np.float64))
    assert values[0] >= low - 1e-6
    assert values[-1] <= high + 1e-6
    share = (values - low) / (high - low)
    assert np.abs(share - (np.arange(4000) + 0.5) / 4000).max() < 1.95 / np.sqrt(4000)


def test_all_24_orders_are_equally_likely():
    codes = np.argsort(np.asarray(draw(View(), 4800, 2).times), axis=1) @ np.array([64, 16, 4, 1])
    _, counts = np.unique(codes, return_counts=True)
    assert len(counts) == 24
    assert ((counts - 200) ** 2 / 200).sum() < 49.7  # 23 degrees of freedom, level 0.001


def test_the_flip_reaches_the_pixels_as_often_as_asked():
    data = np.broadcast_to(pixels(1, 8), (400, 8, 8, 3))
    out = jax.jit(augment.image_views(still(8, flip=0.25)))(keys(400), {"image": data})
    for view in ("view1", "view2"):
        flipped = np.isclose(out[view], data[:, :, ::-1] / 255, atol=1e-5).all((1, 2, 3))
        kept = np.isclose(out[view], data / 255, atol=1e-5).all((1, 2, 3))
        assert (flipped ^ kept).all()
        assert abs(flipped.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 400)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"grayscale": 1.0}, lambda x: np.repeat(x @ np.array([0.2989, 0.5870, 0.1140]), 3).reshape(x.shape)),
        ({"solarize": 1.0}, lambda x: np.where(x < 0.5, x, 1 - x)),
        ({"solarize": 1.0, "solarize_threshold": 0.25}, lambda x: np.where(x < 0.25, x, 1 - x)),
        ({"flip": 1.0}, lambda x: x[:, :, ::-1]),
    ],
)
def test_each_field_drives_its_operation(changes, expected):
    data = pixels(2, 8)
    out = jax.jit(augment.image_views(still(8, **changes)))(keys(2), {"view1": data, "view2": data})
    np.testing.assert_allclose(out["view2"], expected(data / 255), atol=1e-6)


@pytest.mark.parametrize("field", ["brightness", "contrast", "saturation", "hue", "rotation"])
def test_each_strength_changes_pixels_alone(field):
    silent = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    data = pixels(2, 12)
    changes = {**silent, "jitter": 1.0, field: 0.3}
    out = jax.jit(augment.image_views(still(12, **changes)))(keys(2), {"view1": data, "view2": data})
    silent_out = jax.jit(augment.image_views(still(12, **silent, jitter=1.0)))(keys(2), {"view1": data, "view2": data})
    np.testing.assert_allclose(silent_out["view1"], data / 255, atol=1e-6)
    assert np.abs(np.asarray(out["view1"]) - data / 255).mean() > 1e-3


PAPER = augment.image_views(views.imagenet(24))
PAPER_JIT = jax.jit(PAPER)  # compiled once for the tests that use 16 rows of 26 pixels


def test_a_rows_views_depend_on_its_own_key_and_pixels_only():
    data, ks = pixels(16, 26), keys(16)
    whole = PAPER_JIT(ks, {"image": data})
    order = np.random.default_rng(0).permutation(16)
    moved = PAPER_JIT(ks[order], {"image": data[order]})
    chex.assert_trees_all_close(moved, jax.tree.map(lambda x: x[order], whole), atol=1e-6)
    same = np.asarray(PAPER_JIT(ks, {"image": np.broadcast_to(data[:1], data.shape)})["view1"])
    distances = np.abs(same[:, None] - same[None]).max((2, 3, 4))
    assert (distances + np.eye(16) > 0.01).all(), "two rows of one image share a view"


def test_eight_devices_give_the_views_of_one():
    data, ks = {"image": pixels(16, 26)}, keys(16)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("data")
    sharded = jax.jit(jax.shard_map(PAPER, mesh=mesh, in_specs=(spec, spec), out_specs=spec, check_vma=False))(ks, data)
    chex.assert_trees_all_close(jax.device_get(sharded), jax.device_get(PAPER_JIT(ks, data)), atol=1e-5)


def test_host_crops_meet_the_same_draws_as_device_crops():
    """With whole-image windows the two batch forms differ in nothing."""
    recipe_ = still(24, flip=0.5, jitter=0.8, saturation=0.0, hue=0.0, grayscale=0.3)
    data = pixels(8, 24)
    fn = jax.jit(augment.image_views(recipe_))
    chex.assert_trees_all_close(fn(keys(8), {"image": data}), fn(keys(8), {"view1": data, "view2": data}), atol=2e-6)


def test_views_made_on_the_host_are_only_normalised():
    data, other = pixels(4, 16), pixels(4, 16, seed=1)
    out = jax.jit(augment.image_views(views.imagenet(16), on="host"))(
        keys(4), {"view1": data, "view2": other, "label": np.full(4, -1, np.int32)}
    )
    mean, std = np.array(views.IMAGENET_MEAN, np.float32), np.array(views.IMAGENET_STD, np.float32)
    np.testing.assert_allclose(out["view1"], (data / np.float32(255) - mean) / std, atol=1e-6)
    np.testing.assert_allclose(out["view2"], (other / np.float32(255) - mean) / std, atol=1e-6)


PREPROCESS = jax.jit(augment.preprocess, static_argnums=1)


def test_preprocess_leaves_prepared_images_and_crops_others():
    recipe_ = dataclasses.replace(still(8), eval_crop=0.5)
    prepared, larger = pixels(2, 8), pixels(2, 16)
    np.testing.assert_allclose(PREPROCESS(prepared, recipe_), prepared / 255, atol=1e-6)
    np.testing.assert_allclose(PREPROCESS(larger, recipe_), larger[:, 4:12, 4:12] / 255, atol=1e-6)
    chex.assert_shape(PREPROCESS(pixels(2, 5), recipe_), (2, 8, 8, 3))


def test_preprocess_equals_resized_crop_and_normalises():
    recipe_ = views.imagenet(12)
    data = np.random.default_rng(0).integers(0, 256, (2, 20, 31, 3), dtype=np.uint8)
    window = jnp.array(augment.central_window(20, 31, 0.875), jnp.int32)
    mean, std = np.array(recipe_.mean, np.float32), np.array(recipe_.std, np.float32)
    expected = [(np.asarray(augment.resized_crop(image, window, 12)) - mean) / std for image in data]
    np.testing.assert_allclose(PREPROCESS(data, recipe_), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("on", "batch", "message"),
    [
        ("device", {"pixels": np.zeros((2, 8, 8, 3), np.uint8)}, r"'image', or 'view1' and 'view2'.*\['pixels'\]"),
        ("host", {"image": np.zeros((2, 8, 8, 3), np.uint8)}, r"made on the host holds 'view1' and 'view2'.*\['image'\]"),
        (
            "device",
            {"image": np.zeros((2, 8, 8, 3), np.float32)},
            r"image must be uint8\[batch, height, width, 3\], not float32\[2, 8, 8, 3\]",
        ),
        ("device", {"image": np.zeros((2, 8, 8), np.uint8)}, r"not uint8\[2, 8, 8\]"),
        ("device", {"image": np.zeros((2, 8, 8, 1), np.uint8)}, r"not uint8\[2, 8, 8, 1\]"),
        ("device", {"view1": np.zeros((2, 9, 9, 3), np.uint8), "view2": np.zeros((2, 8, 8, 3), np.uint8)}, r"view1 is 9 x 9 .* size is 8"),
    ],
)
def test_wrong_batches_are_named(on, batch, message):
    with pytest.raises(ValueError, match=message):
        augment.image_views(views.small(8), on=on)(keys(2), batch)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="on='gpu'"):
        augment.image_views(views.small(8), on="gpu")
    with pytest.raises(ValueError, match=r"view1\.flip=1\.5.*view2\.flip=1\.5"):
        augment.image_views(views.small(8).both(flip=1.5))
    with pytest.raises(ValueError, match=r"images must be uint8"):
        augment.preprocess(np.zeros((2, 8, 8, 3), np.float32), views.small(8))
