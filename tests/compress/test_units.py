"""Pruned units and heads of a Transformer: which go, and what one of dead ones then computes."""

from __future__ import annotations

import jax
import numpy as np

from byol_jax.compress import fewer_units
from byol_jax.compress.units import head_strength, unit_strength
from byol_jax.models import TextEncoder

TOKENS = np.array([[1, 5, 6, 2, 0, 0], [1, 7, 8, 9, 4, 2]], np.int32)
BLOCK = ("params", "stack", "block_0")


def made() -> tuple[TextEncoder, dict]:
    module = TextEncoder(10, layers=2, hidden=12, heads=4, mlp=8, positions=6)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), TOKENS, False))
    return module, jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)


def embed(module: TextEncoder, variables: dict) -> np.ndarray:
    return np.asarray(jax.jit(lambda v: module.apply(v, TOKENS, False))(variables))


def test_a_unit_is_as_strong_as_what_writes_to_it_times_what_reads_it() -> None:
    mlp = {
        "mlp_0": {"kernel": np.array([[3.0, 0, 1], [0, 0, 2]]), "bias": np.array([4.0, 0, 2])},
        "mlp_1": {"kernel": np.array([[0.0, 2], [5, 5], [0, 0]])},
    }
    np.testing.assert_allclose(unit_strength({"params": {"stack": {"block_0": mlp}}}, BLOCK), [10, 0, 0])


def test_a_head_is_as_strong_as_its_values_times_what_reads_them() -> None:
    value = {"kernel": np.array([[[3.0, 0], [1, 1]]]), "bias": np.array([[0.0, 4], [1, 1]])}  # [D = 1, H = 2, W = 2]
    attention = {"value": value, "out": {"kernel": np.array([[[2.0], [0]], [[0], [3]]])}}
    np.testing.assert_allclose(head_strength({"params": {"stack": {"block_0": {"attention": attention}}}}, BLOCK), [10, 6])


def test_without_its_dead_units_and_heads_an_encoder_gives_the_same() -> None:
    module, variables = made()
    stack = variables["params"]["stack"]
    for block, units, heads in ((stack["block_0"], [0, 3, 4, 7], [1, 2]), (stack["block_1"], [1, 2, 5, 6], [0, 3])):
        block["mlp_1"]["kernel"][units[:2]] = 0
        block["mlp_0"]["kernel"][:, units[2:]] = block["mlp_0"]["bias"][units[2:]] = 0
        block["attention"]["out"]["kernel"][heads[0]] = 0
        block["attention"]["value"]["kernel"][:, heads[1]] = block["attention"]["value"]["bias"][heads[1]] = 0
    plan = fewer_units(module, variables, 0.5)
    assert plan.fields == {"mlp": 4, "heads": 2, "head_width": 3, "scan": False}
    np.testing.assert_array_equal(plan.cuts[*BLOCK, "mlp_1", "kernel"][0], [1, 2, 5, 6])
    np.testing.assert_array_equal(plan.cuts[*BLOCK, "attention", "out", "kernel"][0], [0, 3])
    small = module.clone(**plan.fields)
    np.testing.assert_allclose(embed(small, plan.cut(variables)), embed(module, variables), rtol=1e-5, atol=1e-6)
