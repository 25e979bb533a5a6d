"""The page of a search: its trials, the best first, the command that trains with the best values, and a plot of what was tried."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from byol_jax.report.plots import COLOURS, STYLE
from byol_jax.report.sweep import WORDS, table

Search = Any  # byol_jax.config.search.Search; a report knows no configuration, it reads the fields
Row = Mapping[str, Any]
Rows = Sequence[Row]
ORDER = ("complete", "pruned", "diverged", "failed")
KNN = "k-NN top-1 %"
HELD_OUT = ("data.split", "data.labelled_split", "data.test_split", "data.test_path")  # keys that keep images back to judge by
MARKS = {"complete": ("o", COLOURS[0]), "pruned": ("x", COLOURS[3])}


def write_page(study: Search, rows: Rows, folder: Path) -> Path:
    """Writes ``results.md`` and, where something was measured, ``results.png``; returns the page's path."""
    ranked = sorted(rows, key=_rank)
    lines = [
        f"# {study.title}",
        "",
        f"{study.config}, {len(rows)} of {study.trials} trials; generated from results.jsonl.",
        _judged(study),
        "",
    ]
    lines += table(
        ["trial", *study.space, "", _metric(study), f"{KNN} while it ran"],
        [
            [str(row["trial"]), *(_text(row["values"][key]) for key in study.space), state(row), _percent(row.get("value")), _course(row)]
            for row in ranked
        ],
    )
    if ranked and ranked[0]["state"] == "complete":
        lines += ["", "The best values, on all training images:", "", "```bash", command(study, ranked[0]["values"]), "```"]
        lines += ["", "The best of many trials is flattered by the choice: measure it once more, on the test images."]
    if any(row["knn"] for row in rows):
        picture(study, rows).savefig(folder / "results.png", dpi=110)
        lines += ["", "![The trials](results.png)"]
    page = folder / "results.md"
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return page


def state(row: Row) -> str:
    """How a trial ended, in words."""
    if row["state"] == "pruned":
        return f"pruned at epoch {row['epoch']:.4g}"
    why = row.get("why", "").splitlines()
    return " ".join([row["state"], *(f"({line.strip()})" for line in why[-1:])]).replace("|", "/")


def command(study: Search, values: Mapping[str, Any]) -> str:
    """What trains with these values: the changes of the search too, but for those that hold images out."""
    kept = {key: value for key, value in study.changes.items() if key not in HELD_OUT}
    flags = [f"--config.{key}={value}" for key, value in {**kept, **values}.items()]
    return shlex.join(["byol-jax", "pretrain", "--config", study.config, *flags, "--workdir", "runs/best"])


def _metric(study: Search) -> str:
    """k and the number of neighbours of a run's own k-NN are the configuration's."""
    return KNN if study.metric == "knn" else WORDS[study.metric]


def _judged(study: Search) -> str:
    images = {key: study.changes[key] for key in HELD_OUT if key in study.changes}
    told = ", ".join(f"`{key} = {value!r}`" for key, value in images.items()) or "as the configuration holds them out"
    return f"Judged on training images that were held out ({told}), never on the test set."


def _rank(row: Row) -> tuple[Any, ...]:
    """The best first; of those that were pruned the one that came furthest, then the one that was best there."""
    last = row["knn"][-1] if row["knn"] else (0, 0.0)
    return ORDER.index(row["state"]), -row.get("value", 0.0), -last[0], -last[1], row["trial"]


def _course(row: Row) -> str:
    """The last evaluations of a run."""
    shown = [_percent(accuracy) for _, accuracy in row["knn"]]
    return " ".join(["...", *shown[-4:]] if len(shown) > 5 else shown)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def picture(study: Search, rows: Rows) -> Figure:
    """The accuracies in the order of the trials with the best so far, and over each key's values."""
    with matplotlib.rc_context(STYLE):
        columns = min(1 + len(study.space), 4)
        lines = -(-(1 + len(study.space)) // columns)
        figure = Figure(figsize=(4.2 * columns, 3.4 * lines), layout="constrained")
        axes = [figure.add_subplot(lines, columns, i + 1) for i in range(1 + len(study.space))]
        _over_time(axes[0], rows)
        axes[0].set_title(study.title)
        for panel, (key, space) in zip(axes[1:], study.space.items(), strict=True):
            _over(panel, key, space, rows)
        for panel in axes:
            panel.set_ylabel(
                _metric(study) if study.metric == "knn" else _metric(study).replace(", ", ",\n") + "\n(pruned: k-NN)", fontsize=8
            )
        return figure


def _over_time(axes: Axes, rows: Rows) -> None:
    _dots(axes, [(row["trial"], row) for row in rows])
    done = sorted((row["trial"], 100 * row["value"]) for row in rows if row["state"] == "complete")
    best = [max(value for _, value in done[: i + 1]) for i in range(len(done))]
    axes.step([number for number, _ in done], best, where="post", color=COLOURS[2], label="best so far")
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8)


def _over(axes: Axes, key: str, space: Any, rows: Rows) -> None:
    options = getattr(space, "options", None)
    if options is not None:
        axes.set_xticks(range(len(options)), [_text(option) for option in options])
        _dots(axes, [(space.texts().index(space.text(row["values"][key])), row) for row in rows])
        axes.set_xlim(-0.5, len(options) - 0.5)
    else:
        _dots(axes, [(row["values"][key], row) for row in rows])
        axes.set_xscale("log" if space.log else "linear")
        margin = (space.high / space.low) ** 0.04 if space.log else 0.04 * (space.high - space.low)
        axes.set_xlim(*((space.low / margin, space.high * margin) if space.log else (space.low - margin, space.high + margin)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(key)


def _dots(axes: Axes, points: Sequence[tuple[float, Row]]) -> None:
    for kind, (mark, colour) in MARKS.items():
        shown = [
            (x, 100 * row.get("value", row["knn"][-1][1] if row["knn"] else 0)) for x, row in points if row["state"] == kind and row["knn"]
        ]
        axes.plot([x for x, _ in shown], [y for _, y in shown], mark, color=colour, markersize=5, label=kind)
