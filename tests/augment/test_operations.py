"""Each operation on an image small enough to compute by hand."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.augment import blur, color


def pixel(red: float, green: float, blue: float) -> jnp.ndarray:
    return jnp.array([red, green, blue], jnp.float32).reshape(3, 1, 1)


def flat(planes: jax.Array) -> list[float]:
    return [float(v) for v in planes.reshape(-1)]


def test_brightness_adds():
    assert flat(color.brightness(pixel(0.25, 0.5, 1.0), 0.25)) == [0.5, 0.75, 1.25]


def test_contrast_turns_about_each_channels_own_mean():
    image = jnp.array([[[0.0, 1.0]], [[0.5, 0.5]], [[0.25, 0.75]]])
    np.testing.assert_allclose(color.contrast(image, 1.5), [[[-0.25, 1.25]], [[0.5, 0.5]], [[0.125, 0.875]]], atol=1e-7)
    np.testing.assert_array_equal(color.contrast(image, 1.0), image)


@pytest.mark.parametrize(
    ("start", "turns", "end"),
    [
        ((1.0, 0.0, 0.0), 1 / 3, (0.0, 1.0, 0.0)),  # red to green
        ((1.0, 0.0, 0.0), -1 / 3, (0.0, 0.0, 1.0)),  # red to blue, over the seam
        ((1.0, 0.0, 0.0), 1 / 6, (1.0, 1.0, 0.0)),  # red to yellow
        ((0.0, 0.0, 1.0), 1 / 6, (1.0, 0.0, 1.0)),  # blue to magenta
        ((0.8, 0.6, 0.4), 0.5, (0.4, 0.6, 0.8)),  # a half turn
        ((0.3, 0.3, 0.3), 0.1, (0.3, 0.3, 0.3)),  # gray has no hue
        ((0.0, 0.0, 0.0), 0.1, (0.0, 0.0, 0.0)),
        ((1.0, 1.0, 1.0), 0.1, (1.0, 1.0, 1.0)),
    ],
)
def test_hue_turns(start, turns, end):
    np.testing.assert_allclose(flat(color.hsv(pixel(*start), hue=turns)), end, atol=1e-6)


@pytest.mark.parametrize(
    ("start", "factor", "end"),
    [
        ((0.8, 0.6, 0.4), 0.5, (0.8, 0.7, 0.6)),  # s = 0.5 -> 0.25
        ((0.8, 0.6, 0.4), 1.2, (0.8, 0.56, 0.32)),
        ((0.8, 0.6, 0.4), 3.0, (0.8, 0.4, 0.0)),  # s clips at 1
        ((0.8, 0.6, 0.4), 0.0, (0.8, 0.8, 0.8)),
        ((0.3, 0.3, 0.3), 1.2, (0.3, 0.3, 0.3)),
        ((0.0, 0.0, 0.0), 1.2, (0.0, 0.0, 0.0)),
    ],
)
@pytest.mark.parametrize("op", [color.saturate, color.hsv], ids=["saturate", "hsv"])
def test_saturation_scales(op, start, factor, end):
    np.testing.assert_allclose(flat(op(pixel(*start), factor)), end, atol=1e-6)


def test_jitter_clips_between_operations():
    """0.9 + 0.4 is cut to 1 before the contrast: without that cut the two pixels would not stay equal."""
    image = jnp.array([[[0.9, 1.0]]] * 3)
    early = color.jitter(image, jnp.array([0.0, 1.0, 0.0, 0.0]), delta=0.4, factor=1.4)
    late = color.jitter(image, jnp.array([1.0, 0.0, 0.0, 0.0]), delta=-0.4, factor=1.4)
    np.testing.assert_array_equal(early, np.ones((3, 1, 2), np.float32))
    np.testing.assert_allclose(late, [[[0.48, 0.6]]] * 3, atol=1e-6)  # contrast: 0.88 and 1.02 -> 1


def test_grayscale_is_luma_in_three_channels():
    np.testing.assert_allclose(flat(color.grayscale(pixel(1.0, 0.5, 0.25))), [0.2989 + 0.2935 + 0.0285] * 3, atol=1e-6)


def test_solarize_inverts_from_the_threshold_on():
    np.testing.assert_allclose(flat(color.solarize(pixel(0.25, 0.5, 1.0))), [0.25, 0.5, 0.0])
    np.testing.assert_allclose(flat(color.solarize(pixel(0.25, 0.5, 1.0), 0.25)), [0.75, 0.5, 0.0])


@pytest.mark.parametrize(("height", "taps"), [(224, 23), (128, 13), (96, 9), (64, 7), (32, 3), (28, 3), (20, 3), (19, 1)])
def test_blur_spans_a_tenth_of_the_height(height, taps):
    assert 2 * blur.radius(height) + 1 == taps


def test_blur_of_a_point_is_the_kernels_outer_product():
    side = math.exp(-0.5)
    kernel = np.array([side, 1.0, side]) / (1 + 2 * side)
    image = jnp.zeros((3, 5, 7)).at[:, 2, 3].set(1.0)
    got = blur.blur(image, blur.matrix(1.0, 1, 5), blur.matrix(1.0, 1, 7))
    expected = np.zeros((3, 5, 7))
    expected[:, 1:4, 2:5] = np.outer(kernel, kernel)
    np.testing.assert_allclose(got, expected, atol=1e-7)


def test_blur_darkens_borders_and_keeps_the_inside():
    image = jnp.ones((3, 9, 9))
    got = np.asarray(blur.blur(image, *(blur.matrix(2.0, 2, 9),) * 2))
    np.testing.assert_allclose(got[:, 2:-2, 2:-2], 1.0, atol=1e-6)
    assert got[:, 0].max() < 0.75
    np.testing.assert_allclose(got, got[:, ::-1, ::-1], atol=1e-6)


def test_blur_with_the_smallest_sigma_changes_nothing():
    image = jax.random.uniform(jax.random.key(0), (3, 40, 40))
    np.testing.assert_array_equal(blur.blur(image, *(blur.matrix(0.1, 2, 40),) * 2), image)
