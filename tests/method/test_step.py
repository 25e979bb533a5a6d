"""One step: against the formulas written out, over devices, micro-batches and keys, and what it refuses."""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from byol_jax import method as m
from byol_jax.method.norms import stacks_views
from byol_jax.models import resnet, resnet18, resnet50

EMA = m.ema_decay(0.9, 10)
RATE = m.warmup_cosine(1.0, batch_size=16, steps=10, warmup_steps=2)


def noisy(keys: jax.Array, batch: dict) -> dict:
    """An augmentation that draws from the key of each example."""
    noise = jax.vmap(lambda key: 0.1 * jax.random.normal(key, (4, 4, 3)))
    return {**batch, "view1": batch["view1"] + noise(keys), "view2": batch["view2"] - noise(keys)}


# Unoptimised, these small steps compile in half the time; test_golden_resnet.py compiles as users do.


def run(method, batch, mesh, steps=3, tx=None, **options):
    """States and metrics after each of some steps."""
    tx = tx or m.lars(RATE)
    state = m.init(method, tx, jax.random.key(1), batch, mesh=mesh)
    step = jax.jit(m.make_train_step(method, tx, ema=EMA, mesh=mesh, **options))
    done = []
    for _ in range(steps):
        state, metrics = step(state, batch)
        done.append((jax.device_get(state), jax.device_get(metrics)))
    return done


def close(a, b, tolerance=1e-5) -> None:
    chex.assert_trees_all_close(jax.device_get(a), jax.device_get(b), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("stack_views", [True, False])
def test_a_step_is_what_the_formulas_say(method, batch, mesh, stack_views) -> None:
    """Two separate passes a network, view 1 then view 2, the mean of both losses' gradients, SGD, then the target."""
    tx = optax.sgd(0.5)
    state = m.init(method, tx, jax.random.key(1), batch, mesh=mesh(1))
    (after, metrics), *_ = run(method, batch, mesh(1), steps=1, tx=tx, stack_views=stack_views)
    network = m.Network(method.encoder.clone(bn_axis=None), m.MLP(8, 4, bn_axis=None), m.MLP(8, 4, bn_axis=None))

    def two_calls(params, stats):
        outputs = []
        for view in (batch["view1"], batch["view2"]):
            made, changed = network.apply({"params": params, "batch_stats": stats}, view, True, mutable=["batch_stats"])
            stats = changed["batch_stats"]
            outputs.append(made)
        return outputs, stats

    def distance(p, z):
        p, z = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (p, z))
        return 2 - 2 * jnp.sum(p * z, axis=-1).mean()

    (target1, target2), target_stats = two_calls(state.target["params"], state.target["batch_stats"])

    def loss(params):
        (online1, online2), stats = two_calls(params, state.online["batch_stats"])
        return distance(online1.prediction, target2.projection) + distance(online2.prediction, target1.projection), (stats, online1)

    (value, (stats, online1)), grads = jax.value_and_grad(loss, has_aux=True)(state.online["params"])
    online = jax.tree.map(lambda p, g: p - 0.5 * g, state.online["params"], grads)
    target = jax.tree.map(lambda t, o: 0.9 * t + 0.1 * o, state.target["params"], online)

    assert metrics["loss"] == pytest.approx(float(value), rel=1e-6)
    assert metrics["cosine_1"] == pytest.approx(1 - float(distance(online1.prediction, target2.projection)) / 2, abs=1e-6)
    assert metrics["grad_norm"] == pytest.approx(float(optax.tree.norm(grads)), rel=1e-5)
    assert (metrics["tau"], after.step) == (np.float32(0.9), 1)
    close(after.online, {"params": online, "batch_stats": stats}, 2e-6)
    close(after.target, {"params": target, "batch_stats": target_stats}, 2e-6)


def test_metrics_are_float32_scalars_of_known_names(method, batch, mesh) -> None:
    metrics = run(method, batch, mesh(1), steps=1, log={"learning_rate": RATE})[0][1]
    probe = ["probe_loss", "probe_top1", "probe_top5"]
    assert sorted(metrics) == sorted(["loss", "cosine_1", "cosine_2", "tau", "grad_norm", "embedding_std", "learning_rate", *probe])
    assert {(leaf.shape, leaf.dtype) for leaf in metrics.values()} == {((), np.dtype("float32"))}


@pytest.mark.parametrize(("accumulate", "stack_views"), [(1, True), (2, False)])
def test_eight_devices_equal_one_whose_views_come_the_other_way(method, batch, mesh, accumulate, stack_views) -> None:
    options = {"augment": noisy, "key": jax.random.key(7), "accumulate": accumulate, "tx": m.sgd(0.1)}
    one, eight = (run(method, batch, mesh(n), stack_views=(n == 8) is stack_views, **options) for n in (1, 8))
    for alone, together in zip(one, eight, strict=True):
        close(alone, together)


