"""Files handed to tf.data's graph undecoded: only those that are certain to decode there, and the pixels are the decoder's own."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from byol_jax import views
from byol_jax.data import BadImage, eval_batches, fetch, folder, images, order, train_batches, vision

tf = vision.tf
SIZE = 16


def encoded(kind: str = "JPEG", **options) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).convert(options.pop("mode", "RGB")).save(out, kind, **options)
    return out.getvalue()


JPEG = encoded()
FILES = {
    "a.jpg": JPEG,
    "b.jpg": encoded(mode="L"),
    "c.jpg": encoded(progressive=True),
    "d.jpg": JPEG + b"appended",  # whole, though it does not end as a JPEG does
    "e.png": encoded("PNG"),
    "f.jpg": encoded("PNG"),  # its name is wrong
    "g.jpg": encoded(mode="CMYK"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_packed_unpacks_to_the_decoder_s_pixels(name):
    got = vision.decoded(*map(tf.constant, fetch.Packer(1, None)(0, FILES[name], lambda: name))).numpy()
    wanted = tf.io.decode_jpeg(FILES[name], channels=3).numpy() if images.is_jpeg(FILES[name]) else images.decode(FILES[name], name)
    np.testing.assert_array_equal(got, wanted)


def test_only_whole_jpegs_stay_as_they_are():
    packed = {name: fetch.Packer(1, None)(0, data, lambda: "?") for name, data in FILES.items()}
    assert {name for name, (data, size) in packed.items() if size == (0, 0)} == {"a.jpg", "b.jpg", "c.jpg", "g.jpg"}
    assert packed["a.jpg"][0] == JPEG
    cut = fetch.Packer(1, lambda height, width: (1, 2, height - 5, width - 6))(0, JPEG, lambda: "?")
    assert cut[1] == (35, 44)


def test_a_cut_off_jpeg_is_bad():
    for length in (0, 2, 20, 300, len(JPEG) - 2):
        with pytest.raises(BadImage, match="torn"):
            fetch.Packer(1, None)(0, JPEG[:length], lambda: "torn")


@pytest.mark.parametrize("progressive", [False, True])
def test_whatever_is_packed_as_it_is_decodes(progressive):
    """Bytes changed, removed or put in, at random places: headers and tables too. The graph must never meet what it cannot decode."""
    draw, whole, kept = np.random.default_rng(1), encoded(progressive=progressive), 0
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(draw.integers(1, 4)):
            at = int(draw.integers(0, draw.choice([700, len(data)])))
            data[at : at + int(draw.choice([0, 1, 30]))] = draw.integers(0, 256, draw.choice([0, 1, 5]), np.uint8).tobytes()
        try:
            packed, size = fetch.Packer(1, None)(0, bytes(data), lambda: "?")
        except BadImage:
            continue
        if size == (0, 0):
            kept += 1
            vision.decoded(tf.constant(packed), tf.constant(size))
    assert 50 < kept < 400  # neither road is taken always


def test_batches_are_what_the_decoder_and_the_recipe_give_one_by_one(tmp_path: Path):
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "h.jpg").write_bytes(JPEG[:-40])  # its place is taken by the next, a.jpg
    names, recipe, n = [*FILES, "a.jpg"], views.imagenet(SIZE), len(FILES) + 1
    with train_batches(folder(tmp_path), recipe, batch_size=11, seed=4, max_bad_share=0.5) as batches:
        got = list(itertools.islice(batches, 3))
    for batch, (index, epoch) in zip(got, order.batches(n=n, batch_size=11, seed=4), strict=False):
        for row, seed in enumerate(order.example_seed(4, epoch, index)):
            image = fetch.decode(FILES[names[index[row]]], "?")
            for key, u in zip(("view1", "view2"), vision.draw(seed), strict=True):
                y, x, h, w = vision.sample_window(u, *image.shape[:2], views.View()).numpy()
                crop = tf.image.resize(image[y : y + h, x : x + w], [SIZE, SIZE], "bicubic")  # of uint8, as the official code does it
                np.testing.assert_array_equal(batch[key][row], vision.to_uint8(tf.clip_by_value(crop / 255.0, 0.0, 1.0)))
    (kept,) = eval_batches(folder(tmp_path), recipe, batch_size=16, max_bad_share=0.5)
    assert kept["index"].tolist() == list(range(n - 1))
