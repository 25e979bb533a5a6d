"""What follows from what the compiler says: whether it fits, how fast a step can be at most, how long the run is at least."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from byol_jax.config import Spec
from byol_jax.plan.compile import Compiled
from byol_jax.plan.topology import Chip

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
    """ "fits", "tight", "does not fit", or "not judged" for a chip whose memory is not known."""
    if compiled.overflow:
        return "does not fit"
    if chip.memory is None:
        return "not judged"
    if compiled.peak > chip.memory:
        return "does not fit"
    return "tight" if compiled.peak > TIGHT * chip.memory else "fits"


def overflow(compiled: Compiled) -> str:
    """The sentence of the compiler's message that has the numbers."""
    found = re.search(r"Used [\d.]+\w* of [\d.]+\w* \w+", compiled.overflow or "")
    return found[0] if found else (compiled.overflow or "").splitlines()[0]


def advice(spec: Spec, compiled: Compiled, chip: Chip) -> list[str]:
    """What to change so that it fits; the first is the least change of what is computed."""
    judged = verdict(compiled, chip)
    if judged in ("fits", "not judged"):
        return []
    accumulate = spec.optimizer.accumulate
    parts = next_parts(compiled, chip, accumulate)
    tips = []
    if spec.encoder.dtype == "float32":
        tips.append("--config.encoder.dtype=bfloat16: halves the activations")
    if parts is not None:
        tips.append(
            f"--config.optimizer.accumulate={parts}: {compiled.rows // parts} images a chip at a time, statistics of a {parts}th of"
        )
        tips[-1] += " the batch"
    if compiled.rows > 1:
        tips.append(f"a slice of {2 * compiled.devices} chips: {max(compiled.rows // 2, 1)} images a chip")
        tips.append(
            f"--config.batch_size={spec.batch_size // 2}: {compiled.rows // 2} images a chip; mind learning rate and tau (paper, Figure 3)"
        )
    return tips or ["the state alone is too large for this chip: take one with more memory, or a smaller network"]


def next_parts(compiled: Compiled, chip: Chip, accumulate: int) -> int | None:
    """The fewest micro-batches that should fit, if temporaries shrink with a chip's rows; None: not even one row at a time."""
    whole = compiled.rows
    room = None if chip.memory is None or compiled.overflow else TIGHT * chip.memory - (compiled.peak - compiled.temporaries)
    for parts in range(accumulate + 1, whole + 1):
        if whole % parts:
            continue
        if room is None or compiled.temporaries * accumulate / parts <= room:
            return parts
    return None


def hours(seconds: float, steps: int) -> float:
    return seconds * steps / 3600


def images_per_second(spec: Spec, seconds: float) -> float:
    """Images that all hosts together must read, decode and crop twice to keep up with a step of this length."""
    return spec.batch_size / seconds


def quantity(value: float, unit: str) -> str:
    """ "1.5 GB" or "13 TFLOP": three digits and a decimal prefix."""
    power = 0 if value == 0 else min(max(int(math.log10(abs(value)) // 3), 0), 5)
    scaled = value / 1000**power
    digits = 0 if scaled >= 100 or power == 0 else 1 if scaled >= 10 else 2
    return f"{scaled:,.{digits}f} {('', 'k', 'M', 'G', 'T', 'P')[power]}{unit}"
