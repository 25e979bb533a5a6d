"""A small corpus and a tokenizer for the tests of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from byol_jax.data import Tokenizer, TokenSource, from_texts, tokenised, train_tokenizer

WORDS = "river stone light winter garden paper engine window market silver letter season"


def sentences(count: int, *, longest: int = 30, seed: int = 0) -> list[str]:
    """Random words, one to ``longest`` of them."""
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS.split(), draw.integers(1, longest + 1))) for _ in range(count)]


def learned(folder: Path, *, kind: str = "wordpiece") -> Tokenizer:
    """A tokenizer that knows these words."""
    return train_tokenizer(sentences(200), folder / f"{kind}.json", kind=kind, vocab=400)


def token_source(folder: Path, count: int = 50) -> TokenSource:
    """Labelled sentences as tokens."""
    return tokenised(from_texts(sentences(count), [i % 3 for i in range(count)]), learned(folder))


class Count(nn.Module):
    """How often each token stands in a text: an encoder whose embeddings can be told by hand."""

    vocab: int = 400

    def __call__(self, x: Any, train: bool) -> Any:
        return jax.nn.one_hot(x, self.vocab)[:, :, 5:].sum(1)  # without the special tokens, which come first