def test_views_come_one_after_the_other_on_a_cpu_alone(method, batch, mesh) -> None:
    tx = m.sgd(0.1)
    state = m.init(method, tx, jax.random.key(1), batch, mesh=mesh(1))

    def program(**options: bool) -> str:
        return jax.jit(m.make_train_step(method, tx, ema=EMA, mesh=mesh(1), **options)).lower(state, batch).as_text()

    assert program() == program(stack_views=False) != program(stack_views=True)


@pytest.mark.parametrize(
    ("encoder", "expected"),
    [
        (resnet50(), {"cpu": False, "gpu": False, "tpu": True}),
        (resnet50(norm="group"), {"cpu": False, "gpu": True, "tpu": True}),
        (resnet18(), {"cpu": False, "gpu": True, "tpu": True}),
        (nn.Dense(4), {"cpu": False, "gpu": True, "tpu": True}),
    ],
)
def test_where_both_views_pass_at_once(encoder: nn.Module, expected: dict[str, bool]) -> None:
    network = m.Byol(encoder, m.MLP(8, 4), m.MLP(8, 4)).network()
    assert {platform: stacks_views(network, platform) for platform in expected} == expected


@pytest.mark.parametrize(("devices", "talk"), [(1, False), (2, True)])
def test_one_device_sends_no_message(method, batch, mesh, devices, talk) -> None:
    """A ResNet's batch statistics, gradients and metrics."""
    head = m.MLP(8, 4, norm="none")
    method, tx = dataclasses.replace(method, encoder=resnet((1,), (8,)), projector=head, predictor=head), m.sgd(0.1)
    state = m.init(method, tx, jax.random.key(1), batch, mesh=mesh(devices))
    text = jax.jit(m.make_train_step(method, tx, ema=EMA, mesh=mesh(devices))).lower(state, batch).as_text()
    assert ("stablehlo.all_reduce" in text) is talk


def test_accumulation_is_the_mean_over_interleaved_micro_batches(method, batch, mesh) -> None:
    """Two micro-batches of rows 0, 2, ... and 1, 3, ...: mean of their gradients; statistics as after one, then the other.

    The probe learns from every label alike: 8 of them in one micro-batch, 4 in the other.
    """
    tx = optax.sgd(1.0)
    before = m.init(method, tx, jax.random.key(1), batch, mesh=mesh(1))
    after, metrics = run(method, batch, mesh(1), steps=1, tx=tx, accumulate=2)[0]
    step = jax.jit(m.make_train_step(method, tx, ema=EMA, mesh=mesh(1)))
    even, odd = ({name: x[start::2] for name, x in batch.items()} for start in (0, 1))
    first, first_metrics = step(before, even)
    second, second_metrics = step(before.replace(online={**before.online, "batch_stats": first.online["batch_stats"]}), odd)

    def mean(a, b, share=1 / 2):
        return jax.tree.map(lambda x, y: share * x + (1 - share) * y, a, b)

    close(after.online["params"], mean(first.online["params"], second.online["params"]), 2e-6)
    close(after.probe, mean(first.probe, second.probe, 8 / 12), 2e-6)
    close(after.online["batch_stats"], second.online["batch_stats"], 2e-6)
    assert metrics["loss"] == pytest.approx(float(mean(first_metrics["loss"], second_metrics["loss"])), rel=1e-5)
    assert metrics["probe_loss"] == pytest.approx(float(mean(first_metrics["probe_loss"], second_metrics["probe_loss"], 8 / 12)), rel=1e-5)
    assert after.step == 1


