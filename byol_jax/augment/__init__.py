"""Views made on the device, in pure JAX: ``image_views`` for training, ``preprocess`` for evaluation; ``kind_of``: images or texts."""

from byol_jax.augment.geometry import central_window, resized_crop, sample_window
from byol_jax.augment.image import image_views, preprocess
from byol_jax.augment.kinds import Kind, Recipe, kind_of
from byol_jax.augment.spaces import Embeddings, Pixels
from byol_jax.augment.text import text_views

__all__ = [
    "Embeddings",
    "Kind",
    "Pixels",
    "Recipe",
    "central_window",
    "image_views",
    "kind_of",
    "preprocess",
    "resized_crop",
    "sample_window",
    "text_views",
]
