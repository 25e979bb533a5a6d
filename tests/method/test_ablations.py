"""The switches of the paper's ablations: each end of the bridge to contrastive learning by value, and who gets a gradient."""

from __future__ import annotations

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from byol_jax import method as m

DRAW = np.random.default_rng(0)
ONLINE, TARGET = (
    m.Outputs(None, *(jnp.asarray(DRAW.normal(size=(2, 8, 5)), jnp.float32) for _ in ("projection", "prediction"))) for _ in range(2)
)


def on_devices(loss: m.Loss, mesh: Mesh, online: m.Outputs = ONLINE, target: m.Outputs = TARGET) -> jax.Array:
    """The loss as a training step computes it: the mean over devices of what each makes of its rows."""
    rows = P(None, "data")

    def local(*pair):
        return jax.lax.pmean(loss(*pair)[0], "data")

    return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(rows, rows), out_specs=P(), check_vma=False))(online, target)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_beta_one_without_target_and_predictor_is_simclr(mesh, temperature) -> None:
    """NT-Xent as optax has it; the paper's objective is 2 temperature times that for either view, above a constant of 2."""
    own = ONLINE._replace(prediction=ONLINE.projection)
    points, names = m.loss.normalize(own.projection).reshape(16, 5), jnp.tile(jnp.arange(8), 2)
    with jax.numpy_dtype_promotion("standard"):
        expected = 4 + 4 * temperature * optax.losses.ntxent(points, names, temperature)
    for devices in (1, 4):
        value = on_devices(m.contrastive_loss(1.0, temperature), mesh(devices), own, own)
        assert float(value) == pytest.approx(float(expected), rel=1e-5)


def test_beta_zero_is_byol(mesh) -> None:
    assert float(on_devices(m.contrastive_loss(0.0, 0.1), mesh(2))) == float(on_devices(m.regression_loss, mesh(2)))


def test_a_batch_of_one_has_no_negatives(mesh) -> None:
    """The logarithm is S / temperature of the pair itself: (2 - 2 S) + 2 beta S for either view; here S = 0.6 and 0."""
    online = m.Outputs(None, None, jnp.asarray([[[3.0, 4.0]], [[0.0, 1.0]]]))
    target = m.Outputs(None, jnp.asarray([[[1.0, 0.0]], [[1.0, 0.0]]]), None)
    value = partial(on_devices, mesh=mesh(1), online=online, target=target)
    assert float(value(m.contrastive_loss(0.5, 0.3))) == pytest.approx((2 - 0.6) + 2, rel=1e-6)


