"""What the compiler and the device say of a program: its FLOPs, its memory, and the device's peak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

# Dense FLOP/s in bfloat16 of one device, without sparsity, by the start of ``device_kind``; the first that fits counts.
# NVIDIA H100 and H200 SXM data sheets (989 TFLOPS; the PCIe and NVL cards are slower and left out), A100 data sheet (312);
# Google Cloud TPU pages: v4 (275), v5e (197), v5p (459), v6e (918). TPUs call v5e "v5 lite" and v6e "v6 lite".
PEAKS = {
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA A100": 312e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
}
NOT_THE_PEAK = ("NVIDIA H200 NVL", "TPU v4 lite")


@dataclass(frozen=True)
class Cost:
    """Of one call of a program.

    Attributes:
      flops: of all devices together, as the compiler counts them: a multiplication and an addition are two.
      memory: bytes a device needs at most; ``memory_from`` says who says so.
    """

    flops: float
    memory: int
    memory_from: str


def flops(lowered: jax.stages.Lowered, compiled: jax.stages.Compiled, devices: int) -> float:
    """FLOPs of all devices together: the compiled program's of one device, times the devices.

    On a GPU the compiled program hands matrix products and convolutions to libraries, which its analysis may leave out
    (github.com/jax-ml/jax/issues/22249): there the larger of that and the program as it was written counts.
    """
    counts = [_count(compiled.cost_analysis())]
    if jax.default_backend() == "gpu":
        counts.append(_count(lowered.cost_analysis()))
    return devices * max(counts)


def _count(analysis: Any) -> float:
    found = analysis[0] if isinstance(analysis, list) else analysis
    return float(found["flops"]) if found else 0.0


def memory(compiled: jax.stages.Compiled, device: jax.Device) -> tuple[int, str]:
    """(bytes, who says so): the device's own peak since the process began, or else what the program was compiled to need."""
    stats = device.memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"]), "the device's peak so far"
    analysis = compiled.memory_analysis()
    if analysis is None:
        return 0, "nobody"
    return int(analysis.temp_size_in_bytes + analysis.argument_size_in_bytes), "the compiler: arguments and temporaries"


def peak(device_kind: str) -> float | None:
    """Dense bfloat16 FLOP/s of a device; None where it is not known."""
    if device_kind.startswith(NOT_THE_PEAK):
        return None
    return next((value for name, value in PEAKS.items() if device_kind.startswith(name)), None)


def share_of_peak(flops: float, seconds: float, devices: list[jax.Device]) -> float | None:
    """FLOP/s reached, as a share of what all devices could do in bfloat16; None where that is not known."""
    known = [peak(device.device_kind) for device in devices]
    return None if None in known else flops / seconds / sum(value for value in known if value)
