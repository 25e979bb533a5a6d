"""How a page shows each kind of example: the one place where images and texts part, by what their recipe is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from byol_jax.report import pictures, texts
from byol_jax.views import TextViews, Views

Shown = Figure | texts.Table | None


@dataclass(frozen=True)
class Kind:
    """Functions of one kind of example; None where there is nothing to show.

    Attributes:
      views: (source, recipe, seed) -> random views of some examples.
      neighbours: (encoder, queries, bank, features of the bank, class names, seed) -> the nearest of some queries.
      captions: section -> its caption.
    """

    views: Callable[[Any, Any, int], Shown]
    neighbours: Callable[..., Shown]
    captions: Mapping[str, str]


KINDS = {
    Views.content: Kind(
        views=lambda source, views, seed: pictures.view_grid(source, views, seed=seed),
        neighbours=pictures.neighbour_rows,
        captions={
            "views": "Each image, and pairs of random views of it: what the network is asked to see as one and the same.",
            "neighbours": "By cosine similarity (the number). Blue frame: of the query's class; orange, dashed: of another. "
            "No label was used to find them.",
        },
    ),
    TextViews.content: Kind(
        views=lambda source, views, seed: texts.view_table(source, views, seed=seed),
        neighbours=texts.neighbour_table,
        captions={
            "views": "Each text (its beginning, if it is long), and pairs of random views of it as the tokenizer writes them: what the "
            "network is asked to see as one and the same. Where both say the same, its dropout tells them apart.",
            "neighbours": "By cosine similarity. Blue bar: of the query's class; orange, dashed: of another. "
            "No label was used to find them.",
        },
    ),
}
