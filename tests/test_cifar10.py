"""CIFAR-10's files: the two forms that it comes in give the same arrays, and what is not CIFAR-10 is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.cifar10.prepare import FILES, from_binary, from_sheets, read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty made images a file, two of a class, in both forms."""
    for split, names in FILES.items():
        labels = np.tile(np.arange(10, dtype=np.uint8), 2 * len(names))
        images = np.random.Generator(np.random.Philox(len(names))).integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
        (tmp_path / f"{split}_lables.json").write_text(json.dumps(labels.tolist()))
        for i, name in enumerate(names):
            part = slice(20 * i, 20 * i + 20)
            Image.fromarray(images[part].reshape(20, 1024, 3)).save(tmp_path / f"{name}.png")
            planes = images[part].transpose(0, 3, 1, 2).reshape(20, -1)  # a record: the label, then all red, all green, all blue
            np.concatenate([labels[part, None], planes], axis=1).tofile(tmp_path / f"{name}.bin")
    return tmp_path


def test_both_forms_give_the_same_arrays(folder: Path) -> None:
    for split, names in FILES.items():
        images, labels = from_binary([folder / f"{name}.bin" for name in names])
        others, also = from_sheets(folder, split)
        assert images.shape == (20 * len(names), 32, 32, 3)
        assert labels.tolist() == also.tolist() == list(range(10)) * 2 * len(names)
        np.testing.assert_array_equal(images, others)
    first = np.frombuffer((folder / "test_batch.bin").read_bytes()[: 1 + 1024], np.uint8)[1:].reshape(32, 32)
    np.testing.assert_array_equal(from_sheets(folder, "test")[0][0, :, :, 0], first)  # red comes first


def test_what_is_not_cifar10_is_refused(folder: Path) -> None:
    assert len(read(folder, "test")[0]) == 20
    with pytest.raises(ValueError, match="the mean colour is"):
        read(folder, "train")
    (folder / "test_lables.json").write_text(json.dumps([0] * 20))
    (folder / "test_batch.bin").unlink()
    with pytest.raises(ValueError, match=r"the classes of test have \[20, 0"):
        read(folder, "test")
    (folder / "test_batch.png").unlink()
    with pytest.raises(ValueError, match=r"test_batch.png is not there: the folder of cifar-10-binary.tar.gz or"):
        read(folder, "test")
