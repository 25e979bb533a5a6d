"""The stem's pool against flax's: values, and gradients bit for bit, ties included."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from byol_jax.models.pool import max_pool, relu_max_pool


def both(x: np.ndarray, pads: tuple, with_relu: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """(result, gradient) of ours and of flax's, for a gradient of whole numbers, whose sums are exact in any order."""
    ours = partial(relu_max_pool if with_relu else max_pool, pads=pads)
    shape = jax.eval_shape(ours, x).shape
    dy = np.random.default_rng(1).integers(-9, 10, shape).astype(x.dtype)

    @partial(jax.jit, static_argnums=0)
    def there_and_back(pool: Any, x: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, back = jax.vjp(pool, x)
        return y, back(dy)[0]

    pools = ours, lambda x: nn.max_pool(nn.relu(x) if with_relu else x, (3, 3), (2, 2), pads)
    return [jax.device_get(there_and_back(pool, x, dy)) for pool in pools]


def test_by_hand() -> None:
    """Two windows side by side on 3x5 pixels share the middle column; the 5 is in both, and of two 7s in a row the first counts."""
    x = np.array([[1, 2, 5, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]], np.float32)[None, :, :, None]
    _, back = jax.vjp(lambda x: max_pool(x, ((0, 0), (0, 0))), jnp.asarray(x))
    gradient = np.asarray(back(jnp.array([[[[10.0], [3.0]]]]))[0])[0, :, :, 0]
    np.testing.assert_array_equal(gradient, [[0, 0, 13, 0, 0], [0] * 5, [0] * 5])
    x[0, 0] = np.array([[7, 7, 5, 0, 0]], np.float32).T
    gradient = np.asarray(jax.vjp(lambda x: max_pool(x, ((0, 0), (0, 0))), jnp.asarray(x))[1](jnp.array([[[[10.0], [3.0]]]]))[0])
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[10, 0, 3, 0, 0], [0] * 5, [0] * 5])


@pytest.mark.parametrize("pads", [((0, 1), (0, 1)), ((1, 1), (1, 1)), ((1, 1), (0, 0)), ((0, 0), (1, 2))])
@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (1, 7, 9, 2), (1, 5, 4, 1)])
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize("with_relu", [False, True])
def test_as_flax_pools(shape: tuple[int, ...], pads: tuple, dtype: type, with_relu: bool) -> None:
    """Small whole numbers: many ties, in every window, and windows without a positive number."""
    x = np.random.default_rng(0).integers(-2, 3, shape).astype(dtype)
    (y, gradient), (expected, expected_gradient) = both(x, pads, with_relu)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(gradient.astype(np.float32), expected_gradient.astype(np.float32))


def test_where_xlas_own_way_back_is_taken() -> None:
    """A scatter on a TPU alone; elsewhere pixels are compared for the first of the largest."""
    x = jnp.zeros((2, 8, 8, 3))

    def back(x: jax.Array) -> jax.Array:
        return jax.grad(lambda x: jnp.sum(max_pool(x, ((0, 1), (0, 1)))))(x)

    def text(platform: str) -> str:
        return jax.jit(back).trace(x).lower(lowering_platforms=(platform,)).as_text()

    for platform in ("cpu", "cuda", "tpu"):
        assert ("select_and_scatter" in text(platform)) is (platform == "tpu")
        assert ("stablehlo.compare GT," in text(platform)) is (platform != "tpu")
