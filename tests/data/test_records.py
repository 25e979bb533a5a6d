"""TensorFlow Datasets, prepared by the test itself in both kinds of files: random access (array_record) and a stream (tfrecord)."""

from __future__ import annotations

import gc
import itertools
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from byol_jax import data, views
from byol_jax.data import ArraySource, Shard, eval_batches, train_batches
from byol_jax.data.records import TfdsSource, TfdsStream, WindowedSource
from byol_jax.data.source import EncodedSource

N, SMALL = 23, views.small(8)


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    """Pictures whose gray level tells which they are; two sizes in "train", one in "even"."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        names = tfds.features.ClassLabel(names=["ant", "bee", "cow"])
        features = {"id": tfds.features.Text(), "image": tfds.features.Image(shape=(None, None, 3)), "label": names}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {"train": self._generate_examples(N, 2), "even": self._generate_examples(5, 1)}

    def _generate_examples(self, n, sizes):
        for i in range(n):
            yield i, {"id": f"{i}", "image": np.full((8 + i % sizes, 8, 3), 10 * i, np.uint8), "label": i % 3}


@pytest.fixture(scope="module", params=["array_record", "tfrecord"])
def place(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    config = tfds.download.DownloadConfig(num_shards=4)
    TinyPictures(data_dir=folder, file_format=request.param).download_and_prepare(download_config=config)
    return folder


def levels(batch: dict[str, np.ndarray], key: str = "view1") -> list[int]:
    """Which pictures are in the batch."""
    return [int(picture[0, 0, 0]) // 10 for picture in batch[key]]


PLAIN = views.Views(size=8).both(flip=0.0, jitter=0.0, grayscale=0.0, blur=0.0, solarize=0.0)


def first(count: int, source, **options) -> list[dict[str, np.ndarray]]:
    with train_batches(source, PLAIN, **options) as batches:
        return list(itertools.islice(batches, count))


def test_examples(place: Path):
    source = data.tfds("tiny_pictures", "train", data_dir=place)
    assert isinstance(source, TfdsSource if "array_record" in place.name else TfdsStream)
    assert isinstance(source, EncodedSource) == isinstance(source, TfdsSource)
    assert isinstance(source, WindowedSource) == isinstance(source, TfdsStream)
    assert (len(source), source.class_names) == (N, ["ant", "bee", "cow"])
    examples = [source[i] for i in range(N)]
    numbers = [int(example["image"][0, 0, 0]) // 10 for example in examples]
    assert sorted(numbers) == list(range(N))
    for example, number in zip(examples, numbers, strict=True):
        assert example["image"].shape == (8 + number % 2, 8, 3)
        assert example["label"] == number % 3
    assert source.labels.tolist() == [number % 3 for number in numbers]
    part = data.tfds("tiny_pictures", "train[5:21]", data_dir=place)
    assert (len(part), part.labels.tolist()) == (16, source.labels[5:21].tolist())


def test_training_batches(place: Path):
    source = data.tfds("tiny_pictures", "train[1:]", data_dir=place)
    if isinstance(source, TfdsStream):
        source.window = 6
    n = len(source)
    options = {"batch_size": 4, "seed": 5}
    whole = first(11, source, **options)
    seen = list(itertools.chain(*map(levels, whole)))
    assert sorted(seen[:n]) == sorted(seen[n : 2 * n])
    assert len(set(seen[:n])) == n
    assert seen[:n] != seen[n : 2 * n]
    for batch in whole:
        np.testing.assert_array_equal(batch["label"], [level % 3 for level in levels(batch)])
    for start in (0, 3, 8):
        again = first(3, source, **options, start_step=start)
        for a, b in zip(whole[start:], again, strict=False):
            for key in a:
                np.testing.assert_array_equal(a[key], b[key])
    parts = [first(8, source, **options, start_step=1, shard=Shard(i, 2)) for i in range(2)]
    for batch, rows in zip(whole[1:], zip(*parts, strict=True), strict=False):
        for key in batch:
            np.testing.assert_array_equal(batch[key], np.concatenate([row[key] for row in rows]))
    assert [levels(b) for b in whole] != [levels(b) for b in first(11, source, batch_size=4, seed=6)]


@pytest.mark.parametrize("count", [1, 3])
def test_evaluation_batches(place: Path, count: int):
    source = data.tfds("tiny_pictures", "train", data_dir=place)
    parts = [list(eval_batches(source, SMALL, batch_size=9, shard=Shard(i, count))) for i in range(count)]
    assert {len(part) for part in parts} == {3}
    rows = [row for step in zip(*parts, strict=True) for row in step]
    np.testing.assert_array_equal(np.concatenate([row["index"] for row in rows]), np.arange(N))
    np.testing.assert_array_equal(np.concatenate([row["label"] for row in rows]), source.labels)
    assert [level for row in rows for level in levels(row, "image")] == [int(source[i]["image"][0, 0, 0]) // 10 for i in range(N)]


def test_in_memory(place: Path):
    source, stored = (data.tfds("tiny_pictures", "even", data_dir=place, in_memory=flag) for flag in (True, False))
    assert isinstance(source, ArraySource)
    np.testing.assert_array_equal(source.images, np.stack([stored[i]["image"] for i in range(5)]))
    np.testing.assert_array_equal(source.labels, stored.labels)
    assert source.class_names == ["ant", "bee", "cow"]
    with pytest.raises(ValueError, match="in_memory needs images of one size"):
        data.tfds("tiny_pictures", "train", data_dir=place, in_memory=True)


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("tiny_picture", "train", "no data set 'tiny_picture'; did you mean 'tiny_pictures'"),
        ("tiny_pictures", "trian", r"no split 'trian': it has \['even', 'train'\]; did you mean 'train'"),
        ("tiny_pictures", "train[:99]", r"no split 'train\[:99\]'"),
        ("tiny_pictures", "train[2:2]", r"split 'train\[2:2\]' of tiny_pictures/1\.0\.0 is empty"),
    ],
)
def test_wrong_names(place: Path, name: str, split: str, message: str):
    with pytest.raises(ValueError, match=message):
        data.tfds(name, split, data_dir=place)


def test_a_bad_record_of_a_stream_gives_way_to_the_next_of_its_window(place: Path, monkeypatch):
    source = data.tfds("tiny_pictures", "train", data_dir=place)
    index = list(range(N))
    good = first(6, source, batch_size=N, seed=0)[0]
    parse = type(source._split).parse

    def torn(self, example):
        encoded, label = parse(self, example)
        return (encoded[:20] if example["id"] == b"4" else encoded), label

    monkeypatch.setattr(type(source._split), "parse", torn)
    with train_batches(source, PLAIN, batch_size=N, seed=0, max_bad_share=0.1) as batches:
        got = next(batches)
        assert len(batches.bad_files) == 1
        assert "tiny_pictures/1.0.0 train, example" in batches.bad_files[0]
    slot = levels(good).index(4)
    if isinstance(source, TfdsStream):  # one window holds them all
        instead = levels(good)[(slot + 1) % N]
    else:
        numbers = [int(example) // 10 for example in (source[i]["image"][0, 0, 0] for i in index if source_id(source, i) != b"4")]
        position = next(i for i in index if source_id(source, i) == b"4")
        instead = numbers[position % len(numbers)]
    wanted = levels(good)
    wanted[slot] = instead
    assert levels(got) == wanted


def source_id(source: TfdsSource, index: int) -> bytes:
    return source._records[index]["id"]


def test_not_prepared_and_not_to_be_had(tmp_path: Path, monkeypatch):
    def fail(self, **options):
        raise OSError("no network")

    monkeypatch.setattr(TinyPictures, "download_and_prepare", fail)
    with pytest.raises(ValueError, match=r"tiny_pictures is not prepared under .*failed \(OSError: no network\); pass data_dir="):
        data.tfds("tiny_pictures", data_dir=tmp_path)


def test_prepared_here_means_random_access(tmp_path: Path):
    assert isinstance(data.tfds("tiny_pictures", "even", data_dir=tmp_path), TfdsSource)


def test_some_examples_spread_over_a_split_or_the_head_of_a_stream(place: Path):
    source = data.tfds("tiny_pictures", "train", data_dir=place)
    some = data.spread(source, 7)
    whole = levels(next(eval_batches(source, SMALL, batch_size=N)), "image")
    wanted = whole[:7] if isinstance(source, TfdsStream) else [whole[i * N // 7] for i in range(7)]
    with eval_batches(some, SMALL, batch_size=4) as batches:
        assert [level for batch in batches for level in levels(batch, "image")] == wanted
    assert len(some) == 7
    assert list(some.labels) == [level % 3 for level in wanted]
    assert data.spread(source, N) is source
    with pytest.raises(ValueError, match="count = 0"):
        data.spread(source, 0)


def test_some_rows_of_a_stream_are_not_trained_on(place: Path):
    source = data.tfds("tiny_pictures", "train", data_dir=place)
    some = data.subset(source, [5, 2, 9, 1])
    if isinstance(source, TfdsStream):
        with pytest.raises(ValueError, match=r"TfdsStream\('tiny_pictures.*as a whole only.*prepare it as array_record"):
            train_batches(some, SMALL, batch_size=2, seed=0)
    else:
        with train_batches(some, SMALL, batch_size=2, seed=0) as batches:
            assert next(batches)["label"].shape == (2,)


def test_closing_a_stream_closes_its_reader(place: Path, monkeypatch):
    if "array_record" in place.name:
        pytest.skip("has no reader: it goes to each record by itself")
    closed, shuffled = threading.Event(), TfdsStream.shuffled

    def watched(self, *where):
        try:
            yield from shuffled(self, *where)
        finally:
            closed.set()

    monkeypatch.setattr(TfdsStream, "shuffled", watched)
    gc.collect()
    gc.disable()  # which would close it too, at a time of its own
    try:
        first(2, data.tfds("tiny_pictures", "train", data_dir=place), batch_size=4, seed=0)
        assert closed.wait(timeout=20)
    finally:
        gc.enable()
