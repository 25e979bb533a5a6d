"""Results side by side in one table."""

import json

import pytest

from byol_jax.evaluate import KnnResult, LinearResult, compared, save


def knn_of(top1, top5):
    return KnnResult({1: top1, 5: top5}, {1: 0.5, 5: 0.75}, {1: 0.25, 5: 0.25}, 0.07, 10, 20, 3)


def linear_of(protocol):
    return LinearResult(0.5, 0.9, 0.4, protocol, 2.0, {}, 10, 20, 3)


RESULTS = {"BYOL": knn_of(0.75, 1.0), "before BYOL": knn_of(0.25, 0.5)}


def test_rows_and_json():
    found = compared("k-NN on news", RESULTS)
    title, headings, cells = found.rows()
    assert title == "k-NN on news"
    assert headings == ("features", "k", "top-1 %", "top-5 %", "macro F1 %")
    assert cells == [
        ("BYOL", "1", "75.0", "50.0", "25.0"),
        ("BYOL", "5", "100.0", "75.0", "25.0"),
        ("before BYOL", "1", "25.0", "50.0", "25.0"),
        ("before BYOL", "5", "50.0", "75.0", "25.0"),
    ]
    assert found.to_json() == {name: result.to_json() for name, result in RESULTS.items()}
    assert found.table().splitlines()[0] == "k-NN on news"


def test_saved(tmp_path):
    written = json.loads(save(tmp_path, "knn", compared("k-NN", RESULTS)).read_text())
    assert written["rows"][2] == ["before BYOL", "1", "25.0", "50.0", "25.0"]
    assert written["text_columns"] == [0, 1]  # k of KnnResult is flush left, and so it stays behind the name
    assert written["result"]["BYOL"]["top1"] == {"1": 0.75, "5": 1.0}


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({}, "there is no result"),
        ({"a": knn_of(1, 1), "b": linear_of("L-BFGS")}, "'a' is a KnnResult .* and 'b' is a LinearResult .*only results of one kind"),
        ({"a": linear_of("SGD"), "b": linear_of("L-BFGS")}, "'base rate'.*'l2'"),
    ],
)
def test_only_one_kind(results, message):
    with pytest.raises(ValueError, match=message):
        compared("x", results)
