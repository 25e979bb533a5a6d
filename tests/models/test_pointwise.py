"""A convolution and a norm as one: values, gradients and averages of the two after one another, over devices too; and what it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from byol_jax import method as m
from byol_jax import models, parallel
from byol_jax.method.norms import apply_to_views
from byol_jax.models.forms import form_of
from byol_jax.models.norm import Norm
from byol_jax.models.pointwise import product_norm

RNG = np.random.default_rng(0)
X = np.maximum(RNG.normal(0.5, 1.0, size=(8, 3, 3, 4)), 0).astype(np.float32)  # as a ReLU leaves it: its mean is far from 0
KERNEL = RNG.normal(size=(1, 1, 4, 16)).astype(np.float32)
DOWN = RNG.normal(0.2, 1.0, size=(8, 3, 3, 16)).astype(np.float32)
PARAMS = {"scale": RNG.normal(size=16).astype(np.float32), "bias": RNG.normal(size=16).astype(np.float32)}
OPTIONS: dict[str, Any] = {"momentum": 0.9, "epsilon": 1e-5}


@pytest.fixture
def on_a_gpu() -> Iterator[None]:
    """Of the forms for each platform, a GPU's are taken, here on the CPU."""
    with form_of("cuda"):
        yield


def stats(x: jax.Array) -> dict[str, jax.Array]:
    return {"mean": jnp.arange(16, dtype=x.dtype), "var": jnp.ones(16, x.dtype)}


def two_layers(params: Any, kernel: jax.Array, x: jax.Array, kind: type[nn.BatchNorm] = nn.BatchNorm) -> Any:
    """(flax's BatchNorm of the product, its new averages)."""
    norm = kind(use_running_average=False, **OPTIONS)
    return norm.apply({"params": params, "batch_stats": stats(x)}, x @ kernel[0, 0], mutable=["batch_stats"])


def as_one(params: Any, kernel: jax.Array, x: jax.Array, axis_name: str | None = None, relu: bool = False) -> Any:
    norm = Norm(use_running_average=False, axis_name=axis_name, relu=relu, **OPTIONS)
    return norm.apply({"params": params, "batch_stats": stats(x)}, x, kernel=kernel, mutable=["batch_stats"])


def pulled(layers: Any, params: Any, kernel: jax.Array, x: jax.Array, down: jax.Array) -> Any:
    """((outputs, new averages), gradients of parameters, kernel and x of their sum, weighted by ``down``)."""

    def loss(params: Any, kernel: jax.Array, x: jax.Array) -> Any:
        y, changed = layers(params, kernel, x)
        return jnp.sum(y * down), (y, changed["batch_stats"])

    (_, made), gradients = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(params, kernel, x)
    return made, gradients


