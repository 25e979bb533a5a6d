"""Parts of a split, "train[:90%]" or "train[-500:]", as TensorFlow Datasets writes them, for the sources without such a notation."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from byol_jax.data.source import Source, subset

_BOUND = r"-?\d+%?"
_SLICE = re.compile(rf"(?P<name>[^\[\]]+)\[(?P<low>{_BOUND})?:(?P<high>{_BOUND})?\]")


@dataclass(frozen=True)
class Slice:
    """The examples of ``name`` from bound ``low`` to ``high``, each as it was written: "10%", "-500", or None for the end itself."""

    name: str
    low: str | None = None
    high: str | None = None

    def __str__(self) -> str:
        return self.name if self.low is None and self.high is None else f"{self.name}[{self.low or ''}:{self.high or ''}]"

    def positions(self, examples: int) -> tuple[int, int]:
        """(first, past the last) of a split of this many examples; a share is rounded to the nearest whole one, as in TFDS."""
        low, high = (_position(bound, examples) for bound in (self.low, self.high))
        return 0 if low is None else low, examples if high is None else high


def parse(split: str) -> Slice:
    """A split's name taken apart; without brackets it is the whole split. Raises ValueError for brackets of another form."""
    if "[" not in split and "]" not in split:
        return Slice(split)
    found = _SLICE.fullmatch(split)
    if found is None:
        raise ValueError(
            f"split {split!r}: a part of a split is written as name[from:to], such as train[:90%], train[90%:] or train[-500:]"
        )
    return Slice(**found.groupdict())


def sliced(source: Source, part: Slice) -> Source:
    """The examples of a part, in the order of the source, which may be sorted by class. Raises ValueError if there are none."""
    rows = chosen(len(source), part)
    return source if rows is None else subset(source, rows)


def chosen(examples: int, part: Slice) -> np.ndarray | None:
    """Positions between the bounds of a fixed shuffled order, sorted; None for the whole.

    Raises:
      ValueError: there are none.
    """
    if part.low is None and part.high is None:
        return None
    low, high = part.positions(examples)
    if low >= high:
        raise ValueError(f"split '{part}': holds none of the {examples} examples")
    return np.sort(np.random.Generator(np.random.Philox(key=[0, 1])).permutation(examples)[low:high])


def apart(one: Slice, other: Slice) -> bool:
    """Whether two parts surely have no example in common, whatever the size of the split; parts of two splits never have."""
    return one.name != other.name or _ends_before(one.high, other.low) or _ends_before(other.high, one.low)


def _ends_before(high: str | None, low: str | None) -> bool:
    """Known of bounds of one kind only: TFDS rounds 90% and -10% apart from each other."""
    if high is None or low is None:
        return False
    one, other = ((bound.startswith("-"), bound.endswith("%")) for bound in (high, low))
    return one == other and int(high.rstrip("%")) <= int(low.rstrip("%"))


def _position(bound: str | None, examples: int) -> int | None:
    if bound is None:
        return None
    number, total = int(bound.rstrip("%")), 100 if bound.endswith("%") else examples
    from_start = min(max(number + total if bound.startswith("-") else number, 0), total)
    return round(from_start * examples / total)
