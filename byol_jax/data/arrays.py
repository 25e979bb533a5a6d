"""Sources that live in memory: arrays, .npz files, MNIST's IDX files, scikit-learn's digits."""

from __future__ import annotations

import difflib
import gzip
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from byol_jax.data.source import UNLABELLED, Source

_IDX_UINT8 = 0x08
_NPZ_IMAGES = ("{split}_images", "x_{split}", "images", "image", "x")
_NPZ_LABELS = ("{split}_labels", "y_{split}", "labels", "label", "y")


@runtime_checkable
class InMemory(Source, Protocol):
    """A source whose images are in memory, all of one size, each stored once.

    Attributes:
      stored: the images as they stand there, with their labels.
    """

    @property
    def stored(self) -> ArraySource: ...

    def rows(self, index: Any, /) -> Any:
        """Where the examples of these positions, int[...], stand in ``stored``."""


class ArraySource:
    """Images and labels in memory.

    Attributes:
      images: uint8[N, H, W, 3].
      labels: int32[N] (-1: no label), or None.
      class_names: list of str, or None.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray | None = None, class_names: Sequence[str] | None = None) -> None:
        self.images, self.labels = images, labels
        self.class_names = None if class_names is None else list(class_names)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "label": UNLABELLED if self.labels is None else int(self.labels[index])}

    @property
    def stored(self) -> ArraySource:
        """Itself: see ``InMemory``."""
        return self

    def rows(self, index: Any) -> Any:
        """The positions themselves."""
        return index

    def take(self, indices: Sequence[int] | np.ndarray | slice) -> ArraySource:
        """The chosen examples as another source in memory."""
        if not isinstance(indices, slice):
            indices = np.asarray(indices)
        return ArraySource(self.images[indices], None if self.labels is None else self.labels[indices], self.class_names)

    def __repr__(self) -> str:
        n, h, w, _ = self.images.shape
        return f"ArraySource({n} images of {h}x{w}, {'no labels' if self.labels is None else 'labelled'})"


def from_arrays(images: Any, labels: Any = None, *, class_names: Sequence[str] | None = None) -> ArraySource:
    """A source from arrays.

    Args:
      images: uint8 [N, H, W, 3], or gray as [N, H, W, 1] or [N, H, W] (repeated to three channels).
      labels: N integers from 0 up, -1 where there is none; or None.
      class_names: name of each class.

    Raises:
      ValueError: not uint8, another shape, no images, labels of another length or kind.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        advice = "floats in [0, 1]: pass (255 * x).round().astype('uint8')" if images.dtype.kind == "f" else "pass x.astype('uint8')"
        raise ValueError(f"from_arrays: images are {images.dtype}, they must be uint8 (0..255); {advice}")
    if images.ndim == 3 and images.shape[-1] == 3 and images.shape[1] != 3:
        raise ValueError(f"from_arrays: images of shape {images.shape} look like one image; pass images[None] for [1, H, W, 3]")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        hint = "; channels come last: images.transpose(0, 2, 3, 1)" if images.ndim == 4 and images.shape[1] in (1, 3) else ""
        raise ValueError(f"from_arrays: images have shape {images.shape}, they must be [N, H, W, 3], [N, H, W, 1] or [N, H, W]{hint}")
    if 0 in images.shape:
        raise ValueError(f"from_arrays: no images (shape {images.shape})")
    if images.shape[-1] == 1:
        images = np.repeat(images, 3, -1)
    return ArraySource(images, None if labels is None else _check_labels(labels, len(images)), class_names)


