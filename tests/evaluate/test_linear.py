"""Linear classifiers: against scikit-learn, on toy data with known answers, and the paper's SGD protocol."""

import dataclasses
import importlib
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from byol_jax import data, views
from byol_jax.evaluate import Encoder, linear, linear_features, save, sgd, sgd_features
from byol_jax.evaluate.features import Features
from byol_jax.evaluate.linear import (
    Classifier,
    fit,
    fit_arrays,
    hold_out,
    judge,
    logits_of,
    score,
    split_share,
    target_losses,
)
from byol_jax.evaluate.scaling import spanned, standardised
from byol_jax.evaluate.sgd import PLAIN, REGULARISED, Layers, held_out_share, init_layers, sgd_step


def _blobs(n, *, classes=4, dim=6, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, n).astype(np.int32)
    centre = np.random.default_rng(99).normal(size=(classes, dim)) * 2
    return Features((centre[label] + noise * rng.normal(size=(n, dim))).astype(np.float32), label)


@pytest.mark.parametrize("l2", [0.1, 1.0, 30.0])
def test_lbfgs_equals_scikit_learn(l2):
    train, test = _blobs(300), _blobs(200, seed=1)
    ours = fit(train, l2, 4)
    theirs = LogisticRegression(C=1 / l2, max_iter=10_000, tol=1e-10).fit(train.embedding.astype(np.float64), train.label)
    bias = np.asarray(ours.b)
    np.testing.assert_allclose(ours.w, theirs.coef_.T, atol=1e-3)
    np.testing.assert_allclose(bias - bias.mean(), theirs.intercept_ - theirs.intercept_.mean(), atol=1e-3)
    top1, top5, loss = score(ours, test)
    probability = theirs.predict_proba(test.embedding)
    assert top1 == pytest.approx(theirs.score(test.embedding, test.label))
    assert top5 == 1.0
    assert loss == pytest.approx(-np.log(probability[np.arange(200), test.label]).mean(), rel=1e-3)
    f1 = f1_score(test.label, theirs.predict(test.embedding), average="macro")
    assert judge(ours, test, 4) == (top1, top5, pytest.approx(f1))


def test_judge_by_hand():
    """Logits [0, x]: class 1 where x >= 0, also at 0. Predicted 1 1 0 0, true 1 0 0 1: each class 2 * 1 / 4."""
    classifier = Classifier(jnp.array([[0.0, 1.0]]), jnp.zeros(2))
    test = Features(np.array([[0.0], [2.0], [-1.0], [-3.0]], np.float32), np.array([1, 0, 0, 1], np.int32))
    assert judge(classifier, test, 2) == (0.5, 1.0, 0.5)
    skewed = dataclasses.replace(test, label=np.array([1, 1, 1, 0], np.int32))  # class 0: 2 * 1 / 3, class 1: 2 * 2 / 5
    assert judge(classifier, skewed, 2) == (0.75, 1.0, pytest.approx((2 / 3 + 4 / 5) / 2))


def test_several_labels_are_one_logistic_regression_a_class():
    """scikit-learn fits each class on the examples that count for it, with the same penalty on the sum of their losses."""
    rng, l2 = np.random.default_rng(0), 2.0
    x = rng.normal(size=(120, 4)).astype(np.float32)
    target = (x @ rng.normal(size=(4, 3)) + rng.normal(size=(120, 3)) > 0.3).astype(np.int8)
    target[rng.random((120, 3)) < 0.1] = -1
    ours = fit_arrays(x, target, l2, 3, max_iterations=500, tolerance=1e-8)
    for c in range(3):
        rows = target[:, c] >= 0
        theirs = LogisticRegression(C=1 / l2, max_iter=10_000, tol=1e-10).fit(x[rows].astype(np.float64), target[rows, c])
        np.testing.assert_allclose(ours.w[:, c], theirs.coef_[0], atol=1e-3)
        assert float(ours.b[c]) == pytest.approx(theirs.intercept_[0], abs=1e-3)
        np.testing.assert_allclose(logits_of(ours, x)[:, c], theirs.decision_function(x), atol=5e-3)


