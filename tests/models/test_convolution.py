"""The convolution of the ResNets equals XLA's where it is written otherwise, and is written otherwise on a CPU only."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from byol_jax.models.convolution import SMALL_MAP, convolve


@pytest.mark.parametrize("side", [1, 2, 3, 4])
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


@pytest.mark.parametrize(("side", "product"), [(2, True), (3, False)])
def test_where_it_is_a_matrix_product(side: int, product: bool) -> None:
    assert SMALL_MAP == 4
    x, kernel = jnp.ones((1, side, side, 2)), jnp.ones((3, 3, 2, 2))

    def run(x: jax.Array) -> jax.Array:
        return convolve(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def text(platform: str) -> str:
        return jax.jit(run).trace(x).lower(lowering_platforms=(platform,)).as_text()

    assert ("stablehlo.convolution" in text("cpu")) is not product
    assert ("stablehlo.dot_general" in text("cpu")) is product
    for platform in ("cuda", "tpu"):
        assert "stablehlo.convolution" in text(platform)
        assert "stablehlo.dot_general" not in text(platform)
