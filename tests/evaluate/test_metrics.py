"""Metrics, worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from byol_jax.evaluate.metrics import average_precision, eleven_point_map, macro_f1, mean_per_class, predicted_class, top1

ONE_HOT = np.eye(3)


def test_top1_and_mean_per_class():
    label = np.array([0, 0, 0, 0, 2, 2])
    logits = ONE_HOT[[0, 0, 0, 1, 2, 1]]
    assert top1(logits, label) == pytest.approx(4 / 6)
    assert mean_per_class(logits, label) == pytest.approx((3 / 4 + 1 / 2) / 2)  # class 1 does not occur


def test_equal_logits_go_to_the_higher_class():
    assert top1(np.zeros((2, 3)), np.array([2, 0])) == 0.5
    assert predicted_class(np.array([[0.0, 1.0, 1.0], [2.0, 1.0, 0.0]])).tolist() == [2, 0]


def test_a_row_with_nan_is_no_class():
    logits = np.array([[0.0, 1.0], [np.nan, 1.0], [0.0, np.nan]])
    assert predicted_class(logits).tolist() == [1, -1, -1]
    assert top1(logits, np.array([1, 1, 1])) == pytest.approx(1 / 3)


def test_macro_f1():
    """Class 0: 3 true, 2 given, 2 right, so F1 2 * 2 / 5. Class 1: 2 * 1 / 4. Class 2: 2 * 1 / 3. Classes 3 and 4 do not occur."""
    label, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 2])
    assert macro_f1(predicted, label, 5) == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 3)
    assert macro_f1(label, label, 5) == 1.0
    assert macro_f1(np.full(6, 3), label, 5) == 0.0


def test_a_class_that_is_only_predicted_counts_as_zero_and_no_class_as_none():
    label = np.array([0, 0, 1])
    assert macro_f1(np.array([0, 2, 1]), label, 3) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert macro_f1(np.array([0, -1, 1]), label, 3) == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_equals_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    label, predicted = rng.integers(0, 12, 30), rng.integers(0, 12, 30)
    assert macro_f1(predicted, label, 20) == pytest.approx(f1_score(label, predicted, average="macro", zero_division=0), abs=1e-12)


def test_macro_f1_of_nothing():
    with pytest.raises(ValueError, match="no example"):
        macro_f1(np.zeros(0, int), np.zeros(0, int), 3)


def test_eleven_point_average_precision():
    """Ranks of the positives: 1, 3 and 6. Precision there 1, 2/3, 1/2 at recall 1/3, 2/3, 1.

    Recall >= 0, .1, .2, .3 (four points): 1. >= .4, .5, .6 (three): 2/3. >= .7, .8, .9, 1 (four): 1/2.
    """
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    target = np.array([1, 0, 1, 0, 0, 1])
    assert average_precision(score, target) == pytest.approx((4 * 1 + 3 * 2 / 3 + 4 * 1 / 2) / 11)
    order = np.array([3, 0, 5, 1, 4, 2])
    assert average_precision(score[order], target[order]) == average_precision(score, target)


def test_the_precision_of_a_later_hit_may_count_earlier():
    """Positives at ranks 3 and 4: precision 1/3 at recall .5, 1/2 at recall 1, so 1/2 at all eleven points."""
    assert average_precision(np.array([4.0, 3.0, 2.0, 1.0]), np.array([0, 0, 1, 1])) == pytest.approx(0.5)


def test_recall_of_exactly_three_tenths():
    """Ten positives, the first three on top, then three wrong ones: 0, .1, .2 and .3 have precision 1, the rest what 7 more hits bring."""
    target = np.array([1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1])
    rest = [max(hits / (hits + 3) for hits in range(t, 11)) for t in range(4, 11)]
    assert average_precision(-np.arange(13.0), target) == pytest.approx((4 + sum(rest)) / 11)


def test_difficult_examples_count_neither_way():
    score, target = np.array([0.9, 0.8, 0.7]), np.array([-1, 1, -1])
    assert average_precision(score, target) == 1.0


def test_mean_over_classes_that_occur():
    logits = np.array([[3.0, 1.0, 0.0], [2.0, 2.0, 0.0], [1.0, 3.0, 0.0]])
    target = np.array([[1, 1, 0], [0, 0, 0], [0, 0, -1]])
    expected = (1.0 + 1 / 3) / 2  # the first class ranks its positive first, the second last; the third has none
    assert eleven_point_map(logits, target) == pytest.approx(expected)
    with pytest.raises(ValueError, match="no class has a positive example"):
        eleven_point_map(logits, np.zeros((3, 3), int))
