"""What follows from what the compiler says: whether it fits, how fast a step can be at most, how long the run is at least."""

from __future__ import annotations

import math
from dataclasses import dataclass

from byol_jax.config import Spec
from byol_jax.config.rules import is_own
from byol_jax.plan.chips import Chip
from byol_jax.plan.compile import Compiled

TIGHT = 0.9  # of the memory: above it, little is left for the runtime and for what evaluation needs beside the run's state


@dataclass(frozen=True)
class Roofline:
    """Seconds a step at least: the chip at its peak all the time, no wait for collectives, input or host.

    ``compute`` by operations at the bfloat16 peak, ``memory`` by bytes at the full bandwidth; None where the chip's peak is not known.
    """

    compute: float
    memory: float

    @property
    def seconds(self) -> float:
        return max(self.compute, self.memory)

    @property
    def bound_by(self) -> str:
        return "operations" if self.compute > self.memory else "bytes"


def roofline(compiled: Compiled, chip: Chip) -> Roofline | None:
    """None where the chip's speeds are not known, or nothing was compiled."""
    if chip.flops is None or chip.bandwidth is None or compiled.overflow:
        return None
    return Roofline(compiled.flops / chip.flops, compiled.moved / chip.bandwidth)


def verdict(compiled: Compiled, chip: Chip) -> str:
    """One of "fits", "tight", "does not fit", or "not judged" for a chip whose memory is not known."""
    if compiled.overflow:
        return "does not fit"
    if chip.memory is None:
        return "not judged"
    if compiled.peak > chip.memory:
        return "does not fit"
    return "tight" if compiled.peak > TIGHT * chip.memory else "fits"


def overflow(compiled: Compiled) -> str:
    """The first line of the compiler's message, which has the numbers."""
    return (compiled.overflow or "").splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ")


def advice(spec: Spec, compiled: Compiled, chip: Chip) -> list[str]:
    """What to change so that it fits; what changes the training least comes first."""
    if verdict(compiled, chip) in ("fits", "not judged"):
        return []
    room = None if compiled.overflow or chip.memory is None else TIGHT * chip.memory - (compiled.peak - compiled.temporaries)
    split = "--config.optimizer.shard_state=True: each chip holds a share of the state, and gathers the parameters for a step"
    fed = ["--config.data.on_device=False: the host sends the images; the same result"] if compiled.data else []
    by_split = [split] if compiled.devices > 1 and not spec.optimizer.shard_state else []
    if room is not None and room <= 0:
        return fed + by_split or ["the state alone fills the chip: take chips with more memory, or a smaller network"]
    tips, half = fed, compiled.rows // 2
    if half:
        tips.append(f"more chips: on {2 * compiled.devices} of them a chip has {half} examples instead of {compiled.rows}")
    if not (spec.encoder.remat or is_own(spec.encoder.name)):
        tips.append(
            "--config.encoder.remat=True: keeps less of each block and computes it again; the same result, about a third more operations"
        )
    tips += by_split
    if spec.encoder.dtype == "float32":
        tips.append("--config.encoder.dtype=bfloat16: activations of half the size")
    if parts := next_parts(compiled, room, spec.optimizer.accumulate):
        size = spec.batch_size // parts
        tips.append(
            f"--config.optimizer.accumulate={parts}: {compiled.rows // parts} examples a chip at a time, batch statistics of {size}"
        )
    if half:
        tips.append(f"--config.batch_size={half * compiled.devices}: {half} examples a chip; learning rate and tau want to be chosen anew")
    return tips or ["one example a chip is too much: take chips with more memory, or a smaller network"]


def next_parts(compiled: Compiled, room: float | None, accumulate: int) -> int | None:
    """The fewest micro-batches whose temporaries, if they shrink with the examples in them, fit into ``room``; None: no number of them.

    Where the room is not known, because nothing was compiled, the next number that divides a chip's rows.
    """
    for parts in range(accumulate + 1, compiled.rows + 1):
        if compiled.rows % parts == 0 and (room is None or compiled.temporaries * accumulate / parts <= room):
            return parts
    return None


def hours(seconds: float, steps: int) -> float:
    return seconds * steps / 3600


def examples_per_second(spec: Spec, seconds: float) -> float:
    """Examples that all hosts together must read, and of each make what the step takes, to keep up with a step of this length."""
    return spec.batch_size / seconds


def quantity(value: float, unit: str) -> str:
    """A number with a decimal prefix and about three digits: 1.52 GB, 13.1 TFLOP."""
    power = 0 if value == 0 else min(max(int(math.log10(abs(value)) // 3), 0), 5)
    scaled = value / 1000**power
    digits = 0 if scaled >= 100 or power == 0 else 1 if scaled >= 10 else 2
    return f"{scaled:,.{digits}f} {('', 'k', 'M', 'G', 'T', 'P')[power]}{unit}"
