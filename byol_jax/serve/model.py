"""What is served: an encoder, how an example becomes a row of its batch, and the shapes that are compiled before the first request."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from byol_jax.augment import kind_of
from byol_jax.data import images
from byol_jax.data.source import BadImage
from byol_jax.data.tokens import padded
from byol_jax.evaluate import Encoder, SentenceEncoder
from byol_jax.serve.batcher import Plans, Shape
from byol_jax.serve.limits import Limits, Refused, check

REPEATS = 5  # calls of each size that are timed; the fastest counts


@dataclass(frozen=True)
class Model:
    """An encoder and its examples.

    Attributes:
      kind: "images" or "texts".
      prepare: (an encoded image or a text, what to call it) -> its row: uint8[S, S, 3] or int32[L]; Refused if it cannot be.
      rows: an example row of each shape that ``prepare`` makes.
    """

    encoder: Encoder
    kind: str
    prepare: Callable[[Any, str], np.ndarray]
    rows: Sequence[np.ndarray]

    def __call__(self, rows: Sequence[np.ndarray], size: int) -> np.ndarray:
        """float32 [N, D] of N rows of one shape, computed in a batch of ``size``."""
        batch = np.zeros((size, *rows[0].shape), rows[0].dtype)  # padded here: the encoder would compile a slice for every N
        batch[: len(rows)] = rows
        return self.encoder(batch, pad_to=size)[: len(rows)]

    def warm_up(self, sizes: Sequence[int]) -> tuple[Plans, int]:
        """Compiles every size for every shape; (seconds of a call of each, dimensions of an embedding).

        Sizes become multiples of the number of devices, which share a batch.

        Raises:
          ValueError: no sizes or one below 1, or embeddings that are not finite.
        """
        if not sizes or min(sizes) < 1:
            raise ValueError(f"--sizes {','.join(map(str, sizes))}: give whole numbers of 1 or more, such as 1,8,32")
        devices = self.encoder.mesh.size
        whole = sorted({math.ceil(size / devices) * devices for size in sizes})
        plans: dict[Shape, dict[int, float]] = {row.shape: {} for row in self.rows}
        found = np.zeros((0, 0), np.float32)
        for row in self.rows:
            for size in whole:
                found = self([row] * size, size)
                plans[row.shape][size] = min(self._seconds([row] * size) for _ in range(REPEATS))
            plans[row.shape] = plausible(plans[row.shape])
        if not np.isfinite(found).all():
            raise ValueError("the encoder's embeddings are NaN or infinite; was the checkpoint written by a run that diverged?")
        return plans, found.shape[1]

    def _seconds(self, rows: Sequence[np.ndarray]) -> float:
        start = time.perf_counter()
        self(rows, len(rows))
        return time.perf_counter() - start


def plausible(plan: Mapping[int, float]) -> dict[int, float]:
    """Times of calls by size, without what only other work on the machine can have made of them.

    No size takes longer than a larger one, or longer a row than a smaller one. Else one slow call at the start would let the service choose
    wrong sizes as long as it lives.
    """
    sizes = sorted(plan)
    least = {size: min(plan[other] for other in sizes if other >= size) for size in sizes}
    return {size: min(least[other] * size / other for other in sizes if other <= size) for size in sizes}


def image_model(encoder: Encoder, limits: Limits) -> Model:
    """Of encoded images: decoded, cropped and resized as the files of a folder are by ``byol-jax embed``."""
    from byol_jax.data.single import evaluated  # imports TensorFlow, whose decoder the encoder was trained with

    views = encoder.image_views

    def prepare(data: bytes, where: str) -> np.ndarray:
        try:
            height, width = images.size(data, where)
            check(413, "too_many_pixels", height * width, limits.pixels, f"pixels in {where} ({width} x {height})")
            return evaluated(data, where, views)
        except images.TooManyPixels as error:
            raise Refused(413, "too_many_pixels", str(error), limit=limits.pixels) from None
        except BadImage as error:
            raise Refused(422, "bad_image", str(error)) from None

    return Model(encoder, "images", prepare, [np.zeros((views.size, views.size, 3), np.uint8)])


def text_model(sentences: SentenceEncoder, limits: Limits) -> Model:
    """Of texts: each is cut to the length that the run was trained with, and padded to the next of a few."""
    views = sentences.views
    accept = kind_of(views).accept

    def row(ids: Sequence[int]) -> np.ndarray:
        return accept(padded([ids], views), views)[0]

    def prepare(text: str, where: str) -> np.ndarray:
        check(413, "too_many_characters", len(text), limits.characters, f"characters in {where}")
        ids = sentences.tokenizer.ids([text])[0]
        if not ids:
            raise Refused(422, "bad_text", f"{where}: {text[:40]!r} has no token; give a text with at least one letter")
        return row(ids)

    word = 1 if sentences.tokenizer.special.pad == 0 else 0
    rows = {one.shape: one for one in (row([word] * n) for n in range(1, views.room + 1))}
    return Model(sentences.encoder, "texts", prepare, list(rows.values()))
