"""Whitened embeddings: their covariance, what small corpora know, and that cosines see what a common direction hid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

from byol_jax.evaluate import Whitened, with_whitened

DRAW = np.random.default_rng(0)
MIXED = DRAW.normal(size=(4000, 6)) @ DRAW.normal(size=(6, 6)) + 50.0
CORPUS = [str(i) for i in range(len(MIXED))]


def table(texts: Sequence[str]) -> np.ndarray:
    return MIXED[[int(text) for text in texts]].astype(np.float32)


def test_the_corpus_has_no_mean_and_the_identity_for_covariance() -> None:
    found = Whitened(table, CORPUS)(CORPUS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(found.T, bias=True), np.eye(6), atol=0.05)


def test_a_common_direction_no_longer_hides_what_differs() -> None:
    """Two groups of texts whose cosines are all above 0.99."""

    def grouped(texts: Sequence[str]) -> np.ndarray:
        return np.array([[100.0, 1.0 if text[0] == "a" else -1.0, 0.1 * int(text[1:])] for text in texts], np.float32)

    embed = Whitened(grouped, [f"{group}{i}" for group in "ab" for i in (-1, 0, 1)])
    first, second, other = embed(["a0", "a0", "b0"])
    cosine = first @ other / np.linalg.norm(first) / np.linalg.norm(other)
    assert first @ second > 0
    assert cosine == pytest.approx(-1, abs=1e-4)


def test_directions_that_a_small_corpus_does_not_know_are_shrunk() -> None:
    """Five texts span four of six directions; the inverse of Ledoit and Wolf's covariance exists all the same."""
    embed = Whitened(table, CORPUS[:5])
    expected = np.linalg.inv(ledoit_wolf(table(CORPUS[:5]).astype(np.float64))[0])
    np.testing.assert_allclose(
        embed.whitening.directions @ embed.whitening.directions.T, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max()
    )
    assert np.linalg.matrix_rank(embed.whitening.directions) == 6


def test_of_a_large_corpus_ten_thousand_texts_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def embed(texts: Sequence[str]) -> np.ndarray:
        seen.extend(texts)
        return np.array([[float(text), 1.0] for text in texts], np.float32)

    Whitened(embed, [str(i) for i in range(25_000)])
    assert seen == [str(i) for i in range(0, 25_000, 3)]


def test_one_text_is_no_corpus() -> None:
    with pytest.raises(ValueError, match="BYOL: whitening learns from a corpus of two texts or more; got 1"):
        Whitened(table, ["7"], name="BYOL")


@pytest.mark.parametrize("corpus", [["7", "7"], ["7", "8"]])
def test_what_never_differs_over_the_corpus_is_left_out(corpus: list[str]) -> None:
    """Of 7 and 8 only the direction from one to the other is known."""
    found = Whitened(table, corpus)(["7", "8", "9"])
    assert np.linalg.matrix_rank(found, tol=1e-3) == len(set(corpus)) - 1
    if corpus == ["7", "8"]:
        np.testing.assert_allclose(np.linalg.norm(found[:2], axis=1), 1, rtol=1e-4)


def test_both_side_by_side() -> None:
    found = with_whitened({"BYOL": table, "other": table}, CORPUS)
    assert list(found) == ["BYOL", "BYOL, whitened", "other", "other, whitened"]
    np.testing.assert_array_equal(found["other"](["3"]), table(["3"]))
    np.testing.assert_array_equal(found["other, whitened"](["3"]), Whitened(table, CORPUS)(["3"]))
