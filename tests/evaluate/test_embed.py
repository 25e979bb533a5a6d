"""Embeddings in a file: equal to the encoder's own, in order, and gone on with after an interruption."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np
import pytest
from PIL import Image

from byol_jax import data, evaluate, views
from tests.data.words import Count, learned

RECIPE = views.gray(8)


class Corner(nn.Module):
    """[mean, one corner] of an image: two features that can be told by hand, and one parameter."""

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        scale = self.param("scale", nn.initializers.ones, ())
        return scale * np.float32(1) * x[:, 0, :2, 0]


@pytest.fixture
def encoder() -> evaluate.Encoder:
    return evaluate.Encoder.untrained(Corner(), RECIPE)


@pytest.fixture
def source() -> Any:
    images = np.random.default_rng(0).integers(0, 256, (23, 8, 8, 3), np.uint8)
    return data.from_arrays(images, np.arange(23) % 3, class_names=["a", "b", "c"])


def test_every_example_once_and_in_order(encoder, source, tmp_path: Path) -> None:
    seen = []
    path = evaluate.embed(encoder, source, tmp_path / "e.npz", batch_size=4, part=10, progress=lambda *at: seen.append(at))
    assert (path, seen) == (tmp_path / "e.npz", [(10, 23), (20, 23), (23, 23)])
    with np.load(path) as got:
        assert sorted(got) == ["class_names", "embedding", "index", "label"]
        np.testing.assert_allclose(got["embedding"], source.images[:, 0, :2, 0] / 127.5 - 1, atol=1e-5)
        assert got["index"].tolist() == list(range(23))
        assert got["label"].tolist() == [i % 3 for i in range(23)]
        assert got["class_names"].tolist() == ["a", "b", "c"]
    assert [file.name for file in tmp_path.iterdir()] == ["e.npz"]


def test_it_goes_on_where_it_was_stopped(encoder, source, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, _: int) -> None:
        if done == 20:
            raise Stop

    options = {"batch_size": 4, "part": 10, "facts": {"step": 7}}
    with pytest.raises(Stop):
        evaluate.embed(encoder, source, tmp_path / "e.npz", progress=stop, **options)
    assert not (tmp_path / "e.npz").exists()
    calls = []

    class Counting(evaluate.Encoder):
        def __call__(self, images: np.ndarray, **kwargs: Any) -> np.ndarray:
            calls.append(len(images))
            return super().__call__(images, **kwargs)

    counting = Counting(encoder.module, encoder.variables, RECIPE)
    with pytest.raises(ValueError, match=r"parts of another embedding: step = 8 \(it was 7\)"):
        evaluate.embed(counting, source, tmp_path / "e.npz", **{**options, "facts": {"step": 8}})
    evaluate.embed(counting, source, tmp_path / "e.npz", **options)
    assert calls == [3]  # the last part alone
    evaluate.embed(encoder, source, tmp_path / "whole.npz")
    with np.load(tmp_path / "e.npz") as stopped, np.load(tmp_path / "whole.npz") as whole:
        for name in whole:
            np.testing.assert_array_equal(stopped[name], whole[name])


def test_a_folder_gives_paths_and_leaves_out_what_cannot_be_decoded(encoder, source, tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / "images" / name).mkdir(parents=True)
    for i in range(6):
        Image.fromarray(source.images[i]).save(tmp_path / "images" / "xy"[i // 3] / f"{i}.png")
    (tmp_path / "images" / "x" / "1.png").write_bytes(b"no image")
    folder = data.folder(tmp_path / "images")
    with np.load(evaluate.embed(encoder, folder, tmp_path / "e.npz", part=2)) as got:
        assert got["path"].tolist() == ["x/0.png", "x/2.png", "y/3.png", "y/4.png", "y/5.png"]
        assert got["index"].tolist() == [0, 2, 3, 4, 5]
        np.testing.assert_allclose(got["embedding"], source.images[[0, 2, 3, 4, 5], 0, :2, 0] / 127.5 - 1, atol=1e-5)


def stopped(encoder: evaluate.Encoder, source: Any, output: Path) -> None:
    """Leaves the first part of two examples."""

    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate.embed(encoder, source, output, part=2, progress=stop)


def test_parts_of_another_listing_are_refused(encoder, source, tmp_path: Path) -> None:
    """As many files as before, one of them with another name: what stands at a position is another file."""
    for i in (0, 1, 3):
        Image.fromarray(source.images[i]).save(tmp_path / f"{i}.png")
    stopped(encoder, data.folder(tmp_path), tmp_path / "e.npz")
    (tmp_path / "3.png").rename(tmp_path / "-3.png")
    other, before = (hashlib.sha256(names).hexdigest() for names in (b"6:-3.png5:0.png5:1.png", b"5:0.png5:1.png5:3.png"))
    wrong = rf"e\.npz\.parts: holds parts of another embedding: sha256 of its paths = '{other}' \(it was '{before}'\); delete the folder"
    with pytest.raises(ValueError, match=wrong):
        evaluate.embed(encoder, data.folder(tmp_path), tmp_path / "e.npz", part=2)
    (tmp_path / "-3.png").rename(tmp_path / "3.png")
    with np.load(evaluate.embed(encoder, data.folder(tmp_path), tmp_path / "e.npz", part=2)) as got:
        assert got["path"].tolist() == ["0.png", "1.png", "3.png"]
        np.testing.assert_allclose(got["embedding"], source.images[[0, 1, 3], 0, :2, 0] / 127.5 - 1, atol=1e-5)


def test_parts_of_other_texts_are_refused(texts: data.TokenSource, tmp_path: Path) -> None:
    counting = evaluate.Encoder(Count(), {}, views.TextViews(length=8, special=texts.tokenizer.special))
    stopped(counting, texts, tmp_path / "e.npz")
    others = data.tokenised(data.from_texts([texts.texts[0] + " light", *texts.texts[1:]], ["a", "b", None, "a"]), texts.tokenizer)
    with pytest.raises(ValueError, match="parts of another embedding: sha256 of its texts = "):
        evaluate.embed(counting, others, tmp_path / "e.npz", part=2)


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_names_that_are_not_utf8_are_written_with_escapes(encoder, source, tmp_path: Path, suffix: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for name, image in ((b"\xfea/\xff.png", source.images[0]), ("é/é.png".encode(), source.images[1])):
        file = tmp_path / "images" / os.fsdecode(name)
        file.parent.mkdir(parents=True)
        Image.fromarray(image).save(file)
    output = evaluate.embed(encoder, data.folder(tmp_path / "images"), tmp_path / f"e.{suffix}")
    if suffix == "npz":
        with np.load(output) as got:
            found = got["path"].tolist(), got["class_names"].tolist()
    else:
        table = parquet.read_table(output).to_pydict()
        found = table["path"], table["class"]
    assert found == (["é/é.png", r"\xfea/\xff.png"], ["é", r"\xfea"])


def test_parquet(encoder, source, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(evaluate.embed(encoder, source, tmp_path / "e.parquet", part=10)).to_pydict()
    assert table["label"] == [i % 3 for i in range(23)]
    assert table["class"][:4] == ["a", "b", "c", "a"]
    np.testing.assert_allclose(table["embedding"], source.images[:, 0, :2, 0] / 127.5 - 1, atol=1e-5)


@pytest.fixture
def texts(tmp_path: Path) -> data.TokenSource:
    found = ["River stone", "light", "winter, 长 winter", "stone stone"]
    return data.tokenised(data.from_texts(found, ["a", "b", None, "a"]), learned(tmp_path))


def test_texts_stand_beside_their_embeddings(texts: data.TokenSource, tmp_path: Path) -> None:

    recipe = views.TextViews(length=8, special=texts.tokenizer.special)
    counting = evaluate.Encoder(Count(), {}, recipe)
    with np.load(evaluate.embed(counting, texts, tmp_path / "e.npz", part=3), allow_pickle=False) as got:
        assert sorted(got) == ["class_names", "embedding", "index", "label", "text"]
        assert got["text"].tolist() == ["River stone", "light", "winter, 长 winter", "stone stone"]
        assert (got["label"].tolist(), got["index"].tolist()) == ([0, 1, -1, 0], [0, 1, 2, 3])
        for text, row in zip(got["text"], got["embedding"], strict=True):
            (ids,) = texts.tokenizer.ids([text])
            expected = np.bincount(ids, minlength=400)
            expected[:5] = 0  # special tokens, of which 长 gives one
            assert row.tolist() == expected[5:].tolist()


def test_texts_in_parquet_may_be_of_any_length(texts: data.TokenSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    counting = evaluate.Encoder(Count(), {}, views.TextViews(length=8, special=texts.tokenizer.special))
    monkeypatch.setitem(evaluate.embed.__globals__, "LARGEST", 4 * 4 * 16 - 1)  # four texts, the longest of 16 characters
    with pytest.raises(ValueError, match=r"the longest text of 4 has 16 characters, .* choose \.parquet"):
        evaluate.embed(counting, texts, tmp_path / "e.npz")
    table = parquet.read_table(evaluate.embed(counting, texts, tmp_path / "e.parquet", part=3)).to_pydict()
    assert table["text"] == texts.texts
    assert table["class"] == ["a", "b", None, "a"]
    monkeypatch.setitem(evaluate.embed.__globals__, "LARGEST", 4 * 4 * 16)
    assert evaluate.embed(counting, texts, tmp_path / "e.npz").is_file()


def test_mistakes(encoder, source, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.npz or \.parquet"):
        evaluate.embed(encoder, source, tmp_path / "e.csv")
    (tmp_path / "e.npz").touch()
    with pytest.raises(ValueError, match="already there"):
        evaluate.embed(encoder, source, tmp_path / "e.npz")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="none of the 1 images can be decoded"):
        evaluate.embed(encoder, data.folder(tmp_path / "bad"), tmp_path / "bad.npz")