def test_every_example_has_its_own_key_from_the_step_and_its_row(method, batch, mesh) -> None:
    def seen(keys, batch):
        return {**batch, "view1": batch["view1"] * 0 + jax.vmap(jax.random.uniform)(keys)[:, None, None, None]}

    def spread(online, target):
        return (online.embedding.sum() * 0, {"first": online.embedding[0, 0, 0]})

    class Peek(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return x[:, 0, 0, :1] * self.param("one", nn.initializers.ones, ())

    peek = m.Byol(Peek(), m.MLP(2, 2, layers=1), m.MLP(2, 2, layers=1), loss=spread)
    done = run(peek, batch, mesh(1), steps=2, tx=optax.sgd(0.0), augment=seen, key=jax.random.key(3))
    expected = [jax.random.uniform(jax.random.split(jax.random.fold_in(jax.random.key(3), k), 16)[0]) for k in (0, 1)]
    np.testing.assert_allclose([metrics["first"] for _, metrics in done], expected, rtol=1e-6)


def test_the_probe_learns_and_teaches_the_encoder_nothing(method, batch, mesh) -> None:
    without = m.Byol(method.encoder, method.projector, method.predictor)
    with_probe, alone = run(method, batch, mesh(1), steps=2), run(without, batch, mesh(1), steps=2)
    close(with_probe[-1][0].online, alone[-1][0].online, 1e-6)
    assert alone[-1][0].probe == {}
    start = m.init(method, m.lars(RATE), jax.random.key(1), batch, mesh=mesh(1)).probe
    assert float(np.abs(with_probe[-1][0].probe["kernel"] - start["kernel"]).max()) > 0


def test_traced_once_and_the_state_is_donated(method, batch, mesh) -> None:
    tx = m.lars(RATE)
    step = jax.jit(chex.assert_max_traces(m.make_train_step(method, tx, ema=EMA, mesh=mesh(8)), 1), donate_argnums=0)
    first = state = m.init(method, tx, jax.random.key(0), batch, mesh=mesh(8))
    for _ in range(3):
        state, _ = step(state, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first.online))
    assert int(state.step) == 3


def test_online_and_target_start_apart_and_init_needs_shapes_only(method, batch, mesh) -> None:
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
    state = m.init(method, m.lars(RATE), jax.random.key(1), shapes, mesh=mesh(1))
    close(state, m.init(method, m.lars(RATE), jax.random.key(1), batch, mesh=mesh(1)), 0)
    assert (
        float(jnp.abs(state.online["params"]["encoder"]["conv"]["kernel"] - state.target["params"]["encoder"]["conv"]["kernel"]).max())
        > 0.01
    )
    raw = {"image": jax.ShapeDtypeStruct((16, 9, 9, 3), jnp.uint8), "label": shapes["label"]}

    def crop(keys, b):
        return {"view1": b["image"][:, :4, :4] / 255, "view2": b["image"][:, 5:, 5:] / 255, "label": b["label"]}

    chex.assert_trees_all_equal_shapes_and_dtypes(m.init(method, m.lars(RATE), jax.random.key(1), raw, augment=crop), state)


def test_a_network_without_batch_norm(batch, mesh) -> None:
    class Linear(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return nn.Dense(4)(x.reshape(len(x), -1))

    method = m.Byol(Linear(), m.MLP(4, 4, layers=1), m.MLP(4, 4, layers=1))
    state, metrics = run(method, batch, mesh(8))[-1]
    assert state.online["batch_stats"] == {}
    assert 0 < metrics["loss"] < 8


# What it refuses.


def refuse(match, method, batch, mesh, **options) -> None:
    with pytest.raises(ValueError, match=match):
        run(method, batch, mesh, steps=1, **options)


def test_batches_that_do_not_divide(method, batch, mesh) -> None:
    refuse(
        r"batch of 16 does not divide into 3 device\(s\) x 2 micro-batch\(es\); nearest valid sizes: 12 or 18",
        method,
        batch,
        mesh(3),
        accumulate=2,
    )
    refuse("accumulate = 0", method, batch, mesh(1), accumulate=0)


def test_batches_without_views_labels_or_floats(method, batch, mesh) -> None:
    tx = m.lars(RATE)
    state = m.init(method, tx, jax.random.key(1), batch, mesh=mesh(1))
    step = m.make_train_step(method, tx, ema=EMA, mesh=mesh(1))
    for broken, match in [
        ({"view1": batch["view1"], "label": batch["label"]}, r"no \['view2'\]"),
        ({name: batch[name] for name in ("view1", "view2")}, "needs batch\\['label'\\]"),
        ({**batch, "view1": batch["view1"].astype(np.uint8)}, "uint8 pixels"),
        ({**batch, "label": batch["label"][:8]}, "same number of rows"),
    ]:
        with pytest.raises(ValueError, match=match):
            jax.eval_shape(step, state, broken)


def test_losses_and_encoders_of_the_wrong_shape(method, batch, mesh, tiny) -> None:
    def each(online, target):
        return (online.prediction.sum(-1), {})

    refuse(r"one number for the batch; it has shape \(2, 16\)", m.Byol(tiny(), m.MLP(8, 4), m.MLP(8, 4), loss=each), batch, mesh(1))

    class Map(nn.Module):
        def __call__(self, x, train):
            return x

    refuse(r"encoder Map must return one vector an example, \[B, D\].*\(.*4, 4, 3\).*mean", m.Byol(Map()), batch, mesh(1))


def test_augmentation_without_a_key_and_meshes_without_data(method, batch, mesh) -> None:
    refuse("pass key=", method, batch, mesh(1), augment=noisy)
    wrong = jax.make_mesh((1,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    refuse(r"axes \('batch',\)", method, batch, wrong)
