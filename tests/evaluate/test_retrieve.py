"""recall@k, MRR@10 and nDCG@10 worked out by hand, and against scikit-learn."""

import importlib

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from byol_jax.data import Retrieval
from byol_jax.evaluate import retrieve
from byol_jax.evaluate.retrieve import scores

MODULE = importlib.import_module("byol_jax.evaluate.retrieve")  # the package's own name ``retrieve`` is the function


def by_angle(texts):
    """A text is its angle in degrees."""
    radians = np.deg2rad([float(text) for text in texts])
    return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)


def sets(queries, documents, relevance, **more):
    """Angles by id."""
    return Retrieval(list(queries), [*map(str, queries.values())], list(documents), [*map(str, documents.values())], relevance, **more)


DOCUMENTS = {f"d{angle}": angle for angle in (40, 0, 30, 10, 20)}


def test_graded_relevance_by_hand():
    """From 0 degrees the order is d0 d10 d20 d30 d40 with gains 0 3 0 1 0; from 41 it is d40 d30 ..., d40 the only relevant one."""
    data = sets({"a": 0, "b": 41}, DOCUMENTS, {"a": {"d10": 3.0, "d30": 1.0}, "b": {"d40": 1.0}})
    result = retrieve({"X": by_angle}, data, k=(1, 2, 4, 100))
    assert result.recall["X"] == {1: 0.5, 2: 0.75, 4: 1.0, 100: 1.0}
    assert result.mrr_10["X"] == (1 / 2 + 1) / 2
    dcg, best = 3 / np.log2(3) + 1 / np.log2(5), 3 / np.log2(2) + 1 / np.log2(3)
    assert result.ndcg_10["X"] == pytest.approx((dcg / best + 1) / 2)
    assert (result.queries, result.documents) == (2, 5)


def test_what_counts_ends_at_rank_ten():
    """The only relevant document is the eleventh, or the tenth of eleven."""
    documents = {f"d{i}": 5 * i for i in range(11)}
    late = retrieve({"X": by_angle}, sets({"a": 0}, documents, {"a": {"d10": 1.0}}), k=(10, 11))
    assert (late.recall["X"], late.mrr_10["X"], late.ndcg_10["X"]) == ({10: 0.0, 11: 1.0}, 0.0, 0.0)
    tenth = retrieve({"X": by_angle}, sets({"a": 0}, documents, {"a": {"d9": 2.0}}), k=10)
    assert (tenth.recall["X"], tenth.mrr_10["X"]) == ({10: 1.0}, 0.1)
    assert tenth.ndcg_10["X"] == pytest.approx(1 / np.log2(11))


def test_more_relevant_documents_than_ten():
    """All twelve are relevant: the ten found first are the best possible ten; recall@10 is 10 of 12."""
    documents = {f"d{i}": 5 * i for i in range(12)}
    result = retrieve({"X": by_angle}, sets({"a": 0}, documents, {"a": dict.fromkeys(documents, 1.0)}), k=10)
    assert (result.recall["X"], result.ndcg_10["X"], result.mrr_10["X"]) == ({10: 10 / 12}, 1.0, 1.0)


def test_equal_cosines_rank_in_the_order_of_the_documents():
    documents = {"z": 10, "a": 10, "m": 10}
    for relevant, rank in (("z", 1), ("a", 2), ("m", 3)):
        result = retrieve({"X": by_angle}, sets({"q": 0}, documents, {"q": {relevant: 1.0}}), k=1)
        assert result.mrr_10["X"] == 1 / rank
    nothing = retrieve({"zeros": lambda texts: np.zeros((len(texts), 2))}, sets({"q": 0}, documents, {"q": {"a": 1.0}}), k=(1, 2))
    assert nothing.recall["zeros"] == {1: 0.0, 2: 1.0}


def test_search_in_pieces_ranks_ties_as_search_in_one_does(monkeypatch):
    """A text is a number whose six bits are -1 or 1: cosines are thirds, and many are equal."""
    rng = np.random.default_rng(0)
    bits = {str(number): [1 if number >> i & 1 else -1 for i in range(6)] for number in range(64)}
    queries, documents = ([str(number) for number in rng.integers(0, 64, n)] for n in (9, 40))
    cosine = np.array([bits[text] for text in queries]) @ np.array([bits[text] for text in documents]).T
    monkeypatch.setattr(MODULE, "DOCUMENTS", 7)
    found = MODULE.search(lambda texts: np.array([bits[text] for text in texts], np.float32), queries, documents, k=12)
    np.testing.assert_array_equal(found, np.argsort(-cosine, axis=1, kind="stable")[:, :12])


def test_fewer_documents_than_k():
    result = retrieve({"X": by_angle}, sets({"q": 0}, {"d": 90}, {"q": {"d": 1.0}}), k=(1, 100))
    assert result.recall["X"] == {1: 1.0, 100: 1.0}
    assert result.mrr_10["X"] == result.ndcg_10["X"] == 1.0


def test_a_query_that_is_a_document_itself():
    data = sets({"d10": 10}, DOCUMENTS, {"d10": {"d0": 1.0}})
    assert retrieve({"X": by_angle}, data, k=1).mrr_10["X"] == 1 / 2  # itself, then d0 and d20, equally far; d0 stands first
    assert retrieve({"X": by_angle}, data, k=1, skip_own_id=True).mrr_10["X"] == 1.0
    last = sets({"d0": 0}, DOCUMENTS, {"d0": {"d10": 1.0, "d40": 1.0}})
    assert retrieve({"X": by_angle}, last, k=4, skip_own_id=True).recall["X"] == {4: 1.0}


@pytest.mark.parametrize("seed", range(4))
def test_ndcg_equals_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    gain, score = rng.integers(0, 4, 30).astype(float), rng.permutation(30).astype(float)
    gain[0] = 1.0
    found, best = gain[np.argsort(-score)], np.sort(gain[gain > 0])[::-1]
    assert scores(found, best, (1,))[-1] == pytest.approx(ndcg_score([gain], [score], k=10), abs=1e-12)


def test_rows_of_several_embeddings():
    data = sets({"a": 0}, DOCUMENTS, {"a": {"d0": 1.0}}, left_out=3)
    result = retrieve({"BYOL": by_angle, "backwards": lambda texts: by_angle([str(180 + 9 * float(t)) for t in texts])}, data, k=(1, 5))
    assert result.rows()[0] == "Retrieval, 1 queries (3 without a relevant document left out), 5 documents"
    assert result.rows()[1] == ("features", "recall@1 %", "recall@5 %", "MRR@10 %", "nDCG@10 %")
    assert result.rows()[2][0] == ("BYOL", "100.0", "100.0", "100.0", "100.0")
    assert result.to_json()["recall"]["BYOL"] == {"1": 1.0, "5": 1.0}


@pytest.mark.parametrize(
    ("embeds", "k", "message"),
    [
        ({}, 1, "0 embeddings, 1 queries"),
        ({"X": by_angle}, (0, 1), "every k at least 1"),
        ({"X": by_angle}, (), "every k at least 1"),
        ({"X": lambda texts: np.ones((len(texts), 2)) * np.inf}, 1, "X: some embeddings are NaN or infinite"),
    ],
)
def test_errors(embeds, k, message):
    with pytest.raises(ValueError, match=message):
        retrieve(embeds, sets({"a": 0}, DOCUMENTS, {"a": {"d0": 1.0}}), k=k)
