"""Operations of a program as it is written, for compilers whose own count leaves out what they hand to libraries."""

from __future__ import annotations

import math
from typing import Any


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
