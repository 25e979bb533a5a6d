"""Fine-tuning: steps by hand, the schedule, the grid and its choice, and going on where it stopped."""

import json
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from byol_jax import data, models, parallel, views
from byol_jax.data.pipeline import train_batches
from byol_jax.evaluate import Encoder, fine_tune
from byol_jax.evaluate import finetune as tuning
from byol_jax.evaluate.finetune import Setting, begin, fitting_batch, make_step, semi_supervised_grid, train, transfer_bn_momentum
from byol_jax.evaluate.grid import choose, run_grid

PLAIN = views.small(8).both(crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0, jitter=0.0, grayscale=0.0, solarize=0.0)


class Small(nn.Module):
    """Means of the channels, a layer, batch norm over all devices."""

    bn_momentum: float = 0.9

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(5, name="layer")(x.mean((1, 2)))
        x = nn.BatchNorm(use_running_average=not train, momentum=self.bn_momentum, axis_name="data", name="norm")(x)
        return nn.relu(x)


def coloured(n, seed):
    """Images whose class is the brightest channel."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 3
    images = rng.integers(0, 120, (n, 8, 8, 3), np.uint8)
    images[np.arange(n), :, :, label] += 100
    return data.from_arrays(images, label)


@pytest.fixture(scope="module")
def encoder():
    made = Encoder.untrained(Small(), PLAIN, seed=3)
    return Encoder(made.module, jax.device_get(made.variables), PLAIN)


def by_hand(variables, images, label, momentum):
    """Loss, gradient and new running averages with every formula written out, on the whole batch at once."""
    mean, std = jnp.asarray(PLAIN.mean), jnp.asarray(PLAIN.std)
    x = ((jnp.asarray(images, jnp.float32) / 255 - mean) / std).mean((1, 2))
    old = variables["batch_stats"]["encoder"]["norm"]

    def loss(params):
        z = x @ params["encoder"]["layer"]["kernel"] + params["encoder"]["layer"]["bias"]
        centre, spread = z.mean(0), jnp.square(z).mean(0) - jnp.square(z.mean(0))
        norm = params["encoder"]["norm"]
        hidden = jnp.maximum((z - centre) / jnp.sqrt(spread + 1e-5) * norm["scale"] + norm["bias"], 0)
        logits = hidden @ params["classifier"]["kernel"] + params["classifier"]["bias"]
        likelihood = jax.nn.log_softmax(logits)[jnp.arange(len(label)), label]
        averages = {"mean": momentum * old["mean"] + (1 - momentum) * centre, "var": momentum * old["var"] + (1 - momentum) * spread}
        return -likelihood.mean(), averages

    (value, averages), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    return value, grads, averages


@pytest.mark.parametrize("bn_momentum", [None, 0.97])
def test_two_steps_on_eight_devices_by_hand(encoder, bn_momentum):
    source, mesh = coloured(16, 0), parallel.data_mesh()
    network, state = begin(encoder, 3, seed=5, mesh=mesh, bn_momentum=bn_momentum)
    step = make_step(network, PLAIN, jax.random.key(0), mesh)
    expected, rates, decay = jax.device_get(state.variables), (0.3, 0.1), 0.02
    assert np.array_equal(expected["params"]["encoder"]["layer"]["kernel"], encoder.variables["params"]["layer"]["kernel"])
    assert not expected["params"]["classifier"]["bias"].any()
    batch = {"image": source.images, "label": source.labels}
    trace = jax.tree.map(jnp.zeros_like, expected["params"])
    for rate in rates:
        state, loss = step(state, parallel.to_global(batch, mesh), jnp.float32(rate), jnp.float32(decay))
        value, grads, averages = by_hand(expected, source.images, source.labels, bn_momentum or 0.9)
        assert float(loss) == pytest.approx(float(value), rel=1e-5)
        grads = jax.tree.map(lambda g, p: g + decay * p if p.ndim == 2 else g, grads, expected["params"])
        trace = jax.tree.map(lambda t, g: 0.9 * t + g, trace, grads)
        params = jax.tree.map(lambda p, g, t, rate=rate: p - rate * (g + 0.9 * t), expected["params"], grads, trace)
        expected = {"params": params, "batch_stats": {"encoder": {"norm": averages}}}
    got = jax.device_get(state.variables)
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6), got, expected)
    assert int(state.step) == 2


def test_train_is_optax_sgd_along_a_cosine(encoder):
    """All steps of a run: order of images, rate of each step, length; against optax and the same formulas."""
    source, mesh = coloured(24, 0), parallel.data_mesh()
    tuned = train(encoder, source, Setting(0.2, epochs=2), 3, batch_size=8, seed=7)
    _, state = begin(encoder, 3, seed=7, mesh=mesh)
    variables = jax.device_get(state.variables)
    rates = jnp.asarray([0.2 * 8 / 256 * 0.5 * (1 + np.cos(np.pi * t / 6)) for t in range(6)], jnp.float32)
    tx = optax.sgd(lambda count: rates[count], momentum=0.9, nesterov=True)
    momentum = tx.init(variables["params"])
    with train_batches(source, PLAIN, batch_size=8, seed=7) as stream:
        for _ in range(6):
            batch = next(stream)
            _, grads, averages = by_hand(variables, batch["image"], batch["label"], 0.9)
            updates, momentum = tx.update(grads, momentum)
            variables = {"params": optax.apply_updates(variables["params"], updates), "batch_stats": {"encoder": {"norm": averages}}}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), jax.device_get(tuned.variables), variables)
    again = train(encoder, source, Setting(0.2, epochs=2), 3, batch_size=8, seed=7)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(again.variables), jax.device_get(tuned.variables))


def test_two_steps_at_most_are_on_their_way(encoder, monkeypatch):
    """Else the batches of the steps to come heap up on the device, and several CPU devices stand still from the 33rd on."""
    told = []

    class Loss:
        def __init__(self, number):
            self.number = number

        def block_until_ready(self):
            told.append(f"awaited {self.number}")

    def step(state, batch, rate, decay):
        number = sum(word.startswith("begun") for word in told)
        told.append(f"begun {number}")
        return state, Loss(number)

    monkeypatch.setattr(tuning, "_shared_step", lambda *_: step)
    train(encoder, coloured(24, 0), Setting(0.2, epochs=1), 3, batch_size=8, seed=7)
    assert told == ["begun 0", "begun 1", "awaited 0", "begun 2", "awaited 1"]


def test_numbers_of_the_paper():
    grid = semi_supervised_grid()
    assert {(s.rate, s.epochs, s.weight_decay) for s in grid} == {(r, e, 0.0) for r in (0.01, 0.02, 0.05, 0.1, 0.005) for e in (30, 50)}
    assert len(grid) == 10
    assert Setting(0.1, 30).total(12_811, 1024) == 30 * 12_811 // 1024 == 375
    assert Setting(0.1, 1).total(3, 8) == 1
    wide = tuning.transfer_grid()
    assert len({(s.rate, s.weight_decay) for s in wide}) == len({s.name for s in wide}) == 56
    assert {s.total(5, 8) for s in wide} == {20_000}
    assert sorted({round(s.rate, 9) for s in wide})[::3] == [1e-4, round(10**-2.5, 9), 1e-1]
    assert sorted({s.weight_decay for s in wide})[:2] == [0.0, 1e-6]
    assert transfer_bn_momentum(256_000, 256) == pytest.approx(0.99)
    assert transfer_bn_momentum(51_200, 256) == pytest.approx(0.95)
    assert transfer_bn_momentum(2_501, 256) == 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "Setting: epochs=None and steps=None; give exactly one of them, such as epochs=30"),
        ({"epochs": 3, "steps": 7}, "Setting: epochs=3 and steps=7; give exactly one of them, such as epochs=30"),
        ({"epochs": 0}, "Setting: epochs=0 must be 1 or more"),
        ({"steps": -1}, "Setting: steps=-1 must be 1 or more"),
        ({"epochs": 1, "rate": 0.0}, "Setting: rate=0 must be above 0 and finite, such as 0.05"),
        ({"epochs": 1, "rate": math.nan}, "Setting: rate=nan must be above 0 and finite, such as 0.05"),
        ({"epochs": 1, "weight_decay": -1e-4}, "Setting: weight_decay=-0.0001 must be at least 0 and finite"),
    ],
)
def test_settings_that_would_not_train_as_they_say(changes, message):
    with pytest.raises(ValueError) as caught:
        Setting(**{"rate": 0.05, **changes})
    assert str(caught.value) == message


def test_batch_that_the_devices_share():
    mesh = parallel.data_mesh()
    assert [fitting_batch(1024, n, mesh) for n in (5, 8, 30, 5000)] == [8, 8, 24, 1024]


def test_best_held_out_setting_is_chosen_and_the_first_among_equals():
    a, b, c = (Setting(rate, 30) for rate in (0.1, 0.2, 0.3))
    assert choose({a: (0.5, -1.0), b: (0.7, -2.0), c: (0.7, -1.0)}) == c
    assert choose({a: (0.7, -1.0), b: (0.7, -1.0), c: (0.6, -0.1)}) == a


def test_finished_settings_are_not_trained_again(tmp_path):
    settings = semi_supervised_grid((0.1, 0.2), (1,))
    asked = []

    def one(setting):
        asked.append(setting.name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return {"score": setting.rate}

    with pytest.raises(KeyboardInterrupt):
        run_grid(settings, one, tmp_path, {"seed": 0})
    assert run_grid(settings, one, tmp_path, {"seed": 0}) == {s: {"score": s.rate} for s in settings}
    assert asked == ["rate0.1-epochs1", "rate0.2-epochs1", "rate0.2-epochs1"]
    run_grid(settings, one, tmp_path, {"seed": 1})  # another seed: none of them counts
    assert asked[3:] == ["rate0.1-epochs1", "rate0.2-epochs1"]
    (tmp_path / "rate0.1-epochs1.json").write_text("{")
    with pytest.raises(ValueError, match=r"rate0\.1-epochs1\.json: is no result of an evaluation"):
        run_grid(settings, one, tmp_path, {"seed": 1})


def test_fine_tune_chooses_held_out_and_tells_classes_apart(encoder, tmp_path, monkeypatch):
    sources, settings = (coloured(48, 0), coloured(18, 1), coloured(30, 2)), semi_supervised_grid((1e-6, 4.0), (12,))
    result = fine_tune(encoder, *sources, settings=settings, batch_size=16, folder=tmp_path)
    assert result.choice == "rate4-epochs12"
    assert result.top1 > 0.9
    assert result.held_out["rate4-epochs12"] > result.held_out["rate1e-06-epochs12"]
    assert (result.train_examples, result.held_out_examples, result.test_examples, result.classes) == (48, 18, 30, 3)
    kept = json.loads((tmp_path / "rate4-epochs12.json").read_text())
    assert kept["scores"]["test_top1"] == result.top1
    assert [row[0] for row in result.rows()[2]] == ["rate1e-06-epochs12", "rate4-epochs12"]
    assert result.rows()[2][0][2] == ""  # the test accuracy of a setting that was not chosen is nobody's business

    monkeypatch.setattr(tuning, "train", None)  # nothing is trained again
    assert fine_tune(encoder, *sources, settings=settings, batch_size=16, folder=tmp_path) == result
    other = Encoder.untrained(Small(), PLAIN, seed=4)
    with pytest.raises(TypeError):
        fine_tune(other, *sources, settings=settings, batch_size=16, folder=tmp_path)


def test_errors(encoder):
    good = coloured(9, 0)
    with pytest.raises(ValueError, match="settings: is empty"):
        fine_tune(encoder, good, good, good, settings=())
    with pytest.raises(ValueError, match="9 of 9 examples have none"):
        fine_tune(encoder, data.from_arrays(good.images), good, good, settings=semi_supervised_grid())
    lonely = Encoder.untrained(nn.Sequential([lambda x, train: x.mean((1, 2))]), PLAIN)
    assert lonely(good.images).shape == (9, 3)
    for bn_axis, error in ((None, "has no axis_name"), ("rows", "axis_name='rows'")):
        made = Encoder.untrained(models.resnet((1,), (8,), bn_axis=bn_axis), PLAIN)
        with pytest.raises(ValueError, match=error):
            train(made, good, Setting(0.1, 1), 3, batch_size=8)


def test_a_resnet_takes_the_momentum_of_transfer():
    made = Encoder.untrained(models.resnet((1,), (8,)), PLAIN)
    assert begin(made, 3, seed=0, mesh=parallel.data_mesh(), bn_momentum=0.95)[0].encoder.bn_momentum == 0.95
    assert begin(made, 3, seed=0, mesh=parallel.data_mesh())[0].encoder.bn_momentum == 0.9
