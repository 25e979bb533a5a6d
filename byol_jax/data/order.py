"""Which example stands at which position: arithmetic on (seed, step), so there is nothing to save but the step.

Position p of a run is row ``p % B`` of global batch ``p // B``. Epochs follow each other without a gap: position p belongs to
epoch ``p // n`` and shows example ``permutation(seed, epoch, n)[p % n]``. Every example therefore comes once an epoch, none is
dropped, and a batch may hold the end of one epoch and the start of the next.
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np

_MASK = (1 << 64) - 1

Step = tuple[np.ndarray, np.ndarray]  # example indices int64[b] and their epochs int64[b]


@dataclass(frozen=True)
class Shard:
    """This process's share of every global batch: the ``index``-th of ``count`` equal blocks of rows."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.index < self.count:
            raise ValueError(f"Shard(index={self.index}, count={self.count}): index must lie in 0..count-1 and count be at least 1")

    def rows(self, batch_size: int) -> range:
        """The rows of a global batch of ``batch_size`` that belong to this process.

        Raises:
          ValueError: if the batch cannot be divided evenly.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: must be at least 1")
        local, rest = divmod(batch_size, self.count)
        if rest:
            below, above = local * self.count, (local + 1) * self.count
            near = f"{below} or {above}" if below else f"{above}"
            raise ValueError(f"batch_size={batch_size} is not divisible by the {self.count} processes; nearest valid: {near}")
        return range(self.index * local, (self.index + 1) * local)


def check_seed(seed: int) -> int:
    """The seed itself, if it is an integer in 0..2**64-1; ValueError otherwise."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= int(seed) <= _MASK:
        raise ValueError(f"seed={seed!r}: must be an integer in 0..2**64-1")
    return int(seed)


@functools.lru_cache(maxsize=2)  # a batch touches at most the end of one epoch and the start of the next (small n: recomputed, cheap)
def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of one epoch: a read-only int64[n] permutation that depends on (seed, epoch, n) alone."""
    order = np.random.Generator(np.random.Philox(key=np.array([seed, epoch], np.uint64))).permutation(n)
    order.flags.writeable = False
    return order


def lookup(positions: np.ndarray, *, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Example index and epoch of each position: (int64[b], int64[b])."""
    epoch, place = np.divmod(positions, n)
    index = np.empty_like(positions)
    for one in np.unique(epoch):
        chosen = epoch == one
        index[chosen] = permutation(seed, int(one), n)[place[chosen]]
    return index, epoch


def batches(*, n: int, batch_size: int, seed: int, start_step: int = 0, shard: Shard = Shard()) -> Generator[Step, None, None]:
    """The endless sequence of (example index int64[b], epoch int64[b]) of this process, from global batch ``start_step`` on.

    Args:
      n: number of examples.
      batch_size: size B of the global batch; may exceed n (then a batch spans several epochs).
      seed: seed of the run.
      start_step: first global batch.
      shard: which rows of each global batch to return; the shards' rows, put together, do not depend on their number.

    Raises:
      ValueError: n < 1, a batch that the shards cannot divide, a negative step, a seed out of range.
    """
    if n < 1:
        raise ValueError(f"n={n}: there must be at least one example")
    if start_step < 0:
        raise ValueError(f"start_step={start_step}: must be at least 0")
    rows = shard.rows(batch_size)
    return _batches(n, batch_size, check_seed(seed), start_step, rows)


def _batches(n: int, batch_size: int, seed: int, step: int, rows: range) -> Generator[Step, None, None]:
    offsets = np.arange(rows.start, rows.stop, dtype=np.int64)
    while True:
        yield lookup(step * batch_size + offsets, n=n, seed=seed)
        step += 1


def one_pass(n: int, batch_size: int, rows: range) -> Iterator[np.ndarray]:
    """Indices int64[b] of one pass in order, ``ceil(n / batch_size)`` batches; the last may hold fewer of the ``rows``, or none."""
    for start in range(0, n, batch_size):
        yield np.arange(min(start + rows.start, n), min(start + rows.stop, n), dtype=np.int64)


def example_seed(seed: int, epoch: np.ndarray, index: np.ndarray) -> np.ndarray:
    """int64[..., 2], the seed of an example's augmentations: a hash of (run seed, epoch, index) and of nothing else.

    SplitMix64's finaliser over the three numbers; two words, as ``tf.random.stateless_uniform`` takes them.
    """
    epoch, index = np.asarray(epoch, np.uint64), np.asarray(index, np.uint64)
    first = _mix(_mix(_mix(np.full(epoch.shape, seed, np.uint64)) + epoch) + index)
    return np.stack([first, _mix(first)], -1).view(np.int64)


def _mix(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
