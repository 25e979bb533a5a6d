"""Crops cut on the device against those of tf.data: the same pixels for the same window, and two samples of one distribution.

Each road draws its own random numbers, so crops are compared as samples: the two-sample Kolmogorov-Smirnov distance at level 0.001, whose
limit is sqrt(-ln(0.001 / 2) / 2) * sqrt(1 / n + 1 / m). Seeds are fixed; that the limits would notice a wrong recipe is tested too.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import views
from byol_jax.augment import geometry, image_views
from byol_jax.data import ArraySource, from_arrays, train_batches, vision

tf = vision.tf


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest gap between two empirical distribution functions, in units of the limit: above 1 they differ."""
    points = np.union1d(a, b)
    below = [np.searchsorted(np.sort(x), points, "right") / len(x) for x in (a, b)]
    return float(np.abs(below[0] - below[1]).max() / math.sqrt(-math.log(0.0005) / 2 * (1 / len(a) + 1 / len(b))))


def pictures(count: int, height: int, width: int) -> ArraySource:
    """Smooth pictures with some noise: sums of a few waves, each channel its own, all brighter to the right."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [rng.uniform(0.1, 0.5, (count, 1, 1, 3)) * np.cos(_phase(rng, count, y, x)) for _ in range(4)]
    field = sum(waves) + 0.6 * (x[..., None] - 0.5) + rng.normal(0, 0.1, (count, height, width, 3))
    return from_arrays(np.clip(128 + 90 * field, 0, 255).astype(np.uint8), np.arange(count))


def _phase(rng: np.random.Generator, count: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    down, right, start = rng.uniform(-14, 14, (3, count, 1, 1, 3))
    return down * y[..., None] + right * x[..., None] + start


def windows(view: views.View, height: int, width: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows (y, x, h, w) of the device's road and of tf.data's: float64[count, 4] each."""
    keys = jax.random.split(jax.random.key(3), count)
    device = jax.jit(jax.vmap(lambda key: geometry.sample_window(key, height, width, view)))(keys)
    seeds = tf.constant(np.stack([np.full(count, 3), np.arange(count)], -1), tf.int64)

    @tf.function
    def sample(seeds):
        def one(seed):
            return vision.sample_window(vision.draw(seed)[0], tf.constant(height), tf.constant(width), view)

        return tf.map_fn(one, seeds, fn_output_signature=tf.int32, parallel_iterations=1)

    return np.asarray(device, np.float64), sample(seeds).numpy().astype(np.float64)


def shapes(found: np.ndarray, height: int, width: int) -> dict[str, np.ndarray]:
    y, x, h, w = found.T
    return {
        "area": h * w / (height * width),
        "ratio": w / h,
        "height": h,
        "width": w,
        "down": y / np.maximum(height - h, 1),
        "right": x / np.maximum(width - w, 1),
        "middle, down": y + h / 2,
        "middle, right": x + w / 2,
    }


@pytest.mark.parametrize(("height", "width"), [(32, 32), (28, 40)])
def test_windows_are_drawn_from_one_distribution(height, width):
    """Also the means of area, ratio and place: within four standard errors of their difference."""
    device, host = (shapes(found, height, width) for found in windows(views.View(), height, width, 8000))
    for name, values in device.items():
        assert distance(values, host[name]) < 1, name
        error = math.sqrt((values.var() + host[name].var()) / 8000)
        assert abs(values.mean() - host[name].mean()) < 4 * error, name


def test_the_same_window_gives_the_same_pixels():
    """Bicubic without antialiasing on both roads; float32 against float32, so that only a few units in the last place may differ."""
    source = pictures(4, 30, 26)
    chosen = np.random.default_rng(0).permutation(windows(views.View(), 30, 26, 60)[0]).astype(np.int32)
    device = jax.jit(jax.vmap(lambda image, window: geometry.resized_crop(image, window, 16)))
    images = np.resize(source.images, (60, 30, 26, 3))
    got = np.asarray(device(jnp.asarray(images), jnp.asarray(chosen)))
    host = tf.function(lambda image, window: vision.resized_crop(image, window, 16))
    wanted = np.stack([host(tf.constant(i), tf.constant(w)).numpy() for i, w in zip(images, chosen, strict=True)])
    np.testing.assert_allclose(got, wanted, atol=2e-6, rtol=0)


