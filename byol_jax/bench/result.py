"""What a benchmark found: a table for people, a line of JSON for the files of experiments/speed."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
from rich.table import Table

from byol_jax.bench.timing import Timed, ratio
from byol_jax.config import Spec

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")


@dataclass(frozen=True)
class Row:
    """One thing measured; ``samples`` of a call, where it makes sense to count them (an image with its two views is one)."""

    name: str
    timed: Timed
    samples: int | None = None


@dataclass(frozen=True)
class Result:
    """Rows, the first of which is what was asked for; ``peer`` is the name of the row that it is compared with, if any."""

    rows: tuple[Row, ...]
    peer: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def ratio(self) -> float | None:
        """The peer's time by the clock as a multiple of ours."""
        return self._ratio("seconds")

    @property
    def cpu_ratio(self) -> float | None:
        """The same of processor time, which other work on the machine disturbs far less; on an accelerator it is the host's alone."""
        return self._ratio("cpu")

    def _ratio(self, clock: str) -> float | None:
        rows = {row.name: getattr(row.timed, clock) for row in self.rows}
        return None if self.peer is None else ratio(rows[self.peer], rows[self.rows[0].name])

    def table(self, title: str) -> Table:
        """For a terminal: the last column is each row's time as a share of the first row's."""
        made = Table(title=title, title_justify="left")
        for heading in ("", "ms", "quartiles apart", "CPU ms", "samples/s", "share"):
            made.add_column(heading, justify="left" if not heading else "right")
        whole = self.rows[0].timed.median
        for row in self.rows:
            middle = row.timed.median
            rate = f"{row.samples / middle:,.1f}" if row.samples else ""
            times = (f"{1e3 * seconds:,.1f}" for seconds in (middle, row.timed.spread, row.timed.median_cpu))
            made.add_row(row.name, *times, rate, f"{middle / whole:.1%}")
        return made

    def sentences(self) -> list[str]:
        """What stands below the table."""
        facts, said = self.facts, []
        if self.ratio is not None:
            compared = f"{self.ratio:.2f} times as long, and {self.cpu_ratio:.2f} times the CPU time"
            said.append(f"The official form takes {compared} (medians over pairs).")
        if "flops" in facts:
            share = facts["share_of_bf16_peak"]
            of_peak = f", {share:.1%} of the peak in bfloat16" if share is not None else "; the peak of this device is not known here"
            work = facts["flops"] / 1e9
            said.append(f"{work:,.2f} GFLOP a step, {work / self.rows[0].timed.median:,.1f} GFLOP/s{of_peak}.")
        if "memory" in facts:
            said.append(f"Memory: {facts['memory'] / 2**20:,.0f} MiB a device ({facts['memory_from']}).")
        if "share_of_step" in facts:
            said.append(f"Augmentation is {facts['share_of_step']:.1%} of the step.")
        if "baseline_flops" in facts:
            work, peer, own = facts["baseline_flops"] / 1e9, facts["baseline_compiled_memory"], facts["compiled_memory"]
            said.append(f"The official form: {work:,.2f} GFLOP, compiled to {peer / 2**20:,.0f} MiB where ours needs {own / 2**20:,.0f}.")
        for name, seconds in facts.get("first_batch_s", {}).items():
            said.append(f"{name}: first batch after {seconds:.2f} s.")
        if "cores" in facts:
            said.append(f"{facts['samples_per_second_per_core']:,.1f} samples/s per core on {facts['cores']} of them.")
        return [*said, *self.notes]


def line(result: Result, what: str, config: str, changes: Mapping[str, str], spec: Spec, *, synthetic: bool) -> dict[str, Any]:
    """Everything about a measurement as plain data: what, on what, how long, and with which versions."""
    first = result.rows[0]
    return {
        "what": what,
        "config": config,
        "changes": dict(changes),
        "synthetic": synthetic,
        "batch": spec.batch_size,
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "machine": machine(),
        "repeats": len(first.timed.seconds),
        "median_s": first.timed.median,
        "spread_s": first.timed.spread,
        "samples_per_s": first.samples / first.timed.median if first.samples else None,
        "ratio": result.ratio,
        "cpu_ratio": result.cpu_ratio,
        "rows": {row.name: _numbers(row.timed) for row in result.rows},
        **result.facts,
        "versions": {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in LIBRARIES}},
    }


def _numbers(timed: Timed) -> dict[str, float]:
    return {"median_s": timed.median, "spread_s": timed.spread, "median_cpu_s": timed.median_cpu}


def machine() -> str:
    """The processor and how many of its cores this process may use."""
    info = Path("/proc/cpuinfo")
    rows = info.read_text().splitlines() if info.exists() else []
    names = [row.partition(":")[2].strip() for row in rows if row.startswith("model name")]
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{names[0] if names else platform.machine()}, {mine} of {os.cpu_count()} cores"


def append(file: str | os.PathLike[str], measured: Mapping[str, Any]) -> None:
    """Adds one line to a .jsonl; makes its folder."""
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as out:
        out.write(json.dumps(measured) + "\n")
