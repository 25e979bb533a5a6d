"""Converted data: the same bytes at the same positions, the same training batches, and whole after any interruption."""

from __future__ import annotations

import fcntl
import io
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image

from byol_jax import data, views
from byol_jax.data import shards as files
from byol_jax.data.convert import convert
from byol_jax.data.records import TfdsSource, TfdsStream

N = 200
DRAW = np.random.default_rng(0)
IMAGES = DRAW.integers(0, 256, (N, 6, 5, 3), np.uint8)
RECIPE = views.small(8)


def arrays(n: int = N, **options: Any) -> data.ArraySource:
    return data.from_arrays(IMAGES[:n], np.arange(n) % 3, **options)


def read(folder: Path, split: str = "train") -> Any:
    return data.tfds(folder.name, split, data_dir=folder.parent)


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "1.0.0").iterdir())}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of JPEG, WebP, gray PNG and BMP of several sizes; one file is damaged and one is empty."""
    for i in range(30):
        image = Image.fromarray(DRAW.integers(0, 256, (9 + i % 4, 11, 3), np.uint8))
        path = tmp_path / "photos" / ("cat", "dog")[i % 2] / f"{i:02d}.{('jpg', 'webp', 'png', 'bmp')[i // 2 % 4]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        (image.convert("L") if path.suffix == ".png" else image).save(path)
    (tmp_path / "photos/cat/08.jpg").write_bytes((tmp_path / "photos/cat/08.jpg").read_bytes()[:40])
    (tmp_path / "photos/dog/13.png").write_bytes(b"")
    return tmp_path / "photos"


def test_records_and_files_by_hand(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    note = convert(arrays(5), tmp_path / "five", "train", shards=2, progress=lambda *at: seen.append(at))
    names = [f"five-train.array_record-0000{i}-of-00002" for i in (0, 1)]
    metadata = ["dataset_info.json", "features.json"]
    assert sorted(listing(tmp_path / "five")) == sorted([*metadata, *names, "train.manifest.json"])
    reader = ArrayRecordReader(str(tmp_path / "five/1.0.0" / names[1]))
    proto = tfds.features.FeaturesDict({"image": tfds.features.Text(), "label": tfds.features.Scalar(np.int64)})
    examples = [proto.deserialize_example_np(record) for record in reader.read_all()]
    reader.close()
    assert [int(example["label"]) for example in examples] == [2, 0, 1]
    for i, example in zip((2, 3, 4), examples, strict=True):
        with Image.open(io.BytesIO(example["image"])) as image:
            assert image.format == "PNG"
            np.testing.assert_array_equal(np.asarray(image), IMAGES[i])
    assert seen[-1] == (5, 5)
    assert [note.shards[name]["records"] for name in names] == [2, 3]
    assert [note.shards[name]["top_label"] for name in names] == [1, 2]


def test_a_folder_is_copied_byte_for_byte_and_trains_alike(photos: Path, tmp_path: Path) -> None:
    source = data.folder(photos)
    note = convert(source, tmp_path / "photo_records", "train", shards=4, max_bad_share=0.05)
    got = read(tmp_path / "photo_records")
    assert isinstance(got, TfdsSource)
    assert (len(got), got.class_names, got.labels.tolist()) == (30, ["cat", "dog"], source.labels.tolist())
    for i, path in enumerate(source.paths):
        assert got.encoded(i)[0] == (photos / path).read_bytes()
    assert [fault for facts in note.shards.values() for fault in facts["bad"]] == [f"{photos / 'dog/13.png'}: the file is empty"]
    for augment_on in ("device", "host"):
        options = {"batch_size": 8, "seed": 3, "augment_on": augment_on, "max_bad_share": 0.1}
        with data.train_batches(source, RECIPE, **options) as before, data.train_batches(got, RECIPE, **options) as after:
            for one, other in itertools.islice(zip(before, after, strict=True), 8):  # two epochs and more
                assert one.keys() == other.keys() == {"view1", "view2", "label"}
                for key in one:
                    np.testing.assert_array_equal(one[key], other[key])
            assert len(before.bad_files) == len(after.bad_files) == 2


def test_too_many_unreadable_images_leave_nothing_behind(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"1 images cannot be read: more than data.max_bad_share allows \(0.3\).*dog/13.png: the file is empty"
    ):
        convert(data.folder(photos), tmp_path / "photo_records", "train", max_bad_share=0.01)
    Image.fromarray(IMAGES[0]).save(photos / "dog/13.png")
    note = convert(data.folder(photos), tmp_path / "photo_records", "train", max_bad_share=0.01)
    assert all(facts["bad"] == [] for facts in note.shards.values())
    assert read(tmp_path / "photo_records").encoded(21)[0] == (photos / "dog/13.png").read_bytes()


@pytest.mark.parametrize("augment_on", ["device", "host"])
def test_arrays_train_alike(tmp_path: Path, augment_on: str) -> None:
    source = arrays()
    convert(source, tmp_path / "small", "train")
    got = data.tfds("small", data_dir=tmp_path, in_memory=True)
    options = {"batch_size": 64, "seed": 3, "augment_on": augment_on}
    with data.train_batches(source, RECIPE, **options) as before, data.train_batches(got, RECIPE, **options) as after:
        for one, other in itertools.islice(zip(before, after, strict=True), 5):
            assert one.keys() == other.keys()
            for key in one:
                np.testing.assert_array_equal(one[key], other[key])


class Own:
    """Somebody's class: no ``encoded``, no ``labels``, gray images, one of them bad."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == 1:
            raise data.BadImage("example 1: gone")
        return {"image": IMAGES[index, :, :, 0]}