def test_loss_of_several_labels_by_hand():
    logits, target = np.array([[0.5, -1.0, 2.0], [3.0, 0.0, -2.0]]), np.array([[1, 0, -1], [-1, -1, 1]])
    probability = 1 / (1 + np.exp(-logits))
    expected = [-np.log(probability[0, 0]) - np.log(1 - probability[0, 1]), -np.log(probability[1, 2])]
    np.testing.assert_allclose(target_losses(jnp.asarray(logits, jnp.float32), jnp.asarray(target)), expected, rtol=1e-6)


def test_small_sets_and_all_penalties_share_one_compilation():
    minimise = importlib.import_module("byol_jax.evaluate.linear")._minimise
    minimise.clear_cache()
    for n, l2 in ((300, 0.5), (300, 5.0), (37, 5.0)):
        fit(_blobs(n, seed=3), l2, 4)
    assert minimise._cache_size() == 1


def test_separable_data_is_separated():
    train, test = _blobs(300, noise=0.1), _blobs(200, noise=0.1, seed=1)
    result = linear_features(train, test, l2=(1e-3, 1.0, 1e4))
    assert (result.top1, result.top5, result.macro_f1) == (1.0, 1.0, 1.0)
    assert list(result.held_out) == [1e-3, 1.0, 1e4]
    assert result.held_out[result.choice] == max(result.held_out.values())


def test_penalty_that_does_best_held_out_is_chosen_and_everything_is_fitted_again():
    train, test = _blobs(300, noise=4.0), _blobs(200, noise=4.0, seed=1)
    result = linear_features(train, test, l2=(1e-4, 10.0, 1e5), seed=5)
    scaled_train, scaled_test = standardised(train, train, test)
    kept, held = hold_out(train.label, 0.2, 5)
    expected = {l2: score(fit(scaled_train.take(kept), l2, 4), scaled_train.take(held))[0] for l2 in result.held_out}
    assert result.held_out == pytest.approx(expected, abs=1.01 / len(held))  # warm starts may flip one example
    assert result.top1 == score(fit(scaled_train, result.choice, 4), scaled_test)[0]


def test_standardised():
    train = Features(np.array([[1, 5], [3, 5]], np.float32), np.zeros(2, np.int32))
    (scaled,) = standardised(train, train)
    np.testing.assert_array_equal(scaled.embedding, [[-1, 0], [1, 0]])


def test_weighted_dimensions_keep_their_proportions():
    train = Features(np.array([[1, 5, 0], [3, 5, 8]], np.float32), np.zeros(2, np.int32), weighted=True)
    (scaled,) = standardised(train, train.take(np.array([0, 1])))
    np.testing.assert_allclose(scaled.embedding, np.array([[-1, 0, -4], [1, 0, 4]]) / np.sqrt(17 / 3), rtol=1e-6)


@pytest.mark.parametrize("n", [4, 40])
def test_in_the_space_that_few_examples_span_the_classifier_is_the_same(n):
    draw = np.random.default_rng(0)
    full = Features(draw.normal(size=(n, 300)).astype(np.float32), (np.arange(n) % 3).astype(np.int32))
    test = Features(draw.normal(size=(50, 300)).astype(np.float32), np.zeros(50, np.int32))
    small, small_test = spanned(full, full, test)
    assert small.embedding.shape == (n, 128)
    np.testing.assert_allclose(small.embedding @ small.embedding.T, full.embedding @ full.embedding.T, rtol=1e-4, atol=1e-3)
    # With a weaker penalty four examples leave the objective so flat that float32 ends anywhere within 0.02 of its least.
    expected = logits_of(fit(full, 5.0, 3), test.embedding)
    np.testing.assert_allclose(logits_of(fit(small, 5.0, 3), small_test.embedding), expected, atol=1e-4)


def test_as_many_examples_as_dimensions_stay_as_they_are():
    full = Features(np.ones((129, 511), np.float32), np.zeros(129, np.int32))
    assert spanned(full, full) == (full,)


def test_hold_out_takes_the_same_share_of_each_class():
    label = np.repeat([0, 1, 2], [10, 20, 1])
    kept, held = hold_out(label, 0.2, 0)
    assert np.bincount(label[held], minlength=3).tolist() == [2, 4, 0]
    assert sorted([*kept, *held]) == list(range(31))
    assert not np.array_equal(held, hold_out(label, 0.2, 1)[1])
    np.testing.assert_array_equal(held, hold_out(label, 0.2, 0)[1])


