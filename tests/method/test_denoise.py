"""False pairs: which are dropped, what is left of the loss, and how the threshold moves; by hand."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from byol_jax import method as m

# Projections in the plane, so that the cosine of a pair is that of the angle between its two views.
ANGLES = np.asarray([0.1, 2.0, 0.2, 0.3, 3.0, 0.4, 0.5, 0.6])
FLAT = np.stack([np.zeros_like(ANGLES), ANGLES])
TARGET = m.Outputs(None, jnp.asarray(np.stack([np.cos(FLAT), np.sin(FLAT)], -1), jnp.float32), None)
ONLINE = m.Outputs(None, None, jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 2)), jnp.float32))
TERMS = np.asarray(m.loss.regression(ONLINE.prediction, TARGET.projection[::-1]))  # [2, 8]
AGREEMENT = np.cos(ANGLES)


def call(loss: m.MemoryLoss, mesh, memory=None):
    """The loss as a step computes it, the mean over devices, with metrics and the new memory."""

    def local(memory, *pair):
        return jax.lax.pmean(loss(*pair, memory), "data")

    rows = P(None, "data")
    over = jax.shard_map(local, mesh=mesh, in_specs=(P(), rows, rows), out_specs=P(), check_vma=False)
    return jax.device_get(jax.jit(over)(loss.start() if memory is None else memory, ONLINE, TARGET))


@pytest.mark.parametrize("devices", [1, 4])
def test_the_pairs_that_agree_least_are_dropped(mesh, devices) -> None:
    loss, metrics, memory = call(m.Denoised(0.25), mesh(devices))
    kept = np.asarray([0, 2, 3, 5, 6, 7])
    assert loss == pytest.approx(TERMS[:, kept].mean(1).sum(), rel=1e-5)
    assert metrics["dropped"] == pytest.approx(0.25)
    assert memory["threshold"] == pytest.approx(np.quantile(AGREEMENT, 0.25), abs=1e-6) == metrics["threshold"]
    assert memory["batches"] == 1


@pytest.mark.parametrize("devices", [1, 4])
def test_soft_weights_have_the_mean_one(mesh, devices) -> None:
    loss, metrics, _ = call(m.Denoised(0.5, softness=0.1), mesh(devices))
    weight = 1 / (1 + np.exp(-(AGREEMENT - np.quantile(AGREEMENT, 0.5)) / 0.1))
    assert loss == pytest.approx((TERMS * weight / weight.mean()).mean(1).sum(), rel=1e-4)
    assert metrics["dropped"] == pytest.approx(1 - weight.mean(), abs=1e-5)


def test_nothing_is_dropped_before_the_warm_up_is_over(mesh) -> None:
    loss, memory = m.Denoised(0.25, warmup=2), None
    dropped = []
    for _ in range(4):
        value, metrics, memory = call(loss, mesh(1), memory)
        dropped.append(float(metrics["dropped"]))
        if len(dropped) <= 2:
            assert value == pytest.approx(TERMS.mean(1).sum(), rel=1e-6)
    assert dropped == [0, 0, 0.25, 0.25]
    assert memory["batches"] == 4


def test_the_threshold_is_a_mean_at_first_and_then_a_moving_average(mesh) -> None:
    """From 1.0 after one batch: halfway to this batch's quantile; after a hundred: a tenth of the way, decay being 0.9."""
    quantile = np.quantile(AGREEMENT, 0.25)
    for batches, kept in ((0, 0.0), (1, 0.5), (3, 0.75), (100, 0.9)):
        before = {"threshold": jnp.float32(1.0), "batches": jnp.int32(batches)}
        _, _, memory = call(m.Denoised(0.25, decay=0.9), mesh(1), before)
        assert memory["threshold"] == pytest.approx(kept + (1 - kept) * quantile, abs=1e-6)


def test_all_are_dropped_and_the_loss_is_zero_not_nan(mesh) -> None:
    loss, metrics, _ = call(m.Denoised(0.25, decay=0.99), mesh(1), {"threshold": jnp.float32(1.5), "batches": jnp.int32(10_000)})
    assert (float(loss), float(metrics["dropped"])) == (0, 1)


def test_a_share_of_zero_is_byol_s_loss(mesh) -> None:
    loss, metrics, _ = call(m.Denoised(0.0), mesh(1))
    assert loss == pytest.approx(float(m.regression_loss(ONLINE, TARGET)[0]), rel=1e-6)
    assert metrics["dropped"] == 0


def test_the_bounded_term_by_hand() -> None:
    d = jnp.asarray([0.0, 1.0, 4.0])
    np.testing.assert_allclose(m.bounded(2.0)(d), (1 - np.exp([0.0, -2.0, -8.0])) / 2, rtol=1e-6)
    np.testing.assert_allclose(m.bounded(1e-4)(d), d, rtol=1e-3)
    np.testing.assert_allclose(jax.vmap(jax.grad(m.bounded(2.0)))(d), np.exp([0.0, -2.0, -8.0]), atol=1e-7)
    loss, metrics = m.of_pairs(m.bounded(2.0))(ONLINE, TARGET)
    assert loss == pytest.approx((1 - np.exp(-2 * TERMS)).mean(1).sum() / 2, rel=1e-5)
    assert set(metrics) == {"cosine_1", "cosine_2"}


def test_a_bounded_term_is_rince_s_up_to_constants() -> None:
    """-exp(q s / t) / q with t = 1/2, of the cosine s = 1 - d/2."""
    d, q = np.linspace(0, 4, 9, dtype=np.float32), 0.6
    rince = -np.exp(q * (1 - d / 2) / 0.5) / q
    ours = np.asarray(m.bounded(q)(jnp.asarray(d)))
    np.testing.assert_allclose(ours, (rince - rince[0]) / np.exp(2 * q), rtol=1e-5)


def test_the_memory_lives_in_the_state_and_moves_with_each_micro_batch(method, batch, mesh) -> None:
    noisy = dataclasses.replace(method, loss=m.Denoised(0.25, warmup=3))
    tx, ema = optax.sgd(0.1), m.ema_decay(0.9, 10)
    found = {}
    for devices in (1, 4):
        state = m.init(noisy, tx, jax.random.key(1), batch, mesh=mesh(devices))
        assert jax.device_get(state.memory) == {"threshold": 0, "batches": 0}
        step = jax.jit(m.make_train_step(noisy, tx, ema=ema, mesh=mesh(devices), accumulate=2))
        for _ in range(2):
            state, metrics = step(state, batch)
        found[devices] = jax.device_get((state.memory, metrics))
        assert found[devices][0]["batches"] == 4
        assert found[devices][1]["dropped"] == pytest.approx(0.125, abs=0.07)  # of the second micro-batch alone, by the running threshold
    for name in ("loss", "threshold", "dropped"):
        assert found[1][1][name] == pytest.approx(found[4][1][name], rel=1e-4)


@pytest.mark.parametrize(
    "make", [partial(m.Denoised, 1.0), partial(m.Denoised, 0.1, decay=1.0), partial(m.Denoised, 0.1, warmup=-1), partial(m.bounded, 0.0)]
)
def test_settings_out_of_range(make) -> None:
    with pytest.raises(ValueError, match=r"must be|below"):
        make()
