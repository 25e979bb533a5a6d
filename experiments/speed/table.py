"""Writes the table of README.md from results.jsonl, in place; run it after a measurement.

python -m experiments.speed.table
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
HEADINGS = ("what", "machine", "median of repeats", "CPU time", "samples/s", "the official form takes", "lightly takes")
BEGIN, END = "<!-- table.py writes from here -->", "<!-- to here -->"

# What is still to be measured on one GPU: (what, configuration, its changes). A line of results.jsonl on a GPU or TPU takes its place.
WANTED: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("step", "configs/cifar10.py", {"encoder.dtype": "bfloat16"}),
    ("step", "configs/imagenet.py", {"encoder.dtype": "bfloat16", "batch_size": "256"}),
    ("step", "configs/fashion_mnist.py:resnet18", {"encoder.dtype": "bfloat16"}),
    ("step", "configs/imagenet.py", {"batch_size": "256"}),
    ("eval", "configs/imagenet.py", {"encoder.dtype": "bfloat16", "batch_size": "256"}),
)


def read(text: str) -> list[dict[str, Any]]:
    """The lines of a .jsonl."""
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def command(what: str, config: str, changes: dict[str, str]) -> str:
    """What fills a row."""
    flags = [
        "--synthetic",
        *(["--baseline", "--peer lightly"] if what == "step" else []),
        *(f"--config.{key}={value}" for key, value in changes.items()),
    ]
    return f"byol-jax bench {what} --config {config} {' '.join(flags)} --json experiments/speed/results.jsonl"


def table(lines: Sequence[dict[str, Any]], wanted: Iterable[tuple[str, str, dict[str, str]]] = WANTED) -> str:
    """The lines measured, in their order, then what waits for a GPU, in Markdown."""
    rows = [f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|"]
    rows += [_measured(line) for line in lines]
    on_accelerators = [(line["what"], line["config"], line["changes"]) for line in lines if line["device"] != "cpu"]
    for what, config, changes in wanted:
        if (what, config, changes) not in on_accelerators:
            rows.append(f"| {_name(what, config, changes)} | one GPU | waiting: `{command(what, config, changes)}` | | | | |")
    return "\n".join(rows)


def _measured(line: dict[str, Any]) -> str:
    name = f"{_name(line['what'], line['config'], line['changes'])}, batch {line['batch']}"
    on_cpu = line["device"] == "cpu"
    machine = line["machine"] if on_cpu else f"{line['devices']} x {line['device']}"
    digits = 0 if line["median_s"] >= 0.1 else 1
    middle = f"{1e3 * line['median_s']:,.{digits}f} ± {1e3 * line['spread_s']:,.{digits}f} ms of {line['repeats']}"
    cpu = f"{1e3 * next(iter(line['rows'].values()))['median_cpu_s']:,.{digits}f} ms"
    return f"| {name} | {machine} | {middle} | {cpu} | {_rate(line)} | {_ratio(line)} | {_lightly(line)} |"


def _rate(line: dict[str, Any]) -> str:
    """Samples a second, and the share of what the device can do at most, where both are known."""
    share = line.get("share_of_bf16_peak")
    rate = line.get("samples_per_s")
    return ("" if rate is None else f"{rate:,.{0 if rate >= 100 else 1}f}") + ("" if share is None else f", {share:.0%} of the peak")


def _ratio(found: dict[str, Any]) -> str:
    return "" if found["ratio"] is None else f"{found['ratio']:.2f} times as long, {found['cpu_ratio']:.2f} times the CPU time"


def _lightly(line: dict[str, Any]) -> str:
    """Of all of its forms that were measured; lines from before there were any have no peers."""
    found = {name: ratios for name, ratios in line.get("peers", {}).items() if name.startswith("lightly")}
    return "; ".join(f"{name.removeprefix('lightly').removeprefix(', ')} {_ratio(ratios)}".strip() for name, ratios in found.items())


def _name(what: str, config: str, changes: dict[str, str]) -> str:
    shown = [f"{key}={value}" for key, value in changes.items() if key not in ("batch_size", "data.path", "text.tokenizer")]
    return " ".join([what, f"`{Path(config.partition(':')[0]).stem}{config[len(config.partition(':')[0]) :]}`", *shown])


def renewed(page: str, text: str) -> str:
    """The page with the text between its two marks. Raises ValueError for a page without them."""
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"README.md: must hold {BEGIN!r} and {END!r} once each")
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    page = HERE / "README.md"
    lines = read((HERE / "results.jsonl").read_text(encoding="utf-8"))
    page.write_text(renewed(page.read_text(encoding="utf-8"), table(lines)), encoding="utf-8")


if __name__ == "__main__":
    main()
