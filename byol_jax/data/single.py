"""One image by itself, as evaluation takes it: the road of a folder's files without the pipeline around it."""

from __future__ import annotations

import functools

import numpy as np

from byol_jax.data import fetch, vision
from byol_jax.views import Views


def evaluated(data: bytes, where: str, views: Views) -> np.ndarray:
    """uint8[S, S, 3] of an encoded image: decoded, centre-cropped and resized as ``eval_batches`` does it with a file of these bytes.

    Raises:
      BadImage: the bytes cannot be decoded; names ``where``.
    """
    crop = functools.partial(vision.central_window, share=views.eval_crop)
    return vision.to_uint8(vision.resize(fetch.decode(data, where, crop), views.size)).numpy()
