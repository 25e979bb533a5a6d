"""Texts in, embeddings out: all that judging by texts knows of an encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Embed = Callable[[Sequence[str]], np.ndarray]
"""N texts -> float32 [N, D]."""


def embedded(embed: Embed, texts: Sequence[str], *, name: str = "embed") -> np.ndarray:
    """Embeddings float32 [N, D] of the texts, each different text embedded once.

    Raises:
      ValueError: what came back is not [N, D] or holds NaN or infinite numbers; ``name`` says whose it is.
    """
    place: dict[str, int] = {}
    for text in texts:
        place.setdefault(text, len(place))
    found = np.asarray(embed(list(place)), np.float32)
    if found.ndim != 2 or len(found) != len(place):
        raise ValueError(f"{name}: gave {list(found.shape)} for {len(place)} texts; expected [{len(place)}, D]")
    if not np.isfinite(found).all():
        raise ValueError(f"{name}: some embeddings are NaN or infinite; was the checkpoint written by a run that diverged?")
    return found if len(place) == len(texts) else found[[place[text] for text in texts]]
