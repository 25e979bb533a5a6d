"""The report of a run of texts: what its tables say is what the pipeline and the encoder give."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byol_jax import data
from byol_jax.evaluate import Encoder, features
from byol_jax.report import plots, texts, write_report
from byol_jax.report.examples import neighbours_of_some
from byol_jax.views import SpecialTokens, TextView, TextViews
from tests.data.words import WORDS, Count, learned

PAIRS = list(zip(WORDS.split()[::2], WORDS.split()[1::2], strict=True))  # six pairs of words, none in two of them
BADLY = "Stone <b> & river"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> data.Tokenizer:
    return learned(tmp_path_factory.mktemp("words"))


def recipe(tokenizer: data.Tokenizer, view: TextView = TextView()) -> TextViews:
    return TextViews(length=16, view1=view, view2=view, special=tokenizer.special)


def source_of(tokenizer: data.Tokenizer, found: list[str], labels: list[Any] | None = None) -> data.TokenSource:
    return data.tokenised(data.from_texts(found, labels), tokenizer)


def cells(table: texts.Table | None) -> list[list[str]]:
    assert table is not None
    return [[cell.text for cell in row] for row in table.rows]


def test_views_stand_beside_their_text(tokenizer: data.Tokenizer) -> None:
    source = source_of(tokenizer, [f"{first.title()} {second} {first}" for first, second in PAIRS])
    table = texts.view_table(source, recipe(tokenizer), rows=6, draws=2)
    assert table is not None
    assert (table.headings, table.note) == (("text", "view 1", "view 2"), "")
    assert [cell.rows for row in table.rows for cell in row] == [2, 1, 1, 1, 1] * 6
    by_two = cells(table)
    for (text, *first), second in zip(by_two[::2], by_two[1::2], strict=True):
        assert [*first, *second] == [text.lower()] * 4
    assert {row[0] for row in by_two[::2]} == set(source.texts or [])


def test_hidden_words_are_marks(tokenizer: data.Tokenizer) -> None:
    source = source_of(tokenizer, [" ".join([*pair, *pair]) for pair in PAIRS])
    table = texts.view_table(source, recipe(tokenizer, TextView(mask=0.5)), rows=3, draws=3)
    assert table is not None
    assert table.note == "▮: a token that is hidden from the network."
    rows, texts_seen = cells(table), set()
    for at in range(0, 9, 3):
        words = rows[at][0].split()
        for said in (*rows[at][1:], *rows[at + 1], *rows[at + 2]):
            shown = re.sub("▮(?=▮)", "▮ ", said).split()
            assert len(shown) == 4
            assert all(word in (own, "▮") for word, own in zip(shown, words, strict=True))
            texts_seen.add(said)
    assert len(texts_seen) > 9  # each draw of each view is one of its own


def test_what_a_row_says(tokenizer: data.Tokenizer) -> None:
    views, special = recipe(tokenizer), tokenizer.special
    river, stone = (ids[0] for ids in tokenizer.ids(["river", "stone"]))
    mask = special.mask
    row = np.array([*special.start, river, mask, mask, stone, mask, *special.end, special.pad, special.pad])
    assert texts.seen(row, views, tokenizer) == "river ▮▮ stone ▮"
    assert texts.seen(row[:-2], views, tokenizer) == "river ▮▮ stone ▮"
    without = dataclasses.replace(views, special=SpecialTokens((), (), special.pad))
    assert texts.seen(np.array([river, stone]), without, tokenizer) == "river stone"


@pytest.mark.parametrize(
    ("text", "width", "short"),
    [
        ("two\n  lines", 20, "two lines"),
        ("a" * 25, 25, "a" * 25),
        ("a" * 26, 25, "a" * 25 + " …"),
        ("one two three four", 13, "one two three …"),  # the word ends where it is cut
        ("one two three four", 12, "one two …"),
        ("长" * 50, 30, "长" * 30 + " …"),
    ],
)
def test_long_texts_are_shortened(text: str, width: int, short: str) -> None:
    assert texts.shortened(text, width) == short


def test_neighbours_are_those_of_the_encoder(tokenizer: data.Tokenizer) -> None:
    bank = source_of(tokenizer, ["river stone", "light winter", "river river stone", "light light winter"], ["a", "b", "b", "b"])
    queries = source_of(tokenizer, ["river", "winter"], ["a", "b"])
    encoder = Encoder(Count(), {}, recipe(tokenizer))
    table = texts.neighbour_table(encoder, queries, bank, features(encoder, bank), ["a", "b"], rows=2, k=2)
    assert table is not None
    assert table.headings == ("query", "its class", "cosine", "nearest first", "class")
    assert cells(table) == [
        ["river", "a", "0.89", "river river stone", "b"],  # 2 / sqrt(5), then 1 / sqrt(2)
        ["0.71", "river stone", "a"],
        ["winter", "b", "0.71", "light winter", "b"],
        ["0.45", "light light winter", "b"],
    ]
    assert [row[-1].kind for row in table.rows] == ["other", "same", "same", "same"]
    assert [cell.rows for cell in table.rows[0]] == [2, 2, 1, 1, 1]


def test_without_classes_and_in_one_source(tokenizer: data.Tokenizer) -> None:
    source = source_of(tokenizer, ["river", "river stone", "light"])
    encoder = Encoder(Count(), {}, recipe(tokenizer))
    table = texts.neighbour_table(encoder, source, source, features(encoder, source), None, rows=3, k=1)
    assert table is not None
    assert table.headings == ("query", "cosine", "nearest first")
    by_query = {row[0]: row[1:] for row in cells(table)}
    assert by_query["river"] == ["0.71", "river stone"]
    assert by_query["river stone"] == ["0.71", "river"]  # not itself


def test_an_equal_text_is_a_neighbour_and_the_text_itself_is_not(tokenizer: data.Tokenizer) -> None:
    """Of equals the first comes first, which is not always the one that is asked about."""
    source = source_of(tokenizer, ["river", "river", "river", "light"])
    found = features(Encoder(Count(), {}, recipe(tokenizer)), source)
    some = neighbours_of_some(Encoder(Count(), {}, recipe(tokenizer)), source, source, found, rows=4, k=2, seed=0)
    by_query = {int(query): index.tolist() for query, index in zip(some.query, some.found, strict=True)}
    assert by_query == {0: [1, 2], 1: [0, 2], 2: [0, 1], 3: [0, 1]}


def test_views_of_a_mixture(tokenizer: data.Tokenizer) -> None:
    both = data.mixture([source_of(tokenizer, ["river stone"]), source_of(tokenizer, ["light winter"])])
    table = texts.view_table(both, recipe(tokenizer), rows=2)
    assert table is not None
    assert {row[0].text for row in table.rows if len(row) == 3} == {"river stone", "light winter"}


def test_without_a_tokenizer_nothing_is_shown(tokenizer: data.Tokenizer) -> None:
    known = source_of(tokenizer, ["river stone", "light"])
    source = data.TokenSource(known.ids, known.offsets)
    encoder = Encoder(Count(), {}, recipe(tokenizer))
    assert texts.view_table(source, recipe(tokenizer)) is None
    assert texts.neighbour_table(encoder, known, source, features(encoder, source), None) is None
    source.tokenizer = tokenizer
    assert texts.text_of(source, 0) == "river stone"  # of its tokens


def test_the_page(tokenizer: data.Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 0, "loss": 3.0, "images_per_second": 7.0}) + "\n")
    found = [" ".join([first, second] * (i % 3 + 1)) for i in range(4) for first, second in PAIRS]
    source = source_of(tokenizer, [BADLY, *found], ["<x>", *("even" if i % 2 else "odd" for i in range(len(found)))])
    encoder = Encoder(Count(), {}, recipe(tokenizer))
    page = write_report(tmp_path, encoder, source, recipe(tokenizer), test=source).read_text()
    assert re.findall(r'<h2 id="(\w+)"', page) == ["training", "views", "map", "neighbours"]
    assert sorted(file.name for file in (tmp_path / "report").iterdir()) == ["index.html", "map.png", "training.png"]
    assert "Stone &lt;b&gt; &amp; river" in page
    assert "&lt;x&gt;" in page
    assert page.count("<table") == page.count('<table class="texts"') == 2
    assert "<b>7</b><span>examples/s</span>" in page  # an older run's name for it
    assert not re.search(r"\b[Ii]mages?\b", re.sub(r'src="[^"]*"', "", page))


def test_names_that_would_lie_on_each_other_are_in_a_legend() -> None:
    points, label = np.array([[0.0, 0.0], [0.0, 0.01], [9.0, 9.0]]), np.array([0, 1, 2])
    apart = plots.embedding_map(points[1:], label[1:], ["religion", "learned", "humor"])
    assert ([text.get_text() for text in apart.axes[0].texts], apart.legends) == (["learned", "humor"], [])
    close = plots.embedding_map(points, label, ["religion", "learned", "humor"])
    assert not close.axes[0].texts
    assert [text.get_text() for text in close.legends[0].get_texts()] == ["religion", "learned", "humor"]
