"""The chain as written (permuted stages, planes, shifted sums) equals the chain as the paper tells it, operation by operation."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import views
from byol_jax.augment import color
from byol_jax.augment import image as recipe
from byol_jax.views import View


def to_hsv(image: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Textbook RGB [..., 3] -> hue (turns), saturation, value."""
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    value, chroma = image.max(-1), image.max(-1) - image.min(-1)
    safe = jnp.where(chroma > 0, chroma, 1.0)
    turns = [(green - blue) / safe, 2 + (blue - red) / safe, 4 + (red - green) / safe]
    hue = jnp.select([image.argmax(-1) == k for k in range(3)], turns)
    return jnp.where(chroma > 0, (hue / 6) % 1.0, 0.0), jnp.where(value > 0, chroma / jnp.where(value > 0, value, 1.0), 0.0), value


def from_hsv(hue: jax.Array, saturation: jax.Array, value: jax.Array) -> jax.Array:
    """Textbook table of six sectors -> [..., 3]."""
    chroma = saturation * value
    place = (hue % 1.0) * 6
    second = chroma * (1 - jnp.abs(place % 2.0 - 1))
    zero = jnp.zeros_like(chroma)
    table = [
        (chroma, second, zero),
        (second, chroma, zero),
        (zero, chroma, second),
        (zero, second, chroma),
        (second, zero, chroma),
        (chroma, zero, second),
    ]
    sector = jnp.minimum(jnp.floor(place), 5).astype(jnp.int32)
    channels = [jnp.select([sector == k for k in range(6)], [row[c] for row in table]) for c in range(3)]
    return jnp.stack(channels, -1) + (value - chroma)[..., None]


def naive(image: jax.Array, draws: recipe.Draws, view: View) -> jax.Array:
    """One image float32[S, S, 3], every operation in its plainest form, the jitter as a switch over the order."""

    def brightness(x: jax.Array) -> jax.Array:
        return x + draws.brightness

    def contrast(x: jax.Array) -> jax.Array:
        mean = x.mean((0, 1))
        return draws.contrast * (x - mean) + mean

    def saturation(x: jax.Array) -> jax.Array:
        hue, sat, value = to_hsv(x)
        return from_hsv(hue, jnp.clip(sat * draws.saturation, 0, 1), value)

    def hue(x: jax.Array) -> jax.Array:
        turn, sat, value = to_hsv(x)
        return from_hsv(turn + draws.hue, sat, value)

    image = jnp.where(draws.flip, image[:, ::-1], image)
    order = jnp.argsort(draws.times)
    jittered = image
    for place in range(4):
        jittered = jnp.clip(jax.lax.switch(order[place], [brightness, contrast, saturation, hue], jittered), 0, 1)
    image = jnp.where(draws.jitter, jittered, image)
    gray = jnp.broadcast_to((image @ jnp.array(color.LUMA))[..., None], image.shape)
    image = jnp.where(draws.grayscale, gray, image)
    image = jnp.where(draws.blur, convolved(image, draws.sigma), image)
    solarized = jnp.where(image < view.solarize_threshold, image, 1 - image)
    return jnp.clip(jnp.where(draws.solarize, solarized, image), 0, 1)


def convolved(image: jax.Array, sigma: jax.Array) -> jax.Array:
    """The blur as two depthwise convolutions."""
    half = int(image.shape[0] / 10 / 2)
    kernel = jnp.exp(-(jnp.arange(-half, half + 1, dtype=jnp.float32) ** 2) / (2 * sigma**2))
    kernel = jnp.tile((kernel / kernel.sum())[:, None], (1, 3))
    for shape in ((1, -1, 1, 3), (-1, 1, 1, 3)):
        image = jax.lax.conv_general_dilated(
            image[None], kernel.reshape(shape), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3
        )[0]
    return image


def images(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Random images with flat patches, pure channels, black and white among them: the corners of HSV."""
    rng = np.random.default_rng(seed)
    data = rng.random((count, size, size, 3), np.float32)
    data[:, :2, :, :] = rng.integers(0, 2, (count, 2, size, 3))
    data[:, 2:4, :, :] = data[:, 2:4, :, :1]
    return data


@pytest.mark.parametrize("which", ["view1", "view2"])
@pytest.mark.parametrize("size", [32, 41])
def test_chain_equals_the_naive_chain(which, size):
    view = getattr(views.imagenet(size), which)
    keys = jax.random.split(jax.random.key(size), 48)
    draws = jax.vmap(lambda key: recipe.sample(key, view))(keys)
    data = images(48, size)
    expected = jax.jit(jax.vmap(lambda x, d: naive(x, d, view)))(data, draws)
    got = jax.jit(jax.vmap(lambda x, d: recipe.apply(jnp.moveaxis(x, -1, 0), d, view)))(data, draws)
    got = np.moveaxis(np.asarray(got), 1, -1)
    # Solarization jumps at its threshold: a value within rounding of it may fall to either side, and a blur would not hide it.
    jump = np.abs(np.asarray(expected) - 0.5) < 1e-5
    np.testing.assert_allclose(np.where(jump, 0, got), np.where(jump, 0, expected), atol=5e-6, rtol=0)


@pytest.mark.parametrize("left_out", list(itertools.product([False, True], repeat=4)), ids=str)
def test_every_order_with_every_subset_of_jitters(left_out):
    """All 24 orders against plain sequences; an operation left out at compile time leaves the others in their order."""
    strengths = {"delta": 0.3, "factor": 1.4, "saturation": 1.2, "hue": 0.1}
    kept = {name: None if out else value for (name, value), out in zip(strengths.items(), left_out, strict=True)}
    orders = list(itertools.permutations(range(4)))
    times = np.argsort(np.array(orders), axis=1).astype(np.float32) / 4
    data = np.moveaxis(images(len(orders), 6), -1, 1)
    got = jax.jit(jax.vmap(lambda x, t: color.jitter(x, t, **kept)))(data, times)
    plain = [
        lambda x: color.brightness(x, 0.3),
        lambda x: color.contrast(x, 1.4),
        lambda x: color.hsv(x, saturation=1.2),
        lambda x: color.hsv(x, hue=0.1),
    ]
    for order, image, result in zip(orders, data, got, strict=True):
        for op in order:
            if not left_out[op]:
                image = np.clip(plain[op](image), 0, 1)
        np.testing.assert_allclose(result, image, atol=5e-6, rtol=0, err_msg=str(order))
