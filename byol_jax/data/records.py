"""TensorFlow Datasets as sources: random access where the files allow it, read as a stream of windows where they do not."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from byol_jax.data.arrays import ArraySource, from_arrays, nearest
from byol_jax.data.records_split import Encoded, Split
from byol_jax.data.source import UNLABELLED, Source

_FILES_AT_ONCE = 16  # files read side by side, so that a window mixes examples that stand far apart


class TfdsSource:
    """A TFDS split whose files (array_record) allow random access. Images are decoded when asked for."""

    def __init__(self, split: Split, max_bad_share: float = 0.01) -> None:
        self._split, self.max_bad_share = split, max_bad_share
        self.class_names = split.class_names
        self._records = split.random_access()

    def __len__(self) -> int:
        return self._split.n

    def __getitem__(self, index: int) -> dict[str, Any]:
        data, label = self.encoded(index)
        return {"image": _decode(data, self.describe(index)), "label": label}

    def encoded(self, index: int) -> Encoded:
        """The image's bytes and its label."""
        return self._split.parse(self._records[index])

    def describe(self, index: int) -> str:
        """Data set, split and position."""
        return self._split.describe(index)

    @functools.cached_property
    def labels(self) -> np.ndarray | None:
        """int32[N], read from the records (without decoding an image) when first asked for; None if the data set has none."""
        if self._split.label_key is None:
            return None
        return np.array([self.encoded(i)[1] for i in range(len(self))], np.int32)

    def records(self) -> Iterator[dict[str, Any]]:
        """Every example in order, its image not decoded."""
        return (self._records[i] for i in range(len(self)))

    def names(self, key: str) -> list[str]:
        """The names of the classes of a feature that lists several."""
        return self._split.names(key)

    def __repr__(self) -> str:
        return f"TfdsSource({self._split.name!r}, {len(self)} examples, random access)"


@dataclass(frozen=True)
class Window:
    """Records of a stream that are read, and shuffled, together.

    Attributes:
      start: position of the first in its epoch.
      index: int64[w], positions in the split.
      load: place in the window -> (bytes of an encoded image, label).
      name: place in the window -> what to call the example in a message.
    """

    start: int
    index: np.ndarray
    load: Callable[[int], Encoded]
    name: Callable[[int], str] = str


@runtime_checkable
class WindowedSource(Source, Protocol):
    """A source that can only be read from front to back."""

    def shuffled(self, seed: int, epoch: int, place: int) -> Iterator[Window]:
        """Windows of an epoch, shuffled by (seed, epoch), beginning with the one that holds position ``place``."""

    def in_order(self) -> Iterator[Window]:
        """Windows in the split's own order."""


