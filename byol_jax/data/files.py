"""A folder of images as a source."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from byol_jax.data import images
from byol_jax.data.arrays import existing, nearest
from byol_jax.data.source import LOG, UNLABELLED, BadImage


def legible(name: str) -> str:
    r"""A file's name as text that can be encoded: a byte that is not UTF-8 as ``\xff``."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class FolderSource:
    """Image files, decoded when asked for.

    Attributes:
      paths: one path an example, relative to ``root``, sorted.
      labels: int32[N], or None.
      class_names: names of the classes in order, or None.
      max_bad_share: largest share of the files that may be undecodable.
    """

    def __init__(
        self, root: Path, paths: Sequence[str], labels: np.ndarray | None, class_names: Sequence[str] | None, max_bad_share: float = 0.01
    ) -> None:
        self.root, self.paths, self.labels, self.max_bad_share = root, list(paths), labels, max_bad_share
        self.class_names = None if class_names is None else list(class_names)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        data, label = self.encoded(index)
        return {"image": images.decode(data, self.describe(index)), "label": label}

    def encoded(self, index: int) -> tuple[bytes, int]:
        """The file's bytes and its label. BadImage if it cannot be read or is empty."""
        try:
            data = (self.root / self.paths[index]).read_bytes()
        except OSError as error:
            raise BadImage(f"{self.describe(index)}: cannot be read ({error})") from None
        if not data:
            raise BadImage(f"{self.describe(index)}: the file is empty")
        return data, UNLABELLED if self.labels is None else int(self.labels[index])

    def describe(self, index: int) -> str:
        """The file's path."""
        return str(self.root / self.paths[index])

    def take(self, indices: np.ndarray) -> FolderSource:
        """The chosen files as another source, with the same classes."""
        labels = None if self.labels is None else self.labels[indices]
        return FolderSource(self.root, [self.paths[i] for i in indices], labels, self.class_names, self.max_bad_share)

    def __repr__(self) -> str:
        kind = "no labels" if self.class_names is None else f"{len(self.class_names)} classes"
        return f"FolderSource({str(self.root)!r}, {len(self)} images, {kind})"


def folder(path: str | Path, *, class_names: Sequence[str] | None = None, max_bad_share: float = 0.01) -> FolderSource:
    """A source from image files: JPEG, PNG, WebP and BMP, told by their suffix.

    With subfolders, each of those that holds images (at any depth) is a class, in sorted order; images beside the subfolders are then left
    out, with a warning in the log. Without subfolders: flat and unlabelled. Hidden files and folders are ignored, links are followed.

    Args:
      class_names: the classes in order, where another folder (the training images) gives them; None: those found, sorted.
      max_bad_share: largest share of the files that may be undecodable, when they are read.

    Raises:
      ValueError: the path does not exist, is no folder, holds no image, or a class that ``class_names`` lacks.
    """
    root = existing(path, "folder")
    if not root.is_dir():
        raise ValueError(f"folder: {root} is a file; pass the folder that holds the images")
    names = sorted(os.listdir(root))
    flat = [name for name in names if _is_image(root / name)]
    classes = {name: found for name in names if _is_class(root / name) and (found := sorted(_images_below(root, name)))}
    if not classes and not flat:
        raise ValueError(f"folder: {root} holds no image; suffixes looked for: {', '.join(images.SUFFIXES)}; it holds {_glimpse(names)}")
    if not classes:
        return FolderSource(root, flat, None, None, max_bad_share)
    if flat:
        LOG.warning("folder: %s has class folders; the %d images beside them are left out (first: %s)", root, len(flat), flat[0])
    known = list(classes) if class_names is None else list(class_names)
    for name in classes:
        if name not in known:
            raise ValueError(f"folder: class {name!r} in {root} must be one of {_glimpse(known)}{nearest(name, known)}")
    labels = np.repeat(np.array([known.index(name) for name in classes], np.int32), [len(found) for found in classes.values()])
    return FolderSource(root, [name for found in classes.values() for name in found], labels, known, max_bad_share)


def folder_classes(path: str | Path) -> list[str] | None:
    """The ``class_names`` that ``folder`` finds, without listing the images; None: it is flat. Raises ValueError if it does not exist."""
    root = existing(path, "folder")
    names = sorted(os.listdir(root)) if root.is_dir() else []
    return [name for name in names if _is_class(root / name) and any(_images_below(root, name))] or None


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in images.SUFFIXES and not path.name.startswith(".") and path.is_file()


def _images_below(root: Path, name: str) -> Iterator[str]:
    """Paths of a class folder's images relative to ``root``. No file is opened or looked up: there may be a million."""
    for folder_path, subfolders, files in os.walk(root / name, followlinks=True):
        subfolders[:] = sorted(s for s in subfolders if not s.startswith("."))
        below = os.path.relpath(folder_path, root)
        yield from (f"{below}/{f}" for f in files if f.lower().endswith(images.SUFFIXES) and not f.startswith("."))


def _glimpse(names: Sequence[str]) -> str:
    return "nothing" if not names else ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
