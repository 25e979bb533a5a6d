"""The view recipe in TensorFlow: crops for the device, or the whole recipe on the host.

Images are float32 [H, W, 3] in [0, 1] unless they are said to be uint8. All randomness of an example comes from one draw of uniform
numbers, seeded by the example's own seed, so that it does not depend on who asks, when, or how often. Formulas: the official code's
(paper, Appendix B); TensorFlow is kept away from GPUs, which belong to jax.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from byol_jax.views import View, Views

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its start-up notices would stand in the midst of a training log
import tensorflow as tf

if tf.config.list_physical_devices("GPU"):
    tf.config.set_visible_devices([], "GPU")

Tensor = Any

_CROP_DRAWS = ["area", "ratio", "y", "x"]
_DRAWS = [*_CROP_DRAWS, *("angle", "flip", "jitter", "brightness", "contrast", "saturation", "hue", "order")]
_DRAWS += ["grayscale", "blur", "sigma", "solarize"]
_ORDERS = np.array(list(itertools.permutations(range(4))), np.int32)
_GRAY = (0.2989, 0.5870, 0.1140)


def tensorflow_datasets() -> Any:
    """The module, imported where TensorFlow is quiet already, and off the GPUs."""
    import tensorflow_datasets

    return tensorflow_datasets


def draw(seed: Tensor, names: Sequence[str] = _DRAWS) -> list[dict[str, Tensor]]:
    """Uniform numbers in [0, 1) for both views of an example, by name: the first ``names`` of all that there are. ``seed``: int64[2]."""
    numbers = tf.random.stateless_uniform([2, len(_DRAWS)], seed, alg="philox")[:, : len(names)]
    return [dict(zip(names, tf.unstack(row), strict=True)) for row in tf.unstack(numbers)]


def decoded(data: Tensor, size: Tensor) -> Tensor:
    """uint8[H, W, 3] of a JPEG (``size`` int32[2] is 0, 0) or of H * W * 3 bytes of pixels (``size`` is H, W).

    The decoder's settings are TensorFlow's own, which the official code used. tf.errors.InvalidArgumentError for what it refuses.
    """
    pixels = functools.partial(tf.reshape, shape=tf.concat([size, [3]], 0))
    image = tf.cond(size[0] == 0, lambda: tf.io.decode_jpeg(data, channels=3), lambda: pixels(tf.io.decode_raw(data, tf.uint8)))
    return tf.ensure_shape(image, [None, None, 3])


def two_views(image: Tensor, seed: Tensor, views: Views, *, photometric: bool) -> dict[str, Tensor]:
    """Both views of a uint8 [H, W, 3] image, which is decoded once for both, as uint8 [S, S, 3].

    With ``photometric`` the whole recipe, else only the crops (then the device does the rest).
    """
    made, shape = {}, tf.shape(image)
    draws = draw(seed, _DRAWS if photometric else _CROP_DRAWS)
    for name, view, u in zip(("view1", "view2"), (views.view1, views.view2), draws, strict=True):
        x = resized_crop(image, sample_window(u, shape[0], shape[1], view), views.size)
        made[name] = to_uint8(augment(x, u, view) if photometric else x)
    return made


def to_uint8(x: Tensor) -> Tensor:
    """[0, 1] -> 0..255, rounded."""
    return tf.cast(tf.round(x * 255.0), tf.uint8)


def sample_window(u: dict[str, Tensor], height: Tensor, width: Tensor, view: View) -> Tensor:
    """int32 (y, x, h, w): one draw of area and log-ratio; a box larger than the image is clipped, never drawn again."""
    h_image, w_image = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    area = _between(u["area"], *view.crop_area) * (h_image * w_image)
    ratio = tf.exp(_between(u["ratio"], *np.log(view.crop_ratio).tolist()))
    h = tf.clip_by_value(tf.cast(tf.round(tf.sqrt(area / ratio)), tf.int32), 1, height)
    w = tf.clip_by_value(tf.cast(tf.round(tf.sqrt(area * ratio)), tf.int32), 1, width)
    return tf.stack([_integer(u["y"], height - h), _integer(u["x"], width - w), h, w])


def _between(u: Tensor, low: float, high: float) -> Tensor:
    return low + u * (high - low)


def _integer(u: Tensor, high: Tensor) -> Tensor:
    """Uniform integer in 0..high, both included."""
    return tf.minimum(tf.cast(u * tf.cast(high + 1, tf.float32), tf.int32), high)


def central_window(height: int, width: int, share: float) -> tuple[int, int, int, int]:
    """(y, x, h, w) of the evaluation crop: a central square, ``share`` of the shorter side, rounded down in float32."""
    side = max(1, int(np.float32(share) * np.float32(min(height, width))))
    return (height - side + 1) // 2, (width - side + 1) // 2, side, side


def resized_crop(image: Tensor, window: Tensor, size: int) -> Tensor:
    """The window (y, x, h, w) of a uint8 [H, W, 3] image, bicubic at [size, size, 3], clipped to [0, 1]."""
    y, x, h, w = tf.unstack(window)
    return resize(tf.slice(image, tf.stack([y, x, 0]), tf.stack([h, w, 3])), size)


def resize(image: Tensor, size: int) -> Tensor:
    """A uint8 [H, W, 3] image, bicubic (no antialiasing) at [size, size, 3], clipped to [0, 1].

    Cast first: TensorFlow's kernel gives the same numbers for both types, but converts uint8 anew at every tap.
    """
    resized = tf.image.resize(tf.cast(image, tf.float32), [size, size], tf.image.ResizeMethod.BICUBIC)
    return tf.ensure_shape(tf.clip_by_value(resized / 255.0, 0.0, 1.0), [size, size, 3])


def augment(x: Tensor, u: dict[str, Tensor], view: View) -> Tensor:
    """Everything after the crop: rotation, flip, jitter, grayscale, blur, solarize. What has probability or strength 0 is left out."""
    if view.rotation:
        x = rotate(x, _between(u["angle"], -view.rotation, view.rotation))
    x = _maybe(u["flip"], view.flip, tf.image.flip_left_right, x)
    x = _maybe(u["jitter"], view.jitter, functools.partial(jitter, u=u, view=view), x)
    x = _maybe(u["grayscale"], view.grayscale, grayscale, x)
    if radius := blur_radius(x.shape[0]):
        x = _maybe(u["blur"], view.blur, lambda x: blur(x, _between(u["sigma"], *view.blur_sigma), radius), x)
    x = _maybe(u["solarize"], view.solarize, lambda x: solarize(x, view.solarize_threshold), x)
    return tf.clip_by_value(x, 0.0, 1.0)


def _maybe(u: Tensor, probability: float, op: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if probability == 0:
        return x
    return tf.cond(u <= probability, lambda: op(x), lambda: x)


def jitter(x: Tensor, u: dict[str, Tensor], view: View) -> Tensor:
    """The four colour operations, each once, in one of their 24 orders; clipped to [0, 1] after each."""
    strengths = (view.brightness, view.contrast, view.saturation, view.hue)
    ops = (
        lambda x: brightness(x, _between(u["brightness"], -view.brightness, view.brightness)),
        lambda x: contrast(x, _between(u["contrast"], 1 - view.contrast, 1 + view.contrast)),
        lambda x: saturation(x, _between(u["saturation"], 1 - view.saturation, 1 + view.saturation)),
        lambda x: hue(x, _between(u["hue"], -view.hue, view.hue)),
    )
    if not any(strengths):
        return x
    order = tf.gather(_ORDERS, _integer(u["order"], tf.constant(len(_ORDERS) - 1)))
    for place in range(4):
        branches = [functools.partial(op if strength else tf.identity, x) for op, strength in zip(ops, strengths, strict=True)]
        x = tf.clip_by_value(tf.switch_case(order[place], branches), 0.0, 1.0)
    return x


def brightness(x: Tensor, delta: Tensor) -> Tensor:
    """x + delta (additive, not a factor)."""
    return x + delta


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Stretched about the mean of each channel of the image."""
    mean = tf.reduce_mean(x, [0, 1], keepdims=True)
    return factor * (x - mean) + mean


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """HSV saturation times the factor, clipped to [0, 1]."""
    h, s, v = tf.unstack(tf.image.rgb_to_hsv(x), axis=-1)
    return tf.image.hsv_to_rgb(tf.stack([h, tf.clip_by_value(s * factor, 0.0, 1.0), v], -1))


