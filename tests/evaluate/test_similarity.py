"""Correlation of cosine and gold score: by hand, against scipy, and at the edges."""

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from byol_jax.data import Pairs
from byol_jax.evaluate import similarity, similarity_rows
from byol_jax.evaluate.similarity import cosines, pearson, spearman

ANGLE = {"zero": 0, "sixty": 60, "ninety": 90, "half": 180}


def by_angle(texts):
    radians = np.deg2rad([ANGLE[text] for text in texts])
    return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)


def of_zero(others, gold):
    return Pairs(["zero"] * len(others), list(others), np.array(gold, np.float64))


def test_by_hand():
    """Cosines 1, 1/2, 0, -1. Gold 5, 3, 4, 0 has ranks 4, 2, 3, 1 against 4, 3, 2, 1: Spearman 1 - 6 * 2 / (4 * 15) = 0.8.

    Pearson: cosine - 1/8 = 7/8, 3/8, -1/8, -9/8 and gold - 3 = 2, 0, 1, -3; products 14/8 - 1/8 + 27/8 = 5, squares 140/64 and 14.
    """
    result = similarity(by_angle, of_zero(ANGLE, [5, 3, 4, 0]))
    assert result.spearman == pytest.approx(0.8)
    assert result.pearson == pytest.approx(5 / np.sqrt(140 / 64 * 14), abs=1e-7)
    assert result.pairs == 4


def test_equal_values_share_their_mean_rank():
    """Gold 2, 1, 1, 0: ranks 4, 2.5, 2.5, 1; cosine 1, 1, 0, -1: ranks 3.5, 3.5, 2, 1. Squared deviations sum to 4.5 each."""
    pairs = of_zero(["zero", "zero", "ninety", "half"], [2, 1, 1, 0])
    deviation = np.array([1.5, 0, 0, -1.5]) @ np.array([1, 1, -0.5, -1.5])
    assert deviation == 3.75
    assert similarity(by_angle, pairs).spearman == pytest.approx(3.75 / 4.5)


def test_a_reversed_order_is_minus_one_and_a_shift_changes_nothing():
    assert similarity(by_angle, of_zero(ANGLE, [0, 1, 2, 3])).spearman == -1
    one, other = (similarity(by_angle, of_zero(ANGLE, np.array([5, 3, 4, 0]) * scale + 7)) for scale in (1, 10))
    assert one.spearman == other.spearman
    assert one.pearson == pytest.approx(other.pearson)


@pytest.mark.parametrize("seed", range(5))
def test_equals_scipy(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 9, 40).astype(float), rng.integers(0, 5, 40).astype(float)
    assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
    assert pearson(x, y) == pytest.approx(pearsonr(x, y).statistic, abs=1e-12)


def test_cosines():
    found = cosines(np.array([[3, 4], [0, 0], [1, 0]], np.float32), np.array([[4, 3], [1, 1], [-2, 0]], np.float32))
    assert found.tolist() == [24 / 25, 0.0, -1.0]


def test_a_collapsed_encoder_has_no_correlation():
    result = similarity(lambda texts: np.ones((len(texts), 3), np.float32), of_zero(ANGLE, [0, 1, 2, 3]))
    assert (result.spearman, result.pearson) == (0.0, 0.0)


def test_each_text_is_embedded_once():
    seen = []

    def embed(texts):
        seen.extend(texts)
        return by_angle(texts)

    similarity(embed, of_zero(["half", "ninety", "half"], [0, 1, 2]))
    assert seen == ["zero", "half", "ninety"]


def test_rows():
    pairs = of_zero(ANGLE, [5, 3, 4, 0])
    found = similarity_rows({"BYOL": by_angle, "collapsed": lambda texts: np.ones((len(texts), 2))}, pairs)
    lines = found.table().splitlines()
    assert lines[0] == "Semantic similarity, 4 pairs: correlation of cosine and gold score"
    assert [line.split() for line in lines[-2:]] == [["BYOL", "80.00", "90.35"], ["collapsed", "0.00", "0.00"]]
    assert found.to_json()["BYOL"] == similarity(by_angle, pairs).to_json()


@pytest.mark.parametrize(
    ("embed", "gold", "message"),
    [
        (by_angle, [1, 1, 1, 1], "gold scores of 4 pairs are all equal"),
        (lambda texts: np.ones(len(texts)), [0, 1, 2, 3], r"X: gave \[4\] for 4 texts; expected \[4, D\]"),
        (lambda texts: np.ones((3, 2)), [0, 1, 2, 3], r"X: gave \[3, 2\] for 4 texts"),
        (lambda texts: np.full((len(texts), 2), np.nan), [0, 1, 2, 3], "X: some embeddings are NaN"),
    ],
)
def test_errors(embed, gold, message):
    with pytest.raises(ValueError, match=message):
        similarity(embed, of_zero(ANGLE, gold), name="X")
