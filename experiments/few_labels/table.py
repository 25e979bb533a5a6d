"""The table and the plot of the README from results.jsonl.

python -m experiments.few_labels.table
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from experiments.few_labels.study import SHARES

HERE = Path(__file__).parent
WAYS = ("labels alone", "BYOL, probe", "BYOL, fine-tuned", "joint, its own head", "joint, a probe on it")
Numbers = dict[tuple[str, int], list[float]]


def read() -> Numbers:
    """Test accuracy in % of each (way, share), by seed."""
    lines = [json.loads(line) for line in (HERE / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    found: Numbers = {}
    for line in sorted(lines, key=lambda line: line["seed"]):
        found.setdefault((line["what"], line["share"]), []).append(100 * line["test_top1"])
    return found


def cell(values: list[float]) -> str:
    """Mean ± standard deviation."""
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def table(found: Numbers) -> str:
    rows = [f"| {way} | " + " | ".join(cell(found[way, share]) for share in SHARES) + " |" for way in WAYS]
    return "\n".join(["| | " + " | ".join(f"{share}% of the labels" for share in SHARES) + " |", "|---|---|---|", *rows])


def draw(found: Numbers, path: Path) -> None:
    """One dot a seed."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(SHARES), figsize=(9, 2.6), layout="constrained", sharey=True)
    for ax, share in zip(axes, SHARES, strict=True):
        for row, way in enumerate(reversed(WAYS)):
            values = found[way, share]
            ax.plot(values, [row] * len(values), "o", color="tab:blue", alpha=0.6, markeredgewidth=0)
            ax.plot([statistics.mean(values)], [row], "|", color="black", markersize=14)
        ax.set(title=f"{share}% of the labels", xlabel="test accuracy, %", yticks=range(len(WAYS)), yticklabels=list(reversed(WAYS)))
        ax.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    numbers = read()
    print(table(numbers))
    draw(numbers, HERE / "accuracy.png")