def hue(x: Tensor, delta: Tensor) -> Tensor:
    """HSV hue moved by delta turns."""
    h, s, v = tf.unstack(tf.image.rgb_to_hsv(x), axis=-1)
    return tf.image.hsv_to_rgb(tf.stack([h + delta - tf.floor(h + delta), s, v], -1))


def grayscale(x: Tensor) -> Tensor:
    """Luma in all three channels."""
    return tf.tile(tf.tensordot(x, tf.constant(_GRAY), 1)[..., None], [1, 1, 3])


def blur_radius(height: int) -> int:
    """Half-width of the blur's kernel: it spans a tenth of the image's height."""
    return int(height / 10 / 2)


def blur(x: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Gaussian blur with 2 * radius + 1 taps; zero padding, so borders darken.

    Two matrix products: TensorFlow's depthwise convolution is many times slower on a CPU.
    """
    down, across = (_blur_matrix(sigma, radius, size) for size in (x.shape[0], x.shape[1]))
    rows = tf.matmul(down, tf.reshape(x, [x.shape[0], -1]))
    planes = tf.transpose(tf.reshape(rows, x.shape), [0, 2, 1])
    return tf.transpose(tf.tensordot(planes, across, 1), [0, 2, 1])


def _blur_matrix(sigma: Tensor, radius: int, size: int) -> Tensor:
    """float32[size, size], symmetric: row i holds the kernel, centred at i and cut off at the borders."""
    taps = tf.exp(-tf.square(tf.range(-radius, radius + 1, dtype=tf.float32)) / (2.0 * tf.square(sigma)))
    distance = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    kernel = tf.concat([taps[radius:] / tf.reduce_sum(taps), [0.0]], 0)  # distances 0..radius, and zero beyond
    return tf.gather(kernel, np.minimum(distance, radius + 1))


def solarize(x: Tensor, threshold: float) -> Tensor:
    """Pixels at or above the threshold are inverted."""
    return tf.where(x < threshold, x, 1.0 - x)


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Turned about its centre by ``angle`` radians, counterclockwise; bilinear; outside, the nearest edge pixel."""
    height, width = x.shape[0], x.shape[1]
    cos, sin = tf.cos(angle), tf.sin(angle)
    cx, cy = (width - 1) / 2, (height - 1) / 2
    # Output (x, y) reads input (cos x - sin y + a, sin x + cos y + b); a and b keep the centre in place.
    transform = tf.stack([cos, -sin, cx - cos * cx + sin * cy, sin, cos, cy - sin * cx - cos * cy, 0.0, 0.0])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=x[None],
        transforms=transform[None],
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )[0]
