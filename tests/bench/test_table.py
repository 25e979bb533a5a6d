"""The table of experiments/speed, from rows written by hand, and the page's own."""

from __future__ import annotations

import pytest

from experiments.speed import table

CPU = {
    "what": "step",
    "config": "configs/cifar10.py:small",
    "changes": {"batch_size": "64"},
    "batch": 64,
    "device": "cpu",
    "devices": 1,
    "machine": "Abacus, 1 of 2 cores",
    "repeats": 5,
    "median_s": 1.25,
    "spread_s": 0.0514,
    "samples_per_s": 51.2,
    "rows": {"step": {"median_cpu_s": 1.0}, "update, alone": {"median_cpu_s": 0.1}},
    "ratio": 1.234,
    "cpu_ratio": 0.967,
}
WANTED = (("step", "configs/imagenet.py", {"batch_size": "256"}), ("eval", "configs/imagenet.py", {}))


def test_a_row_of_a_cpu_and_two_that_wait() -> None:
    assert table.table([CPU], WANTED).splitlines()[2:] == [
        "| step `cifar10:small`, batch 64 | Abacus, 1 of 2 cores "
        "| 1,250 ± 51 ms of 5 | 1,000 ms | 51.2 | 1.23 times as long, 0.97 times the CPU time |  |",
        "| step `imagenet` | one GPU | waiting: `byol-jax bench step --config configs/imagenet.py --synthetic --baseline --peer lightly "
        "--config.batch_size=256 --json experiments/speed/results.jsonl` | | | | |",
        "| eval `imagenet` | one GPU | waiting: `byol-jax bench eval --config configs/imagenet.py --synthetic "
        "--json experiments/speed/results.jsonl` | | | | |",
    ]


def test_a_row_of_a_gpu_takes_the_place_of_the_one_that_waited() -> None:
    measured = {**CPU, "config": "configs/imagenet.py", "changes": {"batch_size": "256"}, "device": "NVIDIA H100", "ratio": None}
    measured |= {"samples_per_s": 3210.4, "share_of_bf16_peak": 0.213}
    rows = table.table([measured], WANTED).splitlines()[2:]
    assert rows[0] == "| step `imagenet`, batch 64 | 1 x NVIDIA H100 | 1,250 ± 51 ms of 5 | 1,000 ms | 3,210, 21% of the peak |  |  |"
    assert [row.startswith("| eval") for row in rows[1:]] == [True]
    assert len(table.table([{**measured, "device": "cpu"}], WANTED).splitlines()) == 5  # a CPU's does not


def test_lightlys_column() -> None:
    peers = {name: {"ratio": 5.304, "cpu_ratio": 5.1} for name in ("the official form", "lightly", "lightly, crops alone")}
    told = "5.30 times as long, 5.10 times the CPU time"
    assert table.table([{**CPU, "peers": peers}], ()).splitlines()[2].endswith(f"the CPU time | {told}; crops alone {told} |")


def test_the_page_is_renewed_between_its_marks() -> None:
    page = f"above\n{table.BEGIN}\nold\n{table.END}\nbelow"
    assert table.renewed(page, "new") == f"above\n{table.BEGIN}\nnew\n{table.END}\nbelow"
    with pytest.raises(ValueError, match="once each"):
        table.renewed("no marks", "new")


def test_the_page_is_what_the_results_say() -> None:
    page = (table.HERE / "README.md").read_text(encoding="utf-8")
    assert table.renewed(page, table.table(table.read((table.HERE / "results.jsonl").read_text(encoding="utf-8")))) == page
