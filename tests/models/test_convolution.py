"""The convolution of the ResNets equals XLA's where it is written otherwise, and is written otherwise on a CPU only."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from byol_jax.models.convolution import SMALL_MAP, convolve


@pytest.mark.parametrize("side", [1, 2, 3, 5])
@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", ((1, 1), (1, 1)), ((3, 3), (3, 3))])
def test_values_and_gradients_are_those_of_xla(side: int, kernel: int, stride: int, padding: Any) -> None:
    if not isinstance(padding, str) and side + 2 * padding[0][0] < kernel:
        pytest.skip("the kernel is larger than the map")
    ours, theirs = (nn.Conv(5, (kernel, kernel), stride, padding, conv_general_dilated=form) for form in (convolve, None))
    x = jax.random.normal(jax.random.key(0), (2, 3, side, side, 4))  # two views
    variables = theirs.init(jax.random.key(1), x[0])
    down = jax.random.normal(jax.random.key(2), theirs.apply(variables, x[0]).shape)

    def loss(conv: nn.Conv, variables: Any, x: jax.Array) -> jax.Array:
        return jnp.sum(down * jnp.square(jax.vmap(lambda view: conv.apply(variables, view))(x)))

    found, wanted = (jax.jit(jax.value_and_grad(loss, argnums=(1, 2)), static_argnums=0)(conv, variables, x) for conv in (ours, theirs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), found, wanted)


@pytest.mark.parametrize(("side", "window", "product"), [(2, 3, True), (3, 3, True), (4, 3, False), (4, 1, True)])
def test_where_it_is_a_matrix_product(side: int, window: int, product: bool) -> None:
    assert SMALL_MAP == 9
    x, kernel = jnp.ones((1, side, side, 2)), jnp.ones((window, window, 2, 2))

    def run(x: jax.Array) -> jax.Array:
        return convolve(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def text(platform: str) -> str:
        return jax.jit(run).trace(x).lower(lowering_platforms=(platform,)).as_text()

    assert ("stablehlo.convolution" in text("cpu")) is not product
    assert ("stablehlo.dot_general" in text("cpu")) is product
    for platform in ("cuda", "tpu"):
        assert "stablehlo.convolution" in text(platform)
        assert "stablehlo.dot_general" not in text(platform)


def on_a_gpu(x: jax.Array, kernel: jax.Array, *, cuda: Any = None, default: Any, **others: Any) -> jax.Array:
    del others
    return (cuda or default)(x, kernel)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 7), (10, 11)])
@pytest.mark.parametrize(("kernel", "channels"), [(7, 3), (3, 1), (4, 2)])
@pytest.mark.parametrize("padding", ["SAME", ((3, 3), (2, 3))])
def test_folded_pixels_give_the_same(
    height: int, width: int, kernel: int, channels: int, padding: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The form of a GPU, computed here: values, and the gradients of kernel and image."""
    x = jax.random.normal(jax.random.key(0), (2, height, width, channels))
    weights = jax.random.normal(jax.random.key(1), (kernel, kernel, channels, 5))

    def loss(x: jax.Array, weights: jax.Array, form: Any) -> jax.Array:
        y = form(x, weights, (2, 2), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.sum(jnp.square(y) * jnp.linspace(0, 1, y.size).reshape(y.shape))

    monkeypatch.setattr(jax.lax, "platform_dependent", on_a_gpu)
    found, wanted = (jax.value_and_grad(loss, argnums=(0, 1))(x, weights, form) for form in (convolve, jax.lax.conv_general_dilated))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-4), found, wanted)


def test_pixels_are_folded_on_a_gpu_and_in_a_stem_only() -> None:
    """7x7 over 3 channels is 4x4 over 16: 12, and 4 of zeros."""

    def kernels(platform: str, channels: int, stride: int) -> bool:
        run = jax.jit(lambda x, k: convolve(x, k, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")))
        text = run.trace(jnp.ones((1, 32, 32, channels)), jnp.ones((7, 7, channels, 8))).lower(lowering_platforms=(platform,)).as_text()
        return "tensor<4x4x16x8xf32>" in text

    assert kernels("cuda", 3, 2)
    assert not any((kernels("cpu", 3, 2), kernels("tpu", 3, 2), kernels("cuda", 3, 1), kernels("cuda", 5, 2)))