def test_the_gradient_of_negatives_crosses_devices(mesh) -> None:
    """Of 4 devices the mean gradient is that of one device with all rows, also through projections that others took as negatives."""

    def gradients(devices: int) -> jax.Array:
        def local(projection: jax.Array) -> jax.Array:
            def loss(weight: jax.Array) -> jax.Array:
                out = m.Outputs(None, weight * projection, weight * projection)
                return m.contrastive_loss(1.0, 0.2)(out, out)[0]

            return jax.lax.pmean(jax.grad(loss)(jnp.arange(1.0, 6.0)), "data")

        rows = P(None, "data")
        return jax.jit(jax.shard_map(local, mesh=mesh(devices), in_specs=rows, out_specs=P(), check_vma=False))(ONLINE.projection)

    chex.assert_trees_all_close(gradients(4), jax.device_put(gradients(1)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("normalization", ["layer", "batch", "none"])
def test_other_normalizations_by_numpy(mesh, normalization) -> None:
    axis = {"layer": -1, "batch": 1}.get(normalization)

    def normalized(x: jax.Array) -> np.ndarray:
        x = np.asarray(x, np.float64)
        if axis is None:
            return x
        return (x - x.mean(axis, keepdims=True)) / np.sqrt((x.var(axis, keepdims=True) + 1e-5) * 5)

    distance = normalized(ONLINE.prediction) - normalized(TARGET.projection)[::-1]
    expected = (distance**2).sum(-1).mean(1).sum()
    for devices in (1, 4):
        assert float(on_devices(m.normalized_regression_loss(normalization), mesh(devices))) == pytest.approx(expected, rel=1e-5)


def test_l2_is_the_paper_s_loss_itself() -> None:
    assert m.normalized_regression_loss("l2") is m.regression_loss
    with pytest.raises(ValueError, match="normalization = 'l1': choose l2, layer, batch or none"):
        m.normalized_regression_loss("l1")


@pytest.mark.parametrize("target", ["stop_gradient", "online"])
def test_who_gets_a_gradient_without_a_target_network(method, batch, mesh, target) -> None:
    """The step's gradient against two calls of one network, written out."""
    method = m.Byol(method.encoder, method.projector, method.predictor, target=target)
    tx = optax.sgd(1.0)
    state = m.init(method, tx, jax.random.key(1), batch, mesh=mesh(1))
    step = m.make_train_step(method, tx, ema=m.constant_decay(0.9), mesh=mesh(1))
    after, _ = jax.jit(step)(state, batch)
    network = m.Network(method.encoder.clone(bn_axis=None), m.MLP(8, 4, bn_axis=None), m.MLP(8, 4, bn_axis=None))

    def loss(params: dict) -> jax.Array:
        variables = {"params": params, "batch_stats": state.online["batch_stats"]}
        seen = [network.apply(variables, batch[view], True, mutable=["batch_stats"])[0] for view in ("view1", "view2")]
        wanted = jax.lax.stop_gradient(seen) if target == "stop_gradient" else seen
        return sum(m.loss.regression(seen[v].prediction, wanted[1 - v].projection).mean() for v in (0, 1))

    grads = jax.jit(jax.grad(loss))(state.online["params"])
    expected = jax.tree.map(lambda p, g: p - g, state.online["params"], grads)
    chex.assert_trees_all_close(after.online["params"], expected, rtol=1e-5, atol=1e-5)
    assert jax.tree.leaves((state.target, after.target)) == []


@pytest.mark.parametrize("target", ["stop_gradient", "online"])
def test_a_target_network_that_is_not_there_makes_no_difference(method, batch, mesh, target) -> None:
    """Three steps, bit for bit those of the same state with a target network in it, which stays as it is."""
    ours, theirs = (m.Byol(method.encoder, method.projector, method.predictor, num_classes=3, target=t) for t in (target, "ema"))
    tx = optax.sgd(0.5, momentum=0.9)
    state, other = (m.init(byol, tx, jax.random.key(1), batch, mesh=mesh(2)) for byol in (ours, theirs))
    chex.assert_trees_all_equal(state, other.replace(target={}))
    kept = jax.device_get(other.target)
    assert len(jax.tree.leaves(kept)) == len(jax.tree.leaves(state.online))
    step = jax.jit(m.make_train_step(ours, tx, ema=m.constant_decay(0.9), mesh=mesh(2), accumulate=2))
    for _ in range(3):
        (state, metrics), (other, wanted) = (step(which, batch) for which in (state, other))
        assert metrics == wanted
        assert "tau" not in metrics
    chex.assert_trees_all_equal(state, other.replace(target={}))
    chex.assert_trees_all_equal(other.target, kept)
    assert jax.tree.leaves(state.target) == []


def test_target_by_a_wrong_name(method) -> None:
    with pytest.raises(ValueError, match=r"target='momentum'.*ema, stop_gradient, online"):
        m.Byol(method.encoder, target="momentum")


def test_no_predictor(method, batch, mesh) -> None:
    method = m.Byol(method.encoder, method.projector, m.NoHead())
    state = m.init(method, optax.sgd(0.1), jax.random.key(1), batch, mesh=mesh(1))
    assert sorted(state.online["params"]) == ["encoder", "projector"]
    outputs = method.network().clone(encoder=method.encoder.clone(bn_axis=None), projector=m.MLP(8, 4, bn_axis=None))
    seen = outputs.apply(jax.device_get(state.online), batch["view1"], False)
    assert np.array_equal(seen.prediction, seen.projection)


def test_heads_without_batch_statistics() -> None:
    """GroupNorm of 32 units in 16 groups: pairs are made -1 and 1 wherever they differ by far more than its epsilon."""
    x = jnp.asarray(DRAW.normal(size=(3, 4)), jnp.float32)
    for norm, names in (("group", ["linear_0", "linear_1", "norm_0"]), ("none", ["linear_0", "linear_1"])):
        head = m.MLP(32, 6, norm=norm)
        variables = head.init(jax.random.key(0), x, True)
        assert sorted(variables) == ["params"]
        assert sorted(variables["params"]) == names
        hidden = np.asarray(x @ variables["params"]["linear_0"]["kernel"], np.float64)
        if norm == "group":
            pairs = hidden.reshape(3, 16, 2)
            hidden = ((pairs - pairs.mean(-1, keepdims=True)) / np.sqrt(pairs.var(-1, keepdims=True) + 1e-5)).reshape(3, 32)
        expected = np.maximum(hidden, 0) @ np.asarray(variables["params"]["linear_1"]["kernel"])
        np.testing.assert_allclose(head.apply(variables, x, True), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"norm='layer'.*batch, group or none"):
        m.MLP(norm="layer").init(jax.random.key(0), x, True)
