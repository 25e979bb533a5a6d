"""What the compiler and the device say of a program: its FLOPs, its memory, and its share of the device's peak."""

from __future__ import annotations

import jax

from byol_jax.plan.chips import known
from byol_jax.plan.products import operations


def flops(traced: jax.stages.Traced, compiled: jax.stages.Compiled, devices: int, accumulate: int = 1) -> float:
    """FLOPs of all devices together, see ``plan.products.operations``."""
    return operations(traced, compiled, jax.default_backend(), devices, accumulate)


def memory(compiled: jax.stages.Compiled, device: jax.Device) -> tuple[int, str]:
    """(bytes, who says so): the device's own peak since the process began, or else what the program was compiled to need."""
    stats = device.memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"]), "the device's peak so far"
    analysis = compiled.memory_analysis()
    if analysis is None:
        return 0, "nobody"
    return int(analysis.temp_size_in_bytes + analysis.argument_size_in_bytes), "the compiler: arguments and temporaries"


def share_of_peak(flops: float, seconds: float, devices: list[jax.Device]) -> float | None:
    """FLOP/s reached, as a share of what all devices could do in bfloat16; None where that is not known."""
    chips = [known(device.device_kind) for device in devices]
    peaks = [chip.flops for chip in chips if chip is not None and chip.flops is not None]
    return flops / seconds / sum(peaks) if len(peaks) == len(devices) else None
