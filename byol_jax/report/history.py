"""What a run wrote about itself: metrics.jsonl, evaluation/*.json, config.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

# Headline numbers: metric, heading, format. The last value of each that the run has is shown on top of the page.
HEADLINES = (
    ("step", "steps", "{:,.0f}"),
    ("loss", "loss (0 to 8)", "{:.3f}"),
    ("knn_top1", "k-NN top-1", "{:.1%}"),
    ("probe_top1", "probe top-1", "{:.1%}"),
    ("embedding_std", "embedding std (0 to 1)", "{:.2f}"),
    ("rankme", "RankMe", "{:.0f}"),
    ("examples_per_second", "examples/s", "{:,.0f}"),
)
FIRST = ("fewlabels",)  # of the evaluations
RENAMED = {"images_per_second": "examples_per_second"}  # what older runs wrote


@dataclass(frozen=True)
class Curve:
    """One metric over the run: steps int64 [n], values float64 [n], in the order of the steps."""

    steps: np.ndarray
    values: np.ndarray


def read_metrics(workdir: Any) -> dict[str, Curve]:
    """The curves in ``metrics.jsonl``: a JSON object a line, "step" and any metrics.

    A last line cut short by a kill is left out, as are nulls (numbers that were not finite). Of a step written twice the later line counts.

    Raises:
      ValueError: there is no such file, or a line other than the last is not JSON; the message names it.
    """
    path = workdir / "metrics.jsonl"
    if not path.is_file():
        raise ValueError(f"report: {path} does not exist; is {workdir} the workdir of a run?")
    found: dict[str, dict[int, float]] = {}
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines):
                break
            raise ValueError(f"report: line {number} of {path} is not JSON: {line[:60]!r}") from None
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                found.setdefault(RENAMED.get(name, name), {})[int(record["step"])] = float(value)
    return {name: _curve(points) for name, points in found.items()}


def _curve(points: dict[int, float]) -> Curve:
    steps = sorted(points)
    return Curve(np.array(steps, np.int64), np.array([points[s] for s in steps], np.float64))


def headlines(curves: dict[str, Curve]) -> list[tuple[str, str]]:
    """(heading, last value) of each headline number that the run has."""
    last = {name: float(curve.values[-1]) for name, curve in curves.items()}
    if curves:  # the loss of step 0 is the first update's; what is evaluated at step 1 came after it
        last["step"] = max(int(curve.steps[-1]) + (name == "loss") for name, curve in curves.items())
    return [(heading, form.format(last[name])) for name, heading, form in HEADLINES if name in last]


def read_evaluations(workdir: Any) -> list[dict[str, Any]]:
    """The tables that ``evaluate.save`` left, few labels first: name, title, headings, rows, text_columns."""
    files = sorted((workdir / "evaluation").glob("*.json"), key=lambda path: (path.stem not in FIRST, path.stem))
    tables = [{"name": path.stem, **json.loads(path.read_text(encoding="utf-8"))} for path in files]
    return [table for table in tables if {"title", "headings", "rows", "text_columns"} <= table.keys()]


def read_config(workdir: Any) -> str | None:
    """config.json, indented; None if the run has none (a notebook's)."""
    path = workdir / "config.json"
    return json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=2) if path.is_file() else None
