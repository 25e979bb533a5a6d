"""Encoded image -> uint8[H, W, 3]: one meaning for every format and mode that Pillow reads.

Orientation tags (EXIF) are not applied, as in the official code and in TensorFlow's decoder.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image

from byol_jax.data.source import BadImage

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
FORMATS = ("BMP", "JPEG", "PNG", "WEBP")


def is_jpeg(data: bytes) -> bool:
    """Whether the bytes begin as a JPEG file does."""
    return data[:3] == b"\xff\xd8\xff"


class TooManyPixels(BadImage):
    """An image that Pillow takes for a decompression bomb."""


def size(data: bytes, where: str) -> tuple[int, int]:
    """(height, width) as the header of a BMP, JPEG, PNG or WebP says; no pixel is decoded.

    Raises:
      BadImage: anything else. TooManyPixels: more than Pillow opens.
    """
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            warnings.simplefilter("ignore")
            return image.height, image.width
    except Image.DecompressionBombError as error:
        raise TooManyPixels(f"{where}: {error}") from None
    except Exception:  # as below
        raise BadImage(f"{where}: is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image, or its header is damaged") from None


def decode(data: bytes, where: str) -> np.ndarray:
    """uint8[H, W, 3] of an encoded image.

    Gray is repeated, palettes are looked up, CMYK is converted, 16-bit values lose their low byte, and what is transparent is laid
    over white.

    Raises:
      BadImage: the bytes cannot be decoded; names ``where``.
    """
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata; what counts is whether the pixels can be read
            return np.asarray(_to_rgb(image))
    except Image.DecompressionBombError as error:
        raise TooManyPixels(f"{where}: {error}") from None
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged bytes
        raise BadImage(f"{where}: cannot be decoded ({type(error).__name__}: {error})") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode.startswith("I"):  # 16-bit gray, which Pillow's own conversion would clip to white
        wide = np.asarray(image).astype(np.int64)
        return Image.fromarray((np.clip(wide, 0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
