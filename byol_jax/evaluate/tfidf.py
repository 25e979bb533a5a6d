"""TF-IDF, the baseline that any text encoder should beat: how often which words occur, and nothing learnt but how rare they are."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

_CHUNK = 1024  # texts at a time
_KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
_CHINESE = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_UNSPACED = _KANA + _CHINESE  # what is written without spaces between words
_TOKENS = re.compile(f"([{_UNSPACED}]+)|[^\\W{_UNSPACED}]+")


class TfIdf:
    """Texts -> float32 [N, D], l2-normalised: 1 + log(count) of each word, weighted by its rarity in a corpus (scikit-learn's smooth idf).

    A text without a known word is all zeros. The same corpus gives the same columns, which are the words in sorted order.
    """

    def __init__(self, corpus: Sequence[str], max_features: int = 20_000) -> None:
        """Learns from the corpus which words there are and how rare they are.

        Args:
          corpus: texts to judge by are not to be among them.
          max_features: D at most; the most frequent words are kept.

        Raises:
          ValueError: no word in the corpus.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer  # dear to import

        if max_features < 1:
            raise ValueError(f"max_features={max_features}: must be at least 1")
        if not any(map(words, corpus)):
            raise ValueError(f"TF-IDF: there is no word in the corpus of {len(corpus)} texts")
        self._vectorizer = TfidfVectorizer(analyzer=words, max_features=max_features, sublinear_tf=True, dtype=np.float32).fit(corpus)

    @property
    def words(self) -> list[str]:
        """What each of the D columns counts."""
        return list(self._vectorizer.get_feature_names_out())

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [N, D]; beside this array only the words of 1,024 texts are held."""
        out = np.empty((len(texts), len(self._vectorizer.vocabulary_)), np.float32)
        for start in range(0, len(texts), _CHUNK):
            part = texts[start : start + _CHUNK]
            self._vectorizer.transform(part).toarray(out=out[start : start + len(part)])
        return out


def words(text: str) -> list[str]:
    """Lower-cased words; of Chinese and Japanese, which set no spaces, every character and every pair of neighbours.

    Full-width letters and other compatibility forms count as the plain ones (NFKC).
    """
    found: list[str] = []
    for match in _TOKENS.finditer(unicodedata.normalize("NFKC", text).lower()):
        run = match[0]
        found += [*run, *map("".join, itertools.pairwise(run))] if match[1] else [run]
    return found
