"""Raw text as a source: files of lines, folders of files, JSONL and CSV with named columns, data sets of TFDS.

What cannot be used (not UTF-8, binary, empty) is left out, counted and named; nothing is guessed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from byol_jax.data.arrays import existing, nearest
from byol_jax.data.lines import SUFFIXES as TABLES
from byol_jax.data.lines import each_row
from byol_jax.data.source import LOG, UNLABELLED

SUFFIXES = (".txt", *TABLES)
LONGEST = 1_000_000  # characters; what a text has beyond them is cut off
NAMED = 5  # faults of a kind that are named one by one
_BAD = ("not UTF-8", "binary", "unreadable")  # an empty line separates paragraphs, a long text is used: neither is damage


@dataclass(frozen=True)
class Text:
    """A text, where it stands, and the name of its class if it has one."""

    text: str
    where: str
    label: str | int | None = None


@dataclass
class Faults:
    """What was left out of a corpus, or cut, by kind: the places."""

    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, where: str) -> None:
        self.places.setdefault(kind, []).append(where)

    def __str__(self) -> str:
        """``2 empty (a.txt:3, a.txt:9), 1 not UTF-8 (b.txt)``; empty if there are none."""
        parts = []
        for kind, places in sorted(self.places.items()):
            more = ", ..." if len(places) > NAMED else ""
            parts.append(f"{len(places)} {kind} ({', '.join(places[:NAMED])}{more})")
        return ", ".join(parts)

    def check(self, what: str, kept: int, max_bad_share: float) -> None:
        """Says in the log what was left out. ValueError if more of the texts are damaged than allowed, or none is left."""
        bad = sum(len(self.places.get(kind, [])) for kind in _BAD)
        if not kept:
            raise ValueError(f"{what}: holds no text" + (f"; left out: {self}" if self.places else ""))
        if bad > max_bad_share * (bad + kept):
            raise ValueError(f"{what}: {bad} of {bad + kept} texts are damaged, more than max_bad_share={max_bad_share:g} allows: {self}")
        if self.places:
            LOG.warning("%s: %d texts; left out or cut: %s", what, kept, self)


class TextSource:
    """Texts in memory, with or without labels.

    Attributes:
      texts: list of str.
      labels: int32[N] (-1: no label), or None.
      class_names: list of str, or None.
    """

    def __init__(self, texts: Sequence[str], labels: np.ndarray | None = None, class_names: Sequence[str] | None = None) -> None:
        self.texts, self.labels = list(texts), labels
        self.class_names = None if class_names is None else list(class_names)

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"text": self.texts[index], "label": UNLABELLED if self.labels is None else int(self.labels[index])}

    def take(self, indices: Sequence[int] | np.ndarray) -> TextSource:
        """The chosen texts as another source, with the same classes."""
        labels = None if self.labels is None else self.labels[np.asarray(indices)]
        return TextSource([self.texts[i] for i in indices], labels, self.class_names)

    def __repr__(self) -> str:
        kind = "no labels" if self.labels is None else f"{len(self.class_names or [])} classes"
        return f"TextSource({len(self)} texts, {kind})"


def from_texts(texts: Sequence[str], labels: Sequence[Any] | None = None, *, class_names: Sequence[str] | None = None) -> TextSource:
    """A source from texts in memory; ``labels`` are integers from 0 (-1: none), or names of classes.

    Raises:
      ValueError: no texts, something that is no text or an empty one (its position is named), labels of another number.
    """
    if not len(texts):
        raise ValueError("from_texts: there must be at least one text")
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"from_texts: text {i} is {text!r}; each must be a str that is not empty")
    if labels is not None and len(labels) != len(texts):
        raise ValueError(f"from_texts: {len(labels)} labels for {len(texts)} texts; pass as many, or None")
    return TextSource(texts, *_classes(labels, class_names, "from_texts"))


def text_files(
    path: str | Path,
    *,
    text: str = "text",
    label: str | None = "label",
    max_bad_share: float = 0.01,
    class_names: Sequence[str] | None = None,
) -> TextSource:
    """Texts from a file or a folder.

    - a ``.txt`` file: each line is an example;
    - a ``.jsonl``, ``.csv`` or ``.tsv`` file: each row, its column ``text``, and ``label`` if there is such a column;
    - a folder of such files: all of their examples, but of ``.txt`` files each is one example;
    - a folder of subfolders with ``.txt`` files: each file is an example, and its subfolder's name its class.

    Args:
      label: the column of the class; None reads none.
      max_bad_share: largest share of texts that may be damaged (not UTF-8, binary, a row without its columns).
      class_names: the classes in order, where another file (the training texts) gives them; None: those found, sorted.

    Raises:
      ValueError: no such path, nothing in it, no such column, a class that ``class_names`` lacks, too much damage.
    """
    root, faults = existing(path, "text"), Faults()
    table = functools.partial(_table, text=text, label=label, max_bad_share=max_bad_share)
    found = list(_cleaned(_read(root, table, faults), faults))
    faults.check(str(root), len(found), max_bad_share)
    labels = [one.label for one in found]
    unlabelled = all(one is None for one in labels)
    return TextSource([one.text for one in found], *_classes(None if unlabelled else labels, class_names, str(root)))


def tfds_texts(
    name: str, split: str = "train", *, data_dir: str | Path | None = None, text: str = "text", label: str | None = "label"
) -> TextSource:
    """Texts of a TFDS data set, such as "imdb_reviews" or "glue/sst2" with ``text="sentence"``. Raises ValueError as ``tfds`` does."""
    from byol_jax.data.records import rows

    examples, features = rows(name, split, data_dir=data_dir)
    if text not in features:
        raise ValueError(f"tfds: {name} has no feature {text!r}: it has {sorted(features)}{nearest(text, features)}")
    known = label if label in features else None
    faults = Faults()
    raw = (_decoded(row[text], f"{name} {split}, example {i}", row[known] if known else None, faults) for i, row in enumerate(examples))
    found = list(_cleaned((one for one in raw if one is not None), faults))
    faults.check(name, len(found), 0.01)
    names = getattr(features[known], "names", None) if known else None
    labels = None if known is None else np.array([one.label for one in found])
    if labels is not None and not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"tfds: the feature {known!r} of {name} is {labels.dtype}, a class must be an integer; take another, or None")
    return TextSource([one.text for one in found], None if labels is None else labels.astype(np.int32), names)


def _is_text(path: Path) -> bool:
    return path.suffix.lower() == ".txt" and not any(part.startswith(".") for part in path.parts)


def _read(root: Path, table: Callable[[Path], list[Text]], faults: Faults) -> Iterator[Text]:
    if root.is_file():
        yield from table(root) if root.suffix.lower() in TABLES else _file(root, faults, lines=True)
        return
    names = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    folders = [path for path in names if path.is_dir()]
    files = [path for path in names if path.is_file() and path.suffix.lower() in SUFFIXES]
    classes = {one.name: sorted(path for path in one.rglob("*") if _is_text(path.relative_to(one)) and path.is_file()) for one in folders}
    classes = {name: paths for name, paths in classes.items() if paths}
    if classes:
        if files:
            LOG.warning("text: %s has class folders; the %d files beside them are left out (first: %s)", root, len(files), files[0].name)
        for name, paths in classes.items():
            for path in paths:
                yield from (Text(one.text, one.where, name) for one in _file(path, faults, lines=False))
        return
    if not files:
        glimpse = ", ".join(path.name for path in names[:5]) or "nothing"
        raise ValueError(f"text: {root} holds no text; suffixes looked for: {', '.join(SUFFIXES)}; it holds {glimpse}")
    for path in files:
        yield from table(path) if path.suffix.lower() in TABLES else _file(path, faults, lines=False)


def _table(path: Path, text: str, label: str | None, max_bad_share: float) -> list[Text]:
    found: list[Text] = []

    def use(text: str, label: str = "") -> None:
        found.append(Text(text, str(path), label or None))

    each_row(path, [text], use, optional=[] if label is None else [label], max_bad_share=max_bad_share)
    return found


def _file(path: Path, faults: Faults, *, lines: bool) -> Iterator[Text]:
    try:
        data = path.read_bytes()
    except OSError:
        faults.add("unreadable", str(path))
        return
    if b"\0" in data:
        faults.add("binary", str(path))
        return
    for i, piece in enumerate(data.splitlines() if lines else [data], 1):
        if (one := _decoded(piece, f"{path}:{i}" if lines else str(path), None, faults)) is not None:
            yield one


def _decoded(data: bytes | str, where: str, label: str | int | None, faults: Faults) -> Text | None:
    try:
        return Text(data if isinstance(data, str) else data.decode("utf-8-sig"), where, label)
    except UnicodeDecodeError:
        faults.add("not UTF-8", where)
        return None


def _cleaned(found: Iterable[Text], faults: Faults) -> Iterator[Text]:
    """Without empty texts, and none longer than ``LONGEST``."""
    for one in found:
        kept = one.text.strip()
        if not kept:
            faults.add("empty", one.where)
            continue
        if len(kept) > LONGEST:
            faults.add(f"longer than {LONGEST:,} characters", one.where)
        yield Text(kept[:LONGEST], one.where, one.label)


def _classes(labels: Sequence[Any] | None, names: Sequence[str] | None, what: str) -> tuple[np.ndarray | None, list[str] | None]:
    """(int32[N], class names) of what stands in the column of the label: numbers from 0, or names. -1 where there is none."""
    if labels is None:
        return None, None if names is None else list(names)
    numbers = [UNLABELLED if one in (None, "") else class_number(one) for one in labels]
    if names is None and all(one is not None for one in numbers):
        return np.array(numbers, np.int32), None
    texts = [None if one in (None, "") else str(one) for one in labels]
    known = sorted({one for one in texts if one is not None}) if names is None else list(names)
    place = {name: i for i, name in enumerate(known)}
    for one in texts:
        if one is not None and one not in place:
            raise ValueError(f"{what}: class {one!r} is not one of {known}{nearest(one, known)}")
    return np.array([UNLABELLED if one is None else place[one] for one in texts], np.int32), known


def class_number(label: Any) -> int | None:
    """The number that a label is; None if it is a name."""
    try:
        number = int(label)
    except (TypeError, ValueError, OverflowError):
        return None
    whole = isinstance(label, str) or number == label
    return number if whole and UNLABELLED <= number < 2**31 else None
