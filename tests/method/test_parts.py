"""Loss, target, schedules, optimizers, heads and probe: values worked out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from byol_jax import method as m
from byol_jax.method import target
from byol_jax.method.batch import micro_batches
from byol_jax.method.probe import in_top_k, labelled_share, probe_metrics


def outputs(prediction: list, projection: list) -> m.Outputs:
    return m.Outputs(None, jnp.asarray(projection, jnp.float32), jnp.asarray(prediction, jnp.float32))


def test_loss_pairs_each_prediction_with_the_other_view() -> None:
    """Predictions along x and y. The target has y in view 1 and x in view 2: crossed, both agree."""
    online = outputs([[[2.0, 0.0]], [[0.0, 3.0]]], [])
    loss, metrics = m.regression_loss(online, outputs([], [[[0.0, 5.0]], [[7.0, 0.0]]]))
    np.testing.assert_allclose([loss, metrics["cosine_1"], metrics["cosine_2"]], [0, 1, 1], atol=1e-6)
    loss, metrics = m.regression_loss(online, outputs([], [[[0.0, -5.0]], [[0.0, 7.0]]]))  # cosines 0 and -1: 2 + 4
    np.testing.assert_allclose([loss, metrics["cosine_1"], metrics["cosine_2"]], [6, 0, -1], atol=1e-6)


def test_loss_of_bfloat16_outputs_is_float32() -> None:
    ones = jnp.ones((2, 3, 4), jnp.bfloat16)
    loss, _ = m.regression_loss(m.Outputs(ones, ones, ones), m.Outputs(ones, ones, ones))
    assert loss.dtype == jnp.float32


def test_tau_runs_from_base_to_one() -> None:
    tau = m.ema_decay(0.9, 100)
    np.testing.assert_allclose([tau(0), tau(50), tau(100), tau(1000)], [0.9, 0.95, 1, 1], rtol=1e-6)
    assert m.constant_decay(0.99)(7) == 0.99


@pytest.mark.parametrize("make", [lambda: m.ema_decay(1.5, 10), lambda: m.constant_decay(1.5)])
def test_tau_outside_0_1(make) -> None:
    with pytest.raises(ValueError, match=r"tau = 1.5 is not in \[0, 1\]; nearest valid: 1"):
        make()


def test_target_moves_by_one_minus_tau_and_stands_still_at_one() -> None:
    old, online = {"w": jnp.asarray([1.0, 2.0])}, {"w": jnp.asarray([3.0, 0.1])}
    np.testing.assert_allclose(target.update(old, online, 0.75)["w"], [1.5, 1.525], rtol=1e-6)
    np.testing.assert_array_equal(target.update(old, online, 1.0)["w"], old["w"])


def test_warmup_and_cosine() -> None:
    rate = m.warmup_cosine(0.2, batch_size=512, steps=30, warmup_steps=10)
    np.testing.assert_allclose([rate(k) for k in (0, 5, 10, 20, 30, 99)], [0, 0.2, 0.4, 0.2, 0, 0], atol=1e-7)
    np.testing.assert_allclose([m.cosine(0.2, batch_size=256, steps=10)(0), m.constant(0.2, batch_size=1024)(3)], [0.2, 0.8], rtol=1e-6)


@pytest.mark.parametrize(("warmup", "nearest"), [(30, 29), (-1, 0)])
def test_warmup_that_leaves_no_step(warmup: int, nearest: int) -> None:
    with pytest.raises(ValueError, match=rf"warmup_steps = {warmup} must be in \[0, steps\) = \[0, 30\); nearest valid: {nearest}"):
        m.warmup_cosine(0.2, batch_size=256, steps=30, warmup_steps=warmup)
    with pytest.raises(ValueError, match="steps = 0: a schedule has at least 1 step"):
        m.cosine(0.2, batch_size=256, steps=0)


@pytest.mark.parametrize("make", [m.lars, m.adamw, m.sgd])
@pytest.mark.parametrize("layers", [(), (3,)])  # alone, or stacked by nn.scan
def test_only_weights_decay(make, layers) -> None:
    params = {"kernel": jnp.ones((*layers, 2, 2)), "bias": jnp.ones((*layers, 2)), "scale": jnp.ones((*layers, 2))}
    tx = make(0.1, weight_decay=0.5)
    zero = jax.tree.map(jnp.zeros_like, params)
    update, _ = tx.update(zero, tx.init(params), params)
    assert float(update["kernel"].max()) < 0
    assert float(jnp.abs(update["bias"]).max()) == float(jnp.abs(update["scale"]).max()) == 0


def test_lars_step_by_hand() -> None:
    """|p| = 2, g = (3, 4, 0, 0): u = 0.001 * 2 / 5 * g; the bias takes plain momentum SGD."""
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(1)}
    grads = {"w": jnp.asarray([[3.0, 4.0], [0.0, 0.0]]), "b": jnp.asarray([2.0])}
    tx = m.lars(10.0, weight_decay=0.0)
    state = tx.init(params)
    for momentum in (1.0, 1.9):
        update, state = tx.update(grads, state, params)
        np.testing.assert_allclose(update["w"], -10 * momentum * 4e-4 * grads["w"], rtol=1e-5)
        np.testing.assert_allclose(update["b"], [-10 * momentum * 2], rtol=1e-6)


def test_rates_multiplied_by_part() -> None:
    """SGD of rate 1, gradients of 1: the update is minus the factor, in the named parts only, not in an encoder's layer so named."""
    leaf = {"w": jnp.ones(2)}
    params = {"online": {"encoder": {"probe": leaf}, "projector": leaf, "predictor": leaf}, "probe": leaf}
    tx = m.multiply_rates(optax.sgd(1.0), {"predictor": 10.0, "probe": 0.0})
    update, _ = tx.update(params, tx.init(params), params)
    found = {name: -float(part["w"][0]) for name, part in {**update["online"], **update["online"]["encoder"]}.items() if "w" in part}
    assert found == {"projector": 1, "predictor": 10, "probe": 1}
    assert update["probe"]["w"].tolist() == [0, 0]