class TfdsStream:
    """A TFDS split in TFRecord files, which can only be read from front to back.

    An epoch reads the files in an order drawn from (seed, epoch), 16 side by side, and shuffles within windows of ``window`` records:
    a weaker shuffle than that of the other sources, and as reproducible. Resuming skips what came before without decoding it.
    ``source[i]`` reads everything before i, so it is slow; prepare the data set with ``file_format="array_record"`` for random access.
    """

    def __init__(self, split: Split, window: int = 2048, max_bad_share: float = 0.01) -> None:
        self._split, self.window, self.max_bad_share = split, window, max_bad_share
        self.class_names = split.class_names

    def __len__(self) -> int:
        return self._split.n

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self._split.name}: index {index} is outside 0..{len(self) - 1}")
        for _, records in self._split.read(range(len(self._split.files)), skip=index, at_once=1, window=1):
            data, label = self._split.parse_record(records[0])
            return {"image": _decode(data, self._split.describe(index)), "label": label}
        raise ValueError(f"{self._split.name}: its files hold fewer than the {len(self)} examples it announces; prepare it again")

    @functools.cached_property
    def labels(self) -> np.ndarray | None:
        """int32[N], read from the records (without decoding an image) when first asked for; None if the data set has none."""
        if self._split.label_key is None:
            return None
        in_order = self._split.read(range(len(self._split.files)), skip=0, at_once=1, window=self.window)
        return np.array([self._split.parse_record(record)[1] for _, records in in_order for record in records], np.int32)

    def records(self) -> Iterator[dict[str, Any]]:
        """Every example in order, its image not decoded."""
        in_order = self._split.read(range(len(self._split.files)), skip=0, at_once=1, window=self.window)
        return (self._split.example(record) for _, records in in_order for record in records)

    def encoded_from(self, start: int) -> Iterator[Encoded]:
        """The images' bytes and the labels from position ``start`` on, in order; what comes before is read, not parsed."""
        in_order = self._split.read(range(len(self._split.files)), skip=start, at_once=1, window=self.window)
        return (self._split.parse_record(record) for _, records in in_order for record in records)

    def names(self, key: str) -> list[str]:
        """The names of the classes of a feature that lists several."""
        return self._split.names(key)

    def head(self, count: int) -> TfdsStream:
        """Its first ``count`` examples, as a stream."""
        return TfdsStream(self._split.head(count), self.window, self.max_bad_share)

    def shuffled(self, seed: int, epoch: int, place: int) -> Iterator[Window]:
        """See ``WindowedSource``."""
        files = _generator(seed, epoch, 0).permutation(len(self._split.files))
        first = place // self.window
        parts = self._split.read(files.tolist(), skip=first * self.window, at_once=_FILES_AT_ONCE, window=self.window)
        for number, (index, records) in enumerate(parts, first):
            mixed = _generator(seed, epoch, 1 + number).permutation(len(index))
            yield self._window(number * self.window, index[mixed], records[mixed])

    def in_order(self) -> Iterator[Window]:
        """See ``WindowedSource``."""
        parts = self._split.read(range(len(self._split.files)), skip=0, at_once=1, window=self.window)
        for number, (index, records) in enumerate(parts):
            yield self._window(number * self.window, index, records)

    def _window(self, start: int, index: np.ndarray, records: np.ndarray) -> Window:
        return Window(
            start, index, lambda place: self._split.parse_record(records[place]), lambda place: self._split.describe(int(index[place]))
        )

    def __repr__(self) -> str:
        return f"TfdsStream({self._split.name!r}, {len(self)} examples, read in windows of {self.window})"


