"""Whitening: embeddings whose dimensions are uncorrelated and of one size over a corpus, before cosines are taken.

BYOL's loss looks at embeddings through a projector that normalises, so nothing in it asks for cosines of the embeddings themselves: a few
directions that all texts share may fill them. Su et al. 2021 (arXiv 2103.15316, "BERT-whitening") take these out after training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from byol_jax.evaluate.embedded import Embed, embedded

CORPUS = 10_000  # texts that say enough of some hundred dimensions


class Whitening:
    """Embeddings less their corpus's mean, turned and scaled so that their covariance over the corpus is the identity.

    The covariance is shrunk towards a multiple of the identity, as far as Ledoit and Wolf's rule says (2004; scikit-learn's): a small
    corpus does not know all of its directions. In what never differs over the corpus all texts are alike afterwards, those of a collapsed
    encoder in everything: zeros.
    """

    def __init__(self, corpus: np.ndarray) -> None:
        """Learns from finite embeddings [N, D] of a corpus, two at least."""
        from sklearn.covariance import ledoit_wolf  # dear to import

        found = corpus.astype(np.float64)
        self.mean = found.mean(0)
        variances, directions = np.linalg.eigh(ledoit_wolf(found - self.mean, assume_centered=True)[0])
        known = variances > variances.max() * np.finfo(np.float32).eps
        self.directions = directions * np.where(known, 1 / np.sqrt(np.where(known, variances, 1.0)), 0.0)

    def __call__(self, embedding: np.ndarray) -> np.ndarray:
        """float32 [N, D] of [N, D]."""
        return ((embedding - self.mean) @ self.directions).astype(np.float32)


class Whitened:
    """``embed``, and then what ``Whitening`` learns of a corpus of texts."""

    def __init__(self, embed: Embed, corpus: Sequence[str], *, name: str = "embed") -> None:
        """Learns from at most 10,000 texts of the corpus, evenly spaced. No text to be judged needs to be among them.

        Raises:
          ValueError: fewer than two texts, or embeddings of a wrong shape or not finite; ``name`` says whose they are.
        """
        if len(corpus) < 2:
            raise ValueError(f"{name}: whitening learns from a corpus of two texts or more; got {len(corpus)}")
        self.embed, self.name = embed, name
        self.whitening = Whitening(embedded(embed, spread(corpus), name=name))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [N, D]."""
        return self.whitening(embedded(self.embed, texts, name=self.name))


def spread(corpus: Sequence[str] | np.ndarray) -> Any:
    """At most 10,000 of a corpus, evenly spaced."""
    return corpus[:: math.ceil(len(corpus) / CORPUS)]


def with_whitened(embeds: Mapping[str, Embed], corpus: Sequence[str]) -> dict[str, Embed]:
    """Each of the embeddings, and behind it the same whitened over the corpus, as "NAME, whitened"."""
    found: dict[str, Embed] = {}
    for name, embed in embeds.items():
        found |= {name: embed, f"{name}, whitened": Whitened(embed, corpus, name=name)}
    return found
