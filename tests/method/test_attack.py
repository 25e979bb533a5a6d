"""Ascent inside a ball: by hand where the answer is known, and what never leaves the ball."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byol_jax.augment import Embeddings, Pixels
from byol_jax.method.attack import Ball, ascend, usual_step


def test_projection_by_hand() -> None:
    change = jnp.asarray([[3.0, -4.0], [0.3, 0.4]])
    np.testing.assert_allclose(Ball("linf", 1.0).project(change, 1), [[1, -1], [0.3, 0.4]])
    np.testing.assert_allclose(Ball("l2", 1.0).project(change, 1), [[0.6, -0.8], [0.3, 0.4]], rtol=1e-6)
    np.testing.assert_allclose(Ball("l2", 1.0).project(change, 0), np.asarray(change) / np.sqrt(25.25), rtol=1e-6)  # one example


def test_the_steepest_direction_by_hand() -> None:
    gradient = jnp.asarray([[3e-30, -4e-30], [0.0, 0.0]])  # as small as float32's squares could not hold
    np.testing.assert_allclose(Ball("linf", 1.0).steepest(gradient, 1), [[1, -1], [0, 0]])
    np.testing.assert_allclose(Ball("l2", 1.0).steepest(gradient, 1), [[0.6, -0.8], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize(("norm", "expected"), [("linf", [[0.5, -0.5, 0.5], [0.5, 0.5, -0.5]]), ("l2", None)])
def test_a_linear_loss_ends_at_the_corner_or_on_the_sphere(norm, expected) -> None:
    slope = jnp.asarray([[1.0, -2.0, 2.0], [4.0, 0.5, -0.1]])
    expected = 0.5 * slope / jnp.linalg.norm(slope, axis=1, keepdims=True) if expected is None else expected
    ball = Ball(norm, 0.5)
    found = ascend(lambda c: (slope * c).mean(), jnp.zeros((2, 3)), ball, steps=3, size=usual_step(ball, 3), lead=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_steps_add_up_until_the_border() -> None:
    ball = Ball("linf", 1.0)
    found = [ascend(jnp.sum, jnp.zeros((1, 1)), ball, steps=n, size=0.4, lead=1).item() for n in (1, 2, 3)]
    np.testing.assert_allclose(found, [0.4, 0.8, 1.0], rtol=1e-6)
    assert (usual_step(Ball("l2", 2.0), 1), usual_step(Ball("l2", 2.0), 5)) == (2.5, 1.0)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["linf", "l2"]), st.floats(0, 3), st.integers(0, 2**31 - 1))
def test_samples_are_in_the_ball_and_a_projection_leaves_them(norm, radius, seed) -> None:
    ball = Ball(norm, radius)
    change = ball.sample(jax.random.key(seed), jnp.zeros((4, 3)))
    size = jnp.abs(change).max() if norm == "linf" else jnp.linalg.norm(change)
    assert float(size) <= radius * (1 + 1e-5)
    np.testing.assert_allclose(ball.project(change, 0), change, rtol=1e-5)


def test_samples_of_a_ball_fill_it_evenly() -> None:
    """Of a ball in 3 dimensions the mean length is 3/4 of the radius, and 1/8 of the points lie within half of it."""
    draws = jax.vmap(lambda key: Ball("l2", 2.0).sample(key, jnp.zeros(3)))(jax.random.split(jax.random.key(0), 20_000))
    length = np.linalg.norm(draws, axis=1)
    assert np.mean(length) == pytest.approx(1.5, abs=0.01)
    assert np.mean(length < 1) == pytest.approx(0.125, abs=0.01)
    np.testing.assert_allclose(np.mean(draws, axis=0), 0, atol=0.02)


@pytest.mark.parametrize(("norm", "radius", "match"), [("l1", 1.0, "choose linf or l2"), ("l2", -1.0, "at least 0")])
def test_balls_that_are_none(norm, radius, match) -> None:
    with pytest.raises(ValueError, match=match):
        Ball(norm, radius)


def test_pixels_are_changed_in_units_of_their_range_and_stay_in_it() -> None:
    mean, std = (0.5, 0.4, 0.25), (0.25, 0.2, 0.5)
    pixels = np.asarray([[[0.0, 0.5, 0.95]]], np.float32)
    view = jnp.asarray((pixels - mean) / std, jnp.float32)
    space = Pixels(mean, std)
    change = space.limit(view, jnp.full_like(view, 0.1))
    np.testing.assert_allclose(change, [[[0.1, 0.1, 0.05]]], atol=1e-6)
    changed = space.add(view, change)
    np.testing.assert_allclose(np.asarray(changed) * std + mean, [[[0.1, 0.6, 1.0]]], atol=1e-6)
    np.testing.assert_array_equal(space.add(view, space.zeros(view)), view)


def test_embeddings_are_added_to() -> None:
    tokens = jnp.ones((2, 3, 5), jnp.int32)
    space = Embeddings(4)
    assert space.zeros(tokens).shape == (2, 3, 5, 4)
    assert space.add(tokens, space.limit(tokens, space.zeros(tokens)))[0] is tokens
