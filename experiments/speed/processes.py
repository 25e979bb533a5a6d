"""How a step's speed grows from one process to several on one machine, over gloo: `byol-jax bench step` in each, and a table.

    python -m experiments.speed.processes --processes 1 2 4 --config configs/digits.py [--config.key=value ...]

The batch is the configuration's whatever the number of processes, and each gets an equal part of it. N processes get a share of
the cores each, cores / N rounded down and at least one; one process gets all. The numbers of processes are measured in the order
given, one after the other, and may be given more than once: a row is compared with the latest one-process row above it.
Linux alone, on the CPU. Exit code: 0, or 1 if a process failed (the others are stopped then), or 2 for a mistake.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from byol_jax import cli
from byol_jax import config as cfg

HEADINGS = ("processes", "cores each", "ms a step", "samples/s", "times one process", "load before")
LAST_LINES, LOOK_EVERY = 8, 0.1  # of a process that failed; seconds


class ProcessFailed(RuntimeError):
    """One ended with another code than 0."""


@dataclass(frozen=True)
class Row:
    """One number of processes, measured; ``seconds`` of a step, ``load``: the machine's, of the minute before."""

    processes: int
    cores: int
    seconds: float
    batch: int
    load: float

    @property
    def rate(self) -> float:
        """Samples a second."""
        return self.batch / self.seconds


def share(cores: Sequence[int], count: int, index: int) -> list[int]:
    """The cores of process ``index`` of ``count``: equal parts, what is left over idle; one in turn where there are too few."""
    size = max(len(cores) // count, 1)
    begin = index * size % len(cores)
    return list(cores[begin : begin + size])


def environment(given: Mapping[str, str], count: int, index: int, port: int) -> dict[str, str]:
    """That of one process of ``count``, on the CPU and joined by us alone."""
    kept = {name: value for name, value in given.items() if not name.startswith("BYOL_")} | {"JAX_PLATFORMS": "cpu"}
    if count == 1:
        return kept | {"BYOL_DISTRIBUTED": "0"}
    return kept | {"BYOL_COORDINATOR": f"127.0.0.1:{port}", "BYOL_PROCESS_COUNT": str(count), "BYOL_PROCESS_INDEX": str(index)}


def start(words: Sequence[str], count: int, logs: Sequence[Path]) -> list[subprocess.Popen[bytes]]:
    """``python WORDS`` in so many processes, each on its cores from its first instruction on, what it says in its log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours, started = os.sched_getaffinity(0), list[subprocess.Popen[bytes]]()
    try:
        for index, log in enumerate(logs):
            os.sched_setaffinity(0, share(sorted(ours), count, index))  # a child inherits it
            with log.open("wb") as out:
                env = environment(os.environ, count, index, port)
                started.append(subprocess.Popen([sys.executable, *words], env=env, stdout=out, stderr=subprocess.STDOUT))
    except BaseException:
        stop(started)
        raise
    finally:
        os.sched_setaffinity(0, ours)
    return started


def stop(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ends what still runs; JAX catches SIGTERM, and nothing here is worth saving."""
    for process in started:
        process.kill()
        process.wait()


def finish(started: Sequence[subprocess.Popen[bytes]], logs: Sequence[Path]) -> None:
    """Waits for all.

    Raises:
      ProcessFailed: as soon as one has failed, with the last lines of each; none runs any more.
    """
    try:
        codes = [process.poll() for process in started]
        while None in codes and not any(codes):
            time.sleep(LOOK_EVERY)
            codes = [process.poll() for process in started]
    finally:
        stop(started)
    if any(codes):
        parts = [f"process {i} ({told(code)}):\n{ending(log)}" for i, (code, log) in enumerate(zip(codes, logs, strict=True))]
        raise ProcessFailed("\n".join(parts))


def told(code: int | None) -> str:
    return "stopped by us" if code is None else f"ended with code {code}"


def ending(log: Path) -> str:
    return "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-LAST_LINES:])


def measure(words: Sequence[str], count: int, file: Path) -> Row:
    """One row: ``words`` of ``byol-jax bench step``, whose main process adds its line to ``file``."""
    load, command = os.getloadavg()[0], ["-m", "byol_jax", "bench", "step", *words, "--json", str(file)]
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / f"{index}.log" for index in range(count)]
        finish(start(command, count, logs), logs)
    line = json.loads(file.read_text(encoding="utf-8").splitlines()[-1])
    if line["processes"] != count:
        raise ProcessFailed(f"{line['processes']} process(es) came together, not {count}")
    return Row(count, len(share(sorted(os.sched_getaffinity(0)), count, 0)), line["median_s"], line["batch"], load)


def table(rows: Sequence[Row]) -> str:
    """In Markdown."""
    lines, alone = [f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|"], None
    for row in rows:
        alone = row if row.processes == 1 else alone
        ratio = f"{row.rate / alone.rate:.2f}" if alone else ""
        lines.append(f"| {row.processes} | {row.cores} | {1e3 * row.seconds:,.1f} | {row.rate:,.0f} | {ratio} | {row.load:.1f} |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    made.add_argument("--processes", type=int, nargs="+", default=[1, 2], metavar="N", help="how many, measured in this order (1 2)")
    made.add_argument("--config", required=True, metavar="FILE.py[:VARIANT]")
    made.add_argument("--repeats", type=int, default=10, metavar="N", help="of bench step (10)")
    made.add_argument("--synthetic", action="store_true", help="noise instead of data, as in bench step")
    made.add_argument("--json", metavar="FILE.jsonl", help="the main process of each row adds its line to this file")
    return made


def faults(counts: Sequence[int], batch: int) -> list[str]:
    """What is wrong before anything is started."""
    found = [f"--processes {count}: must be 1 or more" for count in counts if count < 1]
    uneven = [count for count in counts if count > 1 and batch % count]
    return found + [
        f"--processes {count}: must divide batch_size = {batch}; nearest: {max(round(batch / count), 1) * count}" for count in uneven
    ]


def main(argv: Sequence[str] | None = None) -> int:
    words, overrides = cli.split(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(words)
    passed = ["--config", args.config, *(f"--config.{key}={value}" for key, value in overrides), "--repeats", str(args.repeats)]
    passed += ["--synthetic"] * args.synthetic
    try:
        if wrong := faults(args.processes, cfg.load(args.config, overrides).batch_size):
            raise cfg.ConfigError(wrong)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(args.json or Path(folder) / "lines.jsonl")
            print(table([measure(passed, count, file) for count in args.processes]))
    except (ValueError, ProcessFailed) as error:
        print(f"processes: {error}", file=sys.stderr)
        return 1 if isinstance(error, ProcessFailed) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
