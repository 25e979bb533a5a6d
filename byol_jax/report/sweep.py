"""The page of a sweep: a table of the paper's numbers beside ours, and a plot of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from byol_jax.report.plots import COLOURS, STYLE

Sweep = Any  # byol_jax.config.sweep.Sweep; a report knows no configuration, it reads the fields
Rows = Sequence[Mapping[str, Any]]
PAGE = "results.md"
NOT_RUN = "not run yet"
SIGNS = {"loss": "last loss", "rankme": "RankMe"}
COLLAPSE = (
    "last loss: of the last batch that was logged. Without negatives (beta 0) and with l2 normalisation it lies between 0 and 8; "
    "near 0 all images have the same projection: collapse. RankMe: effective rank of the features."
)
WORDS = {
    "knn": "k-NN top-1 %, k = 20",
    "linear": "linear top-1 %, all labels",
    "linear_10": "linear top-1 %, 10 labels a class",
    "linear_sgd": "linear top-1 %, the paper's SGD protocol",
}


def write_page(study: Sweep, rows: Rows, folder: Path) -> Path:
    """Writes ``results.md`` and, where something was measured, ``results.png``; returns the page's path."""
    scales = list(study.scales)
    about = f"Paper: {study.source}. Generated from results.jsonl; mean ± standard deviation over seeds (divisor: their number)."
    lines = [f"# {study.title}", "", about, ""]
    measured = [scale for scale in scales if any(row["scale"] == scale for row in rows)]
    signs = [(scale, sign) for scale in measured for sign in SIGNS]
    headings = ["", "paper, top-1 %", *(f"{s}: {WORDS[study.metrics[s]]}" for s in scales), *(f"{s}: {SIGNS[sign]}" for s, sign in signs)]
    lines += table(headings, [_row(study, rows, point, signs) for point in study.points])
    lines += ["", *(f"- {scale}: {study.scales[scale].about}" for scale in scales if study.scales[scale].about)]
    lines += ["- " + COLLAPSE] if signs else []
    if measured:
        picture(study, rows, measured).savefig(folder / "results.png", dpi=110)
        lines += ["", "![The accuracies of the table](results.png)"]
    page = folder / PAGE
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return page


def values(rows: Rows, scale: str, point: str, metric: str) -> list[float]:
    """What the seeds of a point gave; a diverged run gives nothing."""
    own = [row for row in rows if (row["scale"], row["point"]) == (scale, point)]
    return [row["metrics"][metric] for row in own if metric in row.get("metrics", {})]


def cell(study: Sweep, rows: Rows, scale: str, point: str) -> str:
    """Mean ± spread in per cent, with what is to be known: not run, diverged."""
    if point not in [p.name for p in study.at(scale)]:
        return "not at this scale"
    found = values(rows, scale, point, study.metrics[scale])
    diverged = sum("diverged" in row for row in rows if (row["scale"], row["point"]) == (scale, point))
    text = NOT_RUN if not found and not diverged else ""
    if found:
        text = f"{100 * np.mean(found):.1f}" + (f" ± {100 * np.std(found):.1f}" if len(found) > 1 else " (one seed)")
    return text + (f" {diverged} diverged" if diverged else "")


def _row(study: Sweep, rows: Rows, point: Any, signs: Sequence[tuple[str, str]]) -> list[str]:
    shown = [values(rows, scale, point.name, sign) for scale, sign in signs]
    return [
        point.name,
        point.paper,
        *(cell(study, rows, scale, point.name) for scale in study.scales),
        *(f"{np.mean(found):.2f}" if found else "" for found in shown),
    ]


def table(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """In Markdown, a list of lines."""
    return [f"| {' | '.join(row)} |" for row in [headings, ["---"] * len(headings), *cells]]


def picture(study: Sweep, rows: Rows, scales: Sequence[str]) -> Figure:
    """A panel for each measured scale: a bar a point, a dot a seed."""
    with matplotlib.rc_context(STYLE):
        height = 1.2 + 0.32 * len(study.points)
        figure = Figure(figsize=(5.2 * len(scales), height), layout="constrained")
        for i, scale in enumerate(scales):
            axes = figure.add_subplot(1, len(scales), i + 1)
            names = [point.name for point in study.at(scale)]
            for y, name in enumerate(names):
                found = [100 * value for value in values(rows, scale, name, study.metrics[scale])]
                if found:
                    axes.barh(y, np.mean(found), color=COLOURS[0], alpha=0.6)
                    axes.plot(found, [y] * len(found), "o", color=COLOURS[2], markersize=3.5)
            axes.set_yticks(range(len(names)), names)
            axes.invert_yaxis()
            axes.grid(axis="y", visible=False)
            axes.set_xlabel(WORDS[study.metrics[scale]])
            axes.set_title(f"{study.title}, {scale}")
        return figure
