"""Distillation: the target is a frozen teacher, of another encoder and another width; the losses by hand."""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from byol_jax import method as m
from byol_jax.method.state import with_encoder

EMA = m.ema_decay(0.9, 10)


@pytest.fixture
def teacher(tiny, batch):
    """Another network, wider, with running averages of its own."""
    network = m.Network(tiny(), m.MLP(8, 7), m.NoHead())
    variables = jax.device_get(network.init(jax.random.key(9), batch["view1"], False))
    variables["batch_stats"] = jax.tree.map(lambda x: x + 0.25, variables["batch_stats"])
    return m.Teacher(network, variables)


@pytest.fixture
def student(method, teacher):
    return dataclasses.replace(method, predictor=m.MLP(8, 7), target=teacher)


@pytest.mark.parametrize("devices", [1, 8])
def test_the_student_predicts_the_teacher_in_evaluation_mode(student, teacher, batch, mesh, devices) -> None:
    tx = optax.sgd(0.5)
    state = m.init(student, tx, jax.random.key(1), batch, mesh=mesh(devices))
    chex.assert_trees_all_equal(jax.device_get(state.target), teacher.variables)
    before = jax.device_get(state.online)
    state, metrics = jax.jit(m.make_train_step(student, tx, ema=EMA, mesh=mesh(devices)))(state, batch)
    state, metrics = jax.jit(m.make_train_step(student, tx, ema=EMA, mesh=mesh(devices)))(state, batch)
    chex.assert_trees_all_equal(jax.device_get(state.target), teacher.variables)  # nothing of it moves, and its buffers were not taken
    assert "tau" not in metrics
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(jax.device_get(state.online)), strict=True))


def test_the_loss_is_against_its_projections(student, teacher, batch, mesh) -> None:
    seen = m.make_train_step(dataclasses.replace(student, loss=keep_target), optax.sgd(0.0), ema=EMA, mesh=mesh(1))
    _, metrics = jax.jit(seen)(m.init(student, optax.sgd(0.0), jax.random.key(1), batch, mesh=mesh(1)), batch)
    for i, view in enumerate(("view1", "view2")):
        wanted = teacher.network.apply(teacher.variables, batch[view], False).projection
        assert metrics[f"target_{i}"] == pytest.approx(float(jnp.square(wanted).sum()), rel=1e-5)


def test_a_student_that_starts_from_weights_leaves_the_teacher_as_it_is(student, teacher, batch, mesh) -> None:
    state = m.init(student, optax.sgd(0.1), jax.random.key(1), batch, mesh=mesh(1))
    start = {kind: jax.tree.map(jnp.ones_like, tree["encoder"]) for kind, tree in state.online.items()}
    started = with_encoder(student, state, start)
    chex.assert_trees_all_equal({kind: started.online[kind]["encoder"] for kind in start}, start)
    chex.assert_trees_all_equal(jax.device_get(started.target), teacher.variables)


def keep_target(online: m.Outputs, target: m.Outputs):
    return online.prediction.mean(), {f"target_{i}": jnp.square(target.projection[i]).sum() for i in range(2)}


def test_a_predictor_of_another_width_is_refused(student, batch, mesh) -> None:
    narrow = dataclasses.replace(student, predictor=m.MLP(8, 4))
    state = m.init(narrow, optax.sgd(0.1), jax.random.key(1), batch, mesh=mesh(1))
    with pytest.raises(ValueError, match="predicts 4 numbers, the target offers 7: give the predictor out=7"):
        jax.eval_shape(m.make_train_step(narrow, optax.sgd(0.1), ema=EMA, mesh=mesh(1)), state, batch)


def on_devices(loss, mesh, online, target) -> float:
    rows = P(None, "data")

    def local(*pair):
        return jax.lax.pmean(loss(*pair)[0], "data")

    return float(jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(rows, rows), out_specs=P(), check_vma=False))(online, target))


@pytest.mark.parametrize("devices", [1, 4])
def test_similarities_by_numpy(mesh, devices) -> None:
    draw = np.random.default_rng(0)
    online = m.Outputs(None, None, jnp.asarray(draw.normal(size=(2, 8, 5)), jnp.float32))
    target = m.Outputs(None, jnp.asarray(draw.normal(size=(2, 8, 5)), jnp.float32), None)

    def unit(x):
        return np.asarray(x, np.float64) / np.linalg.norm(x, axis=-1, keepdims=True)

    expected = 0.0
    for view in range(2):
        q, z = unit(online.prediction[view]), unit(target.projection[view])
        p, s = np.exp(z @ z.T / 0.1), np.exp(q @ z.T / 0.3)
        p, s = p / p.sum(1, keepdims=True), s / s.sum(1, keepdims=True)
        expected += (p * np.log(p / s)).sum(1).mean()
    assert on_devices(m.similarity_loss(0.3, 0.1), mesh(devices), online, target) == pytest.approx(expected, rel=1e-5)
    same = online._replace(prediction=target.projection)
    assert on_devices(m.similarity_loss(0.3, 0.3), mesh(devices), same, target) == pytest.approx(0, abs=1e-6)
    both = m.summed(m.regression_loss, m.similarity_loss(0.3, 0.1), 0.5)
    plain = on_devices(m.regression_loss, mesh(devices), online, target)
    assert on_devices(both, mesh(devices), online, target) == pytest.approx(plain + 0.5 * expected, rel=1e-5)
    weighted = m.summed(m.regression_loss, m.regression_loss, 2.0, first_weight=0.0)
    assert on_devices(weighted, mesh(devices), online, target) == pytest.approx(2 * plain, rel=1e-6)


def test_temperatures_out_of_range() -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        m.similarity_loss(0.0, 0.1)
