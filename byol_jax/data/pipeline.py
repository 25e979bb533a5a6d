"""Source + view recipe -> numpy batches, the same ones whenever (seed, step) is the same.

Two roads lead to a batch. Arrays in memory whose crops are cut on the device need numpy alone: rows are gathered, and TensorFlow is
never imported. Everything else runs through tf.data (``byol_jax.data.stream``), imported when first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from byol_jax.data import order
from byol_jax.data.arrays import ArraySource, InMemory, nearest
from byol_jax.data.order import Shard
from byol_jax.data.prefetch import Batch, Batches
from byol_jax.data.source import LOG, UNLABELLED, Source, Subset, bad_share_of, content_of
from byol_jax.views import TextViews, Views

ViewFn = Callable[[dict[str, Any], Any], dict[str, Any]]


def train_batches(
    source: Source,
    views: Views | TextViews | ViewFn,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    shard: Shard = Shard(),
    augment_on: str = "device",
    max_bad_share: float | None = None,
    threads: int | None = None,
) -> Batches:
    """The endless training batches of this process, from global batch ``start_step`` on.

    Epochs follow each other without a gap and every example comes once an epoch; a batch larger than the data spans several epochs (one
    warning in the log). The rows of all shards, put together, do not depend on their number, and a run resumed at step k gets exactly
    the batches k, k+1, ...

    Args:
      source: one in memory (``InMemory``), or anything that follows ``Source``.
      views: a recipe, or your own ``fn(example, seed) -> {"view1", "view2"}`` of tensors, where example is ``{"image": uint8[H, W, 3],
        "label": int32}`` (of texts ``{"tokens": int32[n], ...}``), seed is int64[2], and the function is traced by tf.data.
      batch_size: size of the global batch; this process gets ``batch_size / shard.count`` rows, b.
      seed: seed of the run, 0..2**64-1.
      start_step: first global batch.
      shard: this process's share.
      augment_on: "device": only crops are made here, and of images in memory not even those; "host": the whole recipe runs in tf.data.
      max_bad_share: largest share of files that may be undecodable; each is replaced by the next decodable one of the source. None: as the
        source says, or 0.01.
      threads: parallel decoders; None lets tf.data choose.

    Returns:
      Batches: an iterator with ``close()`` and ``bad_files``. A batch holds "label" int32[b] (-1: none) and either "image"
      uint8[b, H, W, 3] (in memory, "device") or "view1" and "view2", uint8[b, S, S, 3], of texts int32[b, length] (as your own
      ``views`` gives them otherwise).

    Raises:
      ValueError: an empty source, a batch the shards cannot divide, a seed or step out of range, an unknown ``augment_on``, a recipe for
        another kind of example, a subset of a TFRecord stream; and, while iterating, more undecodable files than allowed, or an example
        that does not follow the protocol.
    """
    if augment_on not in ("device", "host"):
        raise ValueError(f"augment_on={augment_on!r} is not one of ['device', 'host']{nearest(str(augment_on), ['device', 'host'])}")
    allowed = _bad_share(source, max_bad_share)
    n = _train_length(source, batch_size)
    _check_kind(source, views)
    _check_any_row(source)
    order.batches(n=n, batch_size=batch_size, seed=seed, start_step=start_step, shard=shard)  # its errors here, not in the thread
    if isinstance(source, InMemory) and isinstance(views, Views) and augment_on == "device":
        steps = order.batches(n=n, batch_size=batch_size, seed=seed, start_step=start_step, shard=shard)
        return Batches(lambda: _gather(source, steps))
    from byol_jax.data import stream

    return stream.train_batches(
        source,
        views,
        batch_size=batch_size,
        seed=seed,
        start_step=start_step,
        shard=shard,
        augment_on=augment_on,
        max_bad_share=allowed,
        threads=threads,
    )


def index_batches(source: InMemory, *, batch_size: int, seed: int, start_step: int = 0, shard: Shard = Shard()) -> Batches:
    """The batches of ``train_batches`` for one who has the images already: "index" int32[b] alone, where they stand in ``source.stored``.

    Raises:
      ValueError: an empty source, a batch the shards cannot divide, a seed or step out of range.
    """
    steps = order.batches(n=_train_length(source, batch_size), batch_size=batch_size, seed=seed, start_step=start_step, shard=shard)
    return Batches(lambda: ({"index": source.rows(index).astype(np.int32)} for index, _ in steps))


def _train_length(source: Source, batch_size: int) -> int:
    n = _length(source)
    if batch_size > n:
        LOG.warning("batch_size=%d is larger than the data set (%d examples): each batch spans more than one epoch", batch_size, n)
    return n


def _bad_share(source: Source, given: float | None) -> float:
    share = bad_share_of(source) if given is None else given
    if not 0 <= share <= 1:
        raise ValueError(f"max_bad_share={share}: must lie in [0, 1]")
    return share


def _check_any_row(source: Source) -> None:
    whole = getattr(source, "source", None)
    if isinstance(source, Subset) and hasattr(whole, "in_order"):  # each of its rows would take reading all before it
        raise ValueError(
            f"{whole!r} can be trained on as a whole only: it is read from front to back; for some rows of it prepare it as array_record"
        )


def _gather(source: InMemory, steps: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[Batch]:
    for index, _ in steps:
        yield _examples(source.stored, source.rows(index))


def _examples(stored: ArraySource, rows: np.ndarray) -> Batch:
    return {"image": stored.images[rows], "label": _labels(stored, rows)}


def _labels(source: ArraySource, index: np.ndarray) -> np.ndarray:
    return np.full(len(index), UNLABELLED, np.int32) if source.labels is None else source.labels[index]


def eval_batches(
    source: Source,
    views: Views | TextViews,
    *,
    batch_size: int,
    shard: Shard = Shard(),
    max_bad_share: float | None = None,
    threads: int | None = None,
) -> Batches:
    """One pass over the source in its own order, nothing dropped: the last batch is smaller if it must be.

    Every shard yields the same number of batches, ``ceil(N / batch_size)``; in the last one a shard may have fewer rows, or none.

    Args:
      source: any source; images in memory come as they are (``augment.preprocess`` crops and resizes them on the device),
        those of another are centre-cropped and resized here, as the official code does it, to uint8.
      views: gives ``size`` and ``eval_crop``.
      batch_size: size of the global batch.
      shard: this process's share of each batch.
      max_bad_share: largest share of files that may be undecodable; these are left out, as "index" shows. None: as above.
      threads: parallel decoders; None lets tf.data choose.

    Returns:
      Batches of "image" uint8[b, H, W, 3] or "tokens" int32[b, length], "label" int32[b] (-1: none), "index" int64[b] (position in the
      source).

    Raises:
      ValueError: as for ``train_batches``.
    """
    allowed = _bad_share(source, max_bad_share)
    n = _length(source)
    _check_kind(source, views)
    rows = shard.rows(batch_size)
    if isinstance(source, InMemory):
        return Batches(lambda: _eval_gather(source, order.one_pass(n, batch_size, rows)))
    from byol_jax.data import stream

    return stream.eval_batches(source, views, batch_size=batch_size, shard=shard, max_bad_share=allowed, threads=threads)


def _eval_gather(source: InMemory, steps: Iterator[np.ndarray]) -> Iterator[Batch]:
    for index in steps:
        yield {**_examples(source.stored, source.rows(index)), "index": index}


def _check_kind(source: Source, views: Any) -> None:
    wanted = getattr(views, "content", content_of(source))
    if wanted != content_of(source):
        raise ValueError(
            f"views: {type(views).__name__} is a recipe for {wanted!r}, examples of {type(source).__name__} are {content_of(source)!r}; "
            "images take byol.views.image(), texts byol.views.sentence() or document()"
        )


def _length(source: Source) -> int:
    if not isinstance(source, Source):
        raise ValueError(
            f"source: {type(source).__name__} has no __len__ and __getitem__; "
            "pass what byol_jax.data.from_arrays, folder or tfds return, or a class of your own"
        )
    n = len(source)
    if n < 1:
        raise ValueError(f"source: {type(source).__name__} is empty; there must be at least one example")
    return n
