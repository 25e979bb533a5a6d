"""Operations of a step: by the compiler's count, or of the program as it is written where that count leaves some out."""

from __future__ import annotations

import math
from typing import Any


def operations(traced: Any, compiled: Any, platform: str, devices: int, accumulate: int) -> float:
    """FLOPs of all devices together: the compiler's of one device, times the devices.

    A GPU's program hands matrix products and convolutions to libraries, which the compiler's count leaves out
    (github.com/jax-ml/jax/issues/22249), and of a loop it takes one turn: that over micro-batches is made good here. On a GPU, and where
    other things loop, those of the program as it was written are counted, and nothing else.
    """
    if platform == "gpu" or looped(traced, platform, accumulate):
        return products(traced.jaxpr.jaxpr)
    analysis = compiled.cost_analysis()
    found = analysis[0] if isinstance(analysis, list) else analysis
    return devices * float(found["flops"]) * micro_batch_turns(platform, accumulate) if found else 0.0


def micro_batch_turns(platform: str, accumulate: int) -> int:
    """Of the loop over micro-batches, which a step has unrolled on a CPU."""
    return 1 if platform == "cpu" else accumulate


def looped(traced: Any, platform: str, accumulate: int) -> bool:
    """Whether something that matters loops beside the micro-batches: a transformer's layers under ``scan``, an adversary's steps."""
    program = traced.jaxpr.jaxpr
    return products(program) > 1.01 * micro_batch_turns(platform, accumulate) * products(program, whole=False)


def products(program: Any, whole: bool = True) -> float:
    """FLOPs of a jaxpr's matrix products and convolutions: a multiplication and an addition are two. Of branches the cheapest counts.

    Without ``whole`` a loop counts as the compiler has it: what is unrolled of it, once.
    """
    return float(sum(_products(equation, whole) for equation in program.eqns))


def _products(equation: Any, whole: bool) -> float:
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
        return min(products(branch.jaxpr, whole) for branch in given["branches"])
    inside = sum(products(part, whole) for value in given.values() for part in _programs(value))
    turns = given.get("length" if whole else "unroll", 1)
    return inside * turns * (given["mesh"].size if name == "shard_map" else 1)


def _programs(value: Any) -> list[Any]:
    found = getattr(value, "jaxpr", value)
    return [found] if hasattr(found, "eqns") else []