def test_a_source_of_ones_own_without_labels(tmp_path: Path) -> None:
    convert(Own(), tmp_path / "own", "train", max_bad_share=0.5)
    got = read(tmp_path / "own")
    assert (got.labels, got.class_names) == (None, None)
    np.testing.assert_array_equal(got[2]["image"], np.repeat(IMAGES[2, :, :, :1], 3, -1))
    with pytest.raises(data.BadImage, match=r"own/1\.0\.0 train, example 1"):
        got[1]


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_tfds_of_either_kind_keeps_its_order_and_bytes(tmp_path: Path, file_format: str) -> None:
    class RecordsToConvert(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("2.0.0")

        def _info(self) -> tfds.core.DatasetInfo:
            names = tfds.features.ClassLabel(names=["ant", "bee", "cow"])
            image = tfds.features.Image(shape=(6, 5, 3), encoding_format="jpeg")
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"picture": image, "kind": names}))

        def _split_generators(self, manager):
            return {"train": ((i, {"picture": IMAGES[i], "kind": i % 3}) for i in range(23))}

        def _generate_examples(self):
            raise AssertionError("the splits hold their examples themselves")

    builder = RecordsToConvert(data_dir=tmp_path / "prepared", file_format=file_format)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=3))
    source = data.tfds("records_to_convert", data_dir=tmp_path / "prepared")
    assert isinstance(source, TfdsStream if file_format == "tfrecord" else TfdsSource)
    wanted = list(source.encoded_from(0)) if isinstance(source, TfdsStream) else [source.encoded(i) for i in range(23)]
    convert(source, tmp_path / "again", "train", shards=5)
    whole = listing(tmp_path / "again")
    (tmp_path / "again/1.0.0/again-train.array_record-00003-of-00005").unlink()
    assert convert(source, tmp_path / "again", "train", shards=5).written == 1
    assert listing(tmp_path / "again") == whole
    got = read(tmp_path / "again")
    assert [got.encoded(i) for i in range(23)] == wanted
    assert got.class_names == ["ant", "bee", "cow"]
    np.testing.assert_array_equal(got[22]["image"], source[22]["image"])


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from byol_jax import data
from byol_jax.data.convert import convert

def stop(done, total):
    if done == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

with np.load(sys.argv[1]) as kept:
    source = data.from_arrays(kept["images"], kept["labels"])
