"""Accuracy under attack: of a linear network by hand, for it is known how far an example must go to be taken for another."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import byol_jax as byol
from byol_jax import evaluate
from byol_jax.evaluate.linear import linear_classifier, logits_of
from byol_jax.views import TextViews, Views

VIEWS = Views(size=2, eval_crop=1.0, mean=(0.5,) * 3, std=(0.25,) * 3)


class Flat(nn.Module):
    """The pixels themselves."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return x.reshape(len(x), -1)


def images(seed: int) -> Any:
    """Two classes, dark and light in the mean, with noise; no pixel near the ends of its range."""
    draw = np.random.default_rng(seed)
    label = np.arange(40) % 2
    pixels = 115 + 9 * label[:, None, None, None] + draw.integers(-35, 36, (40, 2, 2, 3))
    return byol.data.from_arrays(pixels.astype(np.uint8), label)


def encoder() -> evaluate.Encoder:
    return evaluate.Encoder(Flat(), {}, VIEWS)


@pytest.mark.parametrize(("norm", "radii"), [("linf", (0.02, 0.05, 0.1)), ("l2", (0.05, 0.15, 0.3))])
def test_a_linear_network_by_hand(norm, radii) -> None:
    """An example at margin m > 0 falls where radius x |w| reaches m: |w| of the dual norm, in units of pixels."""
    train, test = images(0), images(1)
    result = evaluate.robust(encoder(), train, test, norm=norm, radii=radii, steps=60, batch_size=16)
    fitted, known = (evaluate.features(encoder(), part) for part in (train, test))
    _, probe = linear_classifier(fitted, fitted, l2=1.0)
    logits = logits_of(probe, known.embedding)
    margin = (logits[:, 1] - logits[:, 0]) * np.where(known.label == 1, 1, -1)
    slope = np.asarray(probe.w[:, 1] - probe.w[:, 0]) / 0.25
    dual = np.abs(slope).sum() if norm == "linf" else np.linalg.norm(slope)
    reached = 1.0 if norm == "linf" else 0.95  # of the sphere's best point, to which steps of one length turn but do not come
    for radius, share in result.accuracy.items():
        assert np.mean(margin > radius * dual) <= share <= np.mean(margin > reached * radius * dual)
    assert 1 > result.accuracy[0.0] > result.accuracy[radii[0]] > result.accuracy[radii[2]]
    assert (result.train_examples, result.test_examples) == (40, 40)


def test_pixels_do_not_leave_their_range() -> None:
    """White on black cannot be made whiter: a change that would only go there does nothing."""
    label = np.asarray([0, 1] * 4)
    pixels = np.broadcast_to(255 * label[:, None, None, None], (8, 2, 2, 3)).astype(np.uint8)
    data = byol.data.from_arrays(pixels, label)
    assert evaluate.robust(encoder(), data, data, radii=(0.4, 0.6), steps=10, batch_size=8).accuracy == {0.0: 1.0, 0.4: 1.0, 0.6: 0.0}


def test_the_table(capsys) -> None:
    result = evaluate.RobustResult({0.0: 0.9, 8 / 255: 0.25}, "linf", 20, 2, 100, 50)
    assert result.table().splitlines()[0] == "Linear probe under attack (linf, PGD of 20 steps, the worst of 2 starts), 50 test examples"
    assert result.rows()[2] == [("0", "90.0"), ("0.03137", "25.0")]


def test_texts_are_attacked_where_words_are_embedded() -> None:
    tokens = np.asarray([[1, 5, 6, 2, 0, 0], [1, 7, 8, 9, 2, 0]] * 8, np.int32)
    recipe = TextViews(length=6)
    module = byol.models.TextEncoder(12, layers=1, hidden=8, heads=2, mlp=16, positions=6)
    frozen = evaluate.Encoder.untrained(module, recipe)
    data = Tokens(tokens, np.asarray([0, 1] * 8))
    result = evaluate.robust(frozen, data, data, radii=(0.001, 1.0), steps=10, restarts=2, batch_size=16)
    assert result.accuracy[0.0] == result.accuracy[0.001] == 1.0
    assert result.accuracy[1.0] < 0.2


class Tokens:
    content = "tokens"

    def __init__(self, rows: np.ndarray, label: np.ndarray) -> None:
        self._rows, self._label = rows, label

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"tokens": self._rows[i], "label": int(self._label[i])}


@pytest.mark.parametrize("options", [{"steps": 0}, {"restarts": 0}, {"radii": (-0.1,)}, {"norm": "l1"}])
def test_settings_out_of_range(options) -> None:
    with pytest.raises(ValueError, match=r"at least 1, no radius below 0|choose linf or l2"):
        evaluate.robust(encoder(), images(0), images(1), **options)


def test_test_examples_without_a_label_are_not_counted_as_wrong() -> None:
    test = byol.data.from_arrays(images(1).images, np.where(np.arange(40) < 8, -1, np.arange(40) % 2))
    with pytest.raises(ValueError, match="labels: 8 of 40 test examples have none; evaluation needs a labelled source"):
        evaluate.robust(encoder(), images(0), test, steps=1)


def test_a_change_of_nothing_is_the_text_itself() -> None:
    tokens = jnp.asarray([[1, 5, 6, 2, 0, 0], [1, 7, 8, 9, 2, 0]], jnp.int32)
    module = byol.models.TextEncoder(12, layers=1, hidden=8, heads=2, mlp=16, positions=6, pooling="mean")
    variables = jax.jit(lambda key: module.init(key, tokens, False))(jax.random.key(0))
    none = jnp.zeros((2, 6, 8))
    run = jax.jit(lambda x: module.apply(variables, x, False))
    np.testing.assert_array_equal(run((tokens, none)), run(tokens))
    gradient = jax.jit(jax.grad(lambda change: module.apply(variables, (tokens, change), False).sum() ** 2))(none)
    np.testing.assert_array_equal(np.abs(gradient).sum(-1) > 0, tokens != 0)  # padding is seen by nobody
