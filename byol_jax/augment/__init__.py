"""Views made on the device, in pure JAX: ``image_views`` for training, ``preprocess`` for evaluation."""

from byol_jax.augment.geometry import central_window, resized_crop, sample_window
from byol_jax.augment.image import image_views, preprocess

__all__ = ["central_window", "image_views", "preprocess", "resized_crop", "sample_window"]
