"""One image by itself: the same bits as in a folder's evaluation batch; sizes read from headers alone."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from byol_jax import data, views
from byol_jax.data import images
from byol_jax.data.single import evaluated

SHAPES = [(20, 33), (8, 8), (64, 9), (1, 1)]
KINDS = [("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("BMP", "RGB"), ("WEBP", "RGB")]


def encoded(height: int, width: int, kind: str, mode: str) -> bytes:
    noise = np.random.default_rng(height).integers(0, 256, (height, width, 4), np.uint8)
    image = Image.fromarray(noise) if mode == "RGBA" else Image.fromarray(noise[..., :3]).convert(mode)
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("recipe", [views.image(8), views.gray(8)], ids=["cropped", "whole"])
def test_the_same_bits_as_a_folder_s(recipe: views.Views, tmp_path: Path) -> None:
    contents = [encoded(*shape, *kind) for shape in SHAPES for kind in KINDS]
    for i, content in enumerate(contents):
        (tmp_path / f"{i:03d}.png").write_bytes(content)
    (batch,) = data.eval_batches(data.folder(tmp_path), recipe, batch_size=len(contents))
    np.testing.assert_array_equal(np.stack([evaluated(content, "it", recipe) for content in contents]), batch["image"])


@pytest.mark.parametrize("kind", KINDS)
def test_size_is_read_from_the_header(kind: tuple[str, str]) -> None:
    content = encoded(20, 33, *kind)
    assert images.size(content, "it") == (20, 33)
    if kind[0] != "WEBP":  # whose reader wants all of the file
        assert images.size(content[: len(content) - 40], "it") == (20, 33)


@pytest.mark.parametrize("content", [b"", b"GIF89a\x01\x00\x01\x00\x00\x00\x00", b"%PDF-1.4", b"\x89PNG\r\n\x1a\n", b"BM"])
def test_what_is_no_image(content: bytes) -> None:
    with pytest.raises(data.BadImage, match="it: is no BMP, JPEG, PNG or WEBP image, or its header is damaged"):
        images.size(content, "it")


def test_more_pixels_than_pillow_opens() -> None:
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    parts = [struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content)) for name, content in chunks]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    with pytest.raises(images.TooManyPixels, match="it: Image size"):
        images.size(content, "it")
