"""When has the share of negative texts risen? A test for each window of time and topic, and how often it is wrong.

The rule. Of a topic, a window with k negative texts among n is set against the ``before`` windows that precede it, pooled: K negative
texts among N. If nothing has changed, each set of k + K texts among the n + N is as likely to be the negative one, so k is
hypergeometric, and P = P(at least k) is Fisher's exact test, one-sided. It is a surge if P <= alpha / tests (Bonferroni).

False alarms. If nothing ever changes and texts come independently, the chance that a whole stream, all windows and topics together,
raises even one is at most alpha: Bonferroni's bound asks nothing of the tests, though windows share their past. ``false_alarms`` counts
how often it happens. Texts that answer each other are not independent: the true chance is then higher. A classifier's errors
weaken the test but raise no alarms, as long as they stay the same.

The first ``before`` windows of a topic are not tested, nor is a window with fewer than ``fewest`` texts in it or before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from scipy.stats import hypergeom


@dataclass(frozen=True)
class Rule:
    """``days`` of a window (those of 7 start on Monday), ``before``, ``fewest`` and ``alpha`` as above."""

    days: int = 7
    before: int = 4
    fewest: int = 20
    alpha: float = 0.05

    def __post_init__(self) -> None:
        for name, good in (("days", self.days >= 1), ("before", self.before >= 1), ("fewest", self.fewest >= 1)):
            if not good:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha={self.alpha:g}: must lie between 0 and 1, for example 0.05")


@dataclass(frozen=True)
class Counts:
    """Consecutive windows of a topic: the days they start on, texts int[T] and negative texts int[T] in each."""

    start: list[date]
    texts: np.ndarray
    negative: np.ndarray


@dataclass(frozen=True)
class Window:
    """A window as judged; ``p_value`` is None, and ``base`` (the share of negative texts before it) too, where it was not tested."""

    topic: str
    start: date
    texts: int
    negative: int
    base: float | None
    p_value: float | None
    surge: bool


def start_of(day: date, days: int) -> date:
    """First day of the window that a day is in."""
    return date.fromordinal((day.toordinal() - 1) // days * days + 1)  # day 1 of the calendar was a Monday


def counted(day: Sequence[date], topic: Sequence[str], negative: Sequence[bool], days: int) -> dict[str, Counts]:
    """Counts of each topic, topics in sorted order, from its first window to its last; windows without a text are there, too."""
    every: Counter[tuple[str, date]] = Counter()
    bad: Counter[tuple[str, date]] = Counter()
    for when, what, is_negative in zip(day, topic, negative, strict=True):
        place = what, start_of(when, days)
        every[place] += 1
        bad[place] += bool(is_negative)
    found = {}
    for name in sorted(set(topic)):
        ordinals = [start.toordinal() for what, start in every if what == name]
        starts = [date.fromordinal(number) for number in range(min(ordinals), max(ordinals) + 1, days)]
        texts, negatives = (np.array([counter[name, start] for start in starts]) for counter in (every, bad))
        found[name] = Counts(starts, texts, negatives)
    return found


def p_values(texts: np.ndarray, negative: np.ndarray, rule: Rule) -> np.ndarray:
    """float[..., T] of counts [T] and [..., T]: Fisher's exact test of each window; NaN where the rule tests none."""
    n, k = (_before(counts, rule.before) for counts in (texts, negative))
    test = (texts >= rule.fewest) & (n >= rule.fewest) & (np.arange(len(texts)) >= rule.before)
    return np.where(test, hypergeom.sf(negative - 1, texts + n, negative + k, texts), np.nan)


def _before(counts: np.ndarray, windows: int) -> np.ndarray:
    """Sum of the windows that precede each, or of as many as there are."""
    total = np.concatenate([np.zeros((*counts.shape[:-1], 1), counts.dtype), np.cumsum(counts, -1)], -1)
    end = np.arange(counts.shape[-1])
    return total[..., end] - total[..., np.maximum(end - windows, 0)]


def judged(counts: Mapping[str, Counts], rule: Rule) -> list[Window]:
    """Every window of every topic, with what the rule says of it."""
    p = {topic: p_values(one.texts, one.negative, rule) for topic, one in counts.items()}
    limit = _limit(p, rule)
    found = []
    for topic, one in counts.items():
        base = _before(one.negative, rule.before) / np.maximum(_before(one.texts, rule.before), 1)
        for i, start in enumerate(one.start):
            value, share = (None, None) if np.isnan(p[topic][i]) else (float(p[topic][i]), float(base[i]))
            surge = value is not None and value <= limit
            found.append(Window(topic, start, int(one.texts[i]), int(one.negative[i]), share, value, surge))
    return found


def false_alarms(counts: Mapping[str, Counts], rule: Rule, *, streams: int = 1000, seed: int = 0) -> float:
    """Share of streams with an alarm, when each topic's negative texts are dealt out at random over all its texts."""
    draw = np.random.default_rng(seed)
    p = {}
    for topic, one in counts.items():
        dealt = draw.multivariate_hypergeometric(one.texts, int(one.negative.sum()), size=streams)
        p[topic] = p_values(one.texts, dealt, rule)
    limit = _limit(p, rule)
    return float(np.any([(values <= limit).any(-1) for values in p.values()], axis=0).mean())


def detected(hit: float, false: float, rule: Rule, *, tests: int, texts: int = 100, base: float = 0.2, risen: float = 0.5) -> float:
    """Share of rises that the rule finds through a classifier's eyes, in 10,000 drawn streams.

    Args:
      hit, false: share of the truly negative texts, and of all others, that the classifier calls negative.
      tests: how many share alpha.
      texts, base, risen: texts of a window, and the true share of negative ones in the windows before and in the one tested.
    """
    draw = np.random.default_rng(0)
    truly = draw.binomial(texts, [base] * rule.before + [risen], size=(10_000, rule.before + 1))
    called = draw.binomial(truly, hit) + draw.binomial(texts - truly, false)
    last = p_values(np.full(rule.before + 1, texts), called, rule)[:, -1]
    return float((last <= rule.alpha / tests).mean())


def _limit(p: Mapping[str, np.ndarray], rule: Rule) -> float:
    tests = sum(int((~np.isnan(np.atleast_2d(values)[0])).sum()) for values in p.values())
    return rule.alpha / max(tests, 1)
