"""The official recipe's input, to compare ours with: every view decodes the JPEG for itself, and batches leave the host in float32.

``byol-jax bench input --baseline`` measures it; nothing trains on it. Written anew after what the official code does: repeat, shuffle,
decode_and_crop_jpeg once a view, bicubic resize, clip to [0, 1], batch, prefetch, in any order. Kinder to it than the original, positions
are shuffled here and not encoded images, so that its first batch need not wait until ten batches have been read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from byol_jax.data import vision
from byol_jax.data.files import FolderSource
from byol_jax.data.prefetch import Batch
from byol_jax.data.source import EncodedSource, Source
from byol_jax.data.vision import tf
from byol_jax.views import View, Views


def official_batches(source: Source, views: Views, *, batch_size: int, seed: int) -> Iterator[Batch]:
    """Endless batches of "view1" and "view2", float32[batch_size, S, S, 3] in [0, 1], and "label" int32[batch_size].

    Raises:
      ValueError: the source has no encoded images; and, while iterating, tf.errors.InvalidArgumentError for one that is no JPEG.
    """
    if not isinstance(source, EncodedSource):
        raise ValueError(
            f"--baseline: the official recipe decodes JPEG files twice, but {source!r} hands out no encoded images; "
            "take a folder of JPEGs, or TFDS prepared with file_format='array_record'"
        )
    read = _reader(source)

    def example(index: Any) -> dict[str, Any]:
        encoded, label = read(index)
        first, second = vision.draw(tf.stack([tf.constant(seed, tf.int64), index]))
        return {
            "view1": _decoded_crop(encoded, first, views.view1, views.size),
            "view2": _decoded_crop(encoded, second, views.view2, views.size),
            "label": label,
        }

    data = tf.data.Dataset.range(len(source)).repeat().shuffle(10 * batch_size, seed=seed)
    data = data.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
    return data.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


def _decoded_crop(encoded: Any, u: dict[str, Any], view: View, size: int) -> Any:
    height, width, _ = tf.unstack(tf.image.extract_jpeg_shape(encoded))
    window = vision.sample_window(u, height, width, view)
    crop = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
    resized = tf.image.resize(crop, [size, size], tf.image.ResizeMethod.BICUBIC)
    return tf.ensure_shape(tf.clip_by_value(resized / 255.0, 0.0, 1.0), [size, size, 3])


def _reader(source: EncodedSource) -> Any:
    """index -> (bytes, label), without Python where the images are files."""
    if isinstance(source, FolderSource):
        paths = tf.constant([str(source.root / path) for path in source.paths])
        labels = tf.constant(np.full(len(source), -1, np.int32) if source.labels is None else source.labels)
        return lambda index: (tf.io.read_file(paths[index]), labels[index])

    def fetch(index: np.ndarray) -> tuple[bytes, np.int32]:
        encoded, label = source.encoded(int(index))
        return encoded, np.int32(label)

    def read(index: Any) -> tuple[Any, Any]:
        encoded, label = tf.numpy_function(fetch, [index], [tf.string, tf.int32])
        encoded.set_shape([])
        label.set_shape([])
        return encoded, label

    return read
