"""Puts what `byol-jax evaluate fewlabels` found for a run into results.jsonl, one line for each number of the README's table.

python -m experiments.fashion_mnist.collect --workdir runs/fashion --output experiments/fashion_mnist/results.jsonl
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def lines(workdir: Path) -> Iterator[dict[str, Any]]:
    """One dict for each features, protocol and number of labels a class (0 is all of them)."""
    config = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    found = json.loads((workdir / "evaluation" / "fewlabels.json").read_text(encoding="utf-8"))["result"]
    for what, protocols in found["accuracy"].items():
        for protocol, by_labels in protocols.items():
            for labels, draws in by_labels.items():
                yield {
                    "what": what,
                    "protocol": protocol,
                    "labels_per_class": int(labels) or "all",
                    "test_top1": round(statistics.mean(draws), 4),
                    "spread": round(statistics.stdev(draws), 4) if len(draws) > 1 else 0.0,
                    "draws": len(draws),
                    "seed": config["seed"],
                    "epochs": config["epochs"],
                }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="lines are appended")
    args = parser.parse_args()
    with args.output.open("a", encoding="utf-8") as file:
        for line in lines(args.workdir):
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
