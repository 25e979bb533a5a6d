"""Learning rate and tau over every published schedule, against the official implementation."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.method import cosine, ema_decay, warmup_cosine

GOLDEN = Path(os.environ.get("BYOL_GOLDEN_DIR", Path(__file__).parent / "golden"))
with np.load(GOLDEN / "a_schedules.npz") as file:
    DATA = dict(file)
RUNS = json.loads(DATA["meta_json"].tobytes())
PRETRAINING = [run for run in RUNS if "base_target_ema" in run]
LINEAR = [run for run in RUNS if "base_target_ema" not in run]


def rates(run: dict) -> np.ndarray:
    schedule = warmup_cosine(
        run["base_learning_rate"], batch_size=run["batch_size"], steps=run["total_steps"], warmup_steps=run["warmup_steps"]
    )
    return np.asarray(jax.jit(schedule)(jnp.asarray(DATA[f"{run['key']}/steps"])))


@pytest.mark.parametrize("run", PRETRAINING, ids=lambda run: run["key"])
def test_learning_rate(run: dict) -> None:
    """Within float32 of the exact value; towards the end a cosine near -1 leaves an absolute error of 6e-8 of the peak."""
    exact, ours = DATA[f"{run['key']}/lr_f64"], rates(run)
    peak = run["base_learning_rate"] * run["batch_size"] / 256
    np.testing.assert_allclose(ours, exact, rtol=4e-7, atol=1.2e-7 * peak)
    np.testing.assert_allclose(ours, DATA[f"{run['key']}/lr"], rtol=4e-7, atol=1.2e-7 * peak)


@pytest.mark.parametrize("run", PRETRAINING, ids=lambda run: run["key"])
def test_tau(run: dict) -> None:
    steps = jnp.asarray(DATA[f"{run['key']}/steps"])
    ours = np.asarray(jax.jit(ema_decay(run["base_target_ema"], run["total_steps"]))(steps))
    np.testing.assert_allclose(ours, DATA[f"{run['key']}/tau_f64"], rtol=0, atol=6.1e-8)  # one unit in the last place below 1
    np.testing.assert_allclose(1 - ours, DATA[f"{run['key']}/one_minus_tau_f32"], rtol=0, atol=6.1e-8)


@pytest.mark.parametrize("run", LINEAR, ids=lambda run: run["key"])
def test_linear_evaluation_has_no_warmup(run: dict) -> None:
    schedule = cosine(run["base_learning_rate"], batch_size=run["batch_size"], steps=run["total_steps"])
    peak = run["base_learning_rate"] * run["batch_size"] / 256
    ours = jax.jit(schedule)(jnp.asarray(DATA[f"{run['key']}/steps"]))
    np.testing.assert_allclose(ours, DATA[f"{run['key']}/lr"], rtol=4e-7, atol=1.2e-7 * peak)
    np.testing.assert_array_equal(ours, rates(run))
