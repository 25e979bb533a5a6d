"""What the compiler and the device say of a program: its FLOPs, its memory, and its share of the device's peak."""

from __future__ import annotations

import math
from typing import Any

import jax

from byol_jax.plan.chips import known


def flops(traced: jax.stages.Traced, compiled: jax.stages.Compiled, devices: int) -> float:
    """FLOPs of all devices together: the compiled program's of one device, times the devices.

    On a GPU the compiled program hands matrix products and convolutions to libraries, which its analysis leaves out
    (github.com/jax-ml/jax/issues/22249): there those of the program as it was written are counted, and nothing else.
    """
    if jax.default_backend() == "gpu":
        return products(traced.jaxpr.jaxpr)
    analysis: Any = compiled.cost_analysis()
    found = analysis[0] if isinstance(analysis, list) else analysis
    return devices * float(found["flops"]) if found else 0.0


def products(program: Any) -> float:
    """FLOPs of a jaxpr's matrix products and convolutions: a multiplication and an addition are two. Of branches the cheapest counts."""
    return float(sum(map(_products, program.eqns)))


def _products(equation: Any) -> float:
    name, given = equation.primitive.name, equation.params
    if name == "dot_general":
        contracted = given["dimension_numbers"][0][0]
        return 2.0 * equation.outvars[0].aval.size * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel, outputs = equation.invars[1].aval, given["dimension_numbers"].rhs_spec[0]
        # What a gradient's dilation puts between pixels is zeros, and no work.
        zeros = math.prod(given["lhs_dilation"]) * given["batch_group_count"]
        return 2.0 * equation.outvars[0].aval.size * kernel.size / kernel.shape[outputs] / zeros
    if name == "cond":
        return min(products(branch.jaxpr) for branch in given["branches"])
    inside = sum(products(part) for value in given.values() for part in _programs(value))
    return inside * given.get("length", 1) * (given["mesh"].size if name == "shard_map" else 1)


def _programs(value: Any) -> list[Any]:
    found = getattr(value, "jaxpr", value)
    return [found] if hasattr(found, "eqns") else []


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
