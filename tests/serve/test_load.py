"""The load test of experiments/serving: it measures, and its table says what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.serving import load, table
from tests.serve.runs import text_run


@pytest.mark.slow
def test_it_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "")  # else the service has eight devices too, which share a batch of eight at least
    workdir, out = text_run(tmp_path), tmp_path / "results.jsonl"
    load.main(
        [str(workdir), "--input", str(tmp_path / "corpus.jsonl"), "--seconds", "1", "--callers", "1,16", "--json", str(out)],
    )
    (line,) = [json.loads(text) for text in out.read_text().splitlines()]
    assert (line["kind"], line["dimensions"]) == ("texts", 16)
    for told in [*line["directly"].values(), *line["served"].values(), *line["one_by_one"].values()]:
        assert told["per_s"] > 0
        assert told["p99_ms"] >= told["p50_ms"] > 0
        assert told["refused_per_s"] == 0
        assert told.get("compilations", 0) == 0
    assert line["served"]["16"]["rows_per_call"] > 1
    assert all(told["rows_per_call"] == 1 for told in line["one_by_one"].values())
    table.plot([line], tmp_path / "load.png")
    assert (tmp_path / "load.png").stat().st_size > 10_000


def test_table() -> None:
    told = {"per_s": 1234.5, "p50_ms": 1.23, "p99_ms": 10, "cpu_ms": 0.5}
    served = {"1": told | {"rows_per_call": 1.0}, "8": told | {"rows_per_call": 7.96}}
    line = {"run": "digits", "kind": "images", "dimensions": 128, "machine": "two cores"}
    found = table.table([line | {"directly": {"32": told}, "served": served, "one_by_one": {}}])
    assert found.splitlines() == [
        "**digits**: images, 128 numbers each; two cores",
        "",
        "|  | examples/s | p50 ms | p99 ms | CPU ms an example | rows a call |",
        "| --- | --: | --: | --: | --: | --: |",
        "| directly, 32 at a time | 1,234 | 1.2 | 10.0 | 0.50 | 32 |",
        "| served, 1 caller | 1,234 | 1.2 | 10.0 | 0.50 | 1.0 |",
        "| served, 8 callers | 1,234 | 1.2 | 10.0 | 0.50 | 8.0 |",
    ]
