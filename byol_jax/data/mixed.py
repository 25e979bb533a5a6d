"""Data sets mixed by weight: a virtual data set in which every part holds its share of the rows.

Which row stands where is arithmetic, so a mixture is a source like any other: order, resuming and hosts know nothing of it. A part that is
short comes several times, each of its rows as often as the others or once more; none is drawn by chance, and none is left out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from byol_jax.data.arrays import ArraySource
from byol_jax.data.source import UNLABELLED, EncodedSource, Source, bad_share_of, content_of, labels_of, num_classes

Labels = bool | str  # of a part: shown, hidden, or shown as a label set of this name


class Mixture:
    """Several sources as one. Use ``mixture`` to make one.

    Attributes:
      sources, weights: the parts, and the share of the rows that each has (they sum to 1).
      counts: rows of each part.
      label_sets: classes by name, where the parts' labels are told apart; then a label is counted on from the sets before its own. {} where
        all parts speak of the same classes.
      class_names: of all sets, one after the other; None unless every part that shows labels has names.
      content, max_bad_share: as of any source; the first is that of all parts, the second the largest of theirs.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float], labels: Sequence[Labels], classes: Sequence[int]) -> None:
        self.sources, self.shown = tuple(sources), tuple(labels)
        whole = [Fraction(weight).limit_denominator(10**6) for weight in weights]
        shares = [one / sum(whole) for one in whole]
        self.weights = tuple(float(share) for share in shares)
        self.counts = _counts([len(source) for source in sources], shares)
        self._starts = np.cumsum([0, *self.counts])
        self._lengths = np.array([len(source) for source in sources], np.int64)
        self.content, self.max_bad_share = content_of(sources[0]), max(map(bad_share_of, sources))
        self.label_sets = _label_sets(self.shown, classes)
        self._offsets = dict(zip(self.label_sets, np.cumsum([0, *self.label_sets.values()]).tolist(), strict=False))
        self.class_names = _class_names(self.sources, self.shown, classes)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def locate(self, index: Any) -> tuple[np.ndarray, np.ndarray]:
        """(part, row of that part) of positions int64[...], each of their shape."""
        index = np.asarray(index, np.int64)
        part = np.searchsorted(self._starts, index, side="right") - 1
        return part, (index - self._starts[part]) * self._lengths[part] // np.array(self.counts)[part]

    def __getitem__(self, index: int) -> dict[str, Any]:
        part, row = self._at(index)
        example = self.sources[part][row]
        return {**example, "label": int(self._told(part, np.asarray(example.get("label", UNLABELLED))))}

    @functools.cached_property
    def labels(self) -> np.ndarray | None:
        """int32[N], -1 where there is none, or None if there are none at all."""
        part, row = self.locate(np.arange(len(self)))
        found = self.stored_labels
        return None if found is None else found[(np.cumsum([0, *self._lengths])[part] + row)]

    @functools.cached_property
    def stored_labels(self) -> np.ndarray | None:
        """The labels of the parts, one after the other, each once."""
        found = [self._labels(part) for part in range(len(self.sources))]
        return None if all((one == UNLABELLED).all() for one in found) else np.concatenate(found)

    @functools.cached_property
    def texts(self) -> list[str] | None:
        """Of a mixture of texts, where all parts have kept them."""
        kept = [getattr(source, "texts", None) for source in self.sources]
        whole = [one for one in kept if one is not None]
        if len(whole) < len(kept):
            return None
        return [whole[part][row] for part, row in zip(*self.locate(np.arange(len(self))), strict=True)]

    @property
    def tokenizer(self) -> Any:
        """Of a mixture of texts: that of its first part."""
        return getattr(self.sources[0], "tokenizer", None)

    def _at(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"mixture: index {index} is outside it; valid: 0..{len(self) - 1}")
        part, row = self.locate(index)
        return int(part), int(row)

    def _labels(self, part: int) -> np.ndarray:
        found = labels_of(self.sources[part]) if self.shown[part] is not False else None
        return np.full(len(self.sources[part]), UNLABELLED, np.int32) if found is None else self._told(part, found)

    def _told(self, part: int, label: np.ndarray) -> np.ndarray:
        """Labels of a part as those of the mixture."""
        shown = self.shown[part]
        offset = self._offsets.get(shown, 0) if isinstance(shown, str) else 0
        return np.where((label >= 0) & (shown is not False), label + offset, UNLABELLED).astype(np.int32)

    def __repr__(self) -> str:
        parts = ", ".join(f"{count} of {source!r}" for count, source in zip(self.counts, self.sources, strict=True))
        return f"{type(self).__name__}({len(self)} rows: {parts})"


class ArrayMixture(Mixture):
    """A mixture of images in memory, all of one size: every image is stored once, however often it comes."""

    @functools.cached_property
    def stored(self) -> ArraySource:
        """The images of the parts, one after the other, with the mixture's labels."""
        images = np.concatenate([source.images for source in self.sources if isinstance(source, ArraySource)])
        return ArraySource(images, self.stored_labels, self.class_names)

    def rows(self, index: Any) -> np.ndarray:
        """Where the images of these positions stand in ``stored``."""
        part, row = self.locate(index)
        return np.cumsum([0, *self._lengths])[part] + row

    def take(self, indices: Sequence[int] | np.ndarray) -> ArraySource:
        """The examples of some positions as a source in memory."""
        return self.stored.take(self.rows(indices))