def _generator(seed: int, epoch: int, number: int) -> np.random.Generator:
    """One independent stream of random numbers for each (seed, epoch, number)."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=[0, 0, 0, number]))


def _decode(data: bytes, where: str) -> np.ndarray:
    from byol_jax.data.fetch import decode

    return decode(data, where)


def tfds(
    name: str,
    split: str = "train",
    *,
    data_dir: str | Path | None = None,
    in_memory: bool = False,
    max_bad_share: float = 0.01,
) -> Source:
    """A source from TensorFlow Datasets, downloaded and prepared if it is not yet.

    What is prepared here is written as array_record, for random access; what stands prepared as TFRecord is streamed (``TfdsStream``).

    Args:
      name: name of the data set, with config and version if wanted ("imagenet2012:5.*.*").
      split: a split or a slice of one: "train", "train[:90%]", "test[100:200]".
      data_dir: where prepared data lies; None is TFDS's own default (~/tensorflow_datasets, or $TFDS_DATA_DIR).
      in_memory: decode everything now, to an ``ArraySource`` (images of one size only).
      max_bad_share: largest share of the images that may be undecodable, when they are read.

    Raises:
      ValueError: unknown data set or split (the nearest is named), no image feature, not prepared and not to be downloaded, images of
        several sizes with ``in_memory``.
    """
    builder = _builder(name, None if data_dir is None else Path(data_dir).expanduser())
    _check_split(builder, split)
    from tensorflow_datasets.core.file_adapters import FileFormat

    part = Split(builder, split)
    if part.n < 1:
        raise ValueError(f"tfds: {part.name} is empty")
    random_access = FileFormat.ARRAY_RECORD in builder.info.available_file_formats()
    source = TfdsSource(part, max_bad_share) if random_access else TfdsStream(part, max_bad_share=max_bad_share)
    return _load_all(source) if in_memory else source


def rows(name: str, split: str = "train", *, data_dir: str | Path | None = None) -> tuple[Iterator[dict[str, Any]], dict[str, Any]]:
    """All features of every example of a data set of any kind, in order, as numpy values; and what the features are, by name.

    Raises:
      ValueError: as ``tfds``, but for an image feature.
    """
    builder = _builder(name, None if data_dir is None else Path(data_dir).expanduser())
    _check_split(builder, split)
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.file_adapters import FileFormat

    features = dict(builder.info.features)
    if FileFormat.ARRAY_RECORD in builder.info.available_file_formats():
        return iter(builder.as_data_source(split)), features
    one_file_after_the_other = tfds.ReadConfig(interleave_cycle_length=1)
    return iter(tfds.as_numpy(builder.as_dataset(split=split, read_config=one_file_after_the_other))), features


def several_labels(source: Source, key: str, certain: str) -> np.ndarray:
    """int8[N, C] of a source from ``tfds`` whose images have several labels: 1 there, 0 not there, -1 there but hard to see.

    Args:
      key: the feature that lists all labels of an image; certain: the one that lists those that are not hard to see.
    """
    if not isinstance(source, TfdsSource | TfdsStream):
        raise ValueError(f"several_labels: {type(source).__name__} is no data set of TFDS")
    target = np.zeros((len(source), len(source.names(key))), np.int8)
    for i, example in enumerate(source.records()):
        target[i, np.asarray(example[key], np.int64)] = -1
        target[i, np.asarray(example[certain], np.int64)] = 1
    return target


def _builder(name: str, data_dir: Path | None) -> Any:
    from byol_jax.data.vision import tensorflow_datasets

    tfds = tensorflow_datasets()
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        base = name.split("/")[0].split(":")[0]
        raise ValueError(f"tfds: no data set {name!r}{nearest(base, tfds.list_builders())}") from None
    if builder.is_prepared():
        return builder
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        builder.download_and_prepare()
    except Exception as error:
        raise ValueError(
            f"tfds: {name} is not prepared under {builder.data_dir}, and preparing it failed ({type(error).__name__}: {error}); "
            "pass data_dir=... if it lies elsewhere"
        ) from error
    return builder


def _check_split(builder: Any, split: str) -> None:
    known = sorted(builder.info.splits)
    try:
        found = builder.info.splits[split]
    except Exception as error:  # tfds raises KeyError, ValueError and AssertionError, by the way a split is wrong
        base = split.split("[")[0]
        raise ValueError(f"tfds: {builder.info.full_name} has no split {split!r}: it has {known}{nearest(base, known)} ({error})") from None
    if not found.num_examples:
        raise ValueError(f"tfds: split {split!r} of {builder.info.full_name} is empty")


def _load_all(source: TfdsSource | TfdsStream) -> ArraySource:
    """All examples, decoded, in memory."""
    examples = (source[i] for i in range(len(source))) if isinstance(source, TfdsSource) else _all_of(source)
    images: np.ndarray | None = None
    labels = np.empty(len(source), np.int32)
    for i, example in enumerate(examples):
        if images is None:
            images = np.empty((len(source), *example["image"].shape), np.uint8)
        if example["image"].shape != images.shape[1:]:
            shapes = f"{images.shape[1:]} and {example['image'].shape}"
            raise ValueError(f"tfds: in_memory needs images of one size, {source!r} has {shapes}; leave in_memory out")
        images[i], labels[i] = example["image"], example["label"]
    return from_arrays(images, labels if (labels != UNLABELLED).any() else None, class_names=source.class_names)


def _all_of(source: TfdsStream) -> Iterator[dict[str, Any]]:
    for window in source.in_order():
        for place in range(len(window.index)):
            data, label = window.load(place)
            yield {"image": _decode(data, window.name(place)), "label": label}
