"""Loss, its gradient, cross-entropy and top-k accuracy against the official helpers."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from byol_jax.method.loss import normalize, regression, regression_loss
from byol_jax.method.network import Outputs
from byol_jax.method.probe import in_top_k

GOLDEN = Path(os.environ.get("BYOL_GOLDEN_DIR", Path(__file__).parent / "golden"))


@pytest.fixture(scope="module")
def golden() -> dict:
    with np.load(GOLDEN / "c_helpers.npz") as file:
        return dict(file)


def test_normalised_vectors(golden: dict) -> None:
    np.testing.assert_allclose(normalize(jnp.asarray(golden["x"])), golden["l2n_x"], rtol=1e-6, atol=1e-8)


def test_regression_of_each_example(golden: dict) -> None:
    np.testing.assert_allclose(regression(golden["x"], golden["y"]), golden["regression_loss"], rtol=2e-6, atol=1e-7)


def test_gradient_of_the_mean_loss(golden: dict) -> None:
    gradient = jax.grad(lambda x: regression(x, golden["y"]).mean())(golden["x"])
    np.testing.assert_allclose(gradient, golden["d_mean_loss_dx"], rtol=1e-5, atol=1e-6 * np.abs(golden["d_mean_loss_dx"]).max())


def test_both_terms_are_summed(golden: dict) -> None:
    x, y = jnp.asarray(golden["x"]), jnp.asarray(golden["y"])
    loss, _ = regression_loss(Outputs(None, None, jnp.stack([x, x])), Outputs(None, jnp.stack([y, y]), None))
    np.testing.assert_allclose(loss, 2 * golden["regression_loss"].mean(), rtol=1e-6)


def test_cross_entropy(golden: dict) -> None:
    each = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(golden["logits"]), jnp.asarray(golden["labels"]))
    np.testing.assert_allclose(each, golden["xent_none"], rtol=2e-6)
    np.testing.assert_allclose([each.mean(), each.sum()], [golden["xent_mean"], golden["xent_sum"]], rtol=1e-6)


@pytest.mark.parametrize("suffix", ["", "_ties"])
@pytest.mark.parametrize("k", [1, 5])
def test_top_k_with_ties_to_the_highest_class(golden: dict, k: int, suffix: str) -> None:
    correct = in_top_k(jnp.asarray(golden[f"logits{suffix}"]), jnp.asarray(golden[f"labels{suffix}"]), k)
    np.testing.assert_array_equal(correct, golden[f"top{k}{suffix}"])
