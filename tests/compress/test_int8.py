"""8 bits: what is stored, what a stored encoder computes, training as if with 8 bits."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.compress import fake_int8, floating, int8, is_int8, loaded, quantized
from byol_jax.models import TextEncoder, resnet

pytest.importorskip("qwix")
IMAGES = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
TOKENS = jnp.array([[1, 5, 6, 2, 0, 0], [1, 7, 8, 9, 4, 2]], jnp.int32)


@pytest.fixture(autouse=True)
def standard_promotion() -> Iterator[None]:
    """qwix multiplies integers with floats as they are, which the strict promotion of all other tests forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


class Matrix(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.Dense(2, name="layer")(x)


@functools.cache
def network(kind: str) -> tuple[nn.Module, dict[str, Any], jax.Array]:
    x = IMAGES if kind == "images" else TOKENS
    module = resnet((1,), (8,)) if kind == "images" else TextEncoder(10, layers=1, hidden=8, heads=2, mlp=16, positions=8)
    return module, module.init(jax.random.key(1), x, False), x


@functools.cache
def kept(kind: str) -> dict[str, Any]:
    """The network as 8 bits store it."""
    module, variables, x = network(kind)
    return jax.device_get(quantized(module, variables, [x]))


def seen(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)


def test_a_matrix_by_hand() -> None:
    """The largest absolute value is 127.5 steps; steps are rounded, and cut off at 127."""
    kernel = jnp.array([[1.275, 0.34], [-0.5, 25.5], [0.004, 12.6]])
    variables = {"params": {"layer": {"kernel": kernel, "bias": jnp.array([0.5, 0.0])}}}
    # Of the two batches the largest are 2.55 and 1.275, on average 1.9125.
    stored = quantized(Matrix(), variables, [jnp.array([[2.55, 0.0, -1.0]]), jnp.array([[0.3, -1.275, 0.6]])])
    layer = stored["params"]["layer"]
    weights = np.array([[127, 2], [-50, 127], [0, 63]])
    np.testing.assert_array_equal(layer["kernel"]["qvalue"], weights)
    np.testing.assert_allclose(layer["kernel"]["scale"], [[0.01, 0.2]], rtol=1e-6)
    np.testing.assert_allclose(layer["dot_general0_lhs_scale"], [[0.015]], rtol=1e-6)
    np.testing.assert_array_equal(layer["bias"], [0.5, 0.0])
    running, params = loaded(Matrix(), stored, jax.ShapeDtypeStruct((1, 3), jnp.float32))
    steps = np.array([[127, 2, -60]])  # of 2.55, which is cut off, 0.032 and -0.9
    expected = steps @ weights * 0.015 * np.array([0.01, 0.2]) + [0.5, 0.0]
    np.testing.assert_allclose(running.apply(params, jnp.array([[2.55, 0.032, -0.9]]), False), expected, rtol=1e-5)
    np.testing.assert_allclose(floating(stored)["params"]["layer"]["kernel"], weights * np.array([0.01, 0.2]), rtol=1e-6)


def test_a_table_has_a_scale_for_each_row() -> None:
    _, variables, _ = network("texts")
    stored = kept("texts")["params"]["word"]["embedding"]
    table = np.asarray(variables["params"]["word"]["embedding"])
    scale = np.abs(table).max(1, keepdims=True) / 127.5
    np.testing.assert_allclose(stored["scale"], scale, rtol=1e-6)
    assert np.abs(np.asarray(stored["qvalue"]) - np.clip(table / scale, -128, 127)).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_a_stored_encoder_gives_nearly_what_the_encoder_gave(kind: str) -> None:
    module, variables, x = network(kind)
    stored = kept(kind)
    assert is_int8(stored)
    assert not is_int8(variables)
    assert sum(leaf.dtype == np.int8 for leaf in jax.tree.leaves(stored)) == (4 if kind == "images" else 3 + 6)
    running, params = loaded(module, stored, seen(x))
    whole = np.asarray(module.apply(variables, x, False))
    size = np.sqrt(np.mean(whole**2))
    for made in (running.apply(params, x, False), module.apply(floating(stored), x, False)):
        assert 0 < np.abs(np.asarray(made) - whole).max() < 0.1 * size
    assert jax.tree.map(np.shape, floating(stored)) == jax.tree.map(np.shape, dict(variables))


@pytest.mark.parametrize("kind", ["images", pytest.param("texts", marks=pytest.mark.slow)])
def test_training_as_if_with_8_bits_rounds_and_still_learns(kind: str) -> None:
    module, variables, x = network(kind)
    fake = fake_int8(module)
    assert jax.tree.map(np.shape, fake.init(jax.random.key(1), x, False)) == jax.tree.map(np.shape, variables)
    whole, rounded = module.apply(variables, x, False), fake.apply(variables, x, False)
    assert 0 < float(jnp.abs(rounded - whole).max()) < 0.1 * float(jnp.abs(whole).max())

    def gradients(network: nn.Module) -> Any:
        return jax.grad(lambda params: jnp.square(network.apply({**variables, "params": params}, x, False)).sum())(variables["params"])

    for straight, exact in zip(*(jax.tree.leaves(jax.jit(gradients, static_argnums=0)(n)) for n in (fake, module)), strict=True):
        assert np.linalg.norm(straight - exact) <= 0.2 * np.linalg.norm(exact) + 1e-4


def test_calibration_needs_a_batch() -> None:
    module, variables, _ = network("images")
    with pytest.raises(ValueError, match="there is no batch"):
        quantized(module, variables, [])


def test_without_qwix_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(int8.MissingQwix, match=r"pip install 'byol-jax\[compress\]'"):
        fake_int8(resnet())
