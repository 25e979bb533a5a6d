"""The ResNets' BatchNorm against flax's: values, gradients, running averages, over devices too; and what it keeps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from byol_jax import parallel
from byol_jax.models.forms import form_of
from byol_jax.models.norm import Norm, _written_out, relu

X = np.random.default_rng(0).normal(1.0, 2.0, size=(8, 3, 3, 4)).astype(np.float32)
DOWN = np.random.default_rng(1).normal(size=X.shape).astype(np.float32)
VARIABLES = {
    "params": {"scale": np.array([1.0, -2.0, 0.5, 0.0], np.float32), "bias": np.array([0.0, 1.0, -1.0, 0.25], np.float32)},
    "batch_stats": {"mean": np.arange(4, dtype=np.float32), "var": np.array([1.0, 2.0, 4.0, 0.5], np.float32)},
}
OPTIONS: dict[str, Any] = {"momentum": 0.9, "epsilon": 1e-5}


def trained(norm: nn.Module, with_relu: bool, x: jax.Array) -> Any:
    """((loss, new running averages), gradients of parameters and input)."""

    def loss(params: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        y, changed = norm.apply({**VARIABLES, "params": params}, x, mutable=["batch_stats"])
        return jnp.sum((nn.relu(y) if with_relu else y) * DOWN[: len(x)]), changed

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(VARIABLES["params"], x)


def test_by_hand() -> None:
    """1 and 3 in a channel: mean 2, variance 1; normalised -1 and 1, times 2 plus 1: -1, of which the ReLU leaves 0, and 3."""
    norm = Norm(use_running_average=False, momentum=0.75, epsilon=0.0, relu=True)
    given = {"params": {"scale": jnp.array([2.0]), "bias": jnp.array([1.0])}, "batch_stats": {"mean": jnp.zeros(1), "var": jnp.ones(1) * 5}}
    y, changed = norm.apply(given, jnp.array([[1.0], [3.0]]), mutable=["batch_stats"])
    np.testing.assert_array_equal(y, [[0.0], [3.0]])
    np.testing.assert_array_equal(changed["batch_stats"]["mean"], [0.5])  # 3/4 of 0 and 1/4 of 2
    np.testing.assert_array_equal(changed["batch_stats"]["var"], [4.0])  # 3/4 of 5 and 1/4 of 1


@pytest.mark.parametrize("with_relu", [False, True])
def test_as_flax_normalises(with_relu: bool) -> None:
    found = trained(Norm(use_running_average=False, relu=with_relu, **OPTIONS), False, jnp.asarray(X))
    wanted = trained(nn.BatchNorm(use_running_average=False, **OPTIONS), with_relu, jnp.asarray(X))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, wanted)
    ours, theirs = Norm(use_running_average=True, relu=with_relu, **OPTIONS), nn.BatchNorm(use_running_average=True, **OPTIONS)
    expected = theirs.apply(VARIABLES, X)
    np.testing.assert_allclose(ours.apply(VARIABLES, X), nn.relu(expected) if with_relu else expected, rtol=1e-6, atol=1e-6)
    born = [norm.init(jax.random.key(0), X) for norm in (ours, theirs)]
    jax.tree.map(np.testing.assert_array_equal, *born)


def test_over_devices_it_is_that_of_the_whole_batch() -> None:
    """Gradients of the parameters are each device's share, as automatic differentiation leaves them in a shard_map."""
    mesh = parallel.data_mesh(jax.devices()[:4])

    def loss(params: Any, x: jax.Array, down: jax.Array) -> tuple[jax.Array, Any]:
        norm = Norm(use_running_average=False, relu=True, axis_name="data", **OPTIONS)
        y, changed = norm.apply({**VARIABLES, "params": params}, x, mutable=["batch_stats"])
        return jnp.sum(y * down), changed

    def one_device(x: jax.Array, down: jax.Array) -> Any:
        (_, changed), (shares, dx) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(VARIABLES["params"], x, down)
        return changed, jax.lax.psum(shares, "data"), dx

    specs: Any = {"mesh": mesh, "in_specs": P("data"), "out_specs": (P(), P(), P("data")), "check_vma": False}
    found = jax.jit(jax.shard_map(one_device, **specs))(X, DOWN)
    (_, changed), (params, dx) = trained(Norm(use_running_average=False, relu=True, **OPTIONS), False, jnp.asarray(X))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, (changed, params, dx))


def test_bfloat16_is_normalised_in_float32() -> None:
    """Statistics of 1,000 and 1,001 in turns: in bfloat16 all of them would be 1,000, and their variance 0."""
    x = jnp.tile(jnp.array([[1000.0], [1004.0]], jnp.bfloat16), (64, 1))
    norm = Norm(use_running_average=False, epsilon=0.0)
    y, changed = norm.apply(norm.init(jax.random.key(0), x), x, mutable=["batch_stats"])
    assert (y.dtype, changed["batch_stats"]["var"].dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(np.asarray(y[:2, 0], np.float32), [-1.0, 1.0], rtol=0.01)


def test_of_an_activation_one_copy_is_kept() -> None:
    scale, bias = (jnp.asarray(VARIABLES["params"][name]) for name in ("scale", "bias"))

    def kept(x: jax.Array) -> list[jax.Array]:
        return jax.tree.leaves(jax.vjp(lambda x: _written_out(x, scale, bias, None, 1e-5, True)[0], x)[1])

    assert sum(leaf.size == X.size for leaf in jax.eval_shape(kept, X)) == 1


def test_a_tpu_differentiates_the_formula() -> None:
    """The barrier between both passes is in the other devices' program alone."""
    norm = Norm(use_running_average=False, relu=True)

    def text(platform: str) -> str:
        run = jax.jit(jax.grad(lambda x: jnp.sum(norm.apply(VARIABLES, x, mutable=["batch_stats"])[0])))
        return run.trace(X).lower(lowering_platforms=(platform,)).as_text()

    assert ["optimization_barrier" in text(platform) for platform in ("cpu", "cuda", "tpu")] == [True, True, False]


@pytest.mark.parametrize("with_relu", [False, True])
def test_both_forms_have_the_same_derivative(with_relu: bool) -> None:
    norm = Norm(use_running_average=False, relu=with_relu, **OPTIONS)
    written = trained(norm, False, jnp.asarray(X))
    with form_of("tpu"):
        derived = trained(norm, False, jnp.asarray(X))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), derived, written)


def test_relu_is_flaxs_and_keeps_its_result() -> None:
    x = jnp.array([-1.0, 0.0, 2.0])
    y, back = jax.vjp(relu, x)
    np.testing.assert_array_equal(y, [0, 0, 2])
    np.testing.assert_array_equal(back(jnp.array([5.0, 6.0, 7.0]))[0], [0, 0, 7])
