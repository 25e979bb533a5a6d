"""k-NN against values worked out by hand, and its defined behaviour at the edges."""

import importlib

import chex
import numpy as np
import pytest
from sklearn.metrics import f1_score

from byol_jax.evaluate.features import Features
from byol_jax.evaluate.knn import knn_features, nearest

MODULE = importlib.import_module("byol_jax.evaluate.knn")  # the package's own name ``knn`` is the function


def _features(embedding, label):
    return Features(np.asarray(embedding, np.float32), np.asarray(label, np.int32))


def _angles(degrees):
    radians = np.deg2rad(np.asarray(degrees, np.float64))
    return np.stack([np.cos(radians), np.sin(radians)], 1)


def test_votes_by_hand():
    """One query at 0 degrees; class 0 at 10 degrees, class 1 twice at 30: the nearer one wins while the weights are sharp."""
    train = _features(_angles([10, 30, -30]) * [[3], [1], [7]], [0, 1, 1])  # lengths do not matter
    test = _features(_angles([0]), [0])
    weight = np.exp(np.cos(np.deg2rad([10, 30])) / 0.07)
    assert weight[0] > 2 * weight[1]
    assert knn_features(train, test, k=(1, 3)).top1 == {1: 1.0, 3: 1.0}
    flat = np.exp(np.cos(np.deg2rad([10, 30])) / 1.0)
    assert flat[0] < 2 * flat[1]
    assert knn_features(train, test, k=(1, 3), temperature=1.0).top1 == {1: 1.0, 3: 0.0}


def test_top5_counts_only_classes_that_were_voted_for():
    train = _features(_angles([0, 10, 20, 30, 40, 50]), [5, 4, 3, 2, 1, 0])
    test = _features(_angles([0, 0, 0]), [5, 1, 0])
    result = knn_features(train, test, k=(1, 6))
    assert result.top1 == pytest.approx({1: 1 / 3, 6: 1 / 3})
    assert result.top5 == pytest.approx({1: 1 / 3, 6: 2 / 3})  # class 0 is the sixth
    assert (result.classes, result.train_examples, result.test_examples) == (6, 6, 3)
    assert result.macro_f1 == pytest.approx(
        {1: (2 / 4) / 3, 6: (2 / 4) / 3}
    )  # 5 is given three times, once rightly; 1 and 0 are never given


def test_nearest_equals_numpy_over_several_pieces(monkeypatch):
    monkeypatch.setattr(MODULE, "TEST_CHUNK", 7)
    monkeypatch.setattr(MODULE, "TRAIN_CHUNK", 5)
    rng = np.random.default_rng(0)
    query, bank = rng.normal(size=(17, 6)), rng.normal(size=(23, 6))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, bank)]
    cosine = unit[0] @ unit[1].T
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :9]
    similarity, index = nearest(query, bank, k=9)
    np.testing.assert_array_equal(index, order)
    np.testing.assert_allclose(similarity, np.take_along_axis(cosine, order, 1), atol=1e-6)


def test_equal_similarities_take_the_earlier_example_across_pieces(monkeypatch):
    monkeypatch.setattr(MODULE, "TRAIN_CHUNK", 2)
    _, index = nearest(np.ones((1, 3)), np.ones((5, 3)), k=4)
    assert index.tolist() == [[0, 1, 2, 3]]


def test_k_beyond_the_training_set_uses_all_of_it():
    train, test = _features(_angles([0, 90]), [0, 1]), _features(_angles([10, 80]), [0, 1])
    assert knn_features(train, test, k=200).top1 == {200: 1.0}


def test_one_class_is_always_right_and_a_zero_embedding_harmless():
    train, test = _features(np.zeros((3, 4)), [0, 0, 0]), _features(np.zeros((2, 4)), [0, 0])
    assert knn_features(train, test, k=2).top1 == {2: 1.0}


def test_extreme_temperature_stays_finite():
    train, test = _features(_angles([0, 5, 90]), [0, 0, 1]), _features(_angles([1, 89]), [0, 1])
    assert knn_features(train, test, k=3, temperature=1e-3).top1 == {3: 1.0}


def test_equals_brute_force():
    rng = np.random.default_rng(1)
    train = _features(rng.normal(size=(60, 8)), rng.integers(0, 7, 60))
    test = _features(rng.normal(size=(40, 8)), rng.integers(0, 7, 40))
    unit = [f.embedding / np.linalg.norm(f.embedding, axis=1, keepdims=True) for f in (train, test)]
    cosine = unit[1] @ unit[0].T
    for k in (1, 5, 20):
        top1 = top5 = 0
        predicted = []
        for row, label in zip(cosine, test.label, strict=True):
            votes = np.zeros(7)
            for i in np.argsort(-row)[:k]:
                votes[train.label[i]] += np.exp(row[i] / 0.07)
            predicted.append(votes.argmax())
            top1 += predicted[-1] == label
            top5 += votes[label] > 0 and (votes > votes[label]).sum() < 5
        result = knn_features(train, test, k=k)
        assert (result.top1[k], result.top5[k]) == (top1 / 40, top5 / 40)
        assert result.macro_f1[k] == pytest.approx(f1_score(test.label, predicted, average="macro"))


@pytest.mark.parametrize(
    ("train", "test", "options", "message"),
    [
        (([[1, 0]], [-1]), ([[1, 0]], [0]), {}, "1 of 1 examples have none"),
        (([[1, 0]], [0]), ([[1, 0, 0]], [0]), {}, "dimensions differ"),
        (([[np.nan, 0]], [0]), ([[1, 0]], [0]), {}, "NaN or infinite"),
        (([[1, 0]], [0]), ([[1, 0]], [0]), {"k": 0}, "at least 1"),
        (([[1, 0]], [0]), ([[1, 0]], [0]), {"temperature": 0.0}, "above 0"),
        ((np.zeros((0, 2)), []), ([[1, 0]], [0]), {}, "empty"),
    ],
)
def test_errors(train, test, options, message):
    with pytest.raises(ValueError, match=message):
        knn_features(_features(*train), _features(*test), **options)


def test_table_and_json():
    result = knn_features(_features(_angles([0, 90]), [0, 1]), _features(_angles([10, 80]), [0, 0]), k=(1, 2))
    assert result.table().splitlines()[0] == "k-NN, 2 training and 2 test examples, temperature 0.07"
    assert result.table().splitlines()[-1].split() == ["2", "50.0", "100.0", "33.3"]  # class 0: 2 * 1 / 3; class 1 only given: 0
    chex.assert_trees_all_equal(result.to_json()["top1"], {"1": 0.5, "2": 0.5})