convert(source, Path(sys.argv[2]), "train", facts={"from": "here"}, shards=4, progress=stop)
"""


@pytest.mark.parametrize(("at", "whole"), [(64, 1), (150, 3)])
def test_killed_and_resumed_it_ends_with_the_same_bytes(tmp_path: Path, at: int, whole: int) -> None:
    np.savez(tmp_path / "kept.npz", images=IMAGES, labels=np.arange(N) % 3)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "kept.npz"), str(tmp_path / "killed/small"), str(at)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    left = listing(tmp_path / "killed/small")
    shards = [name for name in left if name.startswith("small-train")]
    assert len(shards) == whole
    assert len(json.loads(left["train.manifest.json"])["shards"]) == whole
    options = {"facts": {"from": "here"}, "shards": 4}
    assert convert(arrays(), tmp_path / "killed/small", "train", **options).written == 4 - whole
    convert(arrays(), tmp_path / "undisturbed/small", "train", **options)
    resumed = listing(tmp_path / "killed/small")
    assert resumed == listing(tmp_path / "undisturbed/small")
    assert all(resumed[name] == left[name] for name in shards)
    assert convert(arrays(), tmp_path / "killed/small", "train", **options).written == 0


def test_shards_of_another_conversion_are_refused(tmp_path: Path, photos: Path) -> None:
    convert(arrays(20), tmp_path / "small", "train", facts={"path": "a.npz"}, shards=2)
    with pytest.raises(
        ValueError, match=r"train.manifest.json: .* of another conversion: path = 'b.npz' \(it was 'a.npz'\), examples = 19"
    ):
        convert(arrays(19), tmp_path / "small", "train", facts={"path": "b.npz"}, shards=2)
    convert(data.folder(photos), tmp_path / "pictures", "train", max_bad_share=1)
    (photos / "cat/00.jpg").rename(photos / "cat/0.jpg")
    with pytest.raises(ValueError, match="of another conversion: sha256 of its paths = "):
        convert(data.folder(photos), tmp_path / "pictures", "train", max_bad_share=1)
    with pytest.raises(ValueError, match=r"classes of 'test' are not those of 'train' \(cat, dog, owl\)"):
        convert(arrays(20, class_names=["owl"]), tmp_path / "pictures", "test")
    assert not (tmp_path / "pictures/1.0.0/test.manifest.json").exists()


def test_splits_beside_each_other_and_one_that_is_not_whole(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, _: int) -> None:
        if done == 100:
            raise Stop

    convert(data.from_arrays(IMAGES[:9], np.full(9, -1)), tmp_path / "small", "unlabelled")
    assert read(tmp_path / "small", "unlabelled").class_names is None
    with pytest.raises(Stop):
        convert(arrays(), tmp_path / "small", "train", shards=2, progress=stop)
    convert(data.from_arrays(IMAGES[:7], np.arange(7)), tmp_path / "small", "test")
    info = tfds.builder_from_directory(tmp_path / "small/1.0.0").info
    assert {name: split.num_examples for name, split in info.splits.items()} == {"test": 7, "unlabelled": 9}
    assert info.features["label"].num_classes == 7
    with pytest.raises(
        ValueError, match=r"1 of 4 shards are not as they were written:\n  - small-train.*00001-of-00002: was never written"
    ):
        files.verify(tmp_path / "small/1.0.0")
    convert(arrays(), tmp_path / "small", "train", shards=2)
    assert len(read(tmp_path / "small", "train+test")) == N + 7
    assert read(tmp_path / "small", "unlabelled").labels.tolist() == [-1] * 9
    assert files.verify(tmp_path / "small/1.0.0") == {"test": (7, 1), "train": (N, 2), "unlabelled": (9, 1)}


def test_every_damaged_shard_is_named_and_made_again(tmp_path: Path) -> None:
    convert(arrays(), tmp_path / "small", "train", shards=4)
    whole, folder = listing(tmp_path / "small"), tmp_path / "small/1.0.0"
    seen: list[tuple[int, int]] = []
    assert files.verify(folder, lambda *at: seen.append(at)) == {"train": (N, 4)}
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    names = [f"small-train.array_record-0000{i}-of-00004" for i in range(4)]
    flipped = bytearray(whole[names[0]])
    flipped[len(flipped) // 2] ^= 1
    (folder / names[0]).write_bytes(flipped)
    (folder / names[2]).write_bytes(whole[names[2]][:1000])
    (folder / names[3]).unlink()
    with pytest.raises(ValueError, match="3 of 4 shards are not as they were written") as caught:
        files.verify(folder)
    told = str(caught.value).splitlines()[1:4]
    assert told[0].startswith(f"  - {names[0]}: ")
    assert "sha256" in told[0]
    assert "bytes" not in told[0]
    assert told[1].startswith(f"  - {names[2]}: bytes 1000, noted {len(whole[names[2]])}; ")
    assert told[2] == f"  - {names[3]}: is missing"
    (folder / names[0]).unlink()
    assert convert(arrays(), tmp_path / "small", "train", shards=4).written == 3
    assert listing(tmp_path / "small") == whole


@pytest.mark.parametrize(
    ("name", "split", "shards", "message"),
    [
        ("My-Data", "train", None, "the last part is the data set's name, of small letters"),
        ("mnist", "train", None, "TFDS has a data set 'mnist' of its own and would load that; choose .*/mnist_records"),
        ("small", "train[:9]", None, r"split 'train\[:9\]' is no name"),
        ("small", "train", 0, "20 examples in 0 shards; both must be at least 1"),
    ],
)
def test_names_and_numbers_that_cannot_be(tmp_path: Path, name: str, split: str, shards: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert(arrays(20), tmp_path / name, split, shards=shards)
    assert list(tmp_path.iterdir()) == []


def test_two_do_not_write_in_one_folder(tmp_path: Path) -> None:
    (tmp_path / "small/1.0.0").mkdir(parents=True)
    handle = os.open(tmp_path / "small/1.0.0", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(ValueError, match="another conversion is writing there"):
        convert(arrays(5), tmp_path / "small", "train")
    os.close(handle)
    assert convert(arrays(5), tmp_path / "small", "train").written == 1


def test_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    convert(arrays(5), tmp_path / "small", "train")
    (tmp_path / "small/1.0.0/small-train.array_record-00000-of-00001").unlink()
    (tmp_path / "small/1.0.0/.small-train.array_record-00000-of-00001.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"small-train\.array_record-00000-of-00001: cannot be written"):
        convert(arrays(5), tmp_path / "small", "train")


def test_where_nothing_was_converted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no SPLIT\.manifest\.json; give the folder that `data convert` wrote"):
        files.verify(tmp_path)
