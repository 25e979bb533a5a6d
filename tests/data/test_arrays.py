"""Sources in memory: exact values, and errors that say what to do."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from byol_jax.data import ArraySource, Source, digits, from_arrays, idx, labels_of, npz, subset
from byol_jax.data.source import EncodedSource

GRAY = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


def test_gray_is_repeated():
    for images in (GRAY, GRAY[..., None], np.repeat(GRAY[..., None], 3, -1)):
        source = from_arrays(images, [1, 0])
        assert source.images.dtype == np.uint8
        np.testing.assert_array_equal(source.images, np.stack([GRAY] * 3, -1))
        assert source[1]["label"] == 0
        np.testing.assert_array_equal(source[1]["image"][..., 2], GRAY[1])
    assert isinstance(source, Source)
    assert not isinstance(source, EncodedSource)


def test_labels():
    assert from_arrays(GRAY)[0]["label"] == -1
    assert labels_of(from_arrays(GRAY)) is None
    source = from_arrays(GRAY, np.array([[1], [0]], np.uint8), class_names=["a", "b"])
    assert source.labels.dtype == np.int32
    assert source.labels.tolist() == [1, 0]
    assert source.class_names == ["a", "b"]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (GRAY / 255.0, None, r"images are float64, they must be uint8 .* \(255 \* x\)\.round\(\)"),
        (GRAY.astype(np.int32), None, r"images are int32.*astype\('uint8'\)"),
        (GRAY[0], None, r"shape \(3, 4\), they must be \[N, H, W, 3\]"),
        (np.zeros((8, 9, 3), np.uint8), None, r"look like one image; pass images\[None\]"),
        (np.zeros((5, 3, 8, 8), np.uint8), None, r"channels come last: images\.transpose\(0, 2, 3, 1\)"),
        (GRAY[:0], None, "no images"),
        (GRAY, [0], r"labels have shape \(1,\), there are 2 images"),
        (GRAY, [0.0, 1.0], "labels are float64, they must be integers"),
        (GRAY, [0, -2], "label -2 found; labels count from 0, -1 means none"),
    ],
)
def test_refused_arrays(images, labels, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(images, labels)


@pytest.mark.parametrize("names", [("train_images", "train_labels"), ("x_train", "y_train"), ("images", "labels"), ("x", "y")])
def test_npz(tmp_path: Path, names):
    np.savez(tmp_path / "a.npz", **{names[0]: GRAY, names[1]: np.array([4, 2])})
    source = npz(tmp_path / "a.npz")
    assert source.labels.tolist() == [4, 2]
    np.testing.assert_array_equal(source.images[..., 0], GRAY)


def test_npz_errors(tmp_path: Path):
    np.savez(tmp_path / "data.npz", train_images=GRAY)
    assert npz(tmp_path / "data.npz").labels is None
    with pytest.raises(ValueError, match=r"has no images for split 'tain'.*did you mean 'train_images'"):
        npz(tmp_path / "data.npz", split="tain")
    with pytest.raises(ValueError, match=r"dato\.npz does not exist; did you mean 'data\.npz'"):
        npz(tmp_path / "dato.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.npz is not an \.npz file"):
        npz(tmp_path / "text.npz")
    np.save(tmp_path / "one.npy", GRAY)
    with pytest.raises(ValueError, match=r"one\.npy is a single array; save it by numpy\.savez"):
        npz(tmp_path / "one.npy")


def write_idx(path: Path, array: np.ndarray) -> None:
    data = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx(tmp_path: Path, suffix):
    for prefix, shift in (("train", 0), ("t10k", 1)):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte{suffix}", GRAY + np.uint8(shift))
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte{suffix}", np.array([7, 3], np.uint8))
    np.testing.assert_array_equal(idx(tmp_path).images[..., 1], GRAY)
    np.testing.assert_array_equal(idx(tmp_path, "test").images[..., 1], GRAY + 1)
    assert idx(tmp_path).labels.tolist() == [7, 3]
    with pytest.raises(ValueError, match=r"split 'tests' is not one of \['test', 'train'\]; did you mean 'test'"):
        idx(tmp_path, "tests")


def test_idx_errors(tmp_path: Path):
    with pytest.raises(ValueError, match="has neither train-images-idx3-ubyte nor"):
        idx(tmp_path)
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    write_idx(labels, np.array([7, 3], np.uint8))
    for data, message in [
        (struct.pack(">HBB3I", 0, 8, 3, 2, 3, 4) + b"123", r"damaged: shape \(2, 3, 4\) needs 24 bytes, it has 3"),
        (struct.pack(">HBB3I", 0, 13, 3, 2, 3, 4) + b"123", r"starts with 00000d03, not with the magic number"),
        (b"\0\0", "is damaged"),
        (gzip.compress(b"abc")[:-3], "is damaged"),
    ]:
        images.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            idx(tmp_path)


def test_digits_values():
    raw = load_digits()
    train, test = digits("train", size=8), digits("test", size=8)
    assert (len(train), len(test)) == (1438, 359)
    counts = np.bincount(raw.target)
    np.testing.assert_array_equal(np.bincount(test.labels), np.round(0.2 * counts))
    wanted = np.round(raw.images * 255 / 16).astype(np.uint8)
    # Put together, the splits are the whole set, each image once.
    ours = np.concatenate([train.images[..., 0], test.images[..., 0]]).reshape(-1, 64)
    np.testing.assert_array_equal(sorted(map(bytes, ours)), sorted(map(bytes, wanted.reshape(-1, 64))))
    assert not {bytes(x) for x in train.images} & {bytes(x) for x in test.images}
    np.testing.assert_array_equal(digits("test", size=8).labels, test.labels)


def test_digits_upscaled():
    source = digits("test")
    assert source.images.shape == (359, 16, 16, 3)
    assert source.class_names == list("0123456789")
    small = digits("test", size=8).images.astype(float).mean((1, 2, 3))
    np.testing.assert_allclose(source.images.astype(float).mean((1, 2, 3)), small, rtol=0.12)
    with pytest.raises(ValueError, match=r"split 'valid' is not one of"):
        digits("valid")
    with pytest.raises(ValueError, match="size=0 must be at least 1"):
        digits(size=0)


class Plain:
    """A user's data set: nothing but the two methods."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> dict:
        return {"image": np.full((2, 2, 3), i, np.uint8), "label": 10 + i}


def test_labels_of_a_plain_source_and_subset():
    assert labels_of(Plain()).tolist() == [10, 11, 12, 13]
    part = subset(Plain(), [3, 1])
    assert (len(part), part[0]["label"], labels_of(part).tolist()) == (2, 13, [13, 11])
    with pytest.raises(ValueError, match=r"index 4 is outside the source; valid: 0\.\.3"):
        subset(Plain(), [0, 4])
    arrays = subset(from_arrays(GRAY, [1, 0]), [1])
    assert isinstance(arrays, ArraySource)
    assert arrays.labels.tolist() == [0]