def test_split_share_takes_a_share_of_each_class_and_nests():
    label = np.repeat([0, 1, 2], [100, 40, 5])
    small, rest = split_share(label, 0.05)
    assert np.bincount(label[small]).tolist() == [5, 2, 1]
    assert sorted([*small, *rest]) == list(range(145))
    assert set(small) < set(split_share(label, 0.1)[0])
    np.testing.assert_array_equal(small, split_share(label, 0.05)[0])


@pytest.mark.parametrize("evaluate", [linear_features, sgd_features])
def test_errors(evaluate):
    good, option = _blobs(20), {"l2": (1.0, 2.0)} if evaluate is linear_features else {"base_rates": (0.1, 0.2)}
    with pytest.raises(ValueError, match="all 5 training examples are of one class"):
        evaluate(Features(np.ones((5, 6), np.float32), np.ones(5, np.int32)), good)
    with pytest.raises(ValueError, match="5 of 5 examples have none"):
        evaluate(Features(np.ones((5, 6), np.float32), np.full(5, -1, np.int32)), good)
    four = Features(np.eye(4, 6, dtype=np.float32), np.arange(4, dtype=np.int32))
    with pytest.raises(ValueError, match="leave none to choose by; give one value"):
        evaluate(four, good, **option)
    with pytest.raises(ValueError, match="must be a share between 0 and 1"):
        evaluate(good, good, held_out=1.5, **option)
    name = next(iter(option))
    with pytest.raises(ValueError, match=f"{name}=.*(none below 0|all above 0)"):
        evaluate(good, good, **{name: (-1.0, 2.0)})


def test_sgd_on_features_reaches_the_best_linear_classifier():
    train, test = _blobs(300), _blobs(200, seed=1)
    result = sgd_features(train, test, epochs=20, batch_size=64)
    assert result.protocol == "SGD"
    assert list(result.held_out) == [0.4, 0.3, 0.2, 0.1, 0.05]
    assert result.top1 >= score(fit(train, 1.0, 4), test)[0] - 0.02


def test_sgd_rates_are_independent_of_each_other():
    """A rate does the same alone as beside others."""
    train, test = _blobs(64), _blobs(64, seed=1)
    alone = sgd_features(train, test, base_rates=(0.1,), epochs=3, batch_size=16)
    assert (alone.choice, alone.held_out) == (0.1, {})
    beside = sgd_features(train, test, base_rates=(0.1, 50.0), epochs=3, batch_size=16)
    if beside.choice == 0.1:
        assert (beside.top1, beside.top5) == (alone.top1, alone.top5)
    assert beside.held_out.keys() == {0.1, 50.0}


def _numpy_loss(w, b, x, y, alpha, beta):
    """Table 7's loss and its gradient by w and b, in float64 and by hand."""
    raw = x @ w + b
    logits = alpha * np.tanh(raw / alpha)
    exp = np.exp(logits)
    p = exp / exp.sum(1, keepdims=True)
    one_hot = np.eye(w.shape[1])[y]
    loss = -np.log(p[np.arange(len(y)), y]).mean() + beta * np.mean(logits**2)
    slope = (p - one_hot) / len(y) + 2 * beta * logits / logits.size
    slope *= 1 - (logits / alpha) ** 2
    return loss, x.T @ slope, slope.sum(0)


def test_regularised_loss_and_two_steps_by_hand():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 5)) * 8, rng.integers(0, 3, 12)
    layers = init_layers(jax.random.key(1), 5, 3, rates=1)
    w, b = np.asarray(layers.classifier.w[0], np.float64) * 5, np.zeros(3)
    layers = Layers(Classifier(jnp.asarray(w[None], jnp.float32), layers.classifier.b), layers.momentum)
    trace_w, trace_b = np.zeros_like(w), np.zeros_like(b)
    for rate in (0.3, 0.1):
        layers, losses = sgd_step(layers, jnp.asarray(x, jnp.float32), jnp.asarray(y), jnp.asarray([rate], jnp.float32), loss=REGULARISED)
        loss, grad_w, grad_b = _numpy_loss(w, b, x, y, 20.0, 1e-2)
        assert losses[0] == pytest.approx(loss, rel=2e-6)
        trace_w, trace_b = grad_w + 0.9 * trace_w, grad_b + 0.9 * trace_b
        w, b = w - rate * (grad_w + 0.9 * trace_w), b - rate * (grad_b + 0.9 * trace_b)
    np.testing.assert_allclose(layers.classifier.w[0], w, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layers.classifier.b[0], b, rtol=1e-5, atol=1e-6)
    logits = jnp.asarray(x @ w, jnp.float32)
    assert float(jnp.abs(REGULARISED(logits, jnp.asarray(y)) - PLAIN(logits, jnp.asarray(y))).max()) > 0.1


