"""Where a view's pixels come from: crop windows, bicubic resize, rotation, flip. Planes are float32[3, H, W]."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.views import View


def sample_window(key: jax.Array, height: int, width: int, view: View) -> jax.Array:
    """One random crop window, int32[4] = (y, x, h, w), as the official code draws it.

    The area is uniform in ``view.crop_area``, the ratio (width over height) log-uniform in ``view.crop_ratio``. One draw, and no second
    try: a side longer than the image is cut to it, so a window may be smaller than its sampled area. The offsets are uniform.
    """
    area, ratio, down, right = jax.random.uniform(key, (4,), jnp.float32)
    low, high = view.crop_area
    area = (low + (high - low) * area) * (height * width)
    low, high = np.log(view.crop_ratio)
    ratio = jnp.exp(jnp.float32(low) + jnp.float32(high - low) * ratio)
    w = jnp.clip(jnp.round(jnp.sqrt(area * ratio)), 1, width)
    h = jnp.clip(jnp.round(jnp.sqrt(area / ratio)), 1, height)
    y = jnp.floor(down * (height - h + 1))
    x = jnp.floor(right * (width - w + 1))
    return jnp.stack([y, x, h, w]).astype(jnp.int32)


def central_window(height: int, width: int, share: float) -> tuple[int, int, int, int]:
    """The evaluation crop (y, x, h, w): a centred square of ``share`` of the shorter side (224/256 in the paper, Appendix C.1)."""
    side = max(1, int(np.float32(share) * min(height, width)))
    return (height - side + 1) // 2, (width - side + 1) // 2, side, side


def bicubic_weights(start: jax.typing.ArrayLike, length: jax.typing.ArrayLike, size: int, source: int) -> jax.Array:
    """Weights that resize ``source[start : start + length]`` to ``size``, as TensorFlow's bicubic does: float32[size, source].

    Keys' kernel with a = -0.5, half-pixel centres, no antialiasing; the fraction of a pixel is rounded to 1/1024 (TensorFlow looks its
    weights up in a table); taps outside the window are dropped and the others renormalised. ``start`` and ``length`` may be traced.
    """
    scale = jnp.asarray(length, jnp.float32) / size
    centres = (jnp.arange(size, dtype=jnp.float32) + 0.5) * scale - 0.5
    whole = jnp.floor(centres)
    fraction = jnp.round((centres - whole) * 1024.0) * (1 / 1024)
    position = jnp.arange(source, dtype=jnp.int32) - jnp.asarray(start, jnp.int32)  # in the window's own pixels
    distance = jnp.abs((position.astype(jnp.float32) - whole[:, None]) - fraction[:, None])
    near = (1.5 * distance - 2.5) * distance * distance + 1.0
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    weights = jnp.where(distance <= 1.0, near, jnp.where(distance < 2.0, far, 0.0))
    weights = jnp.where((position >= 0) & (position < jnp.asarray(length, jnp.int32)), weights, 0.0)
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def crop_planes(image: jax.Array, window: jax.Array, size: int) -> jax.Array:
    """``resized_crop`` as planes: uint8[H, W, 3] -> float32[3, size, size]."""
    y, x, h, w = window
    rows = bicubic_weights(y, h, size, image.shape[0])
    columns = bicubic_weights(x, w, size, image.shape[1])
    return resize_planes(image, rows, columns)


def resize_planes(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """uint8[H, W, 3] through weights float32[S, H] and float32[T, W] -> float32[3, S, T] in [0, 1]."""
    # Full precision: the default on TPU (bfloat16) and GPU (TF32) would be off by half a grey level.
    highest = jax.lax.Precision.HIGHEST
    pixels = jnp.moveaxis(image.astype(jnp.float32), -1, 0)
    pixels = jnp.einsum("sh,chw->csw", rows, pixels, precision=highest)
    pixels = jnp.einsum("tw,csw->cst", columns, pixels, precision=highest)
    return jnp.clip(pixels * (1 / 255), 0.0, 1.0)


def resized_crop(image: jax.Array, window: jax.Array, size: int) -> jax.Array:
    """Cuts ``window`` out of an image and resizes it, as two small matrix products; works under ``vmap`` and ``jit``.

    Args:
      image: uint8[H, W, 3].
      window: int32[4], (y, x, h, w) inside the image; may be traced.
      size: side of the result.

    Returns:
      float32[size, size, 3] in [0, 1]: equal to TensorFlow's ``clip(resize(crop, BICUBIC) / 255)``. Not rounded to grey levels.
    """
    return jnp.moveaxis(crop_planes(image, window, size), 0, -1)


def flip(image: jax.Array) -> jax.Array:
    """Left becomes right: [..., H, W]."""
    return image[..., ::-1]


def rotate(image: jax.Array, angle: jax.typing.ArrayLike) -> jax.Array:
    """Turns the picture by ``angle`` radians about its centre, counter-clockwise as seen; bilinear; edge pixels repeat outwards.

    Args:
      image: float32[C, H, W].

    Output pixel (i, j), measured from the centre (rows down), takes the value at
    (i cos a + j sin a, j cos a - i sin a) of the input.
    """
    height, width = image.shape[-2:]
    i = (jnp.arange(height, dtype=jnp.float32) - (height - 1) / 2)[:, None]
    j = (jnp.arange(width, dtype=jnp.float32) - (width - 1) / 2)[None, :]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rows = jnp.clip(i * cos + j * sin + (height - 1) / 2, 0.0, height - 1.0)
    columns = jnp.clip(j * cos - i * sin + (width - 1) / 2, 0.0, width - 1.0)
    top, left = jnp.floor(rows), jnp.floor(columns)
    down, right = rows - top, columns - left
    y0, x0 = top.astype(jnp.int32), left.astype(jnp.int32)
    y1, x1 = jnp.minimum(y0 + 1, height - 1), jnp.minimum(x0 + 1, width - 1)
    upper = image[:, y0, x0] * (1.0 - right) + image[:, y0, x1] * right
    lower = image[:, y1, x0] * (1.0 - right) + image[:, y1, x1] * right
    return upper * (1.0 - down) + lower * down
