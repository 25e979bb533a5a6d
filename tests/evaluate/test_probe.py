"""A linear classifier in a file: of embeddings as the encoder gives them, although it was fitted on scaled ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from byol_jax.evaluate import Features, Probe, linear_classifier, load_probe, save_probe
from byol_jax.evaluate.linear import Classifier, fit, logits_of
from byol_jax.evaluate.scaling import spanned, standardised


def blobs(n: int, dimensions: int, *, seed: int = 0) -> Features:
    """Three classes of unlike scales, far from 0."""
    draw = np.random.default_rng(seed)
    label = (np.arange(n) % 3).astype(np.int32)
    centre = np.random.default_rng(9).normal(size=(3, dimensions))
    scale = np.logspace(-1, 1, dimensions)
    return Features(((centre[label] + draw.normal(size=(n, dimensions))) * scale + 50).astype(np.float32), label)


@pytest.mark.parametrize(("n", "dimensions", "standardise"), [(300, 6, True), (300, 6, False), (30, 300, True)])
def test_its_logits_are_those_of_the_scaled_features(n: int, dimensions: int, standardise: bool) -> None:
    """Also where the fit saw the space of few examples alone (30 in 300 dimensions)."""
    train, test = blobs(n, dimensions), blobs(60, dimensions, seed=1)
    result, classifier = linear_classifier(train, test, l2=1.0, standardise=standardise)
    scaled, scaled_test = standardised(train, train, test) if standardise else (train, test)
    scaled, scaled_test = spanned(scaled, scaled, scaled_test)
    expected = logits_of(fit(scaled, 1.0, 3), scaled_test.embedding)
    assert classifier.w.shape == (dimensions, 3)
    np.testing.assert_allclose(logits_of(classifier, test.embedding), expected, atol=2e-4 * np.abs(expected).max())
    probe = Probe(np.asarray(classifier.w), np.asarray(classifier.b), ["a", "b", "c"])
    found = probe.probabilities(test.embedding)
    assert (found.argmax(1) == test.label).mean() == pytest.approx(result.top1)
    np.testing.assert_allclose(found.sum(1), 1)


def test_constant_and_weighted_dimensions() -> None:
    train, test = blobs(90, 6), blobs(30, 6, seed=1)
    train.embedding[:, 2] = test.embedding[:, 2] = 7
    for weighted in (False, True):
        train, test = (Features(part.embedding, part.label, weighted=weighted) for part in (train, test))
        _, classifier = linear_classifier(train, test, l2=1.0)
        scaled, scaled_test = standardised(train, train, test)
        expected = logits_of(fit(scaled, 1.0, 3), scaled_test.embedding)
        np.testing.assert_allclose(logits_of(classifier, test.embedding), expected, atol=1e-3)


def test_probabilities_by_hand() -> None:
    """Logits (log 2, 0) at 0, (log 2 + 1, -1) at 1; no overflow at 2000."""
    probe = Probe(np.array([[1.0, -1.0]], np.float32), np.array([np.log(2), 0], np.float32), ["x", "y"])
    np.testing.assert_allclose(probe.probabilities(np.array([[0.0], [1.0], [2000.0]]))[:, 0], [2 / 3, 1 / (1 + np.exp(-2) / 2), 1])
    assert probe.best(np.zeros((1, 1)), 9) == [
        [
            {"label": 0, "class": "x", "probability": pytest.approx(2 / 3)},
            {"label": 1, "class": "y", "probability": pytest.approx(1 / 3)},
        ]
    ]


@pytest.mark.parametrize(("given", "names"), [(["é", "b", "c"], ["é", "b"]), (None, ["0", "1"]), (["\udcff", "b"], [r"\xff", "b"])])
def test_the_file(given: list[str] | None, names: list[str], tmp_path: Path) -> None:
    """Classes that are never seen at the end have names and no column."""
    classifier = Classifier(np.arange(6.0).reshape(3, 2), np.array([0.5, -0.5]))
    save_probe(tmp_path / "new" / "probe.npz", classifier, given)
    found = load_probe(tmp_path / "new" / "probe.npz")
    assert (found.weights.dtype, found.bias.dtype, found.class_names) == (np.float32, np.float32, names)
    np.testing.assert_array_equal(found.weights, classifier.w)
    np.testing.assert_array_equal(found.bias, classifier.b)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["probe.npz"]


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--save probe\.pkl: must end in \.npz"):
        save_probe("probe.pkl", Classifier(np.ones((2, 2)), np.ones(2)), None)
    (tmp_path / "a.npz").write_bytes(b"PK\3\4 no archive")
    np.savez(tmp_path / "b.npz", weights=np.ones((2, 2)))
    np.savez(tmp_path / "c.npz", weights=np.ones((2, 2)), bias=np.ones(3), class_names=np.array(["a", "b"]))
    np.savez(tmp_path / "d.npz", weights=np.array([{}], object), bias=np.ones(3), class_names=np.array(["a", "b"]))
    for name, message in (
        ("a", "is no classifier of `byol-jax evaluate linear --save"),
        ("b", "is no classifier of"),
        ("c", r"weights \[2, 2\], bias \[3\], 2 class_names; expected \[D, C\], \[C\] and C"),
        ("d", "is no classifier of"),
        ("e", "there is no such file"),
    ):
        with pytest.raises(ValueError, match=message):
            load_probe(tmp_path / f"{name}.npz")
