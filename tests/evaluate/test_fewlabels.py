"""Few labels and collapse: known answers on made-up features."""

import flax.linen as nn
import numpy as np
import pytest

from byol_jax import data, views
from byol_jax.evaluate import Encoder, collapse, collapse_features, few_labels
from byol_jax.evaluate.features import Features
from byol_jax.evaluate.fewlabels import FewLabelsResult, draw


def _sets(noise, seed=0):
    rng = np.random.default_rng(seed)
    out = []
    for n in (60, 30):
        label = np.arange(n, dtype=np.int32) % 3
        out.append(Features((5 * np.eye(3)[label] + noise * rng.normal(size=(n, 3))).astype(np.float32), label))
    return tuple(out)


def test_good_features_need_one_label_and_noise_never_gets_it():
    result = few_labels({"good": _sets(0.1), "noise": _sets(1000.0)}, labels=(1, 0))
    for classifier in ("k-NN", "linear"):
        for n in (1, 0):
            assert result.mean("good", classifier, n) == 1.0
            assert result.mean("noise", classifier, n) < 0.7
            assert len(result.accuracy["good"][classifier][n]) == (1 if n == 0 else 3)
    lines = result.table().splitlines()
    assert lines[0] == "Top-1 % on 30 test examples, mean ± standard deviation of 3 draws of the labels"
    assert lines[1].split("  ")[-1].strip() == "linear, all"
    assert "100.0 ± 0.0" in next(line for line in lines if "good" in line)


def test_draws_are_shared_by_all_features():
    twice = few_labels({"a": _sets(2.0), "b": _sets(2.0)}, labels=(1,), draws=4)
    assert twice.accuracy["a"] == twice.accuracy["b"]
    assert len(set(twice.accuracy["a"]["k-NN"][1])) > 1  # and differ among themselves
    other = few_labels({"a": _sets(2.0)}, labels=(1,), draws=4, seed=100)
    assert other.accuracy["a"] != twice.accuracy["a"]


def test_draw():
    label = np.array([0, 1, 1, 0, 1, 0])
    rows = draw(label, 2, seed=3)
    assert np.bincount(label[rows]).tolist() == [2, 2]
    assert len(set(rows)) == 4
    np.testing.assert_array_equal(rows, draw(label, 2, seed=3))


def test_few_labels_errors():
    train, test = _sets(1.0)
    with pytest.raises(ValueError, match="class 0 has 20 training examples, 21 wanted; nearest valid: 20"):
        few_labels({"a": (train, test)}, labels=(21,))
    shuffled = Features(train.embedding, train.label[::-1])
    with pytest.raises(ValueError, match="examples of 'b' are not those of 'a'"):
        few_labels({"a": (train, test), "b": (shuffled, test)})
    with pytest.raises(ValueError, match="draws=0; give at least one of each"):
        few_labels({"a": (train, test)}, draws=0)


def test_collapse_of_one_point_and_of_a_sphere():
    label = np.full(512, -1, np.int32)
    point = collapse_features(Features(np.ones((512, 8), np.float32), label))
    assert point.collapsed
    assert point.alignment is None
    assert (point.embedding_std, point.uniformity) == pytest.approx((0, 0), abs=1e-3)
    assert point.rankme == pytest.approx(1, abs=1e-3)
    assert "COLLAPSED" in point.table()
    normal = np.random.default_rng(0).normal(size=(512, 8)).astype(np.float32)
    sphere = collapse_features(Features(normal, label), (normal, -normal))
    assert not sphere.collapsed
    assert sphere.embedding_std == pytest.approx(1, abs=0.02)
    assert sphere.rankme == pytest.approx(8, abs=0.1)
    assert sphere.alignment == pytest.approx(4, abs=1e-5)
    assert sphere.uniformity < -2
    assert (sphere.examples, sphere.dimensions) == (512, 8)
    with pytest.raises(ValueError, match="1 example; the spread"):
        collapse_features(Features(normal[:1], label[:1]))


class Colour(nn.Module):
    def __call__(self, x, train):
        return x.mean((1, 2))


def test_collapse_of_an_encoder_on_unlabelled_images():
    images = np.random.default_rng(0).integers(0, 256, (21, 1, 1, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    encoder = Encoder(Colour(), {}, views.small(8).both(jitter=0.0, grayscale=0.0, solarize=0.0))
    result = collapse(encoder, data.from_arrays(images), limit=16, batch_size=8)
    assert result.examples == 16
    assert result.alignment == pytest.approx(0, abs=1e-6)  # crops and flips do not change one flat colour
    assert collapse(encoder, data.from_arrays(images), limit=100, batch_size=8).examples == 21


def test_many_numbers_of_labels_make_a_curve_with_its_spread():
    accuracy = {"BYOL": {"k-NN": {n: [0.1 * n, 0.1 * n + 0.02] for n in (1, 2, 5, 0)}, "linear": {n: [0.5, 0.5] for n in (1, 2, 5, 0)}}}
    _, headings, cells = FewLabelsResult(accuracy, (1, 2, 5, 0), 2, 20, 30, 3).rows()
    assert headings == ("features", "labels", "k-NN", "linear")
    assert cells[0] == ("BYOL", "1/class", "11.0 ± 1.4", "50.0 ± 0.0")  # 10 and 12: mean 11, standard deviation sqrt(2)
    assert [row[1] for row in cells] == ["1/class", "2/class", "5/class", "all"]
