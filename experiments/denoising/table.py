"""The table and the plot of the translations from translations.jsonl.

python -m experiments.denoising.table
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from experiments.denoising.translations import POINTS, WAYS
from experiments.few_labels.table import Numbers, cell

HERE = Path(__file__).parent
SHARES = sorted({share for share, _ in POINTS})


def read() -> tuple[Numbers, Numbers, list[float]]:
    """By (way, share), in %, of each seed: (retrieval, precision); and retrieval before the broken pairs."""
    lines = [json.loads(line) for line in (HERE / "translations.jsonl").read_text(encoding="utf-8").splitlines()]
    retrieval: Numbers = {}
    precision: Numbers = {}
    for line in sorted(lines, key=lambda line: line["seed"]):
        retrieval.setdefault((line["way"], line["broken"]), []).append(100 * line["retrieval"])
        if line["broken"]:
            precision.setdefault((line["way"], line["broken"]), []).append(100 * line["precision"])
    return retrieval, precision, [100 * value for value in {line["seed"]: line["before"] for line in lines}.values()]


def back(found: Numbers, way: str, share: int) -> str:
    """How much of what broken pairs cost a way brings back, of the means."""
    whole, plain, this = (statistics.mean(found[key]) for key in (("plain", 0), ("plain", share), (way, share)))
    return f"{100 * (this - plain) / (whole - plain):.0f}%"


def table(retrieval: Numbers, precision: Numbers, before: list[float]) -> str:
    rows = [[way, *(cell(retrieval[way, share]) if (way, share) in retrieval else "" for share in SHARES)] for way in WAYS]
    rows += [["of the loss, dropping brings back", "", *(back(retrieval, "dropped", share) for share in SHARES[1:])]]
    rows += [["precision afterwards, dropped", "", *(cell(precision["dropped", share]) for share in SHARES[1:])]]
    rows += [["before", cell(before), *("" for _ in SHARES[1:])]]
    head = ["| |" + "|".join(f" {share}% broken " for share in SHARES) + "|", "|---|" + "---:|" * len(SHARES)]
    return "\n".join([*head, *("| " + " | ".join(row) + " |" for row in rows)])


def draw(found: Numbers, path: Path) -> None:
    """Means against the share, one dot a seed."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for color, way in zip(("tab:red", "tab:blue", "tab:green", "tab:gray"), WAYS, strict=True):
        shares = [share for share in SHARES if (way, share) in found]
        ax.plot(shares, [statistics.mean(found[way, share]) for share in shares], "-", color=color, label=way)
        for share in shares:
            ax.plot([share] * len(found[way, share]), found[way, share], "o", color=color, alpha=0.5, markeredgewidth=0)
    ax.set(xlabel="pairs broken, %", ylabel="translation found, %", xticks=SHARES)
    ax.grid(alpha=0.3)
    ax.legend()
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    found, hits, at_first = read()
    print(table(found, hits, at_first))
    draw(found, HERE / "translations.png")
