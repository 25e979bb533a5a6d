"""The page that ``byol-jax plan`` prints."""

from __future__ import annotations

from collections.abc import Iterable

from byol_jax.build import objects
from byol_jax.config import Spec
from byol_jax.config.rules import RESNETS
from byol_jax.plan import estimate
from byol_jax.plan.compile import ALLOWED, Compiled
from byol_jax.plan.estimate import quantity
from byol_jax.plan.inputs import Inputs
from byol_jax.plan.topology import Topology


def page(spec: Spec, topology: Topology, inputs: Inputs, compiled: Compiled, made: str) -> str:
    """Plain text. ``made``: how the numbers came about, compiled now or found in the cache."""
    parts = [machine(spec, topology, compiled, made), memory(spec, topology, compiled)]
    if not compiled.overflow:
        parts += [work(spec, compiled), traffic(compiled), time(spec, topology, inputs, compiled)]
    if faults := compiled.faults():
        parts.append(["This step is not as it should be", *(f"  - {fault}" for fault in faults)])
    return "\n\n".join("\n".join(part) for part in parts)


def machine(spec: Spec, topology: Topology, compiled: Compiled, made: str) -> list[str]:
    hosts = f"{compiled.hosts} host{'s' * (compiled.hosts > 1)} of {compiled.devices // compiled.hosts}"
    rows = f"{compiled.rows} a chip"
    if spec.optimizer.accumulate > 1:
        rows += f" in {spec.optimizer.accumulate} micro-batches"
    lines = [("topology", f"{topology.name}: {compiled.devices} x {topology.chip.name}, {hosts}")]
    width = f", width {spec.encoder.width}" * (spec.encoder.name in RESNETS)
    network = f"{spec.encoder.name}{width}, {spec.encoder.dtype}"
    network += ", blocks computed again on the way back" * spec.encoder.remat
    lines += [
        ("batch", f"{spec.batch_size}: {rows}"),
        ("network", network),
    ]
    return ["Machine", *table(lines), f"  {made}"]


def memory(spec: Spec, topology: Topology, compiled: Compiled) -> list[str]:
    judged, limit = estimate.verdict(compiled, topology.chip), topology.chip.memory
    of = f" of {quantity(limit, 'B')}" if limit else ""
    if compiled.overflow:
        lines = [f"  {judged}: {estimate.overflow(compiled)}"]
    else:
        rows = [
            ("state and batch", quantity(compiled.arguments - compiled.data, "B")),
            *([("a share of the data", quantity(compiled.data, "B"))] if compiled.data else []),
            ("temporaries", quantity(compiled.temporaries, "B")),
            *([("program", quantity(compiled.code, "B"))] if compiled.code else []),  # a GPU's compiler does not say
            ("at the peak", f"{quantity(compiled.peak, 'B')}{of}: {judged}"),
        ]
        lines = table(rows)
    tips = estimate.advice(spec, compiled, topology.chip)
    return ["Memory of a chip", *lines, *(["  what would help:"] if tips else []), *(f"  - {tip}" for tip in tips)]


def work(spec: Spec, compiled: Compiled) -> list[str]:
    size = quantity(compiled.moved, "B")
    if compiled.looped:
        size = f"{size} at least: one turn of each loop"
        size += "; --config.encoder.transformer.scan=False has the same layers, and all of them counted" * spec.encoder.transformer.scan
    work = quantity(compiled.flops, "FLOP") + " of matrix products and convolutions" * compiled.looped
    rows = [("operations", work), ("bytes between memory and cores", size)]
    return ["Work of a chip in a step", *table(rows)]


def traffic(compiled: Compiled) -> list[str]:
    found = compiled.collectives or {}
    lines = table((kind, f"{count} times, {quantity(size, 'B')}") for kind, (count, size) in found.items()) if found else ["  nothing"]
    if ALLOWED in found:
        shares = f"gradients {quantity(compiled.gradients, 'B')}, batch statistics {quantity(compiled.statistics, 'B')}"
        lines.append(f"  to be reduced: {shares}, and metrics")
    if compiled.gathered:
        lines.append(f"  to be gathered: {quantity(compiled.gathered, 'B')} of parameters, a share of which lies on each chip")
    if compiled.fetched:
        lines.append(
            f"  for the batch: {quantity(sum(compiled.fetched.values()), 'B')} of indices and rows, since the data lies on the chips"
        )
    return ["Between chips in a step", *lines]


def time(spec: Spec, topology: Topology, inputs: Inputs, compiled: Compiled) -> list[str]:
    steps, roof = objects.steps(spec, inputs.examples), estimate.roofline(compiled, topology.chip)
    length = f"{steps:,} steps" + (f" ({spec.epochs:g} epochs of {inputs.examples:,} examples)" if spec.epochs else "")
    if roof is None:
        return ["Time", f"  {length}; no time is given: the peaks of this chip are not known here"]
    pace = estimate.examples_per_second(spec, roof.seconds)
    rows = [
        ("a step", f"{1e3 * roof.seconds:.1f} ms" + ("" if compiled.looped else f", bound by {roof.bound_by}")),
        ("its operations alone", f"{1e3 * roof.compute:.1f} ms"),
        ("its bytes alone", f"{1e3 * roof.memory:.1f} ms" + ", of those that are known" * compiled.looped),
        ("the run", f"{estimate.hours(roof.seconds, steps):.2f} hours"),
        ("examples a second", f"{pace:,.0f}"),
        ("of these from a host", f"{pace / compiled.hosts:,.0f}"),
    ]
    return [
        "Time, a lower bound by the compiler's counts: chips at their peak (bfloat16), no wait for each other or for data",
        f"  {length}",
        *table(rows),
    ]


def table(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Two columns, both set to the left."""
    kept = list(rows)
    width = max(len(name) for name, _ in kept)
    return [f"  {name:<{width}}  {text}" for name, text in kept]
