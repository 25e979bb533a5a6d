"""The shared block: formulas written out, dropout, dtypes, layers in a loop or computed again, and a training step on both encoders."""

from __future__ import annotations

from functools import cache, partial
from math import erf, sqrt
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from byol_jax import method as m
from byol_jax import models, parallel
from byol_jax.method.optimizer import is_weight
from byol_jax.models.transformer import ACTIVATIONS, Block, LayerNorm, Stack, stacked, unstacked

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(2, 5, 8)).astype(np.float32)
MASK = np.asarray([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], bool)[:, None, None, :]
TOKENS = np.asarray([[5, 6, 7, 8], [9, 4, 0, 0], [3, 3, 3, 0], [1, 2, 0, 0]], np.int32)
IMAGES = DRAW.normal(size=(4, 8, 12, 3)).astype(np.float32)
ENCODERS: dict[str, tuple[nn.Module, np.ndarray]] = {
    "text": (models.TextEncoder(12, layers=2, hidden=8, heads=2, mlp=16, positions=6), TOKENS),
    "vit": (models.ViT(layers=2, hidden=8, heads=2, mlp=16, patch=4), IMAGES),
}
RNGS = {"params": jax.random.key(0), "dropout": jax.random.key(1)}


def shapes(module: nn.Module, *inputs: Any) -> Any:
    return jax.eval_shape(lambda rngs: module.init(rngs, *inputs), RNGS)


def shaken(module: nn.Module, *inputs: Any) -> Any:
    """Random variables, none at its default."""
    draw = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(0.4 * draw.normal(size=leaf.shape), jnp.float32), shapes(module, *inputs))


def zeros(module: nn.Module, *inputs: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes(module, *inputs))


def by_hand(p: Any, x: np.ndarray, real: np.ndarray, norm_first: bool) -> np.ndarray:
    """A block for one example in float64, head by head: ``real`` says which tokens are seen."""

    def norm(y: np.ndarray, name: str) -> np.ndarray:
        centred = y - y.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * p[name]["scale"] + p[name]["bias"]

    def attention(y: np.ndarray) -> np.ndarray:
        total = np.zeros_like(y) + p["attention"]["out"]["bias"]
        for head in range(2):
            q, k, v = (y @ p["attention"][n]["kernel"][:, head] + p["attention"][n]["bias"][head] for n in ("query", "key", "value"))
            weights = np.exp(q @ k.T / sqrt(4)) * real
            total += (weights / weights.sum(-1, keepdims=True)) @ v @ p["attention"]["out"]["kernel"][head]
        return total

    def mlp(y: np.ndarray) -> np.ndarray:
        inner = y @ p["mlp_0"]["kernel"] + p["mlp_0"]["bias"]
        return inner * (1 + np.vectorize(erf)(inner / sqrt(2))) / 2 @ p["mlp_1"]["kernel"] + p["mlp_1"]["bias"]

    for name, branch in (("attention_norm", attention), ("mlp_norm", mlp)):
        x = x + branch(norm(x, name)) if norm_first else norm(x + branch(x), name)
    return x


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_block_is_what_the_formulas_say(norm_first: bool) -> None:
    block = Block(heads=2, mlp=16, norm_first=norm_first)
    variables = shaken(block, X)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    wanted = [by_hand(p, np.asarray(x, np.float64), real[0, 0], norm_first) for x, real in zip(X, MASK, strict=True)]
    np.testing.assert_allclose(block.apply(variables, X, jnp.asarray(MASK)), wanted, atol=2e-6)


def test_activations_at_one() -> None:
    """x Phi(x) is 0.841345, its tanh form 0.841192."""
    assert {name: round(float(fn(jnp.float32(1))), 6) for name, fn in ACTIVATIONS.items()} == {
        "gelu": 0.841345,
        "gelu_new": 0.841192,
        "relu": 1,
    }


def test_norm_of_values_far_from_zero() -> None:
    """Variance of 1000, 1001, 1002 is 2/3; the mean square less the squared mean would be off by a tenth in float32."""
    x = jnp.asarray([[1000.0, 1001.0, 1002.0]])
    y = LayerNorm(1e-12).apply({"params": {"scale": jnp.ones(3), "bias": jnp.zeros(3)}}, x)
    np.testing.assert_allclose(y, [[-sqrt(1.5), 0, sqrt(1.5)]], rtol=1e-6)


