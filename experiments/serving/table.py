"""Writes the table of README.md and load.png from results.jsonl; run it after a measurement.

python -m experiments.serving.table
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

HERE = Path(__file__).parent
BEGIN, END = "<!-- table.py writes from here -->", "<!-- to here -->"
HEADINGS = ("", "examples/s", "p50 ms", "p99 ms", "CPU ms an example", "rows a call")
NAMES = {"served": "served", "one_by_one": "served, `--sizes 1`"}


def rows(line: dict[str, Any]) -> list[tuple[str, ...]]:
    """Of one measurement: directly, then by callers."""
    found = [(f"directly, {size} at a time", *_cells(told), size) for size, told in line["directly"].items()]
    for key, name in NAMES.items():
        found += [
            (f"{name}, {callers} caller{'s' * (callers != '1')}", *_cells(told), f"{told['rows_per_call']:.1f}")
            for callers, told in line[key].items()
        ]
    return found


def _cells(told: dict[str, float]) -> tuple[str, ...]:
    return f"{told['per_s']:,.0f}", f"{told['p50_ms']:.1f}", f"{told['p99_ms']:.1f}", f"{told['cpu_ms']:.2f}"


def table(lines: list[dict[str, Any]]) -> str:
    parts = []
    for line in lines:
        parts.append(f"**{line['run']}**: {line['kind']}, {line['dimensions']} numbers each; {line['machine']}\n")
        parts += [f"| {' | '.join(cells)} |" for cells in (HEADINGS, ("---", *["--:"] * (len(HEADINGS) - 1)), *rows(line))]
        parts.append("")
    return "\n".join(parts)


def plot(lines: list[dict[str, Any]], path: Path) -> None:
    """Throughput and latency by callers, a column a run."""
    figure, axes = plt.subplots(2, len(lines), figsize=(4.6 * len(lines), 6), sharex=True, squeeze=False, layout="constrained")
    for (rate, latency), line in zip(axes.T, lines, strict=True):
        for (key, name), colour in zip(NAMES.items(), ("C0", "C1"), strict=True):
            callers = [int(count) for count in line[key]]
            told = list(line[key].values())
            rate.plot(callers, [one["per_s"] for one in told], "o-", color=colour, label=name.replace("`", ""))
            latency.plot(callers, [one["p50_ms"] for one in told], "o-", color=colour, label=f"p50, {name}".replace("`", ""))
            latency.plot(callers, [one["p99_ms"] for one in told], "o:", color=colour, label=f"p99, {name}".replace("`", ""))
        for (size, told), style in zip(line["directly"].items(), ("--", ":"), strict=True):
            rate.axhline(told["per_s"], color="gray", linestyle=style, label=f"directly, {size} at a time")
        rate.set(title=f"{line['run']} ({line['kind']})", xscale="log", ylabel="examples/s", ylim=(0, None))
        latency.set(xlabel="callers", yscale="log", ylabel="ms", xticks=callers, xticklabels=callers)
        latency.minorticks_off()
        rate.legend(fontsize=8)
        latency.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    lines = [json.loads(line) for line in (HERE / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    page = HERE / "README.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{table(lines)}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    plot(lines, HERE / "load.png")


if __name__ == "__main__":
    main()
