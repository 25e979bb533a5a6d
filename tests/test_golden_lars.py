"""LARS over changing rates against the official implementation, with its cases of zero weights and zero gradients."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from byol_jax.method import lars
from byol_jax.method.optimizer import is_weight

GOLDEN = Path(os.environ.get("BYOL_GOLDEN_DIR", Path(__file__).parent / "golden"))


@pytest.fixture(scope="module")
def golden() -> dict:
    with np.load(GOLDEN / "b_lars.npz") as file:
        return dict(file)


def leaves(golden: dict, start: str) -> dict:
    """The leaves of one tree, in the shapes of ours: norms have one dimension, where the official ones keep broadcast axes."""
    found = {key.removeprefix(f"{start}/"): value for key, value in golden.items() if key.startswith(f"{start}/")}
    return {name: jnp.asarray(value.reshape(-1) if name.endswith(("scale", "offset")) else value) for name, value in found.items()}


def assert_close(ours: dict, theirs: dict, rtol: float = 2e-6) -> None:
    assert ours.keys() == theirs.keys()
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=rtol, atol=1e-7 * float(np.abs(theirs[name]).max()), err_msg=name)


def run(golden: dict, tx: optax.GradientTransformation) -> list[tuple[dict, dict, dict]]:
    params = leaves(golden, "init")
    state, done = tx.init(params), []
    for i in range(len(golden["lr"])):
        update, state = tx.update(leaves(golden, f"grad{i}"), state, params)
        params = optax.apply_updates(params, update)
        done.append((update, params, state))
    return done


@pytest.mark.parametrize("decay", ["wd1.5e-6", "wd0.01", "wd0"])
def test_five_steps_over_changing_rates(golden: dict, decay: str) -> None:
    rates = jnp.asarray(golden["lr"])
    tx = lars(lambda step: rates[step], weight_decay=float(decay.removeprefix("wd")))
    for i, (update, params, state) in enumerate(run(golden, tx)):
        assert_close(update, leaves(golden, f"{decay}/update{i}"))
        assert_close(params, leaves(golden, f"{decay}/params{i}"))
        assert_close(state[2].trace, leaves(golden, f"{decay}/mu{i}"))


def test_what_is_decayed_and_adapted(golden: dict) -> None:
    assert is_weight(leaves(golden, "init")) == json.loads(golden["adapt_and_decay_mask_json"].tobytes())


def test_optax_lars_is_another_optimizer(golden: dict) -> None:
    """Why ``lars`` is not ``optax.lars``: its momentum holds updates already multiplied by their old rates."""
    rates = jnp.asarray(golden["lr"])
    tx = optax.lars(lambda step: rates[step], 1.5e-6, weight_decay_mask=is_weight, trust_ratio_mask=is_weight)
    ours, theirs = run(golden, tx)[-1][1], leaves(golden, "wd1.5e-6/params4")
    assert max(float(jnp.abs(ours[name] - theirs[name]).max()) for name in theirs) > 1
