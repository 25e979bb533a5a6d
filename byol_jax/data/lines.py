"""TSV, CSV and JSONL files read by the names of their columns. Lines that cannot be used are counted and named, never a crash."""

from __future__ import annotations

import codecs
import csv
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from byol_jax.data.arrays import existing, nearest
from byol_jax.data.source import LOG

SUFFIXES = (".tsv", ".csv", ".jsonl")
_SHOWN = 5
_NOT_UTF8 = "is not UTF-8"
_LONGEST_CELL = 100_000_000  # characters: what a quote that never closes may swallow before it is given up


class BadLine(ValueError):
    """A line that cannot be used; the message says why."""


Cells = list[str] | BadLine


class LineCensus:
    """Counts the lines of a file and the bad ones among them, and names the first of these."""

    def __init__(self, path: Path, max_bad_share: float) -> None:
        if not 0 <= max_bad_share <= 1:
            raise ValueError(f"max_bad_share={max_bad_share:g}: is a share between 0 and 1, for example 0.01")
        self.path, self.max_bad_share = path, max_bad_share
        self.seen = self.bad = 0
        self._names: list[str] = []

    @contextmanager
    def line(self, first: int, last: int) -> Iterator[None]:
        """Counts the lines ``first`` to ``last``, which are one row; a BadLine raised inside is noted and goes no further."""
        self.seen += last - first + 1
        try:
            yield
        except BadLine as error:
            self.bad += last - first + 1
            if len(self._names) < _SHOWN:
                self._names.append(f"line {first}: {error}")

    def close(self) -> None:
        """Once all lines are read. ValueError if more of them are bad than allowed; a warning in the log if some are."""
        shown = "; ".join(self._names) + ("; ..." if self.bad > len(self._names) else "")
        if self.bad > self.max_bad_share * self.seen:
            raise ValueError(
                f"{self.path}: {self.bad} of its {self.seen} lines cannot be used: more than max_bad_share={self.max_bad_share:g} allows. "
                f"Mend or remove them, or allow more. They are: {shown}"
            )
        if self.bad:
            LOG.warning("%s: %d of its %d lines cannot be used, left out: %s", self.path, self.bad, self.seen, shown)


def each_row(
    path: str | Path,
    columns: Sequence[str],
    use: Callable[..., None],
    *,
    optional: Sequence[str] = (),
    number: str | None = None,
    max_bad_share: float = 0.01,
) -> None:
    """Calls ``use`` with the values of the named columns, as text, for every row of a file; what it raises as BadLine is counted.

    The suffix tells the format. TSV is split at tabs and knows no quotes (GLUE's and BEIR's way), CSV has quotes as usual, JSONL has an
    object a line. UTF-8; blank lines, and rows with nothing in any cell, are passed over. Where a CSV's quotes go wrong nobody knows which
    text is quoted, so all lines from there on are bad.

    Args:
      columns: their names, in the order of ``use``'s arguments. The first line of TSV and CSV holds names; it may be missing if there are
        exactly these columns in this order and ``number`` tells it from data.
      optional: further columns, which are empty text where they are missing.
      number: the column that holds a number in every row.
      max_bad_share: largest share of bad lines that is left out with a warning.

    Raises:
      ValueError: no such file, another suffix, a column that is not there, too many bad lines.
    """
    file = existing(path, "file")
    if file.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{file}: its suffix must be one of {', '.join(SUFFIXES)}{nearest(file.suffix, SUFFIXES)}")
    census = LineCensus(file, max_bad_share)
    if file.suffix.lower() == ".jsonl":
        _objects(file, (*columns, *optional), set(optional), use, census)
    else:
        _cells(file, columns, optional, use, census, number)
    census.close()


def finite(text: str, what: str) -> float:
    """The number that is written there; BadLine if it is none."""
    try:
        value = float(text)
    except ValueError:
        raise BadLine(f"{what} {text[:40]!r} is no number") from None
    if not math.isfinite(value):
        raise BadLine(f"{what} {text[:40]!r} is not finite")
    return value


def filled(text: str, what: str) -> str:
    """The text without spaces around it; BadLine if nothing is left."""
    if not (stripped := text.strip()):
        raise BadLine(f"{what} is empty")
    return stripped


def _objects(file: Path, columns: Sequence[str], optional: set[str], use: Callable[..., None], census: LineCensus) -> None:
    for number, text, sound in _lines(file):
        if text.strip():
            with census.line(number, number):
                use(*_values(text, sound, columns, optional))


