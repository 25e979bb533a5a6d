"""Colour operations on one image, as planes: float32[3, H, W] in [0, 1]. Everything here is elementwise but one mean.

Planes (channel first) because a last axis of 3 fills 3 of a TPU's 128 lanes, and defeats vectorisation on CPU.
Formulas: section "Image augmentations", Appendix B of the paper, with the official code's choices where the paper is silent:
brightness is additive, contrast turns about each channel's own mean, hue counts in turns.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp

LUMA = (0.2989, 0.5870, 0.1140)


def clip(image: jax.Array) -> jax.Array:
    """Clips to [0, 1]."""
    return jnp.clip(image, 0.0, 1.0)


def brightness(image: jax.Array, delta: jax.typing.ArrayLike) -> jax.Array:
    """Adds ``delta`` to every value. Not clipped."""
    return image + delta


def contrast(image: jax.Array, factor: jax.typing.ArrayLike) -> jax.Array:
    """Stretches each channel by ``factor`` about its mean over the image. Not clipped; a factor of 1 is exact."""
    mean = jnp.mean(image, axis=(-2, -1), keepdims=True)
    return image + (factor - 1.0) * (image - mean)


def hsv(image: jax.Array, saturation: jax.typing.ArrayLike = 1.0, hue: jax.typing.ArrayLike = 0.0) -> jax.Array:
    """Multiplies HSV saturation by ``saturation`` (then clips it to [0, 1]) and turns hue by ``hue`` (in turns).

    Never forms HSV: with value v and chroma c = s * v, a channel is v - c * clip(min(k, 4 - k), 0, 1), where
    k = (n + 6 * hue) mod 6 and n is 5, 3, 1 for red, green, blue. So the only division is by the chroma.
    """
    red, green, blue = image[0], image[1], image[2]
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    per_chroma = jnp.where(chroma > 0, 1.0 / jnp.where(chroma > 0, chroma, 1.0), 0.0)
    # Not "red == value": a compiler that makes the channels twice may round them differently, and none is the largest then.
    sixths = jnp.where(
        (red >= green) & (red >= blue),
        (green - blue) * per_chroma,
        jnp.where(green >= blue, 2.0 + (blue - red) * per_chroma, 4.0 + (red - green) * per_chroma),
    )
    sixths = sixths + 6.0 * hue
    chroma = jnp.minimum(chroma * saturation, value)
    return jnp.stack([value - chroma * _share(sixths + n) for n in (5.0, 3.0, 1.0)])


def _share(sixths: jax.Array) -> jax.Array:
    """How much of the chroma a channel lacks, at this distance in sixths of a turn: the usual six-sector table as one trapezium."""
    sixths = sixths - 6.0 * jnp.floor(sixths * (1 / 6))
    return jnp.clip(jnp.minimum(sixths, 4.0 - sixths), 0.0, 1.0)


def saturate(image: jax.Array, factor: jax.typing.ArrayLike) -> jax.Array:
    """``hsv`` with hue left alone: every channel's distance from the largest one is scaled, but at most to black."""
    value = jnp.max(image, axis=0, keepdims=True)
    chroma = value - jnp.min(image, axis=0, keepdims=True)
    limit = value / jnp.where(chroma > 0, chroma, 1.0)
    return value - (value - image) * jnp.minimum(factor, limit)


def jitter(
    image: jax.Array,
    times: jax.Array,
    *,
    delta: jax.typing.ArrayLike | None = None,
    factor: jax.typing.ArrayLike | None = None,
    saturation: jax.typing.ArrayLike | None = None,
    hue: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """Brightness (``delta``), contrast (``factor``), saturation and hue in the order of their ``times``; clips to [0, 1] after each.

    The order differs from image to image, and under ``vmap`` a switch between operations computes all of them at all four
    places. But every order of two tone operations (brightness, contrast) and two HSV operations is contained in
    tone, HSV, tone, HSV, tone, where a stage in which an operation has no turn gets its neutral value. That is three cheap
    passes and two HSV passes instead of sixteen operations, eight of them HSV.

    Args:
      image: float32[3, H, W] in [0, 1].
      times: float32[4], when brightness, contrast, saturation and hue happen: smaller is earlier. Independent uniform draws give
        a uniformly random order.
      delta, factor, saturation, hue: the strengths; None leaves an operation out at compile time.

    Returns:
      float32[3, H, W] in [0, 1].
    """
    turns = [times[2 + i] for i, strength in enumerate((saturation, hue)) if strength is not None]
    if len(turns) == 2:
        turns = [jnp.minimum(*turns), jnp.maximum(*turns)]
    edges = [jnp.full_like(times[0], -jnp.inf), *turns, jnp.full_like(times[0], jnp.inf)]
    for stage, (start, end) in enumerate(itertools.pairwise(edges)):
        image = _tones(image, times[:2], start, end, delta, factor)
        if stage < len(turns):
            image = clip(_hsv_turn(image, (times[2] <= times[3]) == (stage == 0), saturation, hue))
    return image


def _hsv_turn(
    image: jax.Array, saturation_now: jax.Array, saturation: jax.typing.ArrayLike | None, hue: jax.typing.ArrayLike | None
) -> jax.Array:
    """Saturation or hue, whichever has its turn; where only one of them is used, that one."""
    if saturation is not None and hue is not None:
        return hsv(image, jnp.where(saturation_now, saturation, 1.0), jnp.where(saturation_now, 0.0, hue))
    if saturation is not None:
        return saturate(image, saturation)
    return image if hue is None else hsv(image, hue=hue)


def _tones(
    image: jax.Array,
    times: jax.Array,
    start: jax.Array,
    end: jax.Array,
    delta: jax.typing.ArrayLike | None,
    factor: jax.typing.ArrayLike | None,
) -> jax.Array:
    """Those of brightness and contrast whose time lies in [start, end), in their order."""
    now = (start <= times) & (times < end)
    if factor is None:
        return image if delta is None else clip(brightness(image, jnp.where(now[0], delta, 0.0)))
    factor = jnp.where(now[1], factor, 1.0)
    if delta is None:
        return clip(contrast(image, factor))
    first = times[0] <= times[1]
    image = clip(brightness(image, jnp.where(now[0] & first, delta, 0.0)))
    image = clip(contrast(image, factor))
    return clip(brightness(image, jnp.where(now[0] & ~first, delta, 0.0)))


def grayscale(image: jax.Array) -> jax.Array:
    """Luma (0.2989, 0.5870, 0.1140) in all three channels."""
    luma = LUMA[0] * image[0] + LUMA[1] * image[1] + LUMA[2] * image[2]
    return jnp.broadcast_to(luma, image.shape)


def solarize(image: jax.Array, threshold: float = 0.5) -> jax.Array:
    """Inverts the values at or above ``threshold``."""
    return jnp.where(image < threshold, image, 1.0 - image)
