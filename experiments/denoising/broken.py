"""Views of the digits of which a share are false pairs: the second view is of another image. For ``views.function`` in a configuration."""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from byol_jax import build, data
from byol_jax import config as cfg
from byol_jax.data import vision

SIZE = 16


@functools.cache
def _setting() -> tuple[Any, Any]:
    """(the recipe of configs/digits.py, all training images)."""
    spec = cfg.load("configs/digits.py")
    return build.recipe(spec), data.digits("train", size=SIZE).images


def views(example: dict[str, Any], seed: Any, *, share: float) -> dict[str, Any]:
    """Two views as the recipe makes them, on the host; with probability ``share`` view 2 is of an image drawn from all."""
    recipe, images = _setting()
    made = vision.two_views(example["image"], seed, recipe, photometric=True)
    chance, which = tf.unstack(tf.random.stateless_uniform([2], seed + [0, 1], alg="philox"))
    other = tf.constant(images)[tf.cast(which * len(images), tf.int32)]
    second = tf.cond(
        chance < share, lambda: vision.two_views(other, seed + [0, 2], recipe, photometric=True)["view2"], lambda: made["view2"]
    )
    both = {"view1": made["view1"], "view2": second}
    return {name: (tf.cast(view, tf.float32) / 255 - recipe.mean) / recipe.std for name, view in both.items()}


clean, broken10, broken20, broken40 = (functools.partial(views, share=share) for share in (0.0, 0.1, 0.2, 0.4))
