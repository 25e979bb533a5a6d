"""Two random views of each image, on the device: the recipe of ``views`` as one pure function of keys and a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.augment import blur as blurring
from byol_jax.augment import color, geometry
from byol_jax.views import View, Views

Batch = Mapping[str, jax.Array]


class Draws(NamedTuple):
    """Every random choice of one view of one image but the crop window. Scalars, except ``times``."""

    rotation: jax.Array  # radians
    flip: jax.Array  # bool
    jitter: jax.Array  # bool
    times: jax.Array  # float32[4]: when brightness, contrast, saturation and hue happen
    brightness: jax.Array
    contrast: jax.Array
    saturation: jax.Array
    hue: jax.Array
    grayscale: jax.Array  # bool
    blur: jax.Array  # bool
    sigma: jax.Array
    solarize: jax.Array  # bool


def sample(key: jax.Array, view: View) -> Draws:
    """Draws the choices of one view: all independent, all from one uniform vector (one pass of the generator, whatever the recipe)."""
    u = jax.random.uniform(key, (15,), jnp.float32)

    def between(place: int, low: float, high: float) -> jax.Array:
        return low + (high - low) * u[place]

    return Draws(
        rotation=between(0, -view.rotation, view.rotation),
        flip=u[1] < view.flip,
        jitter=u[2] < view.jitter,
        times=u[3:7],
        brightness=between(7, -view.brightness, view.brightness),
        contrast=between(8, 1 - view.contrast, 1 + view.contrast),
        saturation=between(9, 1 - view.saturation, 1 + view.saturation),
        hue=between(10, -view.hue, view.hue),
        grayscale=u[11] < view.grayscale,
        blur=u[12] < view.blur,
        sigma=between(13, *view.blur_sigma),
        solarize=u[14] < view.solarize,
    )


def apply(image: jax.Array, draws: Draws, view: View) -> jax.Array:
    """Everything that follows the crop: float32[3, S, S] in [0, 1] -> the same. What the recipe never does is not compiled."""
    if view.rotation:
        image = geometry.rotate(image, draws.rotation)
    if view.flip:
        image = jnp.where(draws.flip, geometry.flip(image), image)
    if view.jitter:
        image = jnp.where(draws.jitter, _jitter(image, draws, view), image)
    if view.grayscale:
        image = color.clip(jnp.where(draws.grayscale, color.grayscale(image), image))
    half = blurring.radius(image.shape[-2])
    if view.blur and half:
        image = blurring.blur(image, *(_blur_matrix(draws, half, length) for length in image.shape[-2:]))
    if view.solarize:
        image = jnp.where(draws.solarize, color.solarize(image, view.solarize_threshold), image)
    return color.clip(image)


def _blur_matrix(draws: Draws, half: int, length: int) -> jax.Array:
    # The identity where the draw says no: exact, and cheaper than choosing between two images.
    return jnp.where(draws.blur, blurring.matrix(draws.sigma, half, length), jnp.eye(length, dtype=jnp.float32))


def _jitter(image: jax.Array, draws: Draws, view: View) -> jax.Array:
    return color.jitter(
        image,
        draws.times,
        delta=draws.brightness if view.brightness else None,
        factor=draws.contrast if view.contrast else None,
        saturation=draws.saturation if view.saturation else None,
        hue=draws.hue if view.hue else None,
    )


def normalize(planes: jax.Array, views: Views) -> jax.Array:
    """float32[3, S, S] in [0, 1] -> float32[S, S, 3], each channel less its mean and divided by its deviation."""
    channels = [(planes[c] - views.mean[c]) / views.std[c] for c in range(3)]
    return jnp.stack(channels, axis=-1)


def image_views(views: Views, *, on: Literal["device", "host"] = "device") -> Callable[[jax.Array, Batch], dict[str, jax.Array]]:
    """The function that turns keys and a host batch into two normalised views.

    Args:
      views: the recipe.
      on: "device" runs the recipe here; "host" says that tf.data has run all of it, and leaves the normalisation.

    Returns:
      ``fn(keys[b], batch) -> {"view1": float32[b, S, S, 3], "view2": ..., "label": ...}`` (label where the batch has one), for
      a batch {"image": uint8[b, H, W, 3]} (crops are made here, from float values that are never rounded to grey levels) or
      {"view1", "view2": uint8[b, S, S, 3]} (crops were made by the host, which rounds them to uint8). ``keys`` is one key per example:
      a row's views depend on its own key and pixels alone, so on nothing that a mesh or a batch size could change.

    Raises:
      ValueError: for a recipe out of range, or (while tracing) a batch of another form.
    """
    if on not in ("device", "host"):
        raise ValueError(f"on={on!r}: the views are made on 'device' or on 'host'")
    _check_views(views)

    def fn(keys: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        if "image" in batch and on == "device":
            _check_pixels("image", batch["image"], None)
            first, second = jax.vmap(lambda key, image: _from_image(key, image, views))(keys, batch["image"])
        else:
            _check_two_views(batch, on, views.size)
            run = _from_views if on == "device" else _prepared
            first, second = jax.vmap(lambda key, one, two: run(key, one, two, views))(keys, batch["view1"], batch["view2"])
        label = {"label": batch["label"]} if "label" in batch else {}
        return {"view1": first, "view2": second, **label}

    return fn


def _from_image(key: jax.Array, image: jax.Array, views: Views) -> tuple[jax.Array, jax.Array]:
    height, width, _ = image.shape

    def one(key: jax.Array, view: View) -> jax.Array:
        crop_key, rest_key = jax.random.split(key)
        window = geometry.sample_window(crop_key, height, width, view)
        planes = geometry.crop_planes(image, window, views.size)
        return normalize(apply(planes, sample(rest_key, view), view), views)

    key1, key2 = jax.random.split(key)
    return one(key1, views.view1), one(key2, views.view2)


def _from_views(key: jax.Array, first: jax.Array, second: jax.Array, views: Views) -> tuple[jax.Array, jax.Array]:
    def one(key: jax.Array, image: jax.Array, view: View) -> jax.Array:
        rest_key = jax.random.split(key)[1]  # the same draws as with crops made here
        return normalize(apply(_to_planes(image), sample(rest_key, view), view), views)

    key1, key2 = jax.random.split(key)
    return one(key1, first, views.view1), one(key2, second, views.view2)


def _prepared(key: jax.Array, first: jax.Array, second: jax.Array, views: Views) -> tuple[jax.Array, jax.Array]:
    del key
    return normalize(_to_planes(first), views), normalize(_to_planes(second), views)


def _to_planes(image: jax.Array) -> jax.Array:
    return jnp.moveaxis(image, -1, 0).astype(jnp.float32) * (1 / 255)


def accept(images: Any, views: Views) -> np.ndarray:
    """uint8[B, H, W, 3] of any H and W, as the encoder takes them. ValueError for anything else."""
    del views
    found = np.asarray(images)
    if found.dtype != np.uint8 or found.ndim != 4 or found.shape[-1] != 3:
        raise ValueError(
            f"images: got {found.dtype} {found.shape}; the encoder takes uint8 [B, H, W, 3] (repeat gray images over 3 channels)"
        )
    return found


def preprocess(images: jax.Array, views: Views) -> jax.Array:
    """Images as the encoder sees them at evaluation: central crop, bicubic resize, normalisation.

    Args:
      images: uint8[B, H, W, 3]. Images of exactly ``views.size`` squared are taken as prepared (by the host, or small images as they
        are) and only normalised; from others a central square of ``views.eval_crop`` of the shorter side is cut and resized.
      views: the recipe.

    Returns:
      float32[B, size, size, 3].

    Raises:
      ValueError: if ``images`` is not uint8[B, H, W, 3].
    """
    _check_views(views)
    _check_pixels("images", images, None)
    height, width, size = images.shape[1], images.shape[2], views.size
    if (height, width) == (size, size):
        return jax.vmap(lambda image: normalize(_to_planes(image), views))(images)
    y, x, h, w = geometry.central_window(height, width, views.eval_crop)
    rows, columns = geometry.bicubic_weights(y, h, size, height), geometry.bicubic_weights(x, w, size, width)
    return jax.vmap(lambda image: normalize(geometry.resize_planes(image, rows, columns), views))(images)


def _check_views(views: Views) -> None:
    errors = views.errors()
    if errors:
        raise ValueError("the view recipe is out of range: " + "; ".join(errors))


def _check_two_views(batch: Batch, on: str, size: int) -> None:
    if "view1" not in batch or "view2" not in batch:
        wanted = "'view1' and 'view2'" if on == "host" else "'image', or 'view1' and 'view2'"
        raise ValueError(f"a batch for views made on the {on} holds {wanted} (uint8); this one holds {sorted(batch)}")
    for name in ("view1", "view2"):
        _check_pixels(name, batch[name], size)


def _check_pixels(name: str, images: jax.Array, size: int | None) -> None:
    shape = images.shape
    if images.dtype != jnp.uint8 or len(shape) != 4 or shape[-1] != 3 or not math.prod(shape[1:]):
        raise ValueError(f"{name} must be uint8[batch, height, width, 3], not {images.dtype}{list(shape)}")
    if size is not None and shape[1:3] != (size, size):
        raise ValueError(f"{name} is {shape[1]} x {shape[2]} pixels, but the recipe's size is {size}: crop to it, or set views.size")