def _values(text: str, sound: bool, columns: Sequence[str], optional: set[str]) -> list[str]:
    if not sound:
        raise BadLine(_NOT_UTF8)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadLine(f"is no JSON ({error})") from None
    if not isinstance(found, dict):
        raise BadLine(f"is no JSON object but {type(found).__name__}")
    missing = [name for name in columns if name not in found and name not in optional]
    if missing:
        raise BadLine(f"has no {missing[0]!r}; it has {', '.join(sorted(found)[:_SHOWN])}")
    return ["" if name in optional and found.get(name) is None else _text(found[name], name) for name in columns]


def _text(value: Any, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadLine(f"{name!r} is {json.dumps(value)[:40]}, neither text nor a number")
    try:
        str(value).encode()
    except UnicodeEncodeError:  # JSON's escapes allow what no tokenizer takes
        raise BadLine(f"{name!r} holds half of a surrogate pair") from None
    return str(value)


def _cells(
    file: Path, columns: Sequence[str], optional: Sequence[str], use: Callable[..., None], census: LineCensus, number: str | None
) -> None:
    rows = _tsv(file) if file.suffix.lower() == ".tsv" else _csv(file)
    for head in itertools.islice(rows, 1):
        names = _header(file, head[2], columns, number)
        known = list(columns) if names is None else names
        places = [known.index(name) if name in known else None for name in (*columns, *optional)]
        for first, last, cells in rows if names else itertools.chain([head], rows):
            with census.line(first, last):
                if isinstance(cells, BadLine):
                    raise cells
                if len(cells) != len(known):
                    raise BadLine(f"has {len(cells)} columns, not {len(known)}")
                use(*("" if place is None else cells[place] for place in places))


def _header(file: Path, first: Cells, columns: Sequence[str], number: str | None) -> list[str] | None:
    """The names in the first line; None if it holds data."""
    if isinstance(first, BadLine):
        raise ValueError(f"{file}: its first line {first}")
    names = [cell.strip() for cell in first]
    missing = [name for name in columns if name not in names]
    if not missing:
        return names
    if number is not None and len(first) == len(columns) and _is_number(first[columns.index(number)]):
        return None
    raise ValueError(
        f"{file}: its first line names no column {missing[0]!r}{nearest(missing[0], names)}; it holds {', '.join(names)[:200]!r}"
    )


def _is_number(text: str) -> bool:
    try:
        finite(text, "")
    except BadLine:
        return False
    return True


def _tsv(file: Path) -> Iterator[tuple[int, int, Cells]]:
    for number, text, sound in _lines(file):
        if text.strip():
            yield number, number, text.rstrip("\r\n").split("\t") if sound else BadLine(_NOT_UTF8)


def _csv(file: Path) -> Iterator[tuple[int, int, Cells]]:
    """Rows, which may span lines: (first line, last line, cells)."""
    broken: set[int] = set()
    lines = _lines(file)

    def texts() -> Iterator[str]:
        for number, text, sound in lines:
            if not sound:
                broken.add(number)
            yield text

    reader = csv.reader(texts(), strict=True)
    while True:
        first = reader.line_num + 1
        try:
            cells: Cells = _row(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield first, reader.line_num + sum(1 for _ in lines), BadLine(f"is no CSV ({error}); which rows follow is not known")
            return
        if broken:
            cells = BadLine(_NOT_UTF8)
            broken.clear()
        if isinstance(cells, BadLine) or any(cell.strip() for cell in cells):
            yield first, reader.line_num, cells


def _row(reader: Iterator[list[str]]) -> list[str]:
    """The next row. csv's limit of 131,072 characters a cell is the whole process's: it is changed for this one row."""
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        return next(reader)
    finally:
        csv.field_size_limit(before)


def _lines(file: Path) -> Iterator[tuple[int, str, bool]]:
    """(line number from 1, its text, whether it is UTF-8). Lines end at a line feed and nowhere else."""
    with file.open("rb") as stream:
        for number, data in enumerate(stream, 1):
            if number == 1:
                data = data.removeprefix(codecs.BOM_UTF8)
            try:
                yield number, data.decode("utf-8"), True
            except UnicodeDecodeError:
                yield number, data.decode("utf-8", errors="replace"), False
