"""What a step would say of a batch, without the step; and a state that starts from weights of the user's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from byol_jax import method as m
from byol_jax.method.state import with_encoder
from byol_jax.method.step import make_metrics

TX = optax.sgd(0.1)


def noisy(keys: jax.Array, batch: dict) -> dict:
    noise = jax.vmap(lambda key: 0.1 * jax.random.normal(key, (4, 4, 3)))
    return {**batch, "view1": batch["view1"] + noise(keys), "view2": batch["view2"] - noise(keys)}


@pytest.mark.parametrize(("devices", "target", "parts"), [(1, "ema", 1), (4, "stop_gradient", 1), (2, "ema", 4)])
def test_it_measures_what_a_step_measures(method, batch, mesh, devices, target, parts) -> None:
    method = m.Byol(method.encoder, method.projector, method.predictor, num_classes=3, target=target)
    state = m.init(method, TX, jax.random.key(1), batch, augment=noisy, mesh=mesh(devices))
    key = jax.random.key(2)
    same = {"augment": noisy, "mesh": mesh(devices), "accumulate": parts}
    step = jax.jit(m.make_train_step(method, TX, ema=m.ema_decay(0.9, 10), key=key, **same))
    measure = jax.jit(make_metrics(method, key=jax.random.fold_in(key, 0), **same))
    found, (_, wanted) = measure(state, batch), step(state, batch)
    assert found.keys() == wanted.keys() - {"grad_norm", "tau"}
    for name, value in found.items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-6, err_msg=name)


def test_the_state_is_left_as_it_was(method, batch, mesh) -> None:
    state = m.init(method, TX, jax.random.key(1), batch, mesh=mesh(1))
    before = jax.device_get(state)
    measure = jax.jit(make_metrics(method, mesh=mesh(1)))
    first, second = measure(state, batch), measure(state, batch)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(state))


def test_a_run_starts_from_an_encoder_in_both_networks(method, batch, mesh) -> None:
    state = m.init(method, TX, jax.random.key(1), batch, mesh=mesh(2))
    given = {kind: jax.tree.map(lambda x: np.full(x.shape, 0.25, x.dtype), tree["encoder"]) for kind, tree in state.online.items()}
    started = with_encoder(method, state, given)
    for network, old in ((started.online, state.online), (started.target, state.target)):
        for kind in ("params", "batch_stats"):
            jax.tree.map(np.testing.assert_array_equal, network[kind]["encoder"], given[kind])
            for part in ("projector", "predictor"):
                jax.tree.map(np.testing.assert_array_equal, network[kind][part], old[kind][part])
    step = jax.jit(m.make_train_step(method, TX, ema=m.ema_decay(0.9, 10), mesh=mesh(2)), donate_argnums=0)
    after, _ = step(started, batch)  # no two leaves share a buffer, which donation would refuse
    assert int(after.step) == 1


def test_weights_that_do_not_fit_are_named(method, batch, mesh) -> None:
    state = m.init(method, TX, jax.random.key(1), batch, mesh=mesh(1))
    given = {kind: tree["encoder"] for kind, tree in state.online.items()}
    wide = {**given, "params": {**given["params"], "conv": {**given["params"]["conv"], "bias": jnp.zeros(7)}, "more": jnp.zeros(2)}}
    with pytest.raises(ValueError, match=r"2 arrays of params do not fit.*\['conv'\]\['bias'\] \(6,\) here, \(7,\) there"):
        with_encoder(method, state, wide)
    with pytest.raises(ValueError, match=r"2 arrays of batch_stats do not fit the encoder.*none there"):
        with_encoder(method, state, {"params": given["params"]})