def test_dropout_drops_the_share_it_is_told_and_keeps_the_mean() -> None:
    """With zero weights but the output's bias of 1, a pre-norm block adds 1, dropped or doubled; with ``train`` off, 1."""
    block = Block(heads=1, mlp=4, norm_first=True, dropout=0.5, train=True)
    x = jnp.zeros((1, 1000, 4))
    variables = zeros(block, x)
    variables["params"]["mlp_1"]["bias"] = jnp.ones(4)
    y = np.asarray(block.apply(variables, x, rngs={"dropout": jax.random.key(3)}))
    assert set(np.unique(y)) == {0.0, 2.0}
    assert abs(y.mean() - 1) < 5 / sqrt(4000)
    np.testing.assert_array_equal(block.clone(train=False).apply(variables, x), np.ones((1, 1000, 4)))


def test_dropout_of_the_attention_draws_for_each_token_alone() -> None:
    """Values of 1 and even weights: a token sums the share that was kept, doubled; 64 of them, so 0 to 2 in steps of 1/32."""
    block = Block(heads=2, mlp=4, norm_first=True, attention_dropout=0.5, train=True)
    x = jnp.zeros((2, 64, 4))
    variables = zeros(block, x)
    attention = variables["params"]["attention"]
    attention["value"]["bias"], attention["out"]["kernel"] = jnp.ones((2, 2)), jnp.ones((2, 2, 4)) / 4
    y = np.asarray(block.apply(variables, x, rngs={"dropout": jax.random.key(3)}))[..., 0]
    np.testing.assert_allclose(y * 64, np.round(y * 64), atol=1e-4)
    assert abs(y.mean() - 1) < 5 * sqrt(1 / (2 * 2 * 64 * 64))
    assert len(np.unique(y[0])) > 10  # not one draw for all
    assert (y[0] != y[1]).any()


@pytest.mark.parametrize("name", ENCODERS)
def test_bfloat16_computes_in_it_and_returns_float32(name: str) -> None:
    encoder, x = ENCODERS[name]
    variables = shaken(encoder, x, True)
    narrow = encoder.clone(dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes(narrow, x, True))} == {jnp.dtype("float32")}
    y, wanted = (jax.jit(partial(module.apply, train=False))(variables, x) for module in (narrow, encoder))
    assert y.dtype == jnp.float32
    assert 1e-4 < float(jnp.abs(y - wanted).max()) < 0.1 * float(jnp.abs(wanted).max())
    jaxpr = jax.make_jaxpr(lambda v: narrow.apply(v, x, False))(variables)
    products = [eqn for eqn in _equations(jaxpr.jaxpr) if eqn.primitive.name == "dot_general"]
    wide = [eqn for eqn in products if eqn.outvars[0].aval.dtype != jnp.bfloat16]
    assert len(products) >= 2 * 8
    assert len(wide) == (name == "text")  # the mean of the real tokens


def _equations(jaxpr: Any) -> Any:
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            if hasattr(value, "jaxpr"):
                yield from _equations(value.jaxpr)


@cache
def gradients(name: str, remat: bool, scan: bool) -> tuple[Any, jax.Array]:
    """Of the same parameters without dropout, in whichever form; and the embeddings."""
    plain, x = ENCODERS[name]
    plain = plain.clone(**{key: 0.0 for key in ("dropout", "attention_dropout") if name == "text"})
    module = plain.clone(remat=remat, scan=scan)
    params = shaken(plain, x, True)["params"]
    params = {**params, "stack": stacked(params["stack"])} if scan else params
    assert jax.tree.structure(shapes(module, x, True)["params"]) == jax.tree.structure(params)

    def loss(params: Any) -> Any:
        y = module.apply({"params": params}, x, True)
        return jnp.square(y).mean(), y

    return jax.jit(jax.grad(loss, has_aux=True))(params)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(("remat", "scan"), [(True, False), (False, True), (True, True)])
