"""Texts on the device: views come from the host as rows of token ids, and go to the network as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.views import TextViews

SHORTEST = 16  # columns; a shorter row gains nothing


def text_views(views: TextViews) -> Callable[[jax.Array, Mapping[str, jax.Array]], dict[str, jax.Array]]:
    """``fn(keys[b], batch)`` that hands on "view1" and "view2", int32[b, length], and "label" where the batch has one.

    Raises:
      ValueError: for a recipe out of range, or (while tracing) a batch of another form.
    """
    if errors := views.errors():
        raise ValueError("the view recipe is out of range: " + "; ".join(errors))

    def fn(keys: jax.Array, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        del keys
        for name in ("view1", "view2"):
            if name not in batch or batch[name].shape[1:] != (views.length,) or batch[name].dtype != jnp.int32:
                got = f"{batch[name].dtype}{list(batch[name].shape)}" if name in batch else f"only {sorted(batch)}"
                raise ValueError(
                    f"a batch of texts holds {name} as int32[batch, {views.length}], views.length being {views.length}; got {got}"
                )
        return {name: batch[name] for name in ("view1", "view2", "label") if name in batch}

    return fn


def accept(tokens: Any, views: TextViews) -> np.ndarray:
    """int32[B, L] without the columns that hold padding alone, as far as L stays a power of two (16 at least): few shapes to compile.

    Raises:
      ValueError: not integers [B, L], or more columns than the recipe's length.
    """
    found = np.asarray(tokens)
    if found.ndim != 2 or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(
            f"tokens: got {found.dtype} {found.shape}; the encoder takes int32 [B, L], rows of ids with special tokens and padding "
            "(byol.data.Tokenizer(...).rows(texts, length) makes them)"
        )
    if found.shape[1] > views.length:
        raise ValueError(f"tokens: rows of {found.shape[1]} ids, but the run's texts have {views.length} at most; cut them to that")
    used = np.flatnonzero((found != views.special.pad).any(0))
    longest = max(int(used[-1]) + 1 if used.size else 1, SHORTEST)
    return found[:, : 1 << (longest - 1).bit_length()].astype(np.int32)
