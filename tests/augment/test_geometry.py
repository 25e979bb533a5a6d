"""Crop windows, bicubic resize, rotation and flip: by hand, against a plain NumPy resize, and in distribution."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byol_jax.augment import geometry
from byol_jax.views import View


def keys_cubic(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def plain_resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Four taps a side, one output pixel at a time, float64."""

    def weights(length: int) -> np.ndarray:
        matrix = np.zeros((size, length))
        for i in range(size):
            centre = (i + 0.5) * length / size - 0.5
            whole = math.floor(centre)
            fraction = round((centre - whole) * 1024) / 1024
            for tap in range(-1, 3):
                if 0 <= whole + tap < length:
                    matrix[i, whole + tap] = keys_cubic(tap - fraction)
        return matrix / matrix.sum(1, keepdims=True)

    rows, columns = weights(pixels.shape[0]), weights(pixels.shape[1])
    return np.clip(np.einsum("sh,tw,hwc->stc", rows, columns, pixels.astype(np.float64)) / 255, 0, 1)


CROP = jax.jit(geometry.resized_crop, static_argnums=2)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_resized_crop_equals_the_plain_resize_of_the_slice(data):
    # 16 outputs: a power of two keeps every fraction exact, so rounding to 1/1024 has no ties to break differently.
    height, width = 24, 20
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    h, w = data.draw(st.integers(1, height - y)), data.draw(st.integers(1, width - x))
    image = np.random.default_rng(y * 100 + x).integers(0, 256, (height, width, 3), dtype=np.uint8)
    got = CROP(image, jnp.array([y, x, h, w], jnp.int32), 16)
    np.testing.assert_allclose(got, plain_resize(image[y : y + h, x : x + w], 16), atol=2e-6)


def test_whole_image_at_its_own_size_is_the_image():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_allclose(CROP(image, jnp.array([0, 0, 16, 16], jnp.int32), 16), image / 255, atol=1e-7)


def test_one_pixel_fills_the_view():
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    got = CROP(image, jnp.array([3, 4, 1, 1], jnp.int32), 16)
    np.testing.assert_allclose(got, np.broadcast_to(image[3, 4] / 255, (16, 16, 3)), atol=1e-6)


def test_bicubic_weights_by_hand():
    """Two pixels to four: centres -0.25, 0.25, 0.75, 1.25; taps outside are dropped and the rest renormalised."""
    near, far, beyond = keys_cubic(0.25), keys_cubic(0.75), keys_cubic(1.25)
    first = np.array([near, beyond]) / (near + beyond)
    second = np.array([near, far]) / (near + far)
    expected = [first, second, second[::-1], first[::-1]]
    got = np.asarray(jax.jit(lambda: geometry.bicubic_weights(3, 2, 4, 7))())  # the window stands inside a line of seven
    np.testing.assert_allclose(got[:, 3:5], expected, atol=1e-6)
    assert not got[:, [0, 1, 2, 5, 6]].any()


def windows_of(height: int, width: int, view: View, count: int, seed: int = 0) -> np.ndarray:
    keys = jax.random.split(jax.random.key(seed), count)
    return np.asarray(jax.jit(jax.vmap(lambda key: geometry.sample_window(key, height, width, view)))(keys))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 2), (37, 29)], ids=str)
@pytest.mark.parametrize("view", [View(), View(crop_area=(0.01, 1.0), crop_ratio=(1 / 9, 9.0))], ids=["paper", "extreme"])
def test_windows_lie_inside_the_image(size, view):
    y, x, h, w = windows_of(*size, view, 2000).T
    assert min(y.min(), x.min()) >= 0
    assert min(h.min(), w.min()) >= 1
    assert (y + h).max() <= size[0]
    assert (x + w).max() <= size[1]


def test_full_square_windows_take_the_whole_image():
    view = View(crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0))
    np.testing.assert_array_equal(windows_of(32, 32, view, 100), np.broadcast_to([0, 0, 32, 32], (100, 4)))


def test_offsets_are_uniform_and_reach_both_ends():
    """A quarter of the area of an 8 x 8 image, square: windows of 4 x 4 with 5 offsets a side, chi-square over the 25 cells."""
    view = View(crop_area=(0.25, 0.25), crop_ratio=(1.0, 1.0))
    windows = windows_of(8, 8, view, 5000, seed=3)
    counts = np.zeros((5, 5))
    np.add.at(counts, (windows[:, 0], windows[:, 1]), 1)
    assert ((counts - 200) ** 2 / 200).sum() < 51.2  # 24 degrees of freedom, level 0.001


@pytest.mark.parametrize(
    ("height", "width", "share", "window"),
    [(256, 256, 0.875, (16, 16, 224, 224)), (7, 4, 1.0, (2, 0, 4, 4)), (1, 9, 0.5, (0, 4, 1, 1)), (5, 5, 0.5, (2, 2, 2, 2))],
)
def test_central_window(height, width, share, window):
    assert geometry.central_window(height, width, share) == window


ROTATE = jax.jit(geometry.rotate)


def test_flip_mirrors_left_and_right():
    np.testing.assert_array_equal(geometry.flip(jnp.array([[[1, 2, 3], [4, 5, 6]]])), [[[3, 2, 1], [6, 5, 4]]])


def test_a_quarter_turn_is_counter_clockwise():
    image = jax.random.uniform(jax.random.key(0), (3, 5, 5))
    np.testing.assert_allclose(ROTATE(image, math.pi / 2), np.rot90(image, axes=(1, 2)), atol=1e-5)
    np.testing.assert_allclose(ROTATE(image, math.pi), np.rot90(image, 2, axes=(1, 2)), atol=1e-5)


def test_no_angle_leaves_the_image():
    image = jax.random.uniform(jax.random.key(0), (3, 6, 4))
    np.testing.assert_array_equal(ROTATE(image, 0.0), image)


def test_rotation_is_bilinear_and_repeats_the_edge():
    """By an eighth of a turn, the centre of a 3 x 3 image stays; a corner comes from beyond the edge, at the middle of a side."""
    image = jnp.arange(9.0).reshape(1, 3, 3)
    got = np.asarray(ROTATE(image, math.pi / 4))[0]
    assert got[1, 1] == 4.0
    # Output (0, 0) is (-1, -1) from the centre: rows -cos - sin = -1.41, cut to -1; columns -cos + sin = 0. That is the pixel 1.
    np.testing.assert_allclose([got[0, 0], got[0, 2], got[2, 2], got[2, 0]], [1.0, 5.0, 7.0, 3.0], atol=1e-5)
    # Output (0, 1) is (-1, 0): rows -0.7071, columns +0.7071, between the pixels 1, 2, 4 and 5.
    part = math.sqrt(0.5)
    expected = part * ((1 - part) * 1 + part * 2) + (1 - part) * ((1 - part) * 4 + part * 5)
    np.testing.assert_allclose(got[0, 1], expected, atol=1e-5)
