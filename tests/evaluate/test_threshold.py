"""When to say "no match": thresholds worked out by hand."""

import numpy as np
import pytest

from byol_jax.evaluate import at_threshold, calibrated

MATCHED, RIGHT = np.array([0.9, 0.8, 0.6, 0.4]), np.array([True, True, False, True])
UNMATCHED = np.array([0.7, 0.5, 0.3, 0.2, 0.1])


def test_shares_at_a_threshold():
    """At 0.5: of those with a match 0.9 and 0.8 rightly, 0.6 wrongly answered; of those without 0.7 and 0.5 answered, three told none."""
    found = at_threshold(0.5, MATCHED, RIGHT, UNMATCHED)
    assert (found.answered_right, found.told_none, found.precision) == (2 / 4, 3 / 5, 2 / 5)
    assert found.balanced_accuracy == pytest.approx((2 / 4 + 3 / 5) / 2)
    assert (found.matched, found.unmatched) == (4, 5)


def test_highest_balanced_accuracy():
    """(right + none) / 2 at 0.35: (3/4 + 3/5) / 2 = 0.675; at 0.75: (2/4 + 5/5) / 2 = 0.75, the highest; at 0.85: (1/4 + 1) / 2."""
    found = calibrated(MATCHED, RIGHT, UNMATCHED)
    assert found.threshold == pytest.approx(0.75)
    assert found.balanced_accuracy == pytest.approx(0.75)
    by_hand = {t: at_threshold(t, MATCHED, RIGHT, UNMATCHED).balanced_accuracy for t in np.arange(0.05, 1.0, 0.1)}
    assert max(by_hand.values()) == pytest.approx(found.balanced_accuracy)


def test_the_lower_threshold_among_equals():
    """Between 0.2 and 0.4, and between 0.6 and 0.8, both are 3/4; all other thresholds give less."""
    found = calibrated(np.array([0.8, 0.4]), np.array([True, True]), np.array([0.6, 0.2]))
    assert (found.threshold, found.balanced_accuracy) == (pytest.approx(0.3), 0.75)


def test_a_given_precision():
    """Right of answered, from the lowest score up: 3/9, 3/8, 3/7, 3/6, 2/5, 2/4, 2/3, 2/2, 1/1."""
    assert calibrated(MATCHED, RIGHT, UNMATCHED, precision=0.4).threshold == pytest.approx(0.25)
    assert calibrated(MATCHED, RIGHT, UNMATCHED, precision=0.5).threshold == pytest.approx(0.35)
    assert calibrated(MATCHED, RIGHT, UNMATCHED, precision=0.51).threshold == pytest.approx(0.65)
    sure = calibrated(MATCHED, RIGHT, UNMATCHED, precision=1.0)
    assert (sure.threshold, sure.precision, sure.answered_right, sure.told_none) == (pytest.approx(0.75), 1.0, 0.5, 1.0)


def test_answering_all_and_nothing():
    everything = calibrated(np.array([0.9, 0.8]), np.array([True, True]), np.array([0.5]), precision=0.6)
    assert (everything.threshold, everything.precision) == (0.5, 2 / 3)
    nothing = calibrated(np.array([0.2]), np.array([False]), np.array([0.5]))
    assert nothing.threshold > 0.5
    assert (nothing.balanced_accuracy, nothing.precision) == (0.5, 1.0)


def test_table():
    assert calibrated(MATCHED, RIGHT, UNMATCHED).table().splitlines()[-1].split() == ["0.7500", "50.0", "100.0", "75.0", "100.0"]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (
            (MATCHED, np.zeros(4, bool), UNMATCHED),
            {"precision": 0.5},
            "precision=0.5: no threshold reaches it; the highest that one reaches is 0",
        ),
        ((MATCHED, RIGHT, UNMATCHED), {"precision": 0.0}, "precision=0: is a share above 0"),
        ((MATCHED, RIGHT[:2], UNMATCHED), {}, r"4 scores of questions with a match, but right has shape \(2,\)"),
        ((MATCHED, RIGHT, np.zeros(0)), {}, "unmatched must be one finite score a question"),
        ((np.array([np.nan]), np.array([True]), UNMATCHED), {}, "matched must be one finite score a question"),
    ],
)
def test_errors(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        calibrated(*arguments, **options)
