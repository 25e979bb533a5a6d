"""One split of a prepared TFDS data set: which features hold image and label, where its records lie, how they are read."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from byol_jax.data.source import UNLABELLED

Encoded = tuple[bytes, int]  # an image file's bytes, and a label


class Split:
    """What both kinds share: the builder, which features hold image and label, and where the records lie."""

    def __init__(self, builder: Any, split: str) -> None:
        import tensorflow_datasets as tfds

        self.builder, self.split = builder, split
        self.name = f"{builder.info.full_name} {split}"
        self.n = int(builder.info.splits[split].num_examples)
        self.files: list[Any] = list(builder.info.splits[split].file_instructions)
        features = builder.info.features
        image_key = _pick(features, tfds.features.Image, "image")
        if image_key is None:
            raise ValueError(f"tfds: {builder.info.full_name} has no image feature; it has {sorted(features)}")
        self.image_key: str = image_key
        self.label_key = _pick(features, tfds.features.ClassLabel, "label")
        names = None if self.label_key is None else features[self.label_key].names
        self.class_names = None if names is None else list(names)
        self._decoders = {self.image_key: tfds.decode.SkipDecoding()}

    def describe(self, index: int) -> str:
        return f"{self.name}, example {index}"

    def head(self, count: int) -> Split:
        """The first ``count`` records."""
        part, left = copy.copy(self), count
        part.n, part.files = min(count, self.n), []
        for file in self.files:
            if left > 0:
                part.files.append(dataclasses.replace(file, take=min(file.take, left)))
                left -= file.take
        return part

    def random_access(self) -> Sequence[Any]:
        return self.builder.as_data_source(self.split, decoders=self._decoders)

    def example(self, record: bytes) -> dict[str, Any]:
        """All features of a record, the image not decoded."""
        return self.builder.info.features.deserialize_example_np(record, decoders=self._decoders)

    def names(self, key: str) -> list[str]:
        """The names of the classes of a feature that lists several. Raises ValueError if there is no such feature."""
        features = self.builder.info.features
        if key not in features or getattr(getattr(features[key], "feature", None), "names", None) is None:
            raise ValueError(f"tfds: {self.builder.info.full_name}: {key!r} is no list of classes; it has {sorted(features)}")
        return list(features[key].feature.names)

    def parse_record(self, record: bytes) -> Encoded:
        return self.parse(self.example(record))

    def parse(self, example: dict[str, Any]) -> Encoded:
        label = UNLABELLED if self.label_key is None else int(example[self.label_key])
        return bytes(example[self.image_key]), label

    def read(self, files: Sequence[int], *, skip: int, at_once: int, window: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(int64[w] index in the split, object[w] records), read in the given order of files; the first ``skip`` are passed over."""
        from byol_jax.data.vision import tf

        starts = np.cumsum([0] + [f.take for f in self.files])
        chosen = [self.files[i] for i in files]
        numbers = np.array([(f.skip, f.take, starts[i]) for i, f in zip(files, chosen, strict=True)], np.int64)
        table = ([str(f.filename) for f in chosen], *numbers.T)

        def one(name: Any, first: Any, count: Any, start: Any) -> Any:  # four columns: unstacking one inside crashes TF 2.21 (skip)
            records = tf.data.TFRecordDataset(name).skip(first).take(count)
            return tf.data.Dataset.zip((tf.data.Dataset.range(start, start + count), records))

        data = tf.data.Dataset.from_tensor_slices(table)
        data = data.interleave(one, cycle_length=at_once, block_length=1, num_parallel_calls=min(at_once, 4), deterministic=True)
        yield from data.skip(skip).batch(window).prefetch(1).as_numpy_iterator()


def _pick(features: Any, kind: type, preferred: str) -> str | None:
    """The feature of this kind: the preferred name if there, else the first by name."""
    found = sorted(key for key, feature in features.items() if isinstance(feature, kind))
    return preferred if preferred in found else next(iter(found), None)
