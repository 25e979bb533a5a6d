"""Features that need no network: what any encoder should beat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from byol_jax.augment import Recipe
from byol_jax.data import labels_of
from byol_jax.evaluate.features import Features, pixels
from byol_jax.evaluate.tfidf import TfIdf
from byol_jax.views import TextViews, Views

WORDS = 8192  # columns: 32 KB a text


def raw_features(train: Any, test: Any, views: Recipe) -> dict[str, tuple[Features, Features]]:
    """Training and test examples as they are, by the name of the baseline: an image's pixels, TF-IDF of a text.

    TF-IDF learns the rarity of words from the training texts. A source that has kept no texts has no baseline.
    """
    return _RAW[views.content](train, test, views)


def _pixels(train: Any, test: Any, views: Views) -> dict[str, tuple[Features, Features]]:
    return {"pixels": (pixels(train, views), pixels(test, views))}


def _tfidf(train: Any, test: Any, views: TextViews) -> dict[str, tuple[Features, Features]]:
    if any(getattr(source, "texts", None) is None for source in (train, test)):
        return {}
    weigh = TfIdf(train.texts, max_features=WORDS)

    def features(source: Any) -> Features:
        label = labels_of(source)
        return Features(weigh(source.texts), np.full(len(source), -1, np.int32) if label is None else label, weighted=True)

    return {"TF-IDF": (features(train), features(test))}


_RAW: dict[str, Callable[..., dict[str, tuple[Features, Features]]]] = {Views.content: _pixels, TextViews.content: _tfidf}