def assert_close(found: Any, wanted: Any, tolerance: float, least: float = 0.0) -> None:
    """To so much of the largest number in each array, or of ``least``, where an array is zeros and roundoff."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(least, np.abs(b).max())), found, wanted)


def test_by_hand(on_a_gpu: None) -> None:
    """Pixels (1, 0) and (3, 2); their sums, 1 and 5, have mean 3 and variance 4, their differences, 1 and 1, variance 0."""
    x, kernel = jnp.array([[[[1.0, 0.0], [3.0, 2.0]]]]), jnp.array([[[[1.0, 1.0], [1.0, -1.0]]]])
    norm = Norm(use_running_average=False, momentum=0.75, epsilon=1.0)
    given = {
        "params": {"scale": jnp.array([np.sqrt(5.0), 1.0]), "bias": jnp.array([1.0, 7.0])},
        "batch_stats": {"mean": jnp.zeros(2), "var": jnp.ones(2)},
    }
    y, changed = norm.apply(given, x, kernel=kernel, mutable=["batch_stats"])
    np.testing.assert_allclose(y[0, 0], [[-1.0, 7.0], [3.0, 7.0]], rtol=1e-6)
    np.testing.assert_allclose(changed["batch_stats"]["mean"], [0.75, 0.25], rtol=1e-6)
    np.testing.assert_allclose(changed["batch_stats"]["var"], [1.75, 0.75], rtol=1e-6)


def test_it_is_the_two_after_one_another(on_a_gpu: None) -> None:
    given = PARAMS, jnp.asarray(KERNEL), jnp.asarray(X), jnp.asarray(DOWN)
    assert_close(pulled(as_one, *given), pulled(two_layers, *given), 3e-6)


def test_elsewhere_it_is_the_two() -> None:
    given = PARAMS, jnp.asarray(KERNEL), jnp.asarray(X), jnp.asarray(DOWN)
    assert_close(pulled(as_one, *given), pulled(two_layers, *given), 3e-6)


def test_in_float64_it_is_exact(on_a_gpu: None) -> None:
    with jax.enable_x64(True):
        given = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (PARAMS, KERNEL, X, DOWN))
        assert_close(pulled(as_one, *given), pulled(partial(two_layers, kind=Norm), *given), 1e-13)  # flax's counts in float32


@pytest.mark.parametrize("relu", [False, True])
def test_over_devices_it_is_that_of_the_whole_batch(on_a_gpu: None, relu: bool) -> None:
    """On four devices whose images differ in mean; gradients of what they share are each one's part."""
    mesh = parallel.data_mesh(jax.devices()[:4])
    x = X + np.repeat(np.arange(4, dtype=np.float32), 2)[:, None, None, None]

    def on_one(x: jax.Array, down: jax.Array) -> Any:
        layers = partial(as_one, axis_name="data", relu=relu)
        (y, moved), (params, kernel, dx) = pulled(layers, PARAMS, jnp.asarray(KERNEL), x, down)
        return y, dx, moved, jax.lax.psum((params, kernel), "data")

    def in_all(params: Any, kernel: jax.Array, x: jax.Array) -> Any:
        y, changed = two_layers(params, kernel, x)
        return nn.relu(y) if relu else y, changed

    specs: Any = {"mesh": mesh, "in_specs": P("data"), "out_specs": (P("data"), P("data"), P(), P()), "check_vma": False}
    found = jax.jit(jax.shard_map(on_one, **specs))(x, DOWN)
    (y, moved), (params, kernel, dx) = pulled(in_all, PARAMS, jnp.asarray(KERNEL), jnp.asarray(x), jnp.asarray(DOWN))
    assert_close(found, (y, dx, moved, (params, kernel)), 1e-5)


