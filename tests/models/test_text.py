"""Text encoders: sizes by value, padding, positions, pooling by hand, and what is refused."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import models

TOKENS = np.asarray([[5, 6, 7, 8, 9], [9, 4, 3, 0, 0], [2, 0, 0, 0, 0]], np.int32)
RNGS = {"params": jax.random.key(0), "dropout": jax.random.key(1)}


def tiny(**options: Any) -> models.TextEncoder:
    return models.TextEncoder(12, **{"layers": 2, "hidden": 8, "heads": 2, "mlp": 16, "positions": 10, **options})


def drawn(encoder: models.TextEncoder) -> Any:
    """Random variables, none at its default: no initialiser is compiled."""
    shapes = jax.eval_shape(lambda rngs: encoder.init(rngs, TOKENS, True), RNGS)
    draw = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(0.4 * draw.normal(size=leaf.shape), jnp.float32), shapes)


def run(encoder: models.TextEncoder, variables: Any, tokens: Any, train: bool = False, **options: Any) -> Any:
    return jax.jit(partial(encoder.apply, train=train, **options))(variables, tokens)


def count(vocab: int, layers: int, hidden: int, mlp: int) -> int:
    """Tables and their norm; in a layer four square matrices, two of the MLP, their biases and two norms."""
    tables = (vocab + 512 + 2) * hidden + 2 * hidden
    return tables + layers * (4 * (hidden**2 + hidden) + 2 * hidden * mlp + mlp + hidden + 4 * hidden)


@pytest.mark.parametrize(
    ("name", "shape", "heads", "known"),
    [
        ("bert_tiny", (2, 128, 512), 2, 4_369_408),
        ("bert_mini", (4, 256, 1024), 4, 11_104_768),
        ("bert_small", (4, 512, 2048), 8, 28_500_992),
        ("bert_medium", (8, 512, 2048), 8, 41_110_528),
        ("bert_base", (12, 768, 3072), 12, 108_891_648),
        ("minilm", (6, 384, 1536), 12, 22_565_376),
    ],
)
def test_parameters(name: str, shape: tuple[int, int, int], heads: int, known: int) -> None:
    """Without pooler: published counts of the first four (4.4, 11.3, 29.1 and 41.7 million) have its hidden^2 + hidden too, to a digit."""
    encoder = getattr(models, name)(30522)
    shapes = jax.eval_shape(lambda: encoder.init(jax.random.key(0), TOKENS, False))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count(30522, *shape) == known
    assert shapes["params"]["stack"]["block_0"]["attention"]["query"]["kernel"].shape == (shape[1], heads, shape[1] // heads)
    assert getattr(models, name)(99, layers=1, pooling="cls", pad=3) == encoder.clone(vocab=99, layers=1, pooling="cls", pad=3)


def test_initialisation_is_bert_s() -> None:
    """Standard deviation of a normal of 0.02 cut off at two of them: 0.0176."""
    params = jax.jit(lambda rngs: tiny(hidden=64, mlp=256).init(rngs, TOKENS, True))(RNGS)["params"]
    matrices = [leaf for leaf in jax.tree.leaves(params) if leaf.size > 4000]
    assert len(matrices) == 2 * 6
    for leaf in matrices:
        assert float(leaf.std()) == pytest.approx(0.0176, abs=4e-4)
        assert 0.038 < float(jnp.abs(leaf).max()) <= 0.04
    assert float(params["stack"]["block_0"]["attention"]["query"]["bias"].max()) == 0


@pytest.mark.parametrize("first_position", [0, 1])
@pytest.mark.parametrize("pooling", ["mean", "cls", "attention"])
def test_padding_changes_nothing(pooling: Any, first_position: int) -> None:
    encoder = tiny(pooling=pooling, first_position=first_position)
    variables = drawn(encoder)
    y = run(encoder, variables, TOKENS)
    assert (y.shape, y.dtype) == ((3, 8), jnp.float32)
    wide = np.pad(TOKENS, ((0, 0), (0, 4)))
    np.testing.assert_allclose(run(encoder, variables, wide), y, atol=1e-5)
    assert float(jnp.abs(y[0] - y[1]).max()) > 1e-2


@pytest.mark.parametrize(("pooling", "zero"), [("mean", True), ("attention", True), ("cls", False)])
def test_a_row_of_padding_gives_numbers_and_gradients(pooling: Any, zero: bool) -> None:
    encoder = tiny(pooling=pooling)
    variables = drawn(encoder)
    tokens = np.concatenate([TOKENS, np.zeros((2, 5), np.int32)])

    def total(variables: Any) -> Any:
        y = encoder.apply(variables, tokens, False)
        return y.sum(), y

    grads, y = jax.jit(jax.grad(total, has_aux=True))(variables)
    assert all(np.isfinite(leaf).all() for leaf in [y, *jax.tree.leaves(grads)])
    assert (float(jnp.abs(y[3:]).max()) == 0) == zero


@pytest.mark.parametrize(("first_position", "wanted"), [(2, [[2, 3, 1, 4], [1, 2, 3, 1]]), (0, [[0, 1, 2, 3]] * 2)])
def test_positions_count_real_tokens_from_the_first(first_position: int, wanted: list[list[int]]) -> None:
    """Position n is marked in feature n, and nothing else is: where a state is largest, there its position is."""
    encoder = tiny(layers=0, hidden=10, pad=1, first_position=first_position)
    params = jax.tree.map(jnp.zeros_like, drawn(encoder)["params"])
    params["position"]["embedding"], params["norm"]["scale"] = jnp.eye(10), jnp.ones(10)
    states = run(encoder, {"params": params}, np.asarray([[7, 7, 1, 7], [1, 7, 7, 1]], np.int32), method="hidden_states")
    np.testing.assert_array_equal(states.argmax(-1), wanted)


def test_order_matters_and_only_by_position() -> None:
    encoder = tiny()
    variables = drawn(encoder)
    tokens = np.asarray([[5, 6, 7], [7, 6, 5]], np.int32)
    y, swapped = run(encoder, variables, tokens)
    assert float(jnp.abs(y - swapped).max()) > 1e-2
    variables["params"]["position"]["embedding"] *= 0
    y, swapped = run(encoder, variables, tokens)
    np.testing.assert_allclose(y, swapped, atol=1e-6)


def test_pooling_by_hand() -> None:
    encoder = tiny()
    variables = drawn(encoder)
    states = np.asarray(run(encoder, variables, TOKENS, method="hidden_states"), np.float64)
    assert states.shape == (3, 5, 8)
    means = [states[0].mean(0), states[1, :3].mean(0), states[2, 0]]
    np.testing.assert_allclose(run(encoder, variables, TOKENS), means, atol=1e-6)
    np.testing.assert_allclose(run(encoder.clone(pooling="cls"), variables, TOKENS), states[:, 0], atol=1e-6)
    query = np.arange(8) / 3
    variables["params"]["query"] = jnp.asarray(query, jnp.float32)
    wanted = []
    for row, length in zip(states, (5, 3, 1), strict=True):
        weights = np.exp(row[:length] @ query / np.sqrt(8))
        wanted.append(weights @ row[:length] / weights.sum())
    y = run(encoder.clone(pooling="attention"), variables, TOKENS)
    np.testing.assert_allclose(y, wanted, atol=1e-5)
    assert np.abs(y - np.asarray(means))[:2].max() > 1e-2


def test_dropout_is_for_training_alone() -> None:
    encoder = tiny()
    variables = drawn(encoder)
    train = jax.jit(lambda key: encoder.apply(variables, TOKENS, True, rngs={"dropout": key}))
    draws = [train(jax.random.key(i)) for i in (1, 1, 2)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert float(jnp.abs(draws[0] - draws[2]).max()) > 1e-2
    still = encoder.clone(dropout=0.0, attention_dropout=0.0)
    np.testing.assert_array_equal(run(still, variables, TOKENS, train=True), run(encoder, variables, TOKENS))


@pytest.mark.parametrize(
    ("options", "tokens", "message"),
    [
        ({}, np.zeros((1, 11), np.int32), r"rows of 11 tokens: .* places for 10 \(positions = 10\); cut texts to 10 .* positions >= 11"),
        ({"first_position": 2}, np.zeros((1, 9), np.int32), r"places for 8 \(positions = 10 less first_position = 2\).* >= 11"),
        ({"pooling": "max"}, TOKENS, r"pooling='max'\): choose mean, cls, attention"),
        ({"heads": 3}, TOKENS, r"hidden=8, heads=3\): hidden must be divisible by heads; the nearest number that fits: 2"),
        ({"activation": "swish"}, TOKENS, r"activation='swish'\): choose gelu, gelu_new, relu"),
        ({}, np.zeros((1, 4), np.float32), r"takes token ids, int32\[B, L\]; it was given float32\[1, 4\]"),
        ({}, np.zeros(4, np.int32), r"it was given int32\[4\]"),
    ],
)
def test_refused(options: dict[str, Any], tokens: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**options).init(RNGS, tokens, True)
