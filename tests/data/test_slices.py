"""Parts of a split: exact positions, nothing lost or shared, and a source sorted by class is mixed first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from byol_jax.data import digits, folder, from_arrays, parse_split, sliced
from byol_jax.data.slices import Slice, apart

IMAGES = np.arange(10, dtype=np.uint8).reshape(10, 1, 1)


@pytest.mark.parametrize(
    ("text", "low", "high", "ten", "fifteen"),
    [
        ("train", None, None, (0, 10), (0, 15)),
        ("train[:90%]", None, "90%", (0, 9), (0, 14)),  # 13.5, to the even one, as TFDS rounds
        ("train[90%:]", "90%", None, (9, 10), (14, 15)),
        ("train[-10%:]", "-10%", None, (9, 10), (14, 15)),
        ("train[-3:]", "-3", None, (7, 10), (12, 15)),
        ("train[2:5]", "2", "5", (2, 5), (2, 5)),
        ("train[12:]", "12", None, (10, 10), (12, 15)),
        ("train[20%:-20%]", "20%", "-20%", (2, 8), (3, 12)),
    ],
)
def test_positions(text, low, high, ten, fifteen):
    part = parse_split(text)
    assert (part, str(part)) == (Slice("train", low, high), text)
    assert (part.positions(10), part.positions(15)) == (ten, fifteen)


def test_parts_share_nothing_and_lose_nothing_whatever_the_size():
    for examples in range(1, 40):
        for bound in ("80%", "-20%", "7", "-7"):
            (_, end), (start, last) = (parse_split(f"a[{text}]").positions(examples) for text in (f":{bound}", f"{bound}:"))
            assert (end, last) == (start, examples)


def test_a_part_is_drawn_from_the_whole_source_and_stays_in_its_order():
    source = from_arrays(IMAGES, np.repeat(np.arange(5), 2))
    learnt, held = (sliced(source, parse_split(text)) for text in ("train[:60%]", "train[60%:]"))
    shuffled = np.random.Generator(np.random.Philox(key=[0, 1])).permutation(10)
    assert learnt.images[:, 0, 0, 0].tolist() == sorted(shuffled[:6].tolist())
    assert held.images[:, 0, 0, 0].tolist() == sorted(shuffled[6:].tolist())
    assert held.labels.tolist() == [index // 2 for index in sorted(shuffled[6:].tolist())]
    assert sliced(source, parse_split("train")) is source


def test_a_part_of_the_digits_has_every_class():
    held = sliced(digits("train", size=8), parse_split("train[80%:]"))
    assert len(held) == 1438 - round(0.8 * 1438) == 288
    assert np.bincount(held.labels).min() >= 19


def test_a_part_of_a_folder_hands_out_files(tmp_path: Path):
    from PIL import Image

    for name in "abcdef":
        (tmp_path / name[0]).mkdir()
        Image.new("RGB", (2, 2)).save(tmp_path / name / "0.png")
    part = sliced(folder(tmp_path), parse_split("train[:50%]"))
    assert (type(part).__name__, len(part), part.class_names) == ("FolderSource", 3, list("abcdef"))


def test_apart():
    known = ["train[:80%]", "train[80%:]", "train[:50]", "train[50:]", "train[-10%:]", "train", "test"]
    surely = {(a, b) for a in known for b in known if apart(parse_split(a), parse_split(b))}
    assert {(a, b) for a, b in surely if "test" not in (a, b)} == {
        *[("train[:80%]", "train[80%:]"), ("train[80%:]", "train[:80%]")],
        *[("train[:50]", "train[50:]"), ("train[50:]", "train[:50]")],
    }
    assert ("train[:80%]", "train[-10%:]") not in surely  # TFDS rounds the two ways to write a bound apart
    assert ("test", "train") in surely
    assert ("test", "test") not in surely


@pytest.mark.parametrize(
    "text", ["train[:90", "train[90]", "train[a:]", "train]", "[:5]", "train[:5]+test", "train[:5][:2]", "train[:0.5%]"]
)
def test_mistakes_in_the_form(text):
    with pytest.raises(ValueError, match=r"a part of a split is written as name\[from:to\]"):
        parse_split(text)


def test_an_empty_part():
    with pytest.raises(ValueError, match=r"split 'train\[:1%\]': holds none of the 10 examples"):
        sliced(from_arrays(IMAGES), parse_split("train[:1%]"))
