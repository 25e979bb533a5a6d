"""``experiments.speed.processes``: who gets which cores, what the table says, how failures end, and two real processes."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest

from experiments.speed import processes
from experiments.speed.processes import ProcessFailed, Row

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("count", "shares"),
    [
        (1, [[0, 1, 2, 5, 7]]),
        (2, [[0, 1], [2, 5]]),
        (5, [[0], [1], [2], [5], [7]]),
        (7, [[0], [1], [2], [5], [7], [0], [1]]),
    ],
)
def test_who_gets_which_cores(count: int, shares: list[list[int]]) -> None:
    assert [processes.share([0, 1, 2, 5, 7], count, index) for index in range(count)] == shares


def test_a_process_joins_those_of_its_row_alone() -> None:
    given = {"HOME": "h", "BYOL_PROCESS_COUNT": "9", "BYOL_COORDINATOR": "far:1", "JAX_PLATFORMS": "cuda"}
    assert processes.environment(given, 1, 0, 5000) == {"HOME": "h", "JAX_PLATFORMS": "cpu", "BYOL_DISTRIBUTED": "0"}
    together = {"BYOL_COORDINATOR": "127.0.0.1:5000", "BYOL_PROCESS_COUNT": "4", "BYOL_PROCESS_INDEX": "3"}
    assert processes.environment(given, 4, 3, 5000) == {"HOME": "h", "JAX_PLATFORMS": "cpu", **together}


def test_a_row_is_compared_with_the_one_process_before_it() -> None:
    rows = [
        Row(2, 1, 0.25, 100, 0.0),
        Row(1, 2, 0.25, 100, 0.5),
        Row(2, 1, 0.125, 100, 1.0),
        Row(1, 2, 1.0, 100, 2.25),
        Row(4, 1, 0.5, 100, 3),
    ]
    assert processes.table(rows).splitlines() == [
        "| processes | cores each | ms a step | samples/s | times one process | load before |",
        "|---|---|---|---|---|---|",
        "| 2 | 1 | 250.0 | 400 |  | 0.0 |",
        "| 1 | 2 | 250.0 | 400 | 1.00 | 0.5 |",
        "| 2 | 1 | 125.0 | 800 | 2.00 | 1.0 |",
        "| 1 | 2 | 1,000.0 | 100 | 1.00 | 2.2 |",
        "| 4 | 1 | 500.0 | 200 | 2.00 | 3.0 |",
    ]


def test_each_process_starts_on_its_cores_and_the_parent_keeps_its_own(tmp_path: Path) -> None:
    program = "import os; print(os.environ['BYOL_PROCESS_INDEX'], *sorted(os.sched_getaffinity(0)))"
    logs, before = [tmp_path / "0", tmp_path / "1"], os.sched_getaffinity(0)
    processes.finish(processes.start(["-c", program], 2, logs), logs)
    wanted = [[index, *processes.share(sorted(before), 2, index)] for index in range(2)]
    assert [[int(word) for word in log.read_text().split()] for log in logs] == wanted
    assert os.sched_getaffinity(0) == before


def test_when_one_dies_the_others_are_stopped_and_its_last_lines_told(tmp_path: Path) -> None:
    """The other ignores SIGTERM, as JAX does."""
    program = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.environ["BYOL_PROCESS_INDEX"] == "0":
    print("waiting", flush=True)
    time.sleep(100)
while not os.path.getsize(sys.argv[1]):
    time.sleep(0.01)
print(*range(20), sep="\\n")
sys.exit("no more data")
"""
    logs, began = [tmp_path / "0", tmp_path / "1"], time.monotonic()
    started = processes.start(["-c", program, str(logs[0])], 2, logs)
    with pytest.raises(ProcessFailed) as caught:
        processes.finish(started, logs)
    assert time.monotonic() - began < 20
    assert started[0].returncode == -9
    last = "".join(f"\n  {number}" for number in range(13, 20))
    assert str(caught.value) == f"process 0 (stopped by us):\n  waiting\nprocess 1 (ended with code 1):{last}\n  no more data"


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (["0"], "--processes 0: must be 1 or more"),
        (["1", "5"], "--processes 5: must divide batch_size = 192; nearest: 190"),
        (["200"], "--processes 200: must divide batch_size = 192; nearest: 200"),
    ],
)
def test_mistakes_are_told_before_anything_starts(counts: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert processes.main(["--processes", *counts, "--config", str(ROOT / "configs/digits.py")]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def held(config: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Processes of one device each, where the tests themselves have eight."""
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return f"{config}:held"


def test_a_row_whose_process_fails_ends_with_code_1(held: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--processes", "1", "--config", held, "--json", "lines.txt"]
    assert processes.main(argv) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "process 0 (ended with code 2):" in told.err
    assert "--json lines.txt: must end in .jsonl" in told.err


@pytest.mark.slow
def test_two_processes_measure_one_step(held: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--processes", "2", "--config", held, "--config.seed=3", "--repeats", "2", "--json", "lines.jsonl"]
    assert processes.main(argv) == 0
    (line,) = [json.loads(text) for text in Path("lines.jsonl").read_text().splitlines()]  # one voice
    assert (line["processes"], line["devices"], line["batch"], line["changes"], line["repeats"]) == (2, 2, 8, {"seed": "3"}, 2)
    row = capsys.readouterr().out.splitlines()[2]
    assert re.fullmatch(rf"\| 2 \| \d+ \| {1e3 * line['median_s']:,.1f} \| {8 / line['median_s']:,.0f} \|  \| [\d.]+ \|", row)
