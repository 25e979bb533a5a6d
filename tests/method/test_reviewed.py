"""What a harsh reading found: shared heads, dropout, NaN logits, memory under accumulation, a loss metric named as ours."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from byol_jax import method as m
from byol_jax.method.batch import mean_over_parts
from byol_jax.method.probe import in_top_k


class Flat(nn.Module):
    """A linear encoder, with dropout if asked."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.Dropout(self.dropout, deterministic=not train)(x.reshape(len(x), -1))
        return nn.Dense(6)(x)


BATCH = {"view1": np.ones((8, 2, 2, 3), np.float32), "view2": np.ones((8, 2, 2, 3), np.float32)}


def one_step(method: m.Byol, **options):
    state = m.init(method, optax.sgd(0.1), jax.random.key(0), BATCH)
    return jax.jit(m.make_train_step(method, optax.sgd(0.1), ema=m.ema_decay(0.9, 10), **options))(state, BATCH)


def test_one_head_given_twice_makes_two_heads() -> None:
    head = m.MLP(8, 4)
    state = m.init(m.Byol(Flat(), head, head), optax.sgd(0.1), jax.random.key(0), BATCH)
    params = state.online["params"]
    assert set(params) == {"encoder", "projector", "predictor"}
    assert not np.array_equal(params["projector"]["linear_1"]["kernel"], params["predictor"]["linear_1"]["kernel"])


def test_dropout_draws_noise_for_each_view() -> None:
    """Views of ones through equal weights: without dropout both terms of the loss are equal, with it they are not."""
    _, plain = one_step(m.Byol(Flat(), m.MLP(8, 4, layers=1), m.MLP(8, 4, layers=1)))
    _, noisy = one_step(m.Byol(Flat(0.5), m.MLP(8, 4, layers=1), m.MLP(8, 4, layers=1)))
    assert float(plain["cosine_1"]) == float(plain["cosine_2"])
    assert abs(float(noisy["cosine_1"]) - float(noisy["cosine_2"])) > 1e-3


def test_nan_logits_are_never_right() -> None:
    logits = jnp.full((2, 6), jnp.nan)
    assert not in_top_k(logits, jnp.asarray([0, 5]), 5).any()
    assert not in_top_k(logits, jnp.asarray([0, 5]), 6).any()


def test_the_loss_minimised_is_the_loss_logged() -> None:
    def loss(online: m.Outputs, target: m.Outputs):
        value, metrics = m.regression_loss(online, target)
        return value, {**metrics, "loss": jnp.float32(123)}

    _, metrics = one_step(m.Byol(Flat(), m.MLP(8, 4), m.MLP(8, 4), loss=loss))
    assert float(metrics["loss"]) < 8


def test_mean_over_parts_carries_and_averages() -> None:
    """carry 1 -> 2 -> 4 -> 8 while the outputs are carry + part."""
    for unroll in (1, 3):
        carry, mean = mean_over_parts(lambda c, x: (2 * c, c + x), jnp.float32(1), jnp.asarray([10.0, 20.0, 32.0]), 3, unroll)
        assert (float(carry), float(mean)) == (8, (11 + 22 + 36) / 3)


def test_memory_does_not_grow_with_the_number_of_micro_batches() -> None:
    """Sixteen parts of a gradient of 4 MB: one running sum, not sixteen of them."""
    weights = jnp.ones((1000, 1000))

    def run(parts: jax.Array) -> jax.Array:
        def grads(carry, x):
            return (carry, jnp.outer(x, x) * weights)

        return mean_over_parts(grads, jnp.float32(0), parts, 16, 1)[1]

    used = jax.jit(run).lower(jnp.ones((16, 1000))).compile().memory_analysis().temp_size_in_bytes
    assert used < 4 * weights.nbytes
