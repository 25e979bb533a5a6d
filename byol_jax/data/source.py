"""Where examples come from: the protocol every data set follows, and how its labels are found."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

LOG = logging.getLogger("byol_jax.data")
UNLABELLED = -1


@runtime_checkable
class Source(Protocol):
    """A data set: a length, and examples by position.

    ``source[i]`` gives ``{"image": uint8[H, W, 3], "label": int}``; "label" may be missing or -1 (none). Gray images [H, W] and [H, W, 1]
    are accepted and repeated. This is what ``grain`` and ``tfds.data_source`` give, and what a class of your own needs. A source of texts
    gives ``{"tokens": int[n], "label": int}``, ids without special tokens, and says so: ``content = "tokens"``.

    Optional attributes: ``labels`` (int32[N], or None if there are none) and ``class_names`` (a list of str), which spare a pass
    over the data; ``max_bad_share`` (0.01 if it is not there), the share of examples that may be undecodable. To have an example skipped
    and counted instead of ending the run, raise ``BadImage`` from ``__getitem__``.
    """

    def __len__(self) -> int:
        """Number of examples."""

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        """One example."""


@runtime_checkable
class EncodedSource(Source, Protocol):
    """A source that can hand out the file's bytes, so that the pipeline decodes them where and how it is fastest."""

    def encoded(self, index: int, /) -> tuple[bytes, int]:
        """The bytes of an encoded image (JPEG, PNG, ...) and its label."""

    def describe(self, index: int, /) -> str:
        """What to call the example in a message: its path, or its number."""


class BadImage(ValueError):
    """An example whose image cannot be read or decoded: the pipeline skips and counts it."""


def as_rgb(image: Any, where: str) -> np.ndarray:
    """uint8[H, W, 3] from uint8 [H, W], [H, W, 1] or [H, W, 3]; ValueError naming ``where`` for anything else."""
    image = np.asarray(image)
    if image.dtype != np.uint8:
        raise ValueError(
            f"{where}: the image is {image.dtype}, it must be uint8 (0..255); floats in [0, 1]: (255 * x).round().astype('uint8')"
        )
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or 0 in image.shape:
        raise ValueError(f"{where}: the image has shape {image.shape}, it must be [H, W, 3], [H, W, 1] or [H, W] with H, W >= 1")
    return np.repeat(image, 3, -1) if image.shape[-1] == 1 else image


def content_of(source: Source) -> str:
    """The key under which the source's examples hold what is learned from: "image", or "tokens"."""
    return getattr(source, "content", "image")


def bad_share_of(source: Source) -> float:
    """The share of the source's examples that may be undecodable: its own ``max_bad_share``, or 0.01."""
    return getattr(source, "max_bad_share", 0.01)


def check_example(example: Any, where: str) -> tuple[np.ndarray, int]:
    """(uint8[H, W, 3], label) of what a source returned; ValueError naming ``where`` if it does not follow the protocol."""
    image = _taken(example, "image", "uint8[H, W, 3]", where)
    return as_rgb(image, where), _label(example, where)


def check_tokens(example: Any, where: str) -> tuple[np.ndarray, int]:
    """(int[n], label) of what a source of texts returned; ValueError naming ``where`` if it does not follow the protocol."""
    tokens = np.asarray(_taken(example, "tokens", "int[n]", where))
    if tokens.ndim != 1 or not tokens.size or not np.issubdtype(tokens.dtype, np.integer):
        raise ValueError(f"{where}: the tokens are {tokens.dtype}{list(tokens.shape)}; they must be one row of integers, one at least")
    return tokens, _label(example, where)


def _taken(example: Any, key: str, form: str, where: str) -> Any:
    if not isinstance(example, dict) or key not in example:
        got = f"a dict with keys {sorted(example)}" if isinstance(example, dict) else type(example).__name__
        raise ValueError(f'{where}: an example must be {{"{key}": {form}, "label": int}}, got {got}')
    return example[key]


def _label(example: dict[str, Any], where: str) -> int:
    label = np.asarray(example.get("label", UNLABELLED))
    if label.ndim or not np.issubdtype(label.dtype, np.integer):
        raise ValueError(f"{where}: the label must be one integer (-1: none), got {label.dtype}{list(label.shape)}")
    return int(label)


def labels_of(source: Source) -> np.ndarray | None:
    """int32[N] labels of a source, or None if no example has one. Reads every example if the source has no ``labels``."""
    if hasattr(source, "labels"):
        found = source.labels
        return None if found is None else np.asarray(found, np.int32)
    labels = np.array([_label(source[i], f"example {i}") for i in range(len(source))], np.int32)
    return labels if (labels != UNLABELLED).any() else None


def num_classes(source: Source) -> int:
    """Classes of a source: as many as it names, else up to its highest label; 0 where it has no labels."""
    names = getattr(source, "class_names", None)
    if names:
        return len(names)
    labels = labels_of(source)
    return 0 if labels is None or not len(labels) else int(labels.max()) + 1


class Subset:
    """Some examples of a source, in the given order; itself a source. Use ``subset`` to make one."""

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray) -> None:
        self.source, self.indices = source, np.asarray(indices, np.int64)
        n = len(source)
        outside = self.indices[(self.indices < 0) | (self.indices >= n)]
        if outside.size:
            raise ValueError(f"subset: index {outside[0]} is outside the source; valid: 0..{n - 1}")
        self.class_names = getattr(source, "class_names", None)
        self.content, self.max_bad_share = content_of(source), bad_share_of(source)

    @functools.cached_property
    def labels(self) -> np.ndarray | None:
        """int32[N], or None if there are none; looked up when first asked for, since that can take a pass over the source."""
        labels = labels_of(self.source)
        return None if labels is None else labels[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[int(self.indices[index])]


class EncodedSubset(Subset):
    """A ``Subset`` of a source that hands out encoded images."""

    source: EncodedSource

    def encoded(self, index: int) -> tuple[bytes, int]:
        return self.source.encoded(int(self.indices[index]))

    def describe(self, index: int) -> str:
        return self.source.describe(int(self.indices[index]))


def subset(source: Source, indices: Sequence[int] | np.ndarray) -> Source:
    """The chosen examples of a source, in the given order, as a source of the same kind.

    Raises:
      ValueError: an index outside the source.
    """
    kind = EncodedSubset if isinstance(source, EncodedSource) else Subset
    chosen = kind(source, indices)
    return source.take(chosen.indices) if hasattr(source, "take") else chosen


def spread(source: Source, count: int) -> Source:
    """``count`` examples at even distances, of a stream its first; the source itself if it has no more."""
    if count < 1:
        raise ValueError(f"spread: count = {count}; it must be 1 or more")
    if len(source) <= count:
        return source
    return source.head(count) if hasattr(source, "head") else subset(source, even_rows(len(source), count))


def even_rows(n: int, count: int) -> np.ndarray:
    """``count`` of n positions at even distances; all of them if there are no more."""
    count = min(count, n)
    return np.arange(count) * n // max(count, 1)
