"""Semantic similarity (STS): do texts that people find alike lie close together?

The cosine of a pair's two embeddings is compared with the gold scores over all pairs at once. SimCSE (arXiv 2104.08821, its "all" setting)
and sentence-transformers report Spearman's correlation * 100; so does the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from byol_jax.data.pairs import Pairs
from byol_jax.evaluate.compared import Compared, compared
from byol_jax.evaluate.embedded import Embed, embedded
from byol_jax.evaluate.result import Result


@dataclass(frozen=True)
class SimilarityResult(Result):
    """Correlation of cosine and gold score, each in [-1, 1]; 0 if all cosines are equal, as those of a collapsed encoder."""

    text_columns: ClassVar[tuple[int, ...]] = ()

    spearman: float
    pearson: float
    pairs: int

    def rows(self) -> tuple[str, Sequence[str], Sequence[Sequence[str]]]:
        cells = [(f"{100 * self.spearman:.2f}", f"{100 * self.pearson:.2f}")]
        return _title(self.pairs), ("Spearman * 100", "Pearson * 100"), cells


def similarity(embed: Embed, pairs: Pairs, *, name: str = "embed") -> SimilarityResult:
    """Spearman's (equal values share their mean rank) and Pearson's correlation of cosine and gold score.

    Args:
      embed: texts -> float32 [N, D]. An embedding of all zeros has cosine 0 with everything.
      name: of ``embed`` in messages.

    Raises:
      ValueError: fewer than two pairs, gold scores that are all equal, or embeddings of a wrong shape or not finite.
    """
    if len(np.unique(pairs.gold)) < 2:
        raise ValueError(f"similarity: the gold scores of {len(pairs)} pairs are all equal; a correlation needs different ones")
    both = embedded(embed, [*pairs.first, *pairs.second], name=name)
    cosine = cosines(both[: len(pairs)], both[len(pairs) :])
    return SimilarityResult(spearman(cosine, pairs.gold), pearson(cosine, pairs.gold), len(pairs))


def similarity_rows(embeds: Mapping[str, Embed], pairs: Pairs) -> Compared:
    """``similarity`` of each, by name, in one table."""
    return compared(_title(len(pairs)), {name: similarity(embed, pairs, name=name) for name, embed in embeds.items()})


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """float64[N], the cosine of each row of [N, D] with the same row of the other."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(1) / np.where(lengths > 0, lengths, 1)


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation of two [N]; 0 if one of them is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return float(np.clip(x @ y / scale, -1, 1)) if scale > 0 else 0.0


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation of the ranks; equal values share their mean rank."""
    from scipy.stats import rankdata  # dear to import

    return pearson(rankdata(x), rankdata(y))


def _title(pairs: int) -> str:
    return f"Semantic similarity, {pairs:,} pairs: correlation of cosine and gold score"