class EncodedMixture(Mixture):
    """A mixture of sources that hand out encoded images."""

    sources: tuple[EncodedSource, ...]

    def encoded(self, index: int) -> tuple[bytes, int]:
        part, row = self._at(index)
        data, label = self.sources[part].encoded(row)
        return data, int(self._told(part, np.asarray(label)))

    def describe(self, index: int) -> str:
        part, row = self._at(index)
        return self.sources[part].describe(row)


def mixture(sources: Sequence[Source], weights: Sequence[float] | None = None, *, labels: Sequence[Labels] | None = None) -> Mixture:
    """Sources mixed by weight.

    The mixture is as long as it must be for every row of every part to come at least once: so an epoch of it shows the part that is
    longest for its weight once, and the others several times. A batch holds the shares on average, as it would of a shuffled data set.

    Args:
      weights: of the parts, above 0, of any sum; None: as their lengths are.
      labels: of each part True (shown as they are; the parts that do so have the same classes), False (hidden, -1 each), or the name of
        the label set that they belong to. Named sets are told apart: then every part that shows labels names its set.

    Raises:
      ValueError: no parts, a part without examples or of another kind, a weight that is not above 0, label sets that contradict.
    """
    chosen = [float(len(source)) for source in sources] if weights is None else list(weights)
    shown: list[Labels] = [True] * len(sources) if labels is None else list(labels)
    _check(sources, chosen, shown)
    classes = [0 if name is False else num_classes(source) for source, name in zip(sources, shown, strict=True)]
    _check_labels(sources, shown, classes)
    in_memory = [source.images.shape[1:] for source in sources if isinstance(source, ArraySource)]
    if len(in_memory) == len(sources) and len(set(in_memory)) == 1:
        return ArrayMixture(sources, chosen, shown, classes)
    kind = EncodedMixture if all(isinstance(source, EncodedSource) for source in sources) else Mixture
    return kind(sources, chosen, shown, classes)


def _counts(lengths: Sequence[int], shares: Sequence[Fraction]) -> tuple[int, ...]:
    """Rows of each part: its share of the whole, rounded so that they sum to it (largest remainders first)."""
    total = max(math.ceil(length / share) for length, share in zip(lengths, shares, strict=True))
    exact = [total * share for share in shares]
    counts = [math.floor(one) for one in exact]
    for part in sorted(range(len(exact)), key=lambda k: (counts[k] - exact[k], k))[: total - sum(counts)]:
        counts[part] += 1
    return tuple(counts)


def _label_sets(shown: Sequence[Labels], classes: Sequence[int]) -> dict[str, int]:
    """Classes by the names of the label sets, in the order in which they come."""
    found: dict[str, int] = {}
    for name, count in zip(shown, classes, strict=True):
        if isinstance(name, str):
            found[name] = max(found.get(name, 0), count)
    return found


def _class_names(sources: Sequence[Source], shown: Sequence[Labels], classes: Sequence[int]) -> list[str] | None:
    by_set: dict[Labels, list[str]] = {}
    for source, name, count in zip(sources, shown, classes, strict=True):
        names: Sequence[str] | None = getattr(source, "class_names", None)
        if count and names is None:
            return None
        by_set |= {name: [one if name is True else f"{name}: {one}" for one in names or ()]} if count else {}
    return [name for names in by_set.values() for name in names] or None


def _check(sources: Sequence[Source], weights: Sequence[float], shown: Sequence[Labels]) -> None:
    if not sources:
        raise ValueError("mixture: no parts; give one source at least")
    if len(weights) != len(sources) or len(shown) != len(sources):
        raise ValueError(f"mixture: {len(sources)} parts, {len(weights)} weights and {len(shown)} labels; give one of each for a part")
    for k, (source, weight) in enumerate(zip(sources, weights, strict=True)):
        if not len(source):
            raise ValueError(f"mixture: part {k} ({source!r}) is empty; there must be at least one example")
        if not 1e-6 <= weight < math.inf:
            raise ValueError(f"mixture: weight {weight} of part {k}; it must be a number above 0, at least 1e-6")
        if isinstance(source, Mixture) or hasattr(source, "in_order"):
            near = "list its parts" if isinstance(source, Mixture) else "prepare it as array_record, or take it in memory"
            raise ValueError(f"mixture: part {k} ({source!r}) cannot be read at any row; {near}")
        if (content := content_of(source)) != content_of(sources[0]):
            raise ValueError(f"mixture: part {k} is of {content!r}, part 0 of {content_of(sources[0])!r}; all parts must be of one kind")


def _check_labels(sources: Sequence[Source], shown: Sequence[Labels], classes: Sequence[int]) -> None:
    named = [k for k, name in enumerate(shown) if isinstance(name, str)]
    plain = [k for k, name in enumerate(shown) if name is True and classes[k]]
    if named and plain:
        raise ValueError(
            f"mixture: part {named[0]} names its label set and part {plain[0]} does not; name all of them, or hide the others: labels False"
        )
    for k in named:
        name = str(shown[k])
        if not name.isidentifier() or not classes[k]:
            fault = "has no labels" if name.isidentifier() else "is no name (letters, digits, _)"
            raise ValueError(f"mixture: part {k}, label set {name!r}: {fault}")
    first: dict[Labels, tuple[int, list[str]]] = {}
    for k in (*named, *plain):
        if (names := getattr(sources[k], "class_names", None)) is not None:
            before, known = first.setdefault(shown[k], (k, list(names)))
            if known != list(names):
                told = " and ".join(", ".join(some[:3]) + ("..." if len(some) > 3 else "") for some in (known, list(names)))
                near = "give each a label set of its own name, or hide the labels of one: labels False"
                raise ValueError(f"mixture: parts {before} and {k} have other classes ({told}): {near}")