@pytest.mark.parametrize(("layers", "names"), [(1, ["linear_0"]), (2, ["linear_0", "linear_1", "norm_0"])])
def test_heads(layers: int, names: list[str]) -> None:
    params = m.MLP(8, 4, layers=layers).init(jax.random.key(0), jnp.ones((2, 6)), True)["params"]
    assert sorted(params) == names
    assert sorted(params[f"linear_{layers - 1}"]) == ["kernel"]
    assert params[f"linear_{layers - 1}"]["kernel"].shape == (8 if layers > 1 else 6, 4)
    with pytest.raises(ValueError, match="at least 1 linear layer"):
        m.MLP(layers=0).init(jax.random.key(0), jnp.ones((2, 6)), True)


def test_head_weights_are_drawn_as_in_the_official_code() -> None:
    """Truncated at two standard deviations, not widened: std 0.8796 / sqrt(fan_in)."""
    kernel = m.MLP(600, 4).init(jax.random.key(0), jnp.ones((2, 400)), True)["params"]["linear_0"]["kernel"]
    assert float(kernel.std()) * 400**0.5 == pytest.approx(0.8796, abs=0.005)
    assert float(jnp.abs(kernel).max()) * 400**0.5 <= 2 + 1e-5


def test_top_k_gives_ties_to_the_highest_class() -> None:
    logits = jnp.asarray([[1.0, 1.0, 1.0], [3.0, 2.0, 1.0]])
    assert in_top_k(logits, jnp.asarray([2, 1]), 1).tolist() == [True, False]
    assert in_top_k(logits, jnp.asarray([0, 1]), 2).tolist() == [False, True]


def test_probe_metrics_are_means_over_the_labelled_rows_of_all_devices() -> None:
    """Four labelled rows of eight, unevenly spread over four devices; three of them right. None labelled: 0."""
    logits = jax.nn.one_hot(jnp.asarray([0, 1, 2, 0, 0, 0, 1, 2]), 7) * 9
    labels = jnp.asarray([0, 1, 2, -1, -1, -1, -1, 0])
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])

    def local(logits, labels):
        return jax.lax.pmean(probe_metrics(logits, labels, labelled_share(labels, "data")), "data")

    over_devices = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(P("data"), P("data")), out_specs=P(), check_vma=False))
    metrics = over_devices(logits, labels)
    rows = np.asarray([0, 1, 2, 7])
    expected = optax.softmax_cross_entropy_with_integer_labels(logits[rows], labels[rows]).mean()
    np.testing.assert_allclose([metrics["probe_loss"], metrics["probe_top1"]], [expected, 0.75], rtol=1e-6)
    assert [float(x) for x in over_devices(logits, jnp.full(8, -1)).values()] == [0, 0, 0]


def test_micro_batches_are_interleaved() -> None:
    assert micro_batches(jnp.arange(6), 2).tolist() == [[0, 2, 4], [1, 3, 5]]
