"""Throughput and latency of ``byol-jax serve`` under load, beside the same encoder called directly, in one run.

    python -m experiments.serving.load runs/digits --input runs/digits_png --json experiments/serving/results.jsonl

Callers keep their connection and send one image or text after another. Everything is on this machine: callers, service and encoder share
its cores. "Directly" is a loop in this process without HTTP, that prepares and embeds one at a time, or 32.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from byol_jax import build, data
from byol_jax.bench.result import machine
from byol_jax.serve import Limits, Model
from byol_jax.serve.server import model

SIZES = (1, 8, 32)
SETTLE = 0.5  # seconds of each measurement that do not count


@dataclass
class Seen:
    """What callers saw: seconds of each request that was answered, and how many answers of each status there were."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def told(self, during: float, cpu: float) -> dict[str, Any]:
        """As numbers: of the requests answered by 200 alone, but for the count of the others; ``cpu``: processor seconds of all."""
        others = sum(self.statuses.values()) - self.statuses[200]
        p50, p99 = np.percentile(self.seconds, (50, 99)) if self.seconds else (np.nan, np.nan)
        return {
            "per_s": self.statuses[200] / during,
            "p50_ms": 1e3 * p50,
            "p99_ms": 1e3 * p99,
            "cpu_ms": 1e3 * cpu / max(self.statuses.total(), 1),
            "refused_per_s": others / during,
        }


def examples(kind: str, given: str) -> list[Any]:
    """Files of a folder, or texts of a file."""
    if kind == "texts":
        return data.text_files(given).texts
    source = data.folder(given)
    return [source.encoded(i)[0] for i in range(len(source))]


def directly(served: Model, found: Sequence[Any], size: int, seconds: float) -> dict[str, Any]:
    """A loop that prepares and embeds ``size`` at a time, texts of like length together; per_s is of examples, latency of a call."""
    alike = sorted(found, key=len) if served.kind == "texts" and size > 1 else found
    groups, seen = batches(alike, size), Seen()
    random.Random(0).shuffle(groups)
    turns = itertools.cycle(groups)
    begin, cpu = time.perf_counter(), 0.0
    while (start := time.perf_counter()) < begin + SETTLE + seconds:
        group = next(turns)
        by_shape: dict[tuple[int, ...], list[np.ndarray]] = {}
        for example in group:
            row = served.prepare(example, "it")
            by_shape.setdefault(row.shape, []).append(row)
        for rows in by_shape.values():
            served(rows, size)
        if start > begin + SETTLE:
            cpu = cpu or time.process_time()
            seen.seconds.append(time.perf_counter() - start)
            seen.statuses[200] += len(group)
    return seen.told(seconds, time.process_time() - cpu)


def batches(found: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [found[start : start + size] for start in range(0, len(found) - size + 1, size)]


async def caller(address: tuple[str, int], requests: Iterator[bytes], seen: Seen, ends: float) -> None:
    """Sends one request after another, until ``ends``."""
    reader, writer = await asyncio.open_connection(*address)
    while (start := time.perf_counter()) < ends:
        writer.write(next(requests))
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        await reader.readexactly(int(length[1]) if length else 0)
        status = int(head[9:12])
        seen.statuses[status] += 1
        if status == 200:
            seen.seconds.append(time.perf_counter() - start)
        elif status == 503:
            await asyncio.sleep(0.05)  # one who is turned away does not come back at once
    writer.close()
    await writer.wait_closed()


def under_load(address: tuple[str, int], requests: Sequence[bytes], callers: int, seconds: float) -> dict[str, Any]:
    """What so many callers see; cpu_ms is of the service alone."""

    async def all_of_them(during: float) -> Seen:
        seen, ends = Seen(), time.perf_counter() + during
        queue = itertools.cycle(requests)
        await asyncio.gather(*(caller(address, queue, seen, ends) for _ in range(callers)))
        return seen

    asyncio.run(all_of_them(SETTLE))
    before = counters(address)
    seen = asyncio.run(all_of_them(seconds))
    gained = {name: value - before[name] for name, value in counters(address).items()}
    calls = max(gained["byol_batch_rows_count"], 1)
    told = seen.told(seconds, gained["process_cpu_seconds_total"])
    return told | {"rows_per_call": gained["byol_rows_total"] / calls, "compilations": gained["byol_compilations_total"]}


def counters(address: tuple[str, int]) -> dict[str, float]:
    with urllib.request.urlopen("http://{}:{}/metrics".format(*address), timeout=30) as page:
        lines = [line.split() for line in page.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines if "{" not in name}


@contextlib.contextmanager
def service(workdir: str, sizes: Sequence[int]) -> Iterator[tuple[str, int]]:
    """The address of a process of its own."""
    command = [sys.executable, "-m", "byol_jax", "serve", "--workdir", workdir, "--port", "0", "--sizes", ",".join(map(str, sizes))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://([\d.]+):(\d+)", process.stdout.readline())
            if found is None:
                raise SystemExit("the service did not start; it says why above")
            yield found[1], int(found[2])
        finally:
            process.terminate()


def request(example: Any) -> bytes:
    body, kind = (example.encode(), "text/plain") if isinstance(example, str) else (example, "image/png")
    return f"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir")
    parser.add_argument("--input", required=True, metavar="WHAT", help="a folder of images, or a file of texts")
    parser.add_argument("--callers", default="1,8,32,128", metavar="N,N")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement (%(default)g)")
    parser.add_argument("--json", metavar="FILE.jsonl", help="add a line with all of it")
    args = parser.parse_args(arguments)
    spec = build.read_spec(args.workdir)
    served = model(args.workdir, spec, None, Limits())
    plans, dimensions = served.warm_up(SIZES)
    found = examples(served.kind, args.input)[:2000]
    requests = [request(example) for example in found]
    line: dict[str, Any] = {"run": Path(args.workdir).name, "kind": served.kind, "dimensions": dimensions, "machine": machine()}
    line["seconds_of_a_call"] = {str(shape): dict(plan) for shape, plan in plans.items()}
    line["directly"] = {size: show(f"directly, {size} at a time", directly(served, found, size, args.seconds)) for size in (1, 32)}
    for name, sizes in (("served", SIZES), ("one_by_one", (1,))):
        with service(args.workdir, sizes) as address:
            line[name] = {
                callers: show(f"{name}, {callers} callers", under_load(address, requests, callers, args.seconds))
                for callers in map(int, args.callers.split(","))
            }
    if args.json:
        with Path(args.json).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def show(what: str, told: dict[str, Any]) -> dict[str, Any]:
    print(f"{what:28}", "  ".join(f"{name} {value:,.4g}" for name, value in told.items()), flush=True)
    return told


if __name__ == "__main__":
    main()
