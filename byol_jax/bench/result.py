"""What a benchmark found: a table for people, a line of JSON for the files of experiments/speed."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
from rich.table import Table

from byol_jax.bench.timing import Timed, ratio
from byol_jax.config import Spec

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")
OF_PEERS = ("torch", "torchvision", "lightly")
OFFICIAL = "the official form"


@dataclass(frozen=True)
class Row:
    """One thing measured; ``samples`` of a call, where it makes sense to count them (an image with its two views is one)."""

    name: str
    timed: Timed
    samples: int | None = None


@dataclass(frozen=True)
class Result:
    """Rows, the first of which is what was asked for.

    Attributes:
      peers: what it is compared with, under the name that sentences and the line of JSON give it -> the name of its row.
    """

    rows: tuple[Row, ...]
    peers: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def ratios(self) -> dict[str, tuple[float, float]]:
        """Each peer's time as a multiple of ours: by the clock, and of processor time.

        Other work on the machine disturbs the second far less; on an accelerator it is the host's alone.
        """
        rows, ours = {row.name: row.timed for row in self.rows}, self.rows[0].timed
        theirs = {peer: rows[name] for peer, name in self.peers.items()}
        return {peer: (ratio(timed.seconds, ours.seconds), ratio(timed.cpu, ours.cpu)) for peer, timed in theirs.items()}

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
        for peer, (wall, cpu) in self.ratios().items():
            compared = f"{wall:.2f} times as long, and {cpu:.2f} times the CPU time"
            said.append(f"{peer[0].upper()}{peer[1:]} takes {compared} (medians over pairs).")
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
            rates = {row.name: (row.samples or 0) / row.timed.median / facts["cores"] for row in self.rows}
            others = "".join(f"; {peer} {rates[name]:,.1f}" for peer, name in self.peers.items())
            said.append(f"{facts['samples_per_second_per_core']:,.1f} samples/s per core on {facts['cores']} of them{others}.")
        return [*said, *self.notes]


def line(result: Result, what: str, config: str, changes: Mapping[str, str], spec: Spec, *, synthetic: bool) -> dict[str, Any]:
    """Everything about a measurement as plain data: what, on what, how long, and with which versions.

    "ratio" and "cpu_ratio" are the official form's; "peers" has those of every peer.
    """
    first, ratios = result.rows[0], result.ratios()
    official = ratios.get(OFFICIAL, (None, None))
    return {
        "what": what,
        "config": config,
        "changes": dict(changes),
        "synthetic": synthetic,
        "batch": spec.batch_size,
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "machine": machine(),
        "repeats": len(first.timed.seconds),
        "median_s": first.timed.median,
        "spread_s": first.timed.spread,
        "samples_per_s": first.samples / first.timed.median if first.samples else None,
        "ratio": official[0],
        "cpu_ratio": official[1],
        "peers": {peer: {"ratio": wall, "cpu_ratio": cpu} for peer, (wall, cpu) in ratios.items()},
        "rows": {row.name: _numbers(row.timed) for row in result.rows},
        **result.facts,
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    """Of what every benchmark uses, and of what a peer has imported."""
    ours = {name: importlib.metadata.version(name) for name in LIBRARIES}
    theirs = {name: str(sys.modules[name].__version__) for name in OF_PEERS if name in sys.modules}
    return {"python": platform.python_version(), **ours, **theirs}


def _numbers(timed: Timed) -> dict[str, float]:
    return {"median_s": timed.median, "spread_s": timed.spread, "median_cpu_s": timed.median_cpu}


def machine() -> str:
    """The processor and how many of its cores this process may use."""
    info = Path("/proc/cpuinfo")
    rows = info.read_text().splitlines() if info.exists() else []
    names = [row.partition(":")[2].strip() for row in rows if row.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {cores()} of {os.cpu_count()} cores"


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def append(file: str | os.PathLike[str], measured: Mapping[str, Any]) -> None:
    """Adds one line to a .jsonl; makes its folder."""
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as out:
        out.write(json.dumps(measured) + "\n")
