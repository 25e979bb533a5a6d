"""One table and one plot of what `byol-jax compress` wrote for several seeds.

    python -m experiments.compression.table NAME=DIR[,DIR...] ...

NAME is a group of rows, such as ``digits``; each DIR was a --to, one a seed. Writes results.jsonl, results.md and results.png beside this
file; accuracies are mean and standard deviation over the seeds, sizes and times medians, times of the processor too.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ORIGINAL = "original"


def measured(argv: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A line for each level of each seed."""
    for word in argv:
        name, _, folders = word.partition("=")
        for seed, folder in enumerate(folders.split(",")):
            levels = json.loads((Path(folder) / "evaluation" / "compress.json").read_text(encoding="utf-8"))["result"]["levels"]
            for level, row in levels.items():
                first = levels[ORIGINAL]
                ratios = {"size": row["bytes"] / first["bytes"], "faster": first["processor"] / row["processor"]}
                lost = {f"{kind}_lost": first[kind] - row[kind] for kind in ("knn", "linear")}
                yield {"run": name, "seed": seed, "level": level, **row, **ratios, **lost}


def summary(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for each level: mean and standard deviation of accuracies over the seeds, medians of the rest."""
    found = []
    for key in dict.fromkeys((line["run"], line["level"]) for line in lines):
        same = [line for line in lines if (line["run"], line["level"]) == key]
        row: dict[str, Any] = {"run": key[0], "level": key[1], "seeds": len(same)}
        for name in ("knn", "linear", "knn_lost", "linear_lost"):
            values = [100 * line[name] for line in same]
            row[name] = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
        for name in ("bytes", "size", "parameters", "latency", "processor", "faster"):
            row[name] = statistics.median(line[name] for line in same)
        found.append(row)
    return found


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    heads = ("", "level", "k-NN %", "linear %", "kB", "of it", "parameters", "ms, 1", "CPU ms, 64", "faster")
    lines = ["| " + " | ".join(heads) + " |", "|---|---|" + "---:|" * (len(heads) - 2)]
    for row in rows:
        accuracies = [
            f"{mean:.1f}" + (f" ± {deviation:.1f}" if row["seeds"] > 1 else "") for mean, deviation in (row["knn"], row["linear"])
        ]
        size = [f"{row['bytes'] / 1000:,.0f}", f"{row['size']:.2f}", f"{row['parameters']:,.0f}"]
        speed = [f"{1000 * row['latency']:.2f}", f"{1000 * row['processor']:.2f}", f"{row['faster']:.2f}"]
        lines.append("| " + " | ".join([row["run"], row["level"], *accuracies, *size, *speed]) + " |")
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Points of accuracy lost against size: the lower left corner is where one wants to be."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D

    colours = dict(zip(dict.fromkeys(row["run"] for row in rows), ("C0", "C1", "C2", "C3", "C4"), strict=False))
    markers = dict(zip(dict.fromkeys(row["level"] for row in rows if row["level"] != ORIGINAL), "osDv^<>P", strict=False))
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for axis, (name, label) in zip(
        axes, (("size", "size on disk, of the original's"), ("faster", "times as fast as the original")), strict=True
    ):
        for row in rows:
            if row["level"] != ORIGINAL:  # nothing lost, size and speed 1
                lost, error = row["linear_lost"]
                marker, colour = markers[row["level"]], colours[row["run"]]
                axis.errorbar(row[name], lost, error, fmt=marker, color=colour, markersize=7, alpha=0.8, elinewidth=1, capsize=2)
        axis.plot(1, 0, "x", color="gray")
        axis.set(xlabel=label, ylabel="points of linear accuracy lost")
        axis.axhline(0, color="gray", linewidth=0.5)
    names = [Line2D([], [], color=colour, linewidth=4, label=run) for run, colour in colours.items()]
    names += [Line2D([], [], color="black", marker=marker, linestyle="", label=level) for level, marker in markers.items()]
    names.append(Line2D([], [], color="gray", marker="x", linestyle="", label=ORIGINAL))
    figure.legend(handles=names, fontsize=8, loc="outside right upper")
    figure.savefig(path, dpi=120)


def main(argv: Sequence[str]) -> None:
    if not argv:
        sys.exit(__doc__)
    lines = list(measured(argv))
    (HERE / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    rows = summary(lines)
    (HERE / "results.md").write_text(markdown(rows), encoding="utf-8")
    plot(rows, HERE / "results.png")
    print(markdown(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
