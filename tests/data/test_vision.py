"""The recipe in TensorFlow: hand-computed pixels, probabilities, independence of the two views, presets. Golden numbers are elsewhere."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from byol_jax import views
from byol_jax.data import order, vision
from byol_jax.views import View

tf = vision.tf
NOTHING = View(flip=0, jitter=0, grayscale=0, blur=0, solarize=0)


def grid(height: int = 5, width: int = 5) -> np.ndarray:
    plane = np.linspace(0, 1, height * width, dtype=np.float32).reshape(height, width)
    return np.stack([plane, plane**2, 1 - plane], -1)


@functools.cache
def numbers(n: int = 2000) -> dict[str, np.ndarray]:
    """The uniform numbers of n examples, both views: [2, n] by name."""
    seeds = order.example_seed(0, np.zeros(n, np.int64), np.arange(n))

    def one(seed):
        return tf.stack([tf.stack([view[name] for name in vision._DRAWS]) for view in vision.draw(seed)])

    rows = tf.function(lambda seeds: tf.map_fn(one, seeds, fn_output_signature=tf.float32))(tf.constant(seeds)).numpy()
    return {name: rows[:, :, place].T for place, name in enumerate(vision._DRAWS)}


def test_numbers_are_uniform_and_independent():
    drawn = numbers()
    columns = np.stack([drawn[name][view] for name in drawn for view in range(2)])
    assert columns.min() >= 0
    assert columns.max() < 1
    n = columns.shape[1]
    for column in columns:  # Kolmogorov-Smirnov at level 1e-5
        assert np.abs(np.sort(column) - (np.arange(n) + 0.5) / n).max() < 2.5 / np.sqrt(n)
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlation).max() < 5 / np.sqrt(n)


def test_all_24_orders_are_equally_likely():
    counts = np.bincount(np.minimum((numbers()["order"][0] * 24).astype(int), 23), minlength=24)
    expected = counts.sum() / 24
    assert np.square(counts - expected).sum() / expected < 58  # chi-square, 23 degrees, level 1e-4
    assert len({tuple(one) for one in vision._ORDERS}) == 24


@pytest.mark.parametrize("name", ["flip", "jitter", "grayscale", "blur", "solarize"])
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_operation_happens_at_its_probability(name, probability):
    view = View(**{"flip": 0, "jitter": 0, "grayscale": 0, "blur": 0, "solarize": 0, name: probability})
    image = np.random.default_rng(0).uniform(0.1, 0.9, (20, 20, 3)).astype(np.float32)
    apply = tf.function(lambda x, u: vision.augment(x, dict(zip(vision._DRAWS, tf.unstack(u), strict=True)), view))
    drawn = numbers()
    rows = np.stack([drawn[key][0] for key in vision._DRAWS], -1)[:40]
    changed = [bool(np.any(apply(tf.constant(image), tf.constant(row)) != image)) for row in rows]
    np.testing.assert_array_equal(changed, drawn[name][0][:40] <= probability)


def test_order_of_the_jitter_matters_and_is_followed():
    image, view = grid(), View(brightness=0.4, contrast=0.4, saturation=0, hue=0)
    u = {"brightness": 1.0, "contrast": 1.0, "saturation": 0.5, "hue": 0.5}
    orders = [tuple(one) for one in vision._ORDERS]

    def run(*wanted: int) -> np.ndarray:
        place = tf.constant((orders.index(wanted) + 0.5) / 24, tf.float32)
        return vision.jitter(tf.constant(image), {**u, "order": place}, view).numpy()

    def clip(x):
        return np.clip(x, 0, 1)

    def contrast(x):
        mean = x.mean((0, 1))
        return 1.4 * (x - mean) + mean

    np.testing.assert_allclose(run(0, 1, 2, 3), clip(contrast(clip(image + 0.4))), atol=1e-6)
    np.testing.assert_allclose(run(3, 1, 2, 0), clip(clip(contrast(image)) + 0.4), atol=1e-6)
    assert np.abs(run(0, 1, 2, 3) - run(1, 0, 2, 3)).max() > 0.05


def test_quarter_turn():
    image = grid()
    turned = vision.rotate(tf.constant(image), tf.constant(np.pi / 2, tf.float32)).numpy()
    assert min(np.abs(turned - np.rot90(image, k)).max() for k in (1, 3)) < 1e-5
    np.testing.assert_allclose(vision.rotate(tf.constant(image), tf.constant(0.0)), image, atol=1e-6)


def test_rotation_fills_from_the_edge():
    turned = vision.rotate(tf.ones([9, 9, 3]) * 0.25, tf.constant(0.7)).numpy()
    np.testing.assert_allclose(turned, 0.25, atol=1e-6)  # no black corners
    view, image = View(rotation=0.3, flip=0, jitter=0, grayscale=0, blur=0, solarize=0), grid(9, 9)
    for u, angle in ((0.0, -0.3), (1.0, 0.3)):
        got = vision.augment(tf.constant(image), {**dict.fromkeys(vision._DRAWS, tf.constant(0.5)), "angle": tf.constant(u)}, view)
        np.testing.assert_allclose(got, vision.rotate(tf.constant(image), tf.constant(angle)), atol=1e-6)


def test_flip_solarize_gray_by_hand():
    image = grid()
    np.testing.assert_array_equal(vision.tf.image.flip_left_right(image), image[:, ::-1])
    np.testing.assert_allclose(vision.solarize(image, 0.5), np.where(image < 0.5, image, 1 - image))
    luma = image @ np.array([0.2989, 0.5870, 0.1140], np.float32)
    np.testing.assert_allclose(vision.grayscale(image), np.stack([luma] * 3, -1), atol=1e-6)


def test_blur_of_a_point_is_the_kernel_and_borders_darken():
    point = np.zeros((21, 21, 3), np.float32)
    point[10, 10] = 1
    taps = np.exp(-np.square(np.arange(-2, 3)) / 2)
    taps /= taps.sum()
    wanted = np.zeros((21, 21))
    wanted[8:13, 8:13] = np.outer(taps, taps)
    np.testing.assert_allclose(vision.blur(tf.constant(point), tf.constant(1.0), 2)[..., 1], wanted, atol=1e-7)
    white = vision.blur(tf.ones([21, 31, 3]), tf.constant(1.0), 2).numpy()
    np.testing.assert_allclose(white[10, 15], 1, atol=1e-6)
    np.testing.assert_allclose(white[0, 15], taps[2:].sum(), atol=1e-6)
    assert [vision.blur_radius(size) for size in (224, 96, 32, 19)] == [11, 4, 1, 0]


def test_window_at_the_extremes():
    u = {name: tf.constant(0.0) for name in vision._DRAWS}
    assert vision.sample_window(u, 10, 20, View(crop_area=(1, 1), crop_ratio=(2, 2))).numpy().tolist() == [0, 0, 10, 20]
    assert vision.sample_window(u, 1, 1, View()).numpy().tolist() == [0, 0, 1, 1]
    # A ratio of 2 in a square of 10: 14 wide is cut to 10, 7 high stays.
    assert vision.sample_window(u, 10, 10, View(crop_area=(1, 1), crop_ratio=(2, 2))).numpy().tolist() == [0, 0, 7, 10]
    last = {**u, "y": tf.constant(np.nextafter(np.float32(1), np.float32(0)))}
    assert vision.sample_window(last, 10, 10, View(crop_area=(1, 1), crop_ratio=(2, 2))).numpy().tolist() == [3, 0, 7, 10]


@pytest.mark.parametrize(
    ("size", "share", "window"),
    [((300, 400), 0.875, (19, 69, 262, 262)), ((8, 8), 1.0, (0, 0, 8, 8)), ((5, 9), 1.0, (0, 2, 5, 5)), ((1, 1), 0.5, (0, 0, 1, 1))],
)
def test_central_window(size, share, window):
    assert vision.central_window(*size, share) == window


def test_views_are_drawn_apart_and_each_by_its_own_recipe():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    seed = tf.constant([1, 2], tf.int64)
    crops = vision.two_views(image, seed, views.Views(size=8, view1=NOTHING, view2=NOTHING), photometric=True)
    assert (crops["view1"].numpy() != crops["view2"].numpy()).any()
    whole = View(**{**vars(NOTHING), "crop_area": (1.0, 1.0), "crop_ratio": (1.0, 1.0)})
    inverted = View(**{**vars(whole), "solarize": 1.0, "solarize_threshold": 0.0})
    made = vision.two_views(image, seed, views.Views(size=16, view1=whole, view2=inverted), photometric=True)
    np.testing.assert_array_equal(made["view1"], image)
    np.testing.assert_array_equal(made["view2"], 255 - image)


def test_gray_preset_keeps_gray_images_gray():
    image = np.repeat(np.random.default_rng(0).integers(0, 256, (28, 28, 1), dtype=np.uint8), 3, -1)
    made = vision.two_views(image, tf.constant([3, 4], tf.int64), views.gray(28), photometric=True)
    for view in made.values():
        assert (view.numpy() == view.numpy()[..., :1]).all()


def test_tensorflow_sees_no_gpu():
    assert tf.config.get_visible_devices("GPU") == []