def test_in_bfloat16_the_means_are_the_biases(on_a_gpu: None) -> None:
    """Of 4,096 pixels with a mean of ten deviations: kernel and offset are rounded together, the offset to 16 digits."""
    x = jnp.asarray(np.random.default_rng(1).normal(10.0, 1.0, size=(4, 32, 32, 8)), jnp.bfloat16)
    kernel = jnp.asarray(np.random.default_rng(2).normal(size=(8, 32)), jnp.float32)
    bias = jnp.linspace(-3.0, 3.0, 32)
    y, mean, var = jax.jit(lambda x: product_norm(x, kernel, jnp.ones(32), bias, None, 1e-5))(x)
    assert (y.dtype, mean.dtype, var.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    wide, taken = np.asarray(x, np.float64).reshape(-1, 8), np.asarray(kernel.astype(jnp.bfloat16), np.float64)
    np.testing.assert_allclose(mean, (wide @ taken).mean(0), atol=1e-4)
    np.testing.assert_allclose(var, (wide @ taken).var(0), rtol=2e-3)
    np.testing.assert_allclose(np.asarray(y, np.float64).mean((0, 1, 2)), bias, atol=2e-3)
    np.testing.assert_allclose(np.asarray(y, np.float64).std((0, 1, 2)), 1.0, rtol=5e-3)


def test_no_rounding_is_a_cast_there_and_back() -> None:
    """XLA leaves such casts out, in what it makes for a GPU in any case: mean and offset would be of other numbers than the product's."""

    def loss(x: jax.Array) -> jax.Array:
        return product_norm(x, jnp.asarray(KERNEL[0, 0]), PARAMS["scale"], PARAMS["bias"], None, 1e-5)[0].sum()

    narrowed = set()
    for step in jax.make_jaxpr(jax.grad(loss))(jnp.asarray(X, jnp.bfloat16)).eqns:
        if step.primitive.name == "convert_element_type":
            was, becomes = step.invars[0], step.outvars[0]
            assert was not in narrowed, step
            narrowed |= {becomes} if (was.aval.dtype, becomes.aval.dtype) == (jnp.float32, jnp.bfloat16) else set()


def test_of_the_wide_activation_nothing_is_kept() -> None:
    def kept(x: jax.Array) -> list[jax.Array]:
        layers = jax.vjp(lambda x: product_norm(x, KERNEL[0, 0], PARAMS["scale"], PARAMS["bias"], None, 1e-5)[0], x)
        return jax.tree.leaves(layers[1])

    assert max(leaf.size for leaf in jax.eval_shape(kept, X)) == X.size // 4 * (4 + 8)


@pytest.mark.parametrize("stacked", [False, True])
def test_both_ways_to_pass_the_views_end_as_two_layers(stacked: bool) -> None:
    """Outputs, new averages and gradients of a whole network, in float64."""
    heads = m.MLP(8, 4, dtype=jnp.float64), m.MLP(8, 4, dtype=jnp.float64)
    encoder = models.resnet((1,), (16,), block="bottleneck", stem_channels=4, dtype=jnp.float64)
    network = m.Byol(encoder, *heads).network()
    mesh = parallel.data_mesh(jax.devices()[:1])

    def on_one(variables: Any, views: jax.Array) -> Any:
        def loss(params: Any) -> Any:
            outputs, moved = apply_to_views(network, {**variables, "params": params}, views, stacked=stacked)
            return jnp.sum(jnp.square(outputs.prediction)), (outputs, moved)

        return jax.grad(loss, has_aux=True)(variables["params"])

    run = jax.shard_map(on_one, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
    narrow = m.Byol(encoder.clone(dtype=jnp.float32), *(head.clone(dtype=jnp.float32) for head in heads)).network()
    views = np.random.default_rng(3).normal(size=(2, 6, 8, 8, 3))
    born = jax.jit(lambda: narrow.init(jax.random.key(0), views[0].astype(np.float32), True))()
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):  # flax's BatchNorm in the heads mixes both widths
        variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), born)
        wanted = jax.jit(run)(variables, views)
        with form_of("cuda"):
            found = jax.jit(run)(variables, views)
    assert_close(found, wanted, 1e-9, least=1e-3)  # biases before norms


def test_running_averages_want_a_layer_before() -> None:
    with pytest.raises(ValueError, match="with running averages, convolve x before"):
        Norm(use_running_average=True).init(jax.random.key(0), X, kernel=jnp.asarray(KERNEL))


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_a_gpu_alone_joins_them(platform: str) -> None:
    """In its program alone pixels have 12 channels and 8 for the ones."""
    model = models.resnet((1,), (48,), block="bottleneck", stem_channels=12, bn_axis=None)
    images = X[..., :3]
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, True))

    def loss(params: Any, stats: Any) -> jax.Array:
        return model.apply({"params": params, "batch_stats": stats}, images, True, mutable=["batch_stats"])[0].sum()

    traced = jax.jit(jax.grad(loss)).trace(variables["params"], variables["batch_stats"])
    lines = traced.lower(lowering_platforms=(platform,)).as_text().splitlines()
    assert any("stablehlo.pad" in line and "8x3x3x20xf32" in line for line in lines) == (platform == "cuda")
