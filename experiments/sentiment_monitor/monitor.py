"""Watches the mood of a stream of tweets: a linear classifier on frozen embeddings, counts by week and author, and surges of the negative.

    python -m experiments.sentiment_monitor.monitor runs/tweets runs/data/tweets

Measures the classifier on judged tweets beside the same encoder untrained and TF-IDF; classifies the stream by BYOL's; tests each window
by the rule that surge.py states, and says how often that rule is wrong and what it would find; writes evaluation/sentiment.csv (every
window), sentiment.png and sentiment.json into the run.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import jax
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from byol_jax import build
from byol_jax.evaluate import Embed, Features, LinearResult, TfIdf, compared, linear_features, save
from byol_jax.evaluate.baselines import WORDS
from byol_jax.evaluate.embedded import embedded
from byol_jax.evaluate.linear import fit, logits_of
from byol_jax.evaluate.scaling import standardised
from byol_jax.report.plots import COLOURS, SAME, STYLE
from experiments.sentiment_monitor import surge
from experiments.sentiment_monitor.prepare import SENTIMENTS

PENALTIES = tuple(float(value) for value in np.logspace(-1, 3, 5))
NEGATIVE = SENTIMENTS.index("negative")
SHOWN = 3  # texts of a surge

Row = dict[str, str]
Classify = Callable[[Sequence[str]], np.ndarray]
"""N texts -> probabilities [N, 3] of the sentiments."""


def rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def features(embed: Embed, judged: Sequence[Row]) -> Features:
    label = np.array([SENTIMENTS.index(row["label"]) for row in judged], np.int32)
    return Features(embedded(embed, [row["text"] for row in judged]), label, weighted=isinstance(embed, TfIdf))


def classifier(embed: Embed, train: Features, l2: float) -> Classify:
    """Logistic regression on embeddings, as ``linear_features`` measures it."""
    learned = fit(standardised(train, train)[0], l2, len(SENTIMENTS))

    def classify(texts: Sequence[str]) -> np.ndarray:
        found = Features(embedded(embed, texts), np.full(len(texts), -1, np.int32))
        return np.asarray(jax.nn.softmax(logits_of(learned, standardised(train, found)[0].embedding)))

    return classify


@dataclass(frozen=True)
class Measured:
    """A classifier, how good it is, and the shares of the negative tweets (``hit``) and of the others (``false``) it calls negative."""

    classify: Classify
    result: LinearResult
    hit: float
    false: float


def measured(embed: Embed, train: Sequence[Row], test: Sequence[Row]) -> Measured:
    own, judged = features(embed, train), features(embed, test)
    result = linear_features(own, judged, l2=PENALTIES)
    classify = classifier(embed, own, result.choice)
    called = classify([row["text"] for row in test]).argmax(1) == NEGATIVE
    return Measured(classify, result, float(called[judged.label == NEGATIVE].mean()), float(called[judged.label != NEGATIVE].mean()))


def measure(workdir: Path, data: Path) -> dict[str, Measured]:
    """Prints accuracy and macro F1 of BYOL, of the same encoder before it, and of TF-IDF."""
    train, test = rows(data / "train.jsonl"), rows(data / "test.jsonl")
    words = TfIdf((data / "train.txt").read_text(encoding="utf-8").splitlines(), max_features=WORDS)
    embeds: dict[str, Embed] = {**build.sentence_encoders(workdir), "TF-IDF": words}
    found = {name: measured(embed, train, test) for name, embed in embeds.items()}
    result = compared(found["BYOL"].result.rows()[0], {name: one.result for name, one in found.items()})
    print(result.table())
    save(workdir, "sentiment_classifier", result)
    return found


def watch(
    workdir: Path, stream: Sequence[Row], classify: Classify, rule: surge.Rule, rates: Mapping[str, tuple[float, float]]
) -> list[surge.Window]:
    """Classifies the stream, prints its surges with their most negative texts, and writes table and plot.

    Args:
      rates: by name of a classifier what ``surge.detected`` takes, ``hit`` and ``false``.
    """
    probability = classify([row["text"] for row in stream])
    negative = probability.argmax(1) == NEGATIVE
    day = [datetime.fromisoformat(row["time"]).date() for row in stream]
    counts = surge.counted(day, [row["topic"] for row in stream], negative.tolist(), rule.days)
    windows = surge.judged(counts, rule)
    tested = [window for window in windows if window.p_value is not None]
    alarms = surge.false_alarms(counts, rule)
    power = {name: surge.detected(*both, rule, tests=max(len(tested), 1)) for name, both in rates.items()}
    print(f"\n{len(stream):,} texts, {100 * negative.mean():.1f} % negative; {len(tested)} of {len(windows)} windows tested", end="")
    print(f", a surge at p of {rule.alpha / max(len(tested), 1):.1e} or less")
    print(f"Had nothing changed, {100 * alarms:.1f} % of such streams would raise an alarm (bound: {100 * rule.alpha:g} %)")
    for name, share in power.items():
        print(f"A rise from 20 to 50 negative texts in 100, as seen by {name}, would be found in {100 * share:.1f} % of cases")
    surges = [window for window in tested if window.surge]
    for window in surges:
        print(f"\n{told(window)}", *worst(stream, day, probability, window, rule), sep="\n    ")
    if tested and not surges:
        print(f"\nno surge; nearest to one: {told(min(tested, key=lambda window: window.p_value or 0))}")
    out = workdir / "evaluation"
    out.mkdir(exist_ok=True)
    table(out / "sentiment.csv", windows)
    plot(windows, rule).savefig(out / "sentiment.png", dpi=150)
    kept = {"rule": dataclasses.asdict(rule), "tests": len(tested), "false_alarms": alarms, "detected": power}
    kept["surges"] = [dataclasses.asdict(window) for window in surges]
    (out / "sentiment.json").write_text(json.dumps(kept, indent=1, default=str) + "\n", encoding="utf-8")
    return windows


def told(window: surge.Window) -> str:
    """A window that was tested, in a line."""
    share = f"{window.negative} of {window.texts} negative, {100 * (window.base or 0):.1f} % before"
    return f"{window.start} {window.topic}: {share} (p = {window.p_value:.1e})"


def worst(stream: Sequence[Row], day: Sequence[date], probability: np.ndarray, window: surge.Window, rule: surge.Rule) -> list[str]:
    """The texts of a window that are most surely negative, the surest first."""
    inside = [i for i, row in enumerate(stream) if row["topic"] == window.topic and surge.start_of(day[i], rule.days) == window.start]
    inside.sort(key=lambda i: -float(probability[i, NEGATIVE]))
    return [stream[i]["text"] for i in inside[:SHOWN]]


def table(path: Path, windows: Sequence[surge.Window]) -> None:
    with path.open("w", encoding="utf-8", newline="") as opened:
        names = [field.name for field in dataclasses.fields(surge.Window)]
        writer = csv.DictWriter(opened, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(dataclasses.asdict(window) for window in windows)


def plot(windows: Sequence[surge.Window], rule: surge.Rule) -> Figure:
    """A panel a topic: the negative share of each window, that before it, and the surges."""
    topics = sorted({window.topic for window in windows})
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 2.9 * len(topics)), layout="constrained")
        for ax, topic in zip(figure.subplots(len(topics), sharex=True, squeeze=False)[:, 0], topics, strict=True):
            shown = [window for window in windows if window.topic == topic and window.texts]
            share = [window.negative / window.texts for window in shown]
            start = [window.start for window in shown]
            ax.plot(start, share, color=SAME, marker="o", markersize=3.5, label="negative share")
            base = [float("nan") if window.base is None else window.base for window in shown]
            ax.plot(start, base, color=COLOURS[3], linestyle="--", label=f"share in the {rule.before} windows before")
            risen = [(at, value) for at, value, window in zip(start, share, shown, strict=True) if window.surge]
            ax.plot(*np.array(risen, object).reshape(-1, 2).T, "^", color=COLOURS[2], markersize=9, label="surge")
            ax.set(title=topic, ylabel="negative texts", ylim=(0, 1.25 * max(share, default=1) or 1))
            ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            ax.legend(loc="upper left", ncols=3, fontsize=9)
        ax.set_xlabel(f"window of {rule.days} days, by its first day")
        figure.autofmt_xdate()
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--days", type=int, default=7, help="of a window")
    parser.add_argument("--before", type=int, default=4, help="windows that one is set against")
    parser.add_argument("--alpha", type=float, default=0.05, help="largest chance of any false alarm")
    args = parser.parse_args(arguments)
    try:
        rule = surge.Rule(args.days, args.before, alpha=args.alpha)
    except ValueError as error:
        raise SystemExit(f"--{error}") from None
    found = measure(args.workdir, args.data)
    rates = {name: (one.hit, one.false) for name, one in found.items()}
    watch(args.workdir, rows(args.data / "stream.jsonl"), found["BYOL"].classify, rule, {**rates, "people": (1.0, 0.0)})


if __name__ == "__main__":
    main()
