"""The convolution of the ResNets equals XLA's where it is written otherwise, and it is so only where that pays."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from byol_jax.models import winograd
from byol_jax.models.convolution import convolve
from byol_jax.models.forms import form_of


@pytest.mark.parametrize("side", [1, 2, 3, 5])
@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", ((1, 1), (1, 1)), ((3, 3), (3, 3))])
def test_values_and_gradients_are_those_of_xla(side: int, kernel: int, stride: int, padding: Any) -> None:
    if not isinstance(padding, str) and side + 2 * padding[0][0] < kernel:
        pytest.skip("the kernel is larger than the map")
    ours, theirs = (nn.Conv(5, (kernel, kernel), stride, padding, conv_general_dilated=form) for form in (convolve, None))
    draw = np.random.default_rng(0)
    x = draw.normal(size=(2, 3, side, side, 4)).astype(np.float32)  # two views
    variables = {"params": {"kernel": draw.normal(0, 0.3, (kernel, kernel, 4, 5)).astype(np.float32), "bias": np.ones(5, np.float32)}}
    down = draw.normal(size=jax.eval_shape(theirs.apply, variables, x[0]).shape).astype(np.float32)

    def loss(variables: Any, x: jax.Array, conv: nn.Conv) -> jax.Array:
        return jnp.sum(down * jnp.square(jax.vmap(lambda view: conv.apply(variables, view))(x)))

    back = jax.value_and_grad(loss, argnums=(0, 1))
    found, wanted = jax.jit(lambda *given: (back(*given, ours), back(*given, theirs)))(variables, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), found, wanted)


@pytest.mark.parametrize(
    ("batch", "side", "window", "stride", "channels", "products"),
    [
        (1, 1, 3, 1, 2, 1),  # eight meet zeros alone
        (1, 2, 3, 1, 2, 9),
        (1, 3, 3, 1, 2, 9),
        (1, 4, 3, 1, 2, 0),
        (1, 4, 1, 1, 2, 1),
        (2, 12, 3, 2, 32, 9),  # 72 rows, of 6x6 pixels
        (1, 12, 3, 2, 32, 0),  # 36
        (2, 12, 3, 2, 31, 0),
        (2, 14, 3, 2, 32, 0),
    ],
)
def test_where_it_is_a_product_for_each_pixel_of_the_kernel(
    batch: int, side: int, window: int, stride: int, channels: int, products: int
) -> None:
    x, kernel = jnp.ones((batch, side, side, channels)), jnp.ones((window, window, channels, 32))

    def run(x: jax.Array) -> jax.Array:
        return convolve(x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def text(platform: str) -> str:
        return jax.jit(run).trace(x).lower(lowering_platforms=(platform,)).as_text()

    assert text("cpu").count("stablehlo.dot_general") == products
    assert ("stablehlo.convolution" in text("cpu")) is (products == 0)
    for platform in ("cuda", "tpu"):
        assert "stablehlo.convolution" in text(platform)
        assert "stablehlo.dot_general" not in text(platform)


@pytest.mark.parametrize(
    ("side", "views", "channels", "outputs", "dtype", "winograd"),
    [
        ((14, 14), 1, 32, 32, jnp.float32, True),  # 49 tiles
        ((12, 16), 1, 32, 48, jnp.float32, True),  # 48
        ((5, 5), 8, 32, 32, jnp.float32, True),  # 144 of 225 products
        ((12, 14), 1, 32, 32, jnp.float32, False),  # 42 tiles
        ((14, 14), 1, 31, 32, jnp.float32, False),
        ((14, 14), 1, 32, 31, jnp.float32, False),
        ((2, 2), 48, 32, 32, jnp.float32, False),  # its 16 products are of a pixel of the kernel each
        ((3, 3), 48, 32, 32, jnp.float32, False),
        ((1, 16), 8, 32, 32, jnp.float32, False),  # 32 of 36 products
        ((14, 14), 1, 32, 32, jnp.bfloat16, False),
    ],
)
def test_where_it_is_winograds(side: tuple[int, int], views: int, channels: int, outputs: int, dtype: Any, winograd: bool) -> None:
    def products(platform: str, kernel: tuple[int, int] = (3, 3), strides: tuple[int, int] = (1, 1), padding: Any = "SAME") -> int:
        x, weights = jnp.ones((views, *side, channels), dtype), jnp.ones((*kernel, channels, outputs), dtype)
        run = jax.jit(lambda x, k: convolve(x, k, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")))
        return run.trace(x, weights).lower(lowering_platforms=(platform,)).as_text().count("stablehlo.dot_general")

    assert (products("cpu") == 16) is winograd
    assert products("cuda") == products("tpu") == 0
    others = (
        {"kernel": (5, 5)},
        {"kernel": (1, 3)},
        {"strides": (2, 2)},
        {"strides": (1, 2)},
        {"padding": ((2, 2), (1, 1))},
        {"padding": "VALID"},
    )
    assert all(products("cpu", **other) != 16 for other in others if min(side) > 2)


def three_by_three(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return winograd.three_by_three(x, kernel, None)


@pytest.mark.parametrize("side", [(2, 2), (4, 4), (5, 5), (6, 7), (7, 4)])
def test_winograds_form_gives_the_same(side: tuple[int, int]) -> None:
    """Values and both gradients, in float64, so that what is left of a wrong sum would be seen."""
    with jax.enable_x64(True):
        x, kernel, down = (
            jax.random.normal(jax.random.key(seed), shape) for seed, shape in enumerate(((3, *side, 6), (3, 3, 6, 5), (3, *side, 5)))
        )
        assert x.dtype == jnp.float64

        def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

        (found, back), (wanted, wanted_back) = (jax.vjp(form, x, kernel) for form in (three_by_three, plain))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), (found, back(down)), (wanted, wanted_back(down))
        )


def test_winograds_form_keeps_its_arguments_for_the_way_back_and_not_the_tiles() -> None:
    x, kernel = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 6))
    _, back = jax.vjp(three_by_three, x, kernel)
    assert sum(kept.size for kept in jax.tree.leaves(back)) <= x.size + kernel.size


def test_winograds_form_is_as_exact_as_xlas() -> None:
    """In float32, by the root of the mean squared error against float64: 16 products of larger numbers lose no more than 36."""
    shapes = ((8, 12, 12, 64), (3, 3, 64, 64), (8, 12, 12, 64))
    draw = np.random.default_rng(0)
    x, kernel, down = (draw.normal(size=shape) for shape in shapes)

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def of(form: Any, dtype: Any) -> list[np.ndarray]:
        y, back = jax.vjp(form, jnp.asarray(x, dtype), jnp.asarray(kernel, dtype))
        return [np.asarray(a, np.float64) for a in (y, *back(jnp.asarray(down, dtype)))]

    with jax.enable_x64(True):
        exact = of(plain, jnp.float64)
        ours, theirs = (
            [np.sqrt(np.mean(np.square(a - b)) / np.mean(np.square(b))) for a, b in zip(of(form, jnp.float32), exact, strict=True)]
            for form in (three_by_three, plain)
        )
    assert max(ours) < 1e-6
    assert all(a < 2 * b for a, b in zip(ours, theirs, strict=True))


def test_in_bfloat16_the_products_of_a_small_map_are_summed_in_float32() -> None:
    """1 in the middle and 2^-9 around: a sum in bfloat16 would stay at 1, eight small ones make 1 + 2^-6."""
    kernel = jnp.full((3, 3, 1, 1), 2.0**-9, jnp.bfloat16).at[0, 0].set(1)

    def middle(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolve(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))[0, 1, 1, 0]

    x = jnp.ones((1, 3, 3, 1), jnp.bfloat16)
    value, back = jax.jit(jax.value_and_grad(middle, argnums=(0, 1)))(x, kernel)
    assert (value.dtype, float(value)) == (jnp.bfloat16, 1 + 2.0**-6)
    assert [gradient.dtype for gradient in back] == [jnp.bfloat16, jnp.bfloat16]
    assert float(back[1].sum()) == 9


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 7), (10, 11), (7, 10)])  # 4, 4, 6 and 5 outputs a row, 5 or 6 with more padding
@pytest.mark.parametrize(("kernel", "channels"), [(7, 3), (3, 1), (4, 2)])
@pytest.mark.parametrize("padding", ["SAME", ((3, 3), (2, 3))])
def test_folded_pixels_give_the_same(height: int, width: int, kernel: int, channels: int, padding: Any) -> None:
    """The form of a GPU, computed here: values, and the gradients of kernel and image."""
    x = jax.random.normal(jax.random.key(0), (2, height, width, channels))
    weights = jax.random.normal(jax.random.key(1), (kernel, kernel, channels, 5))

    def loss(form: Any, x: jax.Array, weights: jax.Array) -> jax.Array:
        y = form(x, weights, (2, 2), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.sum(jnp.square(y) * jnp.linspace(0, 1, y.size).reshape(y.shape))

    run = jax.jit(jax.value_and_grad(loss, argnums=(1, 2)), static_argnums=0)
    with form_of("cuda"):
        found, wanted = (run(form, x, weights) for form in (convolve, jax.lax.conv_general_dilated))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-4), found, wanted)


def test_pixels_are_folded_on_a_gpu_and_in_a_stem_only() -> None:
    """7x7 over 3 channels is 4x2 over 2x8 pixels, to 4 outputs of 8 channels; where a row has 15 it is 4x4 over 16, 12 and 4 of zeros."""

    def kernels(platform: str, channels: int, stride: int, width: int = 32, wanted: str = "4x2x48x32") -> bool:
        run = jax.jit(lambda x, k: convolve(x, k, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")))
        text = run.trace(jnp.ones((1, 32, width, channels)), jnp.ones((7, 7, channels, 8))).lower(lowering_platforms=(platform,)).as_text()
        return f"tensor<{wanted}xf32>" in text

    assert kernels("cuda", 3, 2)
    assert kernels("cuda", 3, 2, width=30, wanted="4x4x16x8")
    assert not any((kernels("cpu", 3, 2), kernels("tpu", 3, 2), kernels("cuda", 3, 1), kernels("cuda", 5, 2)))
