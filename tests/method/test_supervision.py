"""Labels beside BYOL: gradients by hand, several label sets, smoothing, and a step that is the same where all of it is off."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from byol_jax import method as m
from byol_jax.method.norms import apply_to_views
from byol_jax.method.supervision import labels_of

EMA = m.ema_decay(0.9, 10)
KIND = np.asarray([0, 1, 2, -1] * 4, np.int32)
SOLD = np.asarray([-1, 1, -1, 0] * 4, np.int32)


def after_one_step(method: m.Byol, batch: Any, mesh: Any) -> tuple[Any, Any, Any]:
    """States before and after a step of SGD at rate 1, whose change is the gradient, and its metrics."""
    tx = optax.sgd(1.0)
    state = m.init(method, tx, jax.random.key(1), batch, mesh=mesh)
    after, metrics = jax.jit(m.make_train_step(method, tx, ema=EMA, mesh=mesh))(state, batch)
    return jax.device_get(state), jax.device_get(after), jax.device_get(metrics)


def moved(before: Any, after: Any) -> Any:
    return jax.tree.map(lambda a, b: a - b, before.trained, after.trained)


def close(a: Any, b: Any) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), a, b)


def test_the_gradient_is_let_through_by_its_weight() -> None:
    def slope(weight: float) -> tuple[float, float]:
        value, grad = jax.value_and_grad(lambda x: m.let_through(weight)(x) ** 2)(3.0)
        return float(value), float(grad)

    assert [slope(weight) for weight in (0, 0.5, 1)] == [(9.0, 0.0), (9.0, 3.0), (9.0, 6.0)]
    assert m.let_through(0) is jax.lax.stop_gradient
    with pytest.raises(ValueError, match=r"let_through\(-1\): a weight is 0 or more"):
        m.let_through(-1)


def test_the_encoder_gets_the_weighted_gradient_of_the_labels_and_the_head_all_of_it(method: m.Byol, batch: Any, mesh: Any) -> None:
    """The change against a step without supervision is weight x the gradient of the mean smoothed cross-entropy, written out."""
    smooth = {"label_loss": m.cross_entropy(0.3)}
    before, alone, watched = after_one_step(dataclasses.replace(method, **smooth), batch, mesh(2))
    _, joint, metrics = after_one_step(dataclasses.replace(method, reach=m.let_through(0.25), **smooth), batch, mesh(2))

    network = m.Network(method.encoder.clone(bn_axis=None), m.MLP(8, 4, bn_axis=None), m.MLP(8, 4, bn_axis=None))
    views = jax.tree.map(lambda *pair: jnp.stack(pair), batch["view1"], batch["view2"])
    labelled = np.flatnonzero(batch["label"] >= 0)
    wanted = 0.7 * np.eye(3)[batch["label"][labelled]] + 0.1

    def label_loss(params: Any) -> Any:
        given, _ = apply_to_views(network, {"params": params["online"], "batch_stats": before.online["batch_stats"]}, views)
        logits = given.embedding[0][labelled] @ params["probe"]["kernel"] + params["probe"]["bias"]
        return -(wanted * jax.nn.log_softmax(logits)).sum(-1).mean()

    value, grads = jax.jit(jax.value_and_grad(label_loss))(before.trained)
    close(metrics["probe_loss"], value)
    close(metrics["probe_loss"], watched["probe_loss"])
    close(metrics["loss"], watched["loss"])
    close(moved(before, joint)["probe"], grads["probe"])
    close(moved(before, alone)["probe"], grads["probe"])
    extra = jax.tree.map(lambda a, b: a - b, moved(before, joint)["online"], moved(before, alone)["online"])
    close(extra, jax.tree.map(lambda g: 0.25 * g, grads["online"]))
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(extra["encoder"])) > 1e-3


def test_two_label_sets_learn_as_each_would_alone(method: m.Byol, batch: Any, mesh: Any) -> None:
    """Gradients are sums: that of both sets, and BYOL's, is that of the one and of the other, each with BYOL's."""
    tx, none = optax.sgd(1.0), np.full(16, -1, np.int32)
    views = {name: view for name, view in batch.items() if name != "label"}
    two = dataclasses.replace(method, num_classes={"kind": 3, "sold": 2}, reach=m.let_through(1.0))
    start = m.init(two, tx, jax.random.key(1), {**views, "label_kind": KIND, "label_sold": SOLD}, mesh=mesh(2))
    assert {name: leaf["kernel"].shape for name, leaf in start.probe.items()} == {"kind": (6, 3), "sold": (6, 2)}
    step = jax.jit(m.make_train_step(two, tx, ema=EMA, mesh=mesh(2)))

    def of(kind: np.ndarray, sold: np.ndarray) -> tuple[Any, Any]:
        after, metrics = step(start, {**views, "label_kind": kind, "label_sold": sold})
        return moved(jax.device_get(start), jax.device_get(after)), jax.device_get(metrics)

    (both, metrics), (kind, _), (sold, _), (byol, silent) = (
        of(*labels) for labels in ((KIND, SOLD), (KIND, none), (none, SOLD), (none, none))
    )
    close(both["online"], jax.tree.map(lambda a, b, c: a + b - c, kind["online"], sold["online"], byol["online"]))
    close(both["probe"], {"kind": kind["probe"]["kind"], "sold": sold["probe"]["sold"]})
    assert not any(leaf.any() for leaf in jax.tree.leaves(byol["probe"]))
    assert {name for name in metrics if "probe" in name} == {f"probe_{a}_{b}" for a in ("loss", "top1", "top5") for b in ("kind", "sold")}
    assert silent["probe_loss_kind"] == silent["probe_loss_sold"] == 0

    one = dataclasses.replace(two, num_classes=3)
    state = dataclasses.replace(start, probe=start.probe["kind"], opt_state=tx.init({}))
    alone, told = jax.jit(m.make_train_step(one, tx, ema=EMA, mesh=mesh(2)))(state, {**views, "label": KIND})
    close(metrics["probe_loss_kind"], told["probe_loss"])
    close(kind["online"], moved(jax.device_get(state), jax.device_get(alone))["online"])


def test_labels_in_one_row_are_taken_apart() -> None:
    classes = {"kind": 3, "sold": 2}
    found = labels_of({"label": jnp.asarray([0, 2, 3, 4, -1])}, classes)
    np.testing.assert_array_equal(found["kind"], [0, 2, -1, -1, -1])
    np.testing.assert_array_equal(found["sold"], [-1, -1, 0, 1, -1])
    assert list(labels_of({"label": jnp.zeros(2)}, 3)) == [""]
    with pytest.raises(ValueError, match=r"needs batch\['label_sold'\], -1 where there is none; the batch has \['label', 'label_kind'\]"):
        labels_of({"label": jnp.zeros(2), "label_kind": jnp.zeros(2)}, classes)
    with pytest.raises(ValueError, match=r"num_classes\['a b'\] = 3: a label set has a name of letters"):
        m.Byol(None, num_classes={"a b": 3})  # type: ignore[arg-type]


def test_off_the_compiled_step_costs_what_it_did(method: m.Byol, batch: Any, mesh: Any) -> None:
    """Against a step whose labels are detached by hand before its own cross-entropy: the same program. Supervision has its price."""

    def program(method: m.Byol) -> Any:
        state = jax.eval_shape(partial(m.init, method, optax.sgd(1.0), batch=batch, mesh=mesh(1)), jax.random.key(0))
        step = m.make_train_step(method, optax.sgd(1.0), ema=EMA, mesh=mesh(1))
        return jax.jit(step).lower(state, batch)

    def by_hand(logits: jax.Array, labels: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    plain = program(method)
    same = program(dataclasses.replace(method, reach=jax.lax.stop_gradient, label_loss=by_hand))
    off = program(dataclasses.replace(method, reach=m.let_through(0.0), label_loss=m.cross_entropy(0.0)))
    taught = program(dataclasses.replace(method, reach=m.let_through(0.5)))
    assert plain.as_text() == same.as_text() == off.as_text()
    cost = [one.cost_analysis()["flops"] for one in (plain, taught)]
    assert cost[0] < cost[1] < 1.1 * cost[0]