def _check_labels(labels: Any, n: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape == (n, 1):  # as CIFAR's files have them
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu":
        raise ValueError(f"from_arrays: labels are {labels.dtype}, they must be integers (-1: no label)")
    if labels.shape != (n,):
        raise ValueError(f"from_arrays: labels have shape {labels.shape}, there are {n} images: pass {n} labels, or None")
    if labels.min() < UNLABELLED:
        raise ValueError(f"from_arrays: label {labels.min()} found; labels count from 0, -1 means none")
    return labels.astype(np.int32)


def npz(path: str | Path, split: str = "train") -> ArraySource:
    """A source from an ``.npz`` file.

    Keys looked for, with ``split`` put in: ``{split}_images``, ``x_{split}``, ``images``, ``image``, ``x``; for the labels likewise
    ``{split}_labels``, ``y_{split}``, ``labels``, ``label``, ``y`` (none of them: unlabelled).

    Raises:
      ValueError: no such file, not an .npz, no such split (its nearest key is named), or arrays that ``from_arrays`` refuses.
    """
    path = existing(path, "npz")
    try:
        archive = np.load(path, allow_pickle=False)
    except (ValueError, OSError) as error:
        raise ValueError(f"npz: {path} is not an .npz file ({error})") from None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(f"npz: {path} is a single array; save it by numpy.savez(path, images=..., labels=...)")
    with archive:
        keys = list(archive.files)
        image_key = _find_key(keys, _NPZ_IMAGES, split)
        if image_key is None:
            wanted = [form.format(split=split) for form in _NPZ_IMAGES]
            raise ValueError(f"npz: {path} has no images for split {split!r}: keys {keys}, looked for {wanted}{nearest(wanted[0], keys)}")
        label_key = _find_key(keys, _NPZ_LABELS, split)
        return from_arrays(archive[image_key], None if label_key is None else archive[label_key])


def _find_key(keys: Sequence[str], forms: Iterable[str], split: str) -> str | None:
    named = [form.format(split=split) for form in forms]
    return next((key for key in named if key in keys), None)


def idx(folder: str | Path, split: str = "train") -> ArraySource:
    """A source from MNIST-style IDX files in ``folder``, gzipped or not: ``train-images-idx3-ubyte[.gz]`` and its labels for split "train",
    ``t10k-...`` for "test". Debian puts Fashion-MNIST so under /usr/share/datasets/fashion-mnist (package dataset-fashion-mnist).

    Raises:
      ValueError: a missing folder or file, an unknown split, a damaged file.
    """
    folder = existing(folder, "idx")
    prefixes = {"train": "train", "test": "t10k"}
    if split not in prefixes:
        raise ValueError(f"idx: split {split!r} is not one of {sorted(prefixes)}{nearest(split, prefixes)}")
    images = read_idx(_idx_file(folder, f"{prefixes[split]}-images-idx3-ubyte"))
    labels = read_idx(_idx_file(folder, f"{prefixes[split]}-labels-idx1-ubyte"))
    return from_arrays(images, labels)


def _idx_file(folder: Path, name: str) -> Path:
    for candidate in (
        folder / name,
        folder / f"{name}.gz",
        folder / name.replace("-idx", ".idx"),
        folder / (name.replace("-idx", ".idx") + ".gz"),
    ):
        if candidate.is_file():
            return candidate
    raise ValueError(f"idx: {folder} has neither {name} nor {name}.gz; it has {sorted(p.name for p in folder.iterdir())[:8]}")


def read_idx(path: str | Path) -> np.ndarray:
    """The uint8 array in an IDX file, gzipped (by its first two bytes) or not."""
    data = Path(path).read_bytes()
    try:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        zero, kind, rank = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{rank}I", data, 4)
    except (struct.error, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"idx: {path} is damaged ({error})") from None
    if zero or kind != _IDX_UINT8:
        raise ValueError(f"idx: {path} starts with {data[:4].hex()}, not with the magic number of an IDX file of bytes (000008..)")
    body = data[4 + 4 * rank :]
    if len(body) != np.prod(shape, dtype=np.int64):
        raise ValueError(f"idx: {path} is damaged: shape {shape} needs {np.prod(shape, dtype=np.int64)} bytes, it has {len(body)}")
    return np.frombuffer(body, np.uint8).reshape(shape)


def digits(split: str = "train", size: int = 16) -> ArraySource:
    """scikit-learn's embedded digits (1,797 images of 8x8, ten classes; no download), upscaled to ``size`` by PIL's bicubic filter.

    "test" is a fixed fifth of each class, "train" the rest; values 0..16 become 0..255.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    if split not in ("train", "test"):
        raise ValueError(f"digits: split {split!r} is not one of ['test', 'train']{nearest(split, ['train', 'test'])}")
    if size < 1:
        raise ValueError(f"digits: size={size} must be at least 1")
    raw = load_digits()
    chosen = _stratified(raw.target, split)
    small = np.round(raw.images[chosen] * (255 / 16)).astype(np.uint8)
    images = np.stack([np.asarray(Image.fromarray(one).resize((size, size), Image.Resampling.BICUBIC)) for one in small])
    return from_arrays(images, raw.target[chosen], class_names=[str(i) for i in range(10)])


def _stratified(target: np.ndarray, split: str, share: float = 0.2) -> np.ndarray:
    """Indices of a split, ascending: a fixed random ``share`` of each class (rounded) is the test split."""
    generator = np.random.Generator(np.random.Philox(key=[0, 0]))
    is_test = np.zeros(len(target), bool)
    for label in np.unique(target):
        members = generator.permutation(np.flatnonzero(target == label))
        is_test[members[: round(share * len(members))]] = True
    return np.flatnonzero(is_test if split == "test" else ~is_test)


def existing(path: str | Path, what: str) -> Path:
    """The path, ``~`` expanded; ValueError naming the nearest sibling if it does not exist."""
    path = Path(path).expanduser()
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        where = nearest(path.name, siblings) if path.parent.is_dir() else f" (nor does {path.parent})"
        raise ValueError(f"{what}: {path} does not exist{where}")
    return path


def nearest(word: str, choices: Iterable[str]) -> str:
    """``"; did you mean 'x'?"``, or nothing if no choice is close."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