# Through both roads whole, from the source to the views.

EPOCHS, COUNT = 80, 50
CROPS = dataclasses.replace(views.small(24), mean=(0.0,) * 3, std=(1.0,) * 3).both(jitter=0.0, grayscale=0.0, solarize=0.0)


def batches_of(recipe: views.Views, where: str) -> list[dict[str, np.ndarray]]:
    options = {"batch_size": 5 * COUNT, "seed": 0, "augment_on": where}
    with train_batches(pictures(COUNT, 32, 32), recipe, **options) as batches:
        return list(itertools.islice(batches, EPOCHS // 5))


def on_the_host() -> np.ndarray:
    """Both views of every example in every epoch, uint8[2, EPOCHS * COUNT, 24, 24, 3]."""
    return np.stack([np.concatenate([batch[name] for batch in batches_of(CROPS, "host")]) for name in ("view1", "view2")])


def on_the_device(recipe: views.Views) -> np.ndarray:
    """The same, rounded to grey levels as the host does."""
    make = jax.jit(image_views(recipe))
    made = []
    for step, batch in enumerate(batches_of(recipe, "device")):
        out = make(jax.random.split(jax.random.key(step), len(batch["label"])), batch)
        made.append(np.stack([out["view1"], out["view2"]]))
    return np.round(np.concatenate(made, axis=1) * 255).astype(np.uint8)


def statistics(crops: np.ndarray) -> dict[str, np.ndarray]:
    """Numbers of each crop, float64[n]: brightness, contrast, sharpness down and right, extremes, how unlike its sides are, a pixel."""
    x = crops.astype(np.float64) / 255
    return {
        "mean": x.mean((1, 2, 3)),
        "deviation": x.std((1, 2, 3)),
        "down": np.abs(np.diff(x, axis=1)).mean((1, 2, 3)),
        "right": np.abs(np.diff(x, axis=2)).mean((1, 2, 3)),
        "curvature": np.abs(np.diff(x, 2, axis=1)).mean((1, 2, 3)),
        "lowest": x.min((1, 2, 3)),
        "highest": x.max((1, 2, 3)),
        "slope": (x[:, :, :12] - x[:, :, 12:]).mean((1, 2, 3)),
        "corner": x[:, 0, 0, 1],
        "centre": x[:, 12, 12, 0],
    }


@pytest.fixture(scope="module")
def host() -> np.ndarray:
    return on_the_host()


def test_the_pixels_of_both_roads_are_samples_of_one_distribution(host):
    device = on_the_device(CROPS)
    for view in range(2):
        theirs = statistics(host[view])
        for name, values in statistics(device[view]).items():
            assert distance(values, theirs[name]) < 1, (view, name)


@pytest.mark.parametrize(
    ("changes", "told_by"),
    [({"crop_area": (0.15, 1.0)}, "curvature"), ({"flip": 0.0}, "slope")],
    ids=["area", "flip"],
)
def test_another_recipe_would_be_noticed(host, changes, told_by):
    other = statistics(on_the_device(CROPS.both(**changes))[0])
    assert distance(other[told_by], statistics(host[0])[told_by]) > 1


def test_another_filter_would_be_noticed(host):
    """Bilinear in place of bicubic, with windows of the same recipe."""
    keys = jax.random.split(jax.random.key(3), 1000)
    chosen = np.asarray(jax.jit(jax.vmap(lambda key: geometry.sample_window(key, 32, 32, CROPS.view1)))(keys))
    made = []
    for image, (y, x, h, w) in zip(np.resize(pictures(COUNT, 32, 32).images, (1000, 32, 32, 3)), chosen, strict=True):
        made.append(tf.image.resize(image[y : y + h, x : x + w], (24, 24), "bilinear").numpy())
    assert distance(statistics(np.round(made))["curvature"], statistics(host[0])["curvature"]) > 1
