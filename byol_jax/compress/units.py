"""Structured pruning of a text encoder: hidden units of its MLPs and whole heads go; every layer keeps as many of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from byol_jax.compress.plan import Path, Plan, at, how_many, strongest
from byol_jax.models import TextEncoder

# Of attention: what is computed for each head (by the axis of the heads), and what reads them.
PER_HEAD = (("query", 1, 0), ("key", 1, 0), ("value", 1, 0))


def fewer_units(module: TextEncoder, variables: Mapping[str, Any], share: float) -> Plan:
    """Which units and heads of every layer go: those with the smallest product of what writes to them and what reads them, as norms.

    The embedding keeps its size: each of its dimensions passes LayerNorms, whose statistics all of them share. A head keeps its width.

    Args:
      variables: {"params"}, layers as ``scan=False`` names them.
      share: of the units, and of the heads; one of each stays.
    """
    cuts: dict[Path, dict[int, np.ndarray]] = {}
    mlp, heads = how_many(module.mlp, share), how_many(module.heads, share)
    for i in range(module.layers):
        block = ("params", "stack", f"block_{i}")
        units = strongest(unit_strength(variables, block), mlp)
        cuts |= {(*block, "mlp_0", "kernel"): {1: units}, (*block, "mlp_0", "bias"): {0: units}, (*block, "mlp_1", "kernel"): {0: units}}
        kept = strongest(head_strength(variables, block), heads)
        for name, of_kernel, of_bias in PER_HEAD:
            cuts |= {(*block, "attention", name, "kernel"): {of_kernel: kept}, (*block, "attention", name, "bias"): {of_bias: kept}}
        cuts[*block, "attention", "out", "kernel"] = {0: kept}
    return Plan(cuts, {"mlp": mlp, "heads": heads, "head_width": module.head_width or module.hidden // module.heads, "scan": False})


def unit_strength(variables: Mapping[str, Any], block: Path) -> np.ndarray:
    """[mlp]: 0 where a unit is always 0, since its column and bias are, or where nothing reads it."""
    into = np.vstack([at(variables, (*block, "mlp_0", "kernel")), at(variables, (*block, "mlp_0", "bias"))])
    return np.linalg.norm(into, axis=0) * np.linalg.norm(at(variables, (*block, "mlp_1", "kernel")), axis=1)


def head_strength(variables: Mapping[str, Any], block: Path) -> np.ndarray:
    """[heads]: 0 where a head's values are always 0, or where nothing reads them."""
    values = np.concatenate(
        [at(variables, (*block, "attention", "value", "kernel")), at(variables, (*block, "attention", "value", "bias"))[None]]
    )
    out = at(variables, (*block, "attention", "out", "kernel"))
    return np.linalg.norm(values, axis=(0, 2)) * np.linalg.norm(out, axis=(1, 2))
