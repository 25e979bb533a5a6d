"""TF-IDF by hand, in English, Chinese and Japanese."""

import numpy as np
import pytest

from byol_jax.evaluate import TfIdf
from byol_jax.evaluate import tfidf as module
from byol_jax.evaluate.tfidf import words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The cat's 2 Cats, é!", ["the", "cat", "s", "2", "cats", "é"]),
        ("我爱北京", ["我", "爱", "北", "京", "我爱", "爱北", "北京"]),
        ("用GPU训练", ["用", "gpu", "训", "练", "训练"]),
        ("猫，狗。", ["猫", "狗"]),
        ("ＧＰＵ１", ["gpu1"]),
        ("カメラ・ｶﾒ", ["カ", "メ", "ラ", "カメ", "メラ", "カ", "メ", "カメ"]),
        ("𠮷野", ["𠮷", "野", "𠮷野"]),
        (" \n--", []),
    ],
)
def test_words(text, found):
    assert words(text) == found


def test_by_hand():
    """Three texts; "cat" stands in two, "dog" and "sat" in one: idf log(4 / 3) + 1 and log(4 / 2) + 1."""
    embed = TfIdf(["cat cat dog", "Cat sat", "."])
    assert embed.words == ["cat", "dog", "sat"]
    cat, rare = np.log(4 / 3) + 1, np.log(4 / 2) + 1
    raw = np.array([[(1 + np.log(2)) * cat, rare, 0], [cat, 0, rare]])
    found = embed(["cat cat dog", "sat cat bird"])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, raw / np.linalg.norm(raw, axis=1, keepdims=True), rtol=1e-6)
    assert embed(["bird", ""]).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_the_most_frequent_words_are_kept_and_the_same_every_time():
    corpus = ["a a a b b c", "d b a", "北京 北京 北"]
    assert TfIdf(corpus, max_features=3).words == ["a", "b", "北"]
    one, other = TfIdf(corpus, max_features=4), TfIdf(corpus, max_features=4)
    assert one.words == other.words
    np.testing.assert_array_equal(one(corpus), other(corpus))


def test_pieces_give_what_the_whole_gives(monkeypatch):
    corpus = [f"word{i % 7} word{i % 3} {'x ' * (i % 5)}" for i in range(23)]
    embed = TfIdf(corpus)
    whole = embed(corpus)
    assert whole.shape == (23, 8)
    monkeypatch.setattr(module, "_CHUNK", 5)
    np.testing.assert_array_equal(embed(corpus), whole)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, rtol=1e-6)
    assert embed([]).shape == (0, 8)


def test_related_chinese_texts_lie_closer():
    texts = ["如何申请退款", "退款怎么申请", "今天天气很好"]
    found = TfIdf(texts)(texts)
    assert found[0] @ found[1] > 0.4
    assert found[0] @ found[2] == 0


def test_errors():
    with pytest.raises(ValueError, match="no word in the corpus of 2 texts"):
        TfIdf(["...", ""])
    with pytest.raises(ValueError, match="max_features=0"):
        TfIdf(["a"], max_features=0)
