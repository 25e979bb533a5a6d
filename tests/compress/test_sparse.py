"""Weights that are 0: the schedule, the choice, and an optimizer that keeps them so."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from byol_jax.compress import cubic, masked, masks, sparse


def test_the_cubic_by_hand() -> None:
    np.testing.assert_allclose([cubic(count, 0.8, 10) for count in (0, 5, 10, 99)], [0, 0.8 * (1 - 0.125), 0.8, 0.8], rtol=1e-6)


def test_the_smallest_of_every_weight_are_chosen() -> None:
    params = {"kernel": jnp.array([[0.1, -3.0], [-0.2, 0.3]]), "bias": jnp.zeros(2), "deep": {"kernel": jnp.array([[9.0, -8.0, 7.0, 0.0]])}}
    keep = masks(params, 0.5)
    np.testing.assert_array_equal(keep["kernel"], [[False, True], [False, True]])
    np.testing.assert_array_equal(keep["deep"]["kernel"], [[True, True, False, False]])
    assert keep["bias"].all()
    np.testing.assert_array_equal(masked({"params": params}, keep)["params"]["kernel"], [[0, -3], [0, jnp.float32(0.3)]])


@pytest.mark.parametrize(("share", "zeros"), [(0.7, 7), (0.75, 7), (0.3, 3), (0.0, 0)])
def test_exactly_the_share_goes_rounded_down(share: float, zeros: int) -> None:
    assert int((~masks({"kernel": jnp.ones((2, 5))}, share)["kernel"]).sum()) == zeros


def test_an_optimizer_makes_more_and_more_0_and_keeps_it() -> None:
    weights = jax.random.normal(jax.random.key(0), (10, 10))
    params = {"online": {"encoder": {"kernel": weights, "bias": jnp.zeros(10)}, "projector": {"kernel": weights}}, "probe": {}}
    tx = sparse(optax.sgd(0.1), 0.8, steps=6, every=2)
    state, step, counts = tx.init(params), jax.jit(lambda g, s, p: tx.update(g, s, p)), []
    dead = np.zeros((10, 10), bool)
    for i in range(9):
        grads = jax.tree.map(lambda p, i=i: jax.random.normal(jax.random.key(i), p.shape), params)
        updates, state = step(grads, state, params)
        params = optax.apply_updates(params, updates)
        zero = np.asarray(params["online"]["encoder"]["kernel"]) == 0
        assert zero[dead].all()
        dead, counts = zero, [*counts, int(zero.sum())]
    # After 2, 4 and 6 updates: 100 * 0.8 * (1 - (1 - t / 6)^3), rounded down; every second update chooses.
    assert counts == [0, 56, 56, 77, 77, 80, 80, 80, 80]
    assert (np.asarray(params["online"]["encoder"]["bias"]) != 0).all()
    assert (np.asarray(params["online"]["projector"]["kernel"]) != 0).all()


def test_what_stays_is_moved_as_without() -> None:
    params = {"online": {"encoder": {"kernel": jnp.array([[1.0, 0.01]])}}}
    grads = {"online": {"encoder": {"kernel": jnp.array([[1.0, 1.0]])}}}
    tx = sparse(optax.sgd(0.5), 0.5, steps=1)
    updates, _ = tx.update(grads, tx.init(params), params)
    # 0.01 - 0.5 is the smaller one after the update, 1 - 0.5 is not: -0.49 against 0.5.
    np.testing.assert_allclose(optax.apply_updates(params, updates)["online"]["encoder"]["kernel"], [[0.5, 0]])
