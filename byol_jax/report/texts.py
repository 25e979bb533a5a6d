"""What the page shows of a run of texts: tables of their views and of their nearest neighbours, where a run of images has pictures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from byol_jax.data import order, subset, train_batches
from byol_jax.evaluate.features import Features
from byol_jax.report.examples import class_names, neighbours_of_some, one_of_each_class
from byol_jax.views import TextViews

HIDDEN = "▮"
PROSE, WHOLE = "prose", "prose whole"  # cells whose text wraps; what a group of rows is about
ABOUT, VIEW, FOUND = 320, 480, 200  # characters that are shown: of what a group of rows is about, of a view, of a neighbour


@dataclass(frozen=True)
class Cell:
    """A text in a table; ``kind`` are its classes in the page's style, ``rows`` over how many rows it goes."""

    text: str
    kind: str = ""
    rows: int = 1


@dataclass(frozen=True)
class Table:
    """Rows of cells; one that goes over several rows stands in the first of them alone. ``note``: what is to be known to read it."""

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


def view_table(source: Any, views: TextViews, *, rows: int = 6, draws: int = 2, seed: int = 0) -> Table | None:
    """Random views of some texts, made as in training; None if nothing is known that turns ids into text."""
    if getattr(source, "tokenizer", None) is None:
        return None
    positions = one_of_each_class(source, rows, seed)
    some, originals = subset(source, positions), [shortened(text_of(source, int(i)), ABOUT) for i in positions]
    made: dict[tuple[int, int], tuple[Cell, Cell]] = {}
    with train_batches(some, views, batch_size=len(some), seed=seed) as batches:
        placed = order.batches(n=len(some), batch_size=len(some), seed=seed)
        for draw, batch, (index, _) in zip(range(draws), batches, placed, strict=False):
            for i, *pair in zip(index, batch["view1"], batch["view2"], strict=True):
                first, second = (Cell(shortened(seen(ids, views, source.tokenizer), VIEW), PROSE) for ids in pair)
                made[int(i), draw] = first, second
    shown: list[tuple[Cell, ...]] = []
    for i, text in enumerate(originals):
        shown += [(Cell(text, WHOLE, draws), *made[i, 0]), *(made[i, draw] for draw in range(1, draws))]
    hides = any(HIDDEN in cell.text for pair in made.values() for cell in pair)
    return Table(("text", "view 1", "view 2"), tuple(shown), f"{HIDDEN}: a token that is hidden from the network." if hides else "")


def neighbour_table(
    encoder: Any, queries: Any, bank: Any, found: Features, names: list[str] | None, *, rows: int = 6, k: int = 5, seed: int = 0
) -> Table | None:
    """Nearest neighbours in ``bank`` (whose features are ``found``) of some texts of ``queries``; of itself, if they are one source."""
    if any(getattr(source, "tokenizer", None) is None for source in (queries, bank)):
        return None
    some = neighbours_of_some(encoder, queries, bank, found, rows=rows, k=k, seed=seed)
    if some is None:
        return None
    same, count = some.same, some.found.shape[1]
    asked, classes = class_names(some.query_label, names), [class_names(row, names) for row in some.label]
    shown: list[tuple[Cell, ...]] = []
    for m, query in enumerate(some.query):
        head = [Cell(shortened(text_of(queries, query), ABOUT), WHOLE, count)]
        head += [] if same is None else [Cell(asked[m], rows=count)]
        for i, place in enumerate(some.found[m]):
            row = [Cell(f"{some.cosine[m, i]:.{some.digits}f}"), Cell(shortened(text_of(bank, place), FOUND), PROSE)]
            row += [] if same is None else [Cell(classes[m][i], "same" if same[m, i] else "other")]
            shown.append((*(head if i == 0 else ()), *row))
    headings = ("query", "cosine", "nearest first") if same is None else ("query", "its class", "cosine", "nearest first", "class")
    return Table(headings, tuple(shown))


def text_of(source: Any, index: int | np.integer[Any]) -> str:
    """The text at this position: as it is, else as far as its tokens tell."""
    if getattr(source, "texts", None) is not None:
        return str(source.texts[int(index)])
    return str(source.tokenizer.text(source[int(index)]["tokens"]))


def seen(ids: np.ndarray, views: TextViews, tokenizer: Any) -> str:
    """What a view says: without padding and the tokens around it, a mark in place of each hidden one."""
    special = views.special
    end = len(ids) - int(np.argmax(ids[::-1] != special.pad)) - len(special.end)
    said = str(tokenizer.text(ids[len(special.start) : end]))
    if special.mask is None:
        return said
    hidden = re.escape(tokenizer.text([special.mask]))
    return re.sub(hidden, HIDDEN, re.sub(rf"({hidden})\s+(?={hidden})", r"\1", said))


def shortened(text: str, width: int) -> str:
    """On one line; if it is longer than ``width``, cut there or at the end of a word shortly before."""
    line = " ".join(text.split())
    if len(line) <= width:
        return line
    end = line.rfind(" ", max(width - 20, 0), width + 1)
    return line[: end if end > 0 else width].rstrip() + " …"
