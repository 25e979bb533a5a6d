"""Adversarial views in a step: what they are by hand, which pass counts how much, and whose statistics move."""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from byol_jax import method as m
from byol_jax.method.norms import apply_to_views
from byol_jax.method.passes import Pass, clean

EMA = m.ema_decay(0.9, 10)


class Free:
    """Views are changed as they stand: nothing is scaled or cut off."""

    def zeros(self, view):
        return jnp.zeros_like(view)

    def limit(self, view, change):
        return change

    def add(self, view, change):
        return view + change


def one_step(method, batch, mesh, **options):
    tx = optax.sgd(0.5)
    state = m.init(method, tx, jax.random.key(1), batch, mesh=mesh)
    after, metrics = jax.jit(m.make_train_step(method, tx, ema=EMA, mesh=mesh, **options))(state, batch)
    return jax.device_get(state), jax.device_get(after), jax.device_get(metrics)


def adversary(**options) -> m.Adversary:
    return m.Adversary(Free(), m.Ball("linf", 0.25), **{"random_start": False, **options})


def test_one_step_adds_the_sign_of_the_gradient(method, batch, mesh) -> None:
    """FGSM, written out without any of the code under test: the step on views changed by hand."""
    plain = dataclasses.replace(method, encoder=method.encoder.clone(bn_axis=None))
    plain = dataclasses.replace(plain, projector=m.MLP(8, 4, bn_axis=None), predictor=m.MLP(8, 4, bn_axis=None))
    state = m.init(method, optax.sgd(0.5), jax.random.key(1), batch, mesh=mesh(1))
    views = jnp.stack([batch["view1"], batch["view2"]])
    target, _ = apply_to_views(plain.network(), state.target, views, stacked=False)

    def loss(views):
        return m.regression_loss(apply_to_views(plain.network(), state.online, views, stacked=False)[0], target)[0]

    changed = views + 0.25 * jnp.sign(jax.jit(jax.grad(loss))(views))
    one = dataclasses.replace(method, passes=adversary(step_size=0.25))
    _, after, metrics = one_step(one, batch, mesh(1))

    @jax.jit
    @jax.value_and_grad
    def trained(params):
        return m.regression_loss(apply_to_views(plain.network(), {**state.online, "params": params}, changed, stacked=False)[0], target)[0]

    value, gradient = trained(state.online["params"])
    assert metrics["loss"] == pytest.approx(float(value), rel=1e-5)
    expected = jax.tree.map(lambda p, g: p - 0.5 * g, state.online["params"], gradient)
    chex.assert_trees_all_close(after.online["params"], jax.device_get(expected), rtol=1e-4, atol=1e-5)


def test_more_steps_and_a_larger_ball_raise_the_loss(method, batch, mesh) -> None:
    def of(**options):
        return one_step(dataclasses.replace(method, passes=adversary(**options)), batch, mesh(1))[2]["loss"]

    clean_loss = one_step(method, batch, mesh(1))[2]["loss"]
    assert clean_loss < of(steps=1) < of(steps=8)


def test_weights_are_of_the_two_passes(method, batch, mesh) -> None:
    _, _, both = one_step(dataclasses.replace(method, passes=adversary(weight=0.25)), batch, mesh(1))
    _, _, only = one_step(dataclasses.replace(method, passes=adversary()), batch, mesh(1))
    _, _, none = one_step(method, batch, mesh(1))
    assert both["adversarial_loss"] == pytest.approx(only["loss"], rel=1e-6)
    assert both["loss"] == pytest.approx(0.75 * none["loss"] + 0.25 * only["loss"], rel=1e-6)
    assert both["cosine_1"] == pytest.approx(none["cosine_1"], rel=1e-6)  # of the clean pass, as the embedding's
    assert both["embedding_std"] == pytest.approx(none["embedding_std"], rel=1e-6)


def test_separate_statistics_are_those_of_clean_views(method, batch, mesh) -> None:
    _, plain, _ = one_step(method, batch, mesh(1))
    _, apart, _ = one_step(dataclasses.replace(method, passes=adversary(weight=0.5, separate_statistics=True)), batch, mesh(1))
    _, shared, _ = one_step(dataclasses.replace(method, passes=adversary(weight=0.5)), batch, mesh(1))
    chex.assert_trees_all_close(apart.online["batch_stats"], plain.online["batch_stats"], rtol=1e-5, atol=1e-6)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(shared.online["batch_stats"], plain.online["batch_stats"], rtol=1e-3)


@pytest.mark.parametrize("accumulate", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_eight_devices_equal_one_with_a_random_start(method, batch, mesh, accumulate) -> None:
    hard = dataclasses.replace(method, passes=adversary(random_start=True, weight=0.5))
    options = {"augment": lambda keys, batch: batch, "key": jax.random.key(5), "accumulate": accumulate}
    _, one, of_one = one_step(hard, batch, mesh(1), **options)
    _, eight, of_eight = one_step(hard, batch, mesh(8), **options)
    chex.assert_trees_all_close(of_one, of_eight, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(one.online, eight.online, rtol=1e-4, atol=1e-4)


def test_a_radius_of_zero_changes_nothing(method, batch, mesh) -> None:
    none = dataclasses.replace(method, passes=m.Adversary(Free(), m.Ball("l2", 0.0), steps=2))
    chex.assert_trees_all_close(one_step(none, batch, mesh(1))[1].online, one_step(method, batch, mesh(1))[1].online, rtol=1e-5, atol=1e-6)


def test_byol_s_own_pass_is_the_views() -> None:
    assert clean(None, "views", None) == (Pass("clean", "views", 1.0, True),)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"steps": 0}, "at least 1"),
        ({"weight": 0.0}, "above 0"),
        ({"weight": 1.5}, "1 at most"),
        ({"separate_statistics": True}, "weight below 1"),
    ],
)
def test_settings_that_do_not_fit(options, match) -> None:
    with pytest.raises(ValueError, match=match):
        adversary(**options)


def test_no_gradient_through_the_search(method, batch, mesh) -> None:
    """The change is a constant to the update: a second derivative would have to go through sign and be lost, or show here as l2."""
    ball = m.Ball("l2", 0.25)
    found = jax.grad(
        lambda s: m.attack.ascend(lambda c: (s * c**2).sum() + c.sum(), jnp.ones((1, 2)), ball, steps=2, size=0.1, lead=1).sum()
    )
    assert np.asarray(found(jnp.float32(1.0))) == 0
