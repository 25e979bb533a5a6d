"""experiments/sentiment_monitor: what its data are made of, how windows are counted, and which of them the rule calls a surge."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.sentiment_monitor import monitor, prepare, surge

MONDAY = date(2016, 9, 26)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("RT @a_b: I&amp;m  here\nhttp://t.co/1x", "I&m here http"),
        ("cars_Ñ_.no thank @you", "cars.no thank @user"),
        ("Couldn’t be more “proud”… https:", 'Couldn\'t be more "proud"... http'),
    ],
)
def test_a_tweet_is_cleaned(raw: str, text: str) -> None:
    assert prepare.clean(raw) == text


def test_as_many_of_each_sentiment_in_each_topic() -> None:
    many = {("cars", "negative"): 3, ("cars", "neutral"): 1, ("cars", "positive"): 2, ("apple", "neutral"): 4, ("", "positive"): 5}
    rows = [{"text": f"{i}", "label": label, "topic": topic} for (topic, label), count in many.items() for i in range(count)]
    kept = prepare.balanced(rows, random.Random(0))
    assert sorted((row["topic"], row["label"]) for row in kept) == [("cars", label) for label in prepare.SENTIMENTS]


def corpus(folder: Path) -> list[str]:
    lines = ["sentiment,confidence,text"]
    lines += [f"{label},1,my iphone is {label} {i}" for label in prepare.SENTIMENTS for i in range(10)]
    lines += ["negative,,RT @x: My iPhone is negative 3!", "negative,0.4,apple apple", "neutral,1,the weather"]
    (folder / "judged.csv").write_text("\n".join(lines), encoding="latin-1")
    head = ["Time\tLanguage\tAuthor\tContent", "time\tdiscrete\tdiscrete\tstring", "\t\tclass\tmeta"]
    dated = ["2016-02-02 10:00:00\ten\tone\tlater", "2016-01-02 10:00:00\ten\tone\tLater!", "2016-01-01 10:00:00\tes\tone\tnada"]
    (folder / "stream.tab").write_text("\n".join([*head, *dated]))
    return [str(folder / "judged.csv"), str(folder / "stream.tab"), str(folder / "out")]


def test_no_test_tweet_is_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare.main(corpus(tmp_path))
    assert "24 judged tweets to train on, 6 to test" in capsys.readouterr().out
    train, test, dated = (monitor.rows(tmp_path / "out" / f"{name}.jsonl") for name in ("train", "test", "stream"))
    texts = (tmp_path / "out" / "train.txt").read_text().splitlines()
    assert dated == [{"text": "Later!", "time": "2016-01-02 10:00:00", "topic": "one"}]
    assert len(texts) == len(set(texts)) == 24 + 2 + 1  # those two of no use for a label are texts all the same
    assert not {prepare.key(row["text"]) for row in test} & {prepare.key(text) for text in texts}
    assert {row["text"] for row in train} < set(texts)


def test_another_file_is_told(tmp_path: Path) -> None:
    arguments = corpus(tmp_path)
    with pytest.raises(SystemExit, match=r"stream\.tab: has no column confidence, sentiment, text"):
        prepare.main([arguments[1], *arguments[1:]])


@pytest.mark.parametrize(("days", "first"), [(1, MONDAY + timedelta(3)), (7, MONDAY)])
def test_the_window_of_a_thursday(days: int, first: date) -> None:
    assert surge.start_of(MONDAY + timedelta(3), days) == first


def test_windows_and_topics_are_counted() -> None:
    day = [MONDAY, MONDAY + timedelta(6), MONDAY + timedelta(21), MONDAY + timedelta(7)]
    counts = surge.counted(day, ["b", "b", "b", "a"], [True, False, True, True], 7)
    assert list(counts) == ["a", "b"]
    assert counts["b"].start == [MONDAY + timedelta(7 * week) for week in range(4)]
    assert (counts["b"].texts.tolist(), counts["b"].negative.tolist()) == ([2, 0, 0, 1], [1, 0, 0, 1])
    assert (counts["a"].start, counts["a"].texts.tolist()) == ([MONDAY + timedelta(7)], [1])


def test_the_test_by_hand() -> None:
    """All three negative texts of 20 are among the last ten: C(10, 3) / C(20, 3); two of two: C(10, 2) / C(20, 2)."""
    rule = surge.Rule(before=1, fewest=10)
    found = surge.p_values(np.array([10, 10, 10, 9]), np.array([[0, 3, 0, 0], [0, 2, 0, 0]]), rule)
    np.testing.assert_allclose(found[:, 1:3], [[120 / 1140, 1], [45 / 190, 1]])
    assert np.isnan(found[:, [0, 3]]).all()  # nothing before it; too few texts


def test_all_windows_before_are_pooled() -> None:
    texts, negative = np.array([50, 6, 4, 10]), np.array([50, 0, 0, 3])
    assert surge.p_values(texts, negative, surge.Rule(before=2, fewest=10))[3] == pytest.approx(120 / 1140)


def counts_of(negative: Sequence[int], texts: int = 50) -> surge.Counts:
    start = [MONDAY + timedelta(7 * week) for week in range(len(negative))]
    return surge.Counts(start, np.full(len(negative), texts), np.array(negative))


def test_a_planted_surge_is_found_and_a_flat_stream_raises_none() -> None:
    flat, planted = counts_of([10, 11, 9, 10, 12, 8, 10, 10, 9]), counts_of([10, 11, 9, 10, 12, 8, 28, 10, 9])
    found = surge.judged({"flat": flat, "planted": planted}, surge.Rule())
    assert [(window.topic, window.start) for window in found if window.surge] == [("planted", planted.start[6])]
    risen = found[9 + 6]
    assert (risen.negative, risen.texts, risen.base) == (28, 50, pytest.approx(39 / 200))
    assert [window.p_value is None for window in found] == 2 * (4 * [True] + 5 * [False])


def test_the_limit_is_shared_by_all_tests() -> None:
    """p is 120 / 1140 = 0.105; two tests share alpha."""
    one, rule = counts_of([0, 3], 10), surge.Rule(before=1, fewest=10, alpha=0.2)
    assert [window.surge for window in surge.judged({"a": one}, rule)] == [False, True]
    assert not any(window.surge for window in surge.judged({"a": one, "b": one}, rule))


def test_false_alarms_keep_the_bound_and_are_counted() -> None:
    one = counts_of([0, 3], 10)
    exact = 120 / 1140  # all three in the second window: the only outcome that alarms at alpha = 0.2
    found = surge.false_alarms({"a": one}, surge.Rule(before=1, fewest=10, alpha=0.2), streams=20_000)
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000))
    assert surge.false_alarms({"a": one}, surge.Rule(before=1, fewest=10, alpha=0.1)) == 0
    assert surge.false_alarms({"a": counts_of([10] * 30), "b": counts_of([25] * 30)}, surge.Rule()) <= 0.05


def letters(texts: Sequence[str]) -> np.ndarray:
    return np.array([[text.count(letter) for letter in "abc"] for text in texts], np.float32)


def test_what_a_classifier_lets_the_rule_find() -> None:
    rule = surge.Rule()
    sharp, blunt, blind = (surge.detected(*rates, rule, tests=56) for rates in ((1.0, 0.0), (0.7, 0.2), (0.4, 0.4)))
    assert sharp > 0.9 > blunt > 0.2 > blind
    assert blind <= rule.alpha / 56 + 0.002  # nothing to see: false alarms alone
    one_text = surge.Rule(before=1, fewest=1, alpha=0.5)  # surely 0 of 1 before and 1 of 1 now: p = 1 / 2
    assert surge.detected(1.0, 0.0, one_text, tests=1, texts=1, base=0.0, risen=1.0) == 1
    assert surge.detected(1.0, 0.0, one_text, tests=2, texts=1, base=0.0, risen=1.0) == 0


def test_the_measured_classifier() -> None:
    """Two negative tweets of three are seen, and one other of two is called negative."""
    words = {"negative": "a", "neutral": "b", "positive": "c"}
    train = [{"text": word * n, "label": label} for label, word in words.items() for n in range(1, 11)]
    test = [{"text": text, "label": label} for text, label in [("a", "negative"), ("aa", "negative"), ("b", "negative"), ("a", "neutral")]]
    found = monitor.measured(letters, train, [*test, {"text": "c", "label": "positive"}])
    assert (found.hit, found.false, found.result.top1) == (pytest.approx(2 / 3), 0.5, pytest.approx(3 / 5))


@pytest.mark.parametrize(("changes", "said"), [({"before": 0}, "before=0"), ({"days": 0}, "days=0"), ({"alpha": 1.0}, "alpha=1")])
def test_a_rule_out_of_range(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        surge.Rule(**changes)


def test_the_classifier_and_what_the_command_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "flat").mkdir()
    words = {"negative": "a", "neutral": "b", "positive": "c"}
    train = monitor.features(letters, [{"text": word * n, "label": label} for label, word in words.items() for n in (1, 2)])
    classify = monitor.classifier(letters, train, 0.01)
    assert classify(["aa", "c", "bb"]).argmax(1).tolist() == [0, 2, 1]
    stream = [
        {"text": "aa" if i < (24 if week == 5 else 3) else "b", "time": f"{MONDAY + timedelta(7 * week)} 10:00:00", "topic": "x"}
        for week in range(6)
        for i in range(30)
    ]
    windows = monitor.watch(tmp_path, stream, classify, surge.Rule(), {"people": (1.0, 0.0)})
    assert [window.negative for window in windows] == [3, 3, 3, 3, 3, 24]
    out = capsys.readouterr().out
    assert "180 texts, 21.7 % negative; 2 of 6 windows tested" in out
    assert f"{MONDAY + timedelta(35)} x: 24 of 30 negative, 10.0 % before" in out
    assert "\n    aa\n" in out
    assert "as seen by people, would be found in" in out
    monitor.watch(tmp_path / "flat", stream[:150], classify, surge.Rule(), {})
    assert f"no surge; nearest to one: {MONDAY + timedelta(28)} x: 3 of 30 negative, 10.0 % before" in capsys.readouterr().out
    with (tmp_path / "evaluation" / "sentiment.csv").open() as opened:
        table = list(csv.DictReader(opened))
    assert [row["surge"] for row in table] == ["False"] * 5 + ["True"]
    assert (table[0]["base"], table[5]["negative"]) == ("", "24")
    kept = json.loads((tmp_path / "evaluation" / "sentiment.json").read_text())
    assert [one["start"] for one in kept["surges"]] == ["2016-10-31"]
    assert (tmp_path / "evaluation" / "sentiment.png").stat().st_size > 5000


def test_an_option_out_of_range_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--before=0: must be at least 1"):
        monitor.main([str(tmp_path), str(tmp_path), "--before", "0"])