def test_remat_and_scan_change_no_output_and_no_gradient(name: str, remat: bool, scan: bool) -> None:
    (grads, y), (other_grads, other_y) = gradients(name, False, False), gradients(name, remat, scan)
    np.testing.assert_allclose(other_y, y, atol=2e-6)
    other_grads = {**other_grads, "stack": unstacked(other_grads["stack"])}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1e-3, float(jnp.abs(b).max()))), other_grads, grads)


def test_remat_draws_the_same_dropout() -> None:
    encoder, x = ENCODERS["text"]
    (variables, y), (same, again) = (
        jax.jit(lambda rngs, module=encoder.clone(remat=remat): (v := module.init(rngs, x, True), module.apply(v, x, True, rngs=rngs)))(
            RNGS
        )
        for remat in (False, True)
    )
    jax.tree.map(np.testing.assert_array_equal, same, variables)
    np.testing.assert_allclose(again, y, atol=1e-6)


def test_scan_draws_weights_and_dropout_for_each_layer() -> None:
    stack = Stack(2, {"heads": 2, "mlp": 16, "norm_first": True, "dropout": 0.5}, scan=True)
    born = jax.jit(lambda rngs: stack.init(rngs, X, None, True))(RNGS)
    kernel = np.asarray(born["params"]["blocks"]["mlp_0"]["kernel"])
    assert kernel.shape == (2, 8, 16)
    assert np.abs(kernel[0] - kernel[1]).min() > 0
    assert 0.9 * sqrt(6 / 24) < np.abs(kernel).max() < sqrt(6 / 24)  # xavier of one layer's [8, 16]
    # Zero weights but a bias of 1: each layer adds 0 or 2. One draw for both would leave no 2.
    variables = zeros(stack, X, None, True)
    variables["params"]["blocks"]["mlp_1"]["bias"] = jnp.ones((2, 8))
    y = jax.jit(lambda rngs: stack.apply(variables, jnp.zeros((4, 5, 8)), None, True, rngs=rngs))(RNGS)
    assert set(np.unique(y)) == {0.0, 2.0, 4.0}


def test_stacked_and_unstacked_are_each_others_way_back() -> None:
    params = {f"block_{i}": {"a": jnp.full((2,), float(i))} for i in range(11)}
    both = stacked(params)
    np.testing.assert_array_equal(both["blocks"]["a"][:, 0], range(11))  # block_10 is the last, not the third
    jax.tree.map(np.testing.assert_array_equal, unstacked(both), params)
    assert (stacked(both), unstacked(params)) == (both, params)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("scan", [False, True])
def test_matrices_and_tables_decay_and_nothing_else(name: str, scan: bool) -> None:
    """Biases of the attention have two axes, one for the heads; stacked, all have one more."""
    encoder, x = ENCODERS[name]
    decays = jax.tree_util.tree_leaves_with_path(is_weight(shapes(encoder.clone(scan=scan), x, False)["params"]))
    names = [{path[-1].key for path, found in decays if found == weight} for weight in (True, False)]
    assert names == ([{"kernel", "embedding"}, {"bias", "scale"}] if name == "text" else [{"kernel"}, {"bias", "scale", "cls"}])


@pytest.mark.parametrize(("name", "stack_views"), [("text", True), ("vit", False)])
def test_a_training_step_on_two_devices(name: str, stack_views: bool) -> None:
    encoder, x = ENCODERS[name]
    encoder = encoder.clone(**({"remat": True, "scan": True} if stack_views else {"layers": 1}))
    mesh = parallel.data_mesh(jax.devices()[:2])
    views = {"view1": x, "view2": x[::-1].copy()}
    method = m.Byol(encoder, m.MLP(hidden=8, out=8), m.MLP(hidden=8, out=8))
    tx = m.adamw(1e-3)
    before = m.init(method, tx, jax.random.key(0), views, mesh=mesh)
    step = jax.jit(m.make_train_step(method, tx, ema=m.constant_decay(0.9), mesh=mesh, stack_views=stack_views))
    after, metrics = step(before, parallel.to_global(views, mesh))
    assert 0 < metrics["loss"] < 8
    before, after = jax.device_get((before, after))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), after.online["params"], before.online["params"])
    assert all(0 < size < 2e-3 for size in jax.tree.leaves(moved))
    wanted = jax.jit(optax.incremental_update)(after.online["params"], before.target["params"], 0.1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after.target["params"], wanted)
