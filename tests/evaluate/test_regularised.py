"""What regularises fine-tuning: label smoothing and dropout before the classifier, by hand; nothing of either where they are off."""

from __future__ import annotations

import contextlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from byol_jax import cli, data, parallel, views
from byol_jax.evaluate import Encoder
from byol_jax.evaluate import finetune as tuning
from byol_jax.evaluate.finetune import Classified, Setting, begin, make_step, semi_supervised_grid, train
from byol_jax.method.probe import cross_entropy

PLAIN = views.small(8).both(crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0, jitter=0.0, grayscale=0.0, solarize=0.0)


class Means(nn.Module):
    """Means of the channels: nothing to learn."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return x.mean((1, 2))


def test_label_smoothing_by_hand() -> None:
    logits, labels = np.asarray([[1.0, 0, -1], [0, 2, 0]], np.float32), np.asarray([0, 2])
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = np.asarray([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    np.testing.assert_allclose(cross_entropy(0.3)(logits, labels), -(wanted * log_p).sum(-1), rtol=1e-6)
    even = jnp.zeros((1, 3))
    np.testing.assert_allclose(cross_entropy(0.3)(even, labels[:1]), [np.log(3)], rtol=1e-6)
    assert cross_entropy() is optax.softmax_cross_entropy_with_integer_labels
    with pytest.raises(ValueError, match=r"label_smoothing = 1: it must be at least 0 and below 1"):
        cross_entropy(1)


def test_dropout_stands_before_the_classifier_and_in_training_alone() -> None:
    x = jnp.ones((8, 4, 4, 3))
    params = {"params": {"classifier": {"kernel": jnp.eye(3), "bias": jnp.zeros(3)}}}
    network = Classified(Means(), 3, dropout=0.75)
    np.testing.assert_array_equal(network.apply(params, x, False), np.ones((8, 3)))
    seen = np.unique(np.asarray(network.apply(params, x, True, rngs={"dropout": jax.random.key(0)})))
    np.testing.assert_array_equal(seen, [0, 4])
    plain = Classified(Means(), 3)
    programs = [str(jax.make_jaxpr(lambda v, on=on: plain.apply(v, x, on))(params)) for on in (True, False)]
    assert programs[0] == programs[1]


def test_the_reported_loss_of_a_step_is_the_smoothed_one() -> None:
    """With a classifier of zeros all classes are equally likely; with one that is sure, smoothing costs what the formula says."""
    images = np.zeros((8, 8, 8, 3), np.uint8)
    label = np.arange(8, dtype=np.int32) % 3
    encoder, mesh = Encoder(Means(), {"params": {}}, PLAIN), parallel.data_mesh()
    network, state = begin(encoder, 3, seed=0, mesh=mesh)
    kernel = np.asarray(state.variables["params"]["classifier"]["kernel"])
    logits = np.asarray([-m / s for m, s in zip(PLAIN.mean, PLAIN.std, strict=True)], np.float32) @ kernel
    log_p = logits - np.log(np.exp(logits).sum())
    wanted = 0.9 * np.eye(3)[label] + 0.1 / 3
    step = make_step(network, PLAIN, jax.random.key(0), mesh, label_smoothing=0.1)
    _, loss = step(state, parallel.to_global({"image": images, "label": label}, mesh), jnp.float32(0), jnp.float32(0))
    assert float(loss) == pytest.approx(float(-(wanted * log_p).sum(-1).mean()), rel=1e-5)


def test_a_setting_hands_both_on_and_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    (setting,) = semi_supervised_grid((0.1,), (1,), dropout=0.25, label_smoothing=0.1)
    assert setting == Setting(0.1, 1, dropout=0.25, label_smoothing=0.1)
    assert setting.name == "rate0.1-epochs1-dropout0.25-smoothing0.1"
    assert Setting(0.1, 1, weight_decay=1e-4).name == "rate0.1-epochs1-decay0.0001"
    asked: list[Any] = []

    def shared(network: Classified, recipe: Any, seed: int, mesh: Any, label_smoothing: float, after: Any) -> Any:
        asked.append((network.dropout, label_smoothing))
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "_shared_step", shared)
    encoder = Encoder(Means(), {"params": {}}, PLAIN)
    with contextlib.suppress(KeyboardInterrupt):
        train(encoder, data.from_arrays(np.zeros((8, 8, 8, 3), np.uint8), np.arange(8) % 3), setting, 3, batch_size=8)
    assert asked == [(0.25, 0.1)]


def test_the_command_line_takes_both(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "knn", "--workdir", str(tmp_path), "--label-smoothing", "0.1"])
    assert "there is no run in it" in capsys.readouterr().err
    from byol_jax.build import evaluations

    assert {"dropout", "label_smoothing"} <= set(evaluations.options_of("semisup"))
    with pytest.raises(ValueError, match="--label-smoothing 1: must be at least 0 and below 1"):
        evaluations.EVALUATIONS["semisup"](None, label_smoothing=1.0)
