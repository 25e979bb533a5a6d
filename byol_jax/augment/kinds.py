"""What the device does with each kind of example: the one place where images and texts part, by the type of their recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.augment import image, text
from byol_jax.augment.spaces import Embeddings, Pixels
from byol_jax.views import TextViews, Views

Recipe = Views | TextViews
Batch = Mapping[str, jax.Array]


@dataclass(frozen=True)
class Kind:
    """Functions of one kind of example; each takes the recipe.

    Attributes:
      views: (recipe, "device" | "host") -> ``fn(keys[b], batch) -> {"view1", "view2"}``, for ``method.make_train_step``.
      accept: (what a user hands to an encoder, recipe) -> the array that is sent to the device; ValueError for anything else.
      preprocess: (that array, recipe) -> what the network takes at evaluation.
      seen: recipe -> shape and dtype of one example as the network takes it, [1, ...].
      sent: the same of a view as the host sends it, where views are made there.
      space: (recipe, encoder module) -> where an adversary may change what the network takes.
    """

    views: Callable[[Any, Any], Callable[[jax.Array, Batch], dict[str, jax.Array]]]
    accept: Callable[[Any, Any], np.ndarray]
    preprocess: Callable[[jax.Array, Any], jax.Array]
    seen: Callable[[Any], jax.ShapeDtypeStruct]
    sent: Callable[[Any], jax.ShapeDtypeStruct]
    space: Callable[[Any, Any], Pixels | Embeddings]


IMAGES = Kind(
    views=lambda views, on: image.image_views(views, on=on),
    accept=image.accept,
    preprocess=image.preprocess,
    seen=lambda views: jax.ShapeDtypeStruct((1, views.size, views.size, 3), jnp.float32),
    sent=lambda views: jax.ShapeDtypeStruct((1, views.size, views.size, 3), jnp.uint8),
    space=lambda views, encoder: Pixels(tuple(views.mean), tuple(views.std)),
)
TEXTS = Kind(
    views=lambda views, on: text.text_views(views),
    accept=text.accept,
    preprocess=lambda tokens, views: tokens,
    seen=lambda views: jax.ShapeDtypeStruct((1, views.length), jnp.int32),
    sent=lambda views: jax.ShapeDtypeStruct((1, views.length), jnp.int32),
    space=lambda views, encoder: Embeddings(encoder.hidden),
)


def kind_of(recipe: Recipe) -> Kind:
    """The kind of example that a recipe is for."""
    return TEXTS if isinstance(recipe, TextViews) else IMAGES
