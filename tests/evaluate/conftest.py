"""Tiny data in the very format of data sets of the transfer study: name, version and features of TFDS, and folders of classes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIZES = {"train": 40, "validation": 20, "test": 30}


def brightest(n: int, seed: int, side: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Images, and which channels are bright: [N, 3] of bool, one at least."""
    rng = np.random.default_rng(seed)
    bright = rng.random((n, 3)) < 0.5
    bright[np.arange(n), np.arange(n) % 3] = True
    return (rng.integers(0, 100, (n, side, side, 3)) + 120 * bright[:, None, None, :]).astype(np.uint8), bright


def cifar10(n: int, seed: int):
    """One bright channel is the class."""
    images, _ = brightest(n, seed, 32)
    for i in range(n):
        image = images[i] // 2
        image[..., i % 3] += 100
        yield i, {"id": f"{i}", "image": image, "label": i % 3}


def voc(n: int, seed: int):
    """Bright channels are the classes 0, 1 and 2; class 2 is hard to see in every fifth image."""
    images, bright = brightest(n, seed)
    for i in range(n):
        there = np.flatnonzero(bright[i])
        sure = [c for c in there if c < 2 or i % 5]
        yield i, {"image": images[i], "image/filename": f"{i}.jpg", "labels": there, "labels_no_difficult": sure, "objects": []}


def build(name: str, examples, splits: dict[str, int], folder: Path, file_format: str) -> None:
    """Writes tiny data under the name, version and features of the true data set."""
    import tensorflow_datasets as tfds  # dear to import, and only the tests of transfer want it

    builder = tfds.builder(name, data_dir=folder, file_format=file_format)
    builder._split_generators = lambda manager: {split: examples(n, n) for split, n in splits.items()}
    builder.download_and_prepare()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Callable[[str], Path]:
    """By kind of file ("array_record" or "tfrecord"), a folder of cifar10 (50 and 30 images), voc/2007 and aircraft (40, 20 and 30)."""

    @functools.cache
    def made(file_format: str) -> Path:
        folder = tmp_path_factory.mktemp(file_format)
        build("cifar10", cifar10, {"train": 50, "test": 30}, folder, file_format)
        build("voc/2007", voc, SIZES, folder, file_format)
        for split, n in SIZES.items():
            for i, image in enumerate(brightest(n, n)[0] // 2):
                path = folder / "aircraft" / split / "abc"[i % 3] / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image[..., i % 3] += 100
                Image.fromarray(image).save(path)
        return folder

    return made
