"""experiments/recommend: what its data are made of, whom it recommends what, and how that is measured."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from experiments.recommend import prepare, recommend
from experiments.recommend.recommend import User


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("Usual Suspects, The", "The Usual Suspects"),
        ("Shanghai Triad (Yao a yao yao)", "Shanghai Triad"),
        ("Horseman on the Roof, The (Hussard sur le toit, Le)", "The Horseman on the Roof"),
        ("Enfer, L'", "L'Enfer"),
        ("Paris, France", "Paris, France"),
    ],
)
def test_a_title_is_set_in_order(title: str, said: str) -> None:
    assert prepare.plain(title) == said


def test_the_text_of_a_film() -> None:
    cast = ", ".join(f"Player {i}" for i in range(prepare.CAST + 1))
    film = prepare.Film("Heat", 1995, "Crime, Drama", "Michael Mann", "", cast)
    names = ", ".join(f"Player {i}" for i in range(prepare.CAST))
    assert film.text == f"Heat (1995). Crime, Drama. Directed by Michael Mann. With {names}."
    assert prepare.Film("Heat", 0, "Crime", "", "", "").text == "Heat. Crime."


def test_the_last_fifth_of_the_likes_is_held_out() -> None:
    """Likes by time: a b c d e; of five the last is held out, and what was rated after it is not known yet."""
    stars = {"a": 4, "x": 1, "b": 5, "c": 4, "d": 4, "y": 3, "e": 5, "z": 2}
    rated = [(float(time), film, float(stars[film])) for time, film in enumerate(stars)]
    before, last = prepare.held_out(rated[::-1])
    assert last == ["e"]
    assert before == [("a", 4), ("x", 1), ("b", 5), ("c", 4), ("d", 4), ("y", 3)]
    assert prepare.held_out(rated[:4])[1] == []


def packages(folder: Path) -> list[str]:
    ratings = folder / "ml-100k"
    ratings.mkdir()
    films = ["1\tThing, The\t1982\tHorror", "2\tThing, The\t1982\tHorror", *(f"{i}\tFilm {i}\t199{i}\tDrama" for i in range(3, 8))]
    (ratings / "ml-100k.item").write_text("\n".join(["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq", *films]))
    rated = [f"9\t{film}\t{stars}\t{time}" for time, (film, stars) in enumerate([(1, 4), (3, 2), (4, 5), (5, 4), (6, 4), (7, 5), (2, 5)])]
    (ratings / "ml-100k.inter").write_text("\n".join(["user_id:token\titem_id:token\trating:float\ttimestamp:float", *rated]))
    with sqlite3.connect(folder / "movies.db") as table:
        table.execute('create table omdb (ID integer, Title text, Year integer, Genre text, Director text, Writer text, "Cast" text)')
        rows = [
            (1, "The Thing", 1982, "Horror", "John Carpenter", "Bill Lancaster", "Kurt Russell"),
            (2, "Other", 2000, None, None, None, None),
        ]
        table.executemany("insert into omdb values (?, ?, ?, ?, ?, ?, ?)", rows)
    table.close()
    return [str(ratings), str(folder / "movies.db"), str(folder / "out")]


def test_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare.main(packages(tmp_path))
    assert "6 films, 1 with who made them; 5 ratings by 1 users" in capsys.readouterr().out
    thing = "The Thing (1982). Horror. Directed by John Carpenter. Written by Bill Lancaster. With Kurt Russell."
    items, train, test = (recommend.rows(tmp_path / "out" / f"{name}.jsonl") for name in ("items", "train", "test"))
    assert items[0] == {"id": "1", "title": "The Thing (1982)", "text": thing}
    assert [row["item"] for row in train] == ["1", "3", "4", "5", "6"]
    assert test == [{"user": 9, "item": "7"}]  # film 2 is film 1, and was rated before
    assert (tmp_path / "out" / "train.txt").read_text().splitlines()[-1] == "Other (2000)."


def test_another_package_is_told(tmp_path: Path) -> None:
    ratings, table, out = packages(tmp_path)
    with pytest.raises(SystemExit, match=r"ml-100k\.item: is not there"):
        prepare.main([str(tmp_path), table, out])
    with pytest.raises(SystemExit, match=r"movies\.db of the package"):
        prepare.main([ratings, f"{ratings}/ml-100k.item", out])


TEXTS = ["a", "ab", "b", "bc", "c", "cd"]
ITEMS = [{"id": text, "title": f"{text} (1990)", "text": text} for text in TEXTS]


def letters(texts: Sequence[str]) -> np.ndarray:
    """Counts of letters: the cosine of two texts can be told by hand."""
    return np.array([[text.count(letter) for letter in "abcd"] for text in texts], np.float32)


def test_similar_films_and_their_cosines() -> None:
    places, cosine = recommend.Shelf(letters, TEXTS).near(np.array([1, 0, 0, 0], np.float32), 2)
    assert places == [0, 1]
    np.testing.assert_allclose(cosine, [1, 1 / np.sqrt(2)], atol=1e-6)


def test_a_profile_is_the_mean_of_normalised_vectors() -> None:
    """Liked "aaaa" and "b" weigh the same: "ab" is as near as can be, "aab" less."""
    shelf = recommend.Shelf(letters, ["aaaa", "b", "aab", "ab", "c"])
    assert shelf.ranked(User(frozenset({0, 1}), (0, 1), frozenset()), 3) == [3, 2, 4]


def test_what_was_rated_is_never_recommended() -> None:
    shelf = recommend.Shelf(letters, TEXTS)
    for seen in ({0}, {0, 1, 2}, {0, 5}, set(range(6))):
        found = shelf.ranked(User(frozenset(seen), (0,), frozenset()), 6)
        assert sorted(found) == sorted(set(range(6)) - seen)
    assert shelf.ranked(User(frozenset({0, 1}), (0,), frozenset()), 1) != [1]  # rated, not liked, and the nearest


def test_users_are_read() -> None:
    train = [
        {"user": user, "item": item, "stars": stars} for user, item, stars in [(2, "a", 5.0), (2, "b", 1.0), (1, "c", 4.0), (3, "c", 2.0)]
    ]
    test = [{"user": user, "item": "cd"} for user in (1, 2, 3)]
    found = recommend.users(ITEMS, train, test)
    assert found == [User(frozenset({4}), (4,), frozenset({5})), User(frozenset({0, 2}), (0,), frozenset({5}))]


def test_popularity_counts_likes() -> None:
    everybody = [User(frozenset({0, 3}), liked, frozenset()) for liked in ((3, 2), (3, 5), (5, 3), (1,))]
    assert recommend.popular(everybody, 6) == [3, 5, 1, 2, 0, 4]
    assert recommend.unseen(recommend.popular(everybody, 6), everybody[0], 2) == [5, 1]


def test_recall_by_hand() -> None:
    everybody = [User(frozenset(), (), frozenset(later)) for later in ({1, 2}, {3}, {4, 5, 0, 1})]
    found = recommend.judge([[1, 9, 2], [9, 8, 7], [4, 5, 9]], everybody, 10, (1, 3))
    assert found.recall == {1: pytest.approx((1 / 2 + 0 + 1 / 4) / 3), 3: pytest.approx((2 / 2 + 0 + 2 / 4) / 3)}
    assert found.hit == {1: pytest.approx(2 / 3), 3: pytest.approx(2 / 3)}
    title, headings, cells = found.rows()
    assert (title, headings) == (
        "Films liked later, found for 3 users among 10 films",
        ["recall@1 %", "recall@3 %", "hit rate@1 %", "hit rate@3 %"],
    )
    assert cells == [["25.0", "50.0", "66.7", "66.7"]]


def test_a_title_is_found() -> None:
    titles = ["Toy Story (1995)", "Heat (1995)", "Heat and Dust (1983)", "The Thing (1982)", "Alien (1979)", "Aliens (1986)", "1984"]
    asked = ("toy story", "HEAT", "heat 1995", "dust", "Alien", "1984")
    assert [recommend.place_of(title, titles) for title in asked] == [0, 1, 1, 2, 4, 6]
    with pytest.raises(SystemExit, match="'Toy Stroy': no such film; nearest: Toy Story"):
        recommend.place_of("Toy Stroy", titles)
    with pytest.raises(SystemExit, match=r"which of Heat \(1995\), Heat \(1972\)\?"):
        recommend.place_of("heat", [*titles, "Heat (1972)"])


def test_it_prints_similar_films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    prepare.write(tmp_path / "items.jsonl", ITEMS)
    monkeypatch.setattr(recommend.byol, "load_sentence_encoder", lambda workdir: letters, raising=False)
    monkeypatch.setattr(recommend, "Whitened", lambda embed, corpus: {tuple(item["text"] for item in ITEMS): embed}[tuple(corpus)])
    recommend.main([str(tmp_path), str(tmp_path), "--like", "cd"])
    assert capsys.readouterr().out.splitlines()[:3] == ["cd", "0.707  c", "0.500  bc"]
