"""How tf.data reads one kind of example: the one place where the road of images and that of texts part."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from byol_jax.data import fetch, spans, vision
from byol_jax.data.source import Source, check_tokens, content_of
from byol_jax.views import TextViews, Views

Recipe = Views | TextViews


@dataclass(frozen=True)
class Reading:
    """Functions of one kind of example.

    Attributes:
      content: the key of an example that holds it.
      loader: (source, crop) -> (index -> (packed bytes and size, label)), run by Python threads.
      crop: recipe -> what ``loader`` cuts out at evaluation.
      decoded: (packed bytes, size) -> tensor.
      two_views: (tensor, seed, recipe, whether the whole recipe runs here) -> {"view1", "view2"}.
      prepared: (tensor, recipe) -> tensor of a fixed shape, as evaluation takes it.
    """

    content: str
    loader: Callable[[Any, Any], Callable[[int], tuple[fetch.Packed, int]]]
    crop: Callable[[Any], Any]
    decoded: Callable[[Any, Any], Any]
    two_views: Callable[[Any, Any, Any, bool], dict[str, Any]]
    prepared: Callable[[Any, Any], Any]


def of(source: Source) -> Reading:
    """The kind of a source's examples. Raises ValueError for a kind that is not known."""
    if (content := content_of(source)) not in _READINGS:
        raise ValueError(f"source: {type(source).__name__}.content = {content!r} is not one of {list(_READINGS)}")
    return _READINGS[content]


def _load_tokens(source: Source, crop: None) -> Callable[[int], tuple[fetch.Packed, int]]:
    def load(index: int) -> tuple[fetch.Packed, int]:
        tokens, label = check_tokens(source[index], f"example {index}")
        return (tokens.astype(np.int32).tobytes(), (len(tokens), 0)), label

    return load


def _central(views: Views) -> fetch.Crop:
    return functools.partial(vision.central_window, share=views.eval_crop)


_READINGS = {
    Views.content: Reading(
        content=Views.content,
        loader=fetch.load_images,
        crop=_central,
        decoded=vision.decoded,
        two_views=lambda image, seed, views, photometric: vision.two_views(image, seed, views, photometric=photometric),
        prepared=lambda image, views: vision.to_uint8(vision.resize(image, views.size)),
    ),
    TextViews.content: Reading(
        content=TextViews.content,
        loader=_load_tokens,
        crop=lambda views: None,
        decoded=spans.decoded,
        two_views=lambda tokens, seed, views, photometric: spans.two_views(tokens, seed, views),
        prepared=spans.prepared,
    ),
}
