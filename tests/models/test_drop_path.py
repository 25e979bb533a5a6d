"""Stochastic depth: rates by hand, whole branches of single examples, the mean, and nothing at all where it is off."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from byol_jax import build, models
from byol_jax import config as cfg
from byol_jax.models.drop_path import depth_rates, drop_path
from byol_jax.models.transformer import Stack, stacked

DRAW = np.random.default_rng(0)
IMAGES = DRAW.normal(size=(4, 8, 8, 3)).astype(np.float32)
TOKENS = np.asarray([[5, 6, 7, 8], [9, 4, 0, 0], [3, 3, 3, 0], [1, 2, 0, 0]], np.int32)
SIZES: dict[str, Any] = {"layers": 1, "hidden": 8, "heads": 2, "mlp": 16}


class Dropped(nn.Module):
    rate: float

    def __call__(self, x: jax.Array) -> jax.Array:
        return drop_path(self, x, self.rate)


def test_rates_fall_linearly_towards_the_input() -> None:
    np.testing.assert_allclose(depth_rates(0.2, 4), [0.05, 0.1, 0.15, 0.2], rtol=1e-12)
    for wrong in (1.0, -0.1):
        with pytest.raises(ValueError, match=f"drop_path = {wrong}: it must be at least 0 and below 1"):
            depth_rates(wrong, 2)


def test_an_example_keeps_all_of_a_branch_or_nothing_and_the_mean_stays() -> None:
    x = jnp.asarray(DRAW.normal(size=(4000, 2, 3)), jnp.float32)
    y = np.asarray(Dropped(0.25).apply({}, x, rngs={"dropout": jax.random.key(0)}))
    kept = (y != 0).all((1, 2))
    np.testing.assert_array_equal(y[~kept], 0)
    np.testing.assert_allclose(y[kept], np.asarray(x)[kept] / 0.75, rtol=1e-6)
    assert abs(kept.mean() - 0.75) < 4 * np.sqrt(0.25 * 0.75 / 4000)  # four standard deviations
    assert Dropped(0.25).apply({}, x.astype(jnp.bfloat16), rngs={"dropout": jax.random.key(0)}).dtype == jnp.bfloat16


def encoders(**options: Any) -> dict[str, tuple[nn.Module, np.ndarray]]:
    return {
        "resnet": (models.resnet((1,), (16,), bn_axis=None, norm="group", **options), IMAGES),
        "vit": (models.ViT(patch=4, **SIZES, **options), IMAGES),
        "text": (models.TextEncoder(12, positions=6, dropout=0, attention_dropout=0, **SIZES, **options), TOKENS),
    }


@pytest.mark.parametrize("name", list(encoders()))
def test_off_it_leaves_no_trace_and_evaluation_knows_nothing_of_it(name: str) -> None:
    plain, x = encoders()[name]
    dropping = encoders(drop_path=0.5)[name][0]
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables, again = (jax.jit(partial(module.init, train=True))(rngs, x) for module in (plain, dropping))
    jax.tree.map(np.testing.assert_array_equal, variables, again)

    def program(module: nn.Module, train: bool) -> str:
        return str(jax.make_jaxpr(lambda v, k: module.apply(v, x, train, rngs={"dropout": k}))(variables, jax.random.key(0)))

    assert "random_bits" not in program(plain, True)
    assert program(dropping, False) == program(plain, False)
    assert "random_bits" in program(dropping, True)
    with pytest.raises(Exception, match="dropout"):
        jax.eval_shape(lambda: dropping.apply(variables, x, True))


def test_a_resnet_whose_branches_are_all_kept_or_all_dropped() -> None:
    """One block without a projection, so that what is left of it is the stem: relu(stem + kept branch / (1 - rate))."""
    options: dict[str, Any] = {"bn_axis": None, "norm": "group", "shortcut": "shape"}
    module = models.resnet((1,), (16,), drop_path=0.5, **options)
    variables = jax.jit(partial(module.init, train=False))(jax.random.key(0), IMAGES)
    y = np.asarray(jax.jit(lambda v, k: module.apply(v, IMAGES, True, rngs={"dropout": k}))(variables, jax.random.key(0)))
    outputs = jax.jit(lambda v: module.apply(v, IMAGES, False, capture_intermediates=True)[1]["intermediates"])(variables)
    stem = np.asarray(outputs["stem_norm"]["__call__"][-1])
    branch = np.asarray(outputs["stage0_block0"]["norm_1"]["__call__"][-1])
    without, doubled = (np.maximum(stem + factor * branch, 0).mean((1, 2)) for factor in (0, 2))
    kept = [bool(np.allclose(y[i], doubled[i], atol=1e-6)) for i in range(4)]
    assert 0 < sum(kept) < 4
    np.testing.assert_allclose(y, np.where(np.array(kept)[:, None], doubled, without), atol=1e-6)


def test_both_branches_of_a_layer_are_drawn_apart() -> None:
    stack = Stack(1, {"heads": 2, "mlp": 16, "norm_first": True}, drop_path=0.5)
    x = jnp.asarray(DRAW.normal(size=(64, 3, 8)), jnp.float32)
    variables = jax.jit(lambda key: stack.init(key, x, None, False))(jax.random.key(0))
    variables = jax.tree.map(lambda leaf: leaf + 0.1, variables)
    y = np.asarray(jax.jit(lambda v, k: stack.apply(v, x, None, True, rngs={"dropout": k}))(variables, jax.random.key(0)))
    untouched = (y == np.asarray(x)).all((1, 2)).mean()
    assert 0.05 < untouched < 0.5  # a quarter, 16 of 64: within 4 standard deviations (0.054 each)


def test_layers_in_a_loop_are_dropped_at_their_own_rates() -> None:
    """Of two layers the first is dropped at 0.4, the last at 0.8; the other one's weights are zero, so that its branches add nothing."""
    block = {"heads": 2, "mlp": 16, "norm_first": True}
    x = jnp.asarray(DRAW.normal(size=(256, 1, 8)), jnp.float32)
    one, loop = (Stack(2, block, remat=scan, scan=scan, drop_path=0.8) for scan in (False, True))
    variables = jax.jit(lambda key: one.init(key, x, None, False))(jax.random.key(0))
    zero = jax.tree.map(jnp.zeros_like, variables["params"]["block_0"])
    only_last = {"block_0": zero, "block_1": jax.tree.map(lambda leaf: leaf + 0.1, variables["params"]["block_1"])}
    only_first = {"block_0": only_last["block_1"], "block_1": zero}
    for params, rate in ((only_first, 0.4), (only_last, 0.8)):
        for stack, tree in ((one, params), (loop, stacked(params))):
            run = jax.jit(lambda p, stack=stack: stack.apply({"params": p}, x, None, True, rngs={"dropout": jax.random.key(0)}))
            y = run(tree)
            untouched = float((y == x).all((1, 2)).mean())
            assert abs(untouched - rate**2) < 4 * np.sqrt(rate**2 * (1 - rate**2) / 256)


def test_the_key_of_the_configuration_reaches_every_kind_of_encoder() -> None:
    config = cfg.config_file("configs/digits.py")
    config.encoder.drop_path = 0.25
    assert build.encoder(cfg.resolve(config)).drop_path == 0.25
    config.encoder.update(name="vit_s16", block=None, stages=None, channels=None)
    assert build.encoder(cfg.resolve(config)).drop_path == 0.25
    config.encoder.drop_path = 0.95
    with pytest.raises(cfg.ConfigError, match=r"encoder.drop_path = 0.95: it must be between 0 and 0.9"):
        cfg.resolve(config)