def test_held_out_share_is_one_per_cent_of_imagenet():
    assert (held_out_share(1_281_167), held_out_share(1437)) == (0.01, 0.1)


class Channels(nn.Module):
    """Mean and spread of each channel: features that survive crops and flips."""

    def __call__(self, x, train):
        return jnp.concatenate([x.mean((1, 2)), x.std((1, 2))], -1)


def _coloured(n, seed):
    """Images whose class is the brightest channel."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, n)
    images = rng.integers(0, 120, (n, 8, 8, 3), np.uint8)
    images[np.arange(n), :, :, label] += 100
    return data.from_arrays(images, label)


@pytest.mark.parametrize("augment", [False, True])
def test_sgd_from_images(augment):
    encoder = Encoder(Channels(), {}, views.small(8))
    options = {"base_rates": (0.4, 0.05), "epochs": 6, "batch_size": 16, "held_out": 0.2}
    result = sgd(encoder, _coloured(48, 0), _coloured(30, 1), augment=augment, **options)
    assert result.top1 == 1.0
    assert result.train_examples == 48
    assert result.protocol == ("SGD, crops and flips" if augment else "SGD")


def test_sgd_from_images_as_in_table_7():
    """Colour jitter reaches the layer, so its weights differ from those of crops and flips; the classes are still told apart."""
    encoder = Encoder(Channels(), {}, views.small(8).both(hue=0.0, grayscale=0.0, solarize=0.0))
    options = {"base_rates": (0.4,), "epochs": 6, "batch_size": 16}
    seen = {}
    for photometric in (False, True):
        pairs = importlib.import_module("byol_jax.evaluate.sgd")._augmented(
            encoder, _coloured(48, 0), 16, 0, encoder.views if photometric else encoder.views.plain()
        )
        seen[photometric] = next(pairs)[0]
        pairs.close()
    assert np.abs(seen[True] - seen[False]).max() > 0.1
    result = sgd(encoder, _coloured(48, 0), _coloured(30, 1), photometric=True, loss=REGULARISED, **options)
    assert result.protocol == "SGD, pretraining augmentations, regularised"
    assert result.top1 > 0.9


def test_linear_from_images():
    encoder = Encoder(Channels(), {}, views.small(8))
    assert linear(encoder, _coloured(48, 0), _coloured(30, 1), l2=1.0, batch_size=16).top1 == 1.0


def test_the_plain_recipe_keeps_only_the_geometry():
    recipe = views.imagenet(32).plain()
    for view in (recipe.view1, recipe.view2):
        assert (view.jitter, view.grayscale, view.blur, view.solarize, view.rotation) == (0, 0, 0, 0, 0)
        assert (view.flip, view.crop_area) == (0.5, (0.08, 1.0))
    paper = views.imagenet(32)
    assert dataclasses.replace(recipe, view1=paper.view1, view2=paper.view2) == paper


def test_result_prints_and_is_saved_whole(tmp_path):
    result = linear_features(_blobs(300, noise=0.1), _blobs(200, noise=0.1, seed=1), l2=(1.0, 10.0))
    assert result.table().splitlines()[0] == "Linear classifier (L-BFGS), 300 training and 200 test examples"
    assert "100.0" in result.table()
    path = save(tmp_path / "run", "linear", result)
    assert path == tmp_path / "run" / "evaluation" / "linear.json"
    written = json.loads(path.read_text())
    assert written["result"] == result.to_json()
    assert written["result"]["held_out"].keys() == {"1.0", "10.0"}
    assert written["headings"][1:4] == ["top-1 %", "top-5 %", "macro F1 %"]
    assert [p.name for p in path.parent.iterdir()] == ["linear.json"]
    assert jax.tree.leaves(written["rows"])[1] == "100.0"
