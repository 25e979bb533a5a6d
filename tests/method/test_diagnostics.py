"""Signs of collapse, on embeddings whose value is known."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.method.diagnostics import alignment, embedding_std, rankme, uniformity

NORMAL = np.random.default_rng(0).normal(size=(4000, 16)).astype(np.float32)


def test_std_is_one_when_spread_and_zero_when_collapsed() -> None:
    assert float(embedding_std(jnp.asarray(NORMAL))) == pytest.approx(1, abs=0.01)
    assert float(embedding_std(jnp.ones((10, 16)) * 3)) == pytest.approx(0, abs=1e-6)
    axes = jnp.concatenate([jnp.eye(4), -jnp.eye(4)])  # each coordinate: two of eight values are 1 or -1
    assert float(embedding_std(axes)) == pytest.approx(1, abs=1e-6)


def test_rankme_counts_equal_directions() -> None:
    """k equal singular values: k, but for the 1e-7 in the definition; one direction: 1. Not centred: a common mean counts."""
    assert float(rankme(jnp.eye(8)[:, :5] * 7)) == pytest.approx(5, rel=1e-4)
    assert float(rankme(jnp.ones((30, 1)) * jnp.arange(1.0, 9.0))) == pytest.approx(1, abs=1e-4)
    assert float(rankme(jnp.asarray(NORMAL))) == pytest.approx(16, rel=0.01)
    assert float(rankme(jnp.asarray(NORMAL) + 100)) < 2


def test_rankme_by_its_formula() -> None:
    z = NORMAL[:50] * np.arange(1, 17, dtype=np.float32)
    sigma = np.linalg.svd(z.astype(np.float64), compute_uv=False)
    p = sigma / sigma.sum() + 1e-7
    assert float(rankme(jnp.asarray(z))) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)


def test_uniformity_over_pairs() -> None:
    """Two opposite unit vectors are 4 apart: log exp(-8). Three at the corners of a right angle: pairs 2, 2 and 4."""
    assert float(uniformity(jnp.asarray([[2.0, 0.0], [-5.0, 0.0]]))) == pytest.approx(-8, rel=1e-6)
    corners = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert float(uniformity(corners, t=1.0)) == pytest.approx(np.log((2 * np.exp(-2) + np.exp(-4)) / 3), rel=1e-5)
    assert float(uniformity(jnp.ones((5, 3)))) == pytest.approx(0, abs=1e-5)


def test_alignment_is_a_mean_squared_distance() -> None:
    a, b = jnp.asarray([[1.0, 0.0], [2.0, 0.0]]), jnp.asarray([[3.0, 0.0], [0.0, 1.0]])
    assert float(alignment(a, b)) == pytest.approx((0 + 2) / 2, rel=1e-6)
