"""Tokenizers and rows of ids: special tokens found, the same ids again, Chinese, and what a source of tokens gives."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from byol_jax.data import Tokenizer, from_texts, parse_split, sliced, spread, subset, tokenised, train_tokenizer
from byol_jax.data.tokens import padded
from byol_jax.views import SpecialTokens, TextViews
from tests.data.words import learned, sentences, token_source

CHINESE = ["今天天气很好", "我们去公园散步", "今天我们很好", "天气好的公园"] * 20


@pytest.mark.parametrize(
    ("kind", "special"),
    [("wordpiece", SpecialTokens((2,), (3,), 0, 4)), ("bpe", SpecialTokens((0,), (2,), 1, 4))],
)
def test_special_tokens_are_found(tmp_path: Path, kind: str, special: SpecialTokens) -> None:
    tokenizer = learned(tmp_path, kind=kind)
    assert tokenizer.special == special
    assert (
        tokenizer.text(tokenizer.rows(["river stone"], 8)[0])
        == {
            "wordpiece": "[CLS] river stone [SEP]",
            "bpe": "<s>river stone</s>",
        }[kind]
    )


def test_special_tokens_around_what_has_no_token_for_a(tmp_path: Path) -> None:
    inner = tokenizers.Tokenizer(tokenizers.models.BPE({"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "水": 3}, []))
    inner.add_special_tokens(["[PAD]", "[CLS]", "[SEP]"])
    inner.post_processor = tokenizers.processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    inner.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer(tmp_path / "tokenizer.json").special == SpecialTokens((1,), (2,), 0, None)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_learned_again_it_is_the_same_file(tmp_path: Path, kind: str) -> None:
    first, second = (learned(tmp_path / name, kind=kind) for name in "ab")
    assert first.json == second.json


@pytest.mark.parametrize(("kind", "tokens"), [("wordpiece", 6), ("bpe", None)])
def test_chinese(tmp_path: Path, kind: str, tokens: int | None) -> None:
    tokenizer = train_tokenizer(CHINESE, tmp_path / "t.json", kind=kind, vocab=400)
    ids = tokenizer.ids(["今天天气很好"])[0]
    assert tokenizer.text(ids).replace(" ", "") == "今天天气很好"
    assert tokens is None or len(ids) == tokens  # a word for each character


def test_wordpiece_reads_capitals_as_small_letters(tmp_path: Path) -> None:
    tokenizer = learned(tmp_path)
    assert tokenizer.ids(["River Stone"]) == tokenizer.ids(["river stone"])


def test_rows_are_cut_and_padded() -> None:
    views = TextViews(length=5, special=SpecialTokens((7,), (8, 9), pad=3))
    np.testing.assert_array_equal(padded([[1], [1, 2, 4, 5]], views), [[7, 1, 8, 9, 3], [7, 1, 2, 8, 9]])


def test_a_source_of_tokens(tmp_path: Path) -> None:
    source, tokenizer = token_source(tmp_path, 20), learned(tmp_path)
    for i in (0, 7, 19):
        assert source[i]["tokens"].tolist() == tokenizer.ids([source.texts[i]])[0]
        assert source[i]["label"] == i % 3
    part = subset(source, [4, 2])
    assert part[0]["tokens"].tolist() == source[4]["tokens"].tolist()
    assert (part.texts, part.labels.tolist()) == ([source.texts[4], source.texts[2]], [1, 2])
    assert source.ids.dtype == np.uint16
    for kept in (source, part, sliced(source, parse_split("train[:50%]")), spread(source, 3)):
        assert kept.tokenizer is source.tokenizer
    assert source.tokenizer.json == tokenizer.json


def test_ids_are_kept_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, tokenizer = from_texts(sentences(10)), learned(tmp_path)
    first = tokenised(raw, tokenizer, cache=tmp_path / "kept")
    files = list((tmp_path / "kept").iterdir())
    monkeypatch.setattr(Tokenizer, "ids", None)  # not called again
    second = tokenised(raw, tokenizer, cache=tmp_path / "kept")
    np.testing.assert_array_equal(first.ids, second.ids)
    np.testing.assert_array_equal(first.offsets, second.offsets)
    assert len(files) == 1
    with pytest.raises(TypeError):
        tokenised(from_texts(sentences(10, seed=1)), tokenizer, cache=tmp_path / "kept")  # other texts are other ids


def test_a_text_without_a_token_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = learned(tmp_path)
    with caplog.at_level(logging.WARNING):
        source = tokenised(from_texts(["river", "\u200b", "stone"], [0, 1, 2]), tokenizer)
    assert (source.texts, source.labels.tolist()) == (["river", "stone"], [0, 2])
    assert "1 texts give no token and are left out (first: text 1)" in caplog.text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: Tokenizer(folder / "none.json"), "does not exist"),
        (lambda folder: (folder / "x.json").write_text("{}") and Tokenizer(folder / "x.json"), "is not a tokenizer.json"),
        (lambda folder: train_tokenizer(["a"], folder / "t.json", kind="word"), "kind = 'word' is not one of"),
        (lambda folder: train_tokenizer(["a"], folder / "t.json", vocab=10), "vocab = 10: must be 300 or more"),
    ],
)
def test_what_is_no_tokenizer(tmp_path: Path, make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path)
