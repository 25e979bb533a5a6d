"""Films and who liked them: MovieLens 100K as recbole ships it, and who made the films, from bokeh-sampledata's Wikidata table (CC0).

    pip download --no-deps recbole==1.2.1 bokeh-sampledata==2026.1
    unzip recbole-*.whl 'recbole/dataset_example/ml-100k/*' && unzip bokeh_sampledata-*.whl 'bokeh_sampledata/_data/movies.db'
    python -m experiments.recommend.prepare recbole/dataset_example/ml-100k bokeh_sampledata/_data/movies.db runs/data/movies

items.jsonl: the films, each with a text of title, year, genres and, where the table knows them, director, writers and cast. train.jsonl:
what each user rated until the first film held out. test.jsonl, held out: the last fifth of the films that each user liked (4 stars or
5), in the order of time; of users with five liked films or more. train.txt, to pretrain on: the texts, and those of the table's other
films. GroupLens forbids handing the ratings on: they stay in the folder you unpack.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIKED = 4.0  # stars
HELD_OUT = 5  # of so many liked films one, the last ones
CAST = 10  # names, of the table's alphabetical list
ARTICLE = re.compile(r"(.+), (The|A|An|La|Le|Les|L'|Il|El|Das|Der|Die)$")


@dataclass(frozen=True)
class Film:
    """A film of the table; "" and year 0 where it knows nothing."""

    title: str
    year: int
    genres: str
    director: str
    writers: str
    cast: str

    @property
    def name(self) -> str:
        return f"{self.title} ({self.year})" if self.year else self.title

    @property
    def text(self) -> str:
        made = [("Directed by", self.director), ("Written by", self.writers), ("With", ", ".join(self.cast.split(", ")[:CAST]))]
        parts = [self.name, self.genres, *(f"{said} {names}" for said, names in made if names)]
        return ". ".join(" ".join(part.split()) for part in parts if part) + "."


def key(title: str) -> str:
    return " ".join(re.findall(r"\w+", title.lower()))


def plain(title: str) -> str:
    """ "Usual Suspects, The" -> "The Usual Suspects"; a second title in brackets is left out."""
    title = re.sub(r"\s*\(.*\)$", "", title)
    found = ARTICLE.match(title)
    return f"{found[2]}{'' if found[2].endswith(chr(39)) else ' '}{found[1]}" if found else title


def films(database: Path) -> dict[tuple[str, int], Film]:
    """The table's films by title and year. Raises SystemExit where the file is another."""
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as opened:
            rows = opened.execute('select Title, Year, Genre, Director, Writer, "Cast" from omdb order by ID').fetchall()
        opened.close()
    except sqlite3.Error as error:
        raise SystemExit(f"{database}: {error}; movies.db of the package bokeh-sampledata is wanted") from None
    found: dict[tuple[str, int], Film] = {}
    for title, year, *rest in rows:
        if title and year:
            found.setdefault((key(title), int(year)), Film(title, int(year), *(text or "" for text in rest)))
    return found


def table(file: Path, columns: str) -> Iterator[list[str]]:
    """Rows of a file of recbole without its head. Raises SystemExit where the head is another."""
    if not file.is_file():
        raise SystemExit(f"{file}: is not there: the folder dataset_example/ml-100k of the package recbole is wanted")
    with file.open(encoding="utf-8", newline="") as opened:
        rows = csv.reader(opened, delimiter="\t", quoting=csv.QUOTE_NONE)
        head = " ".join(name.partition(":")[0] for name in next(rows, []))
        if head != columns:
            raise SystemExit(f"{file}: has the columns {head!r}, not {columns!r}")
        yield from rows


def items(file: Path, known: Mapping[tuple[str, int], Film]) -> tuple[list[dict[str, str]], dict[str, str]]:
    """(the films, the id of each id: MovieLens lists some films twice)."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    same: dict[str, str] = {}
    for number, title, year, genres in table(file, "item_id movie_title release_year class"):
        name, when = plain(title), int(year) if year.isdigit() else 0
        about = next((known[key(name), near] for near in (when, when - 1, when + 1) if (key(name), near) in known), None)
        made = (about.director, about.writers, about.cast) if about else ("", "", "")
        film = Film(name, when, ", ".join(genres.split()), *made)
        same[number] = found.setdefault((title, year), {"id": number, "title": film.name, "text": film.text})["id"]
    return list(found.values()), same


def held_out(rated: list[tuple[float, str, float]]) -> tuple[list[tuple[str, float]], list[str]]:
    """Of a user's (time, film, stars): (film and stars until the first film held out, films held out)."""
    rated = sorted(rated)
    liked = [i for i, (_, _, stars) in enumerate(rated) if stars >= LIKED]
    last = liked[len(liked) - len(liked) // HELD_OUT :]
    cut = last[0] if last else len(rated)
    return [(film, stars) for _, film, stars in rated[:cut]], [rated[i][1] for i in last]


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ratings", type=Path)
    parser.add_argument("films", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args(arguments)
    known = films(args.films)
    catalogue, same = items(args.ratings / "ml-100k.item", known)
    rated: dict[int, dict[str, tuple[float, str, float]]] = defaultdict(dict)
    for number, film, stars, time in table(args.ratings / "ml-100k.inter", "user_id item_id rating timestamp"):
        rated[int(number)].setdefault(same[film], (float(time), same[film], float(stars)))
    train, test = [], []
    for user, ratings in sorted(rated.items()):
        before, last = held_out(list(ratings.values()))
        train += [{"user": user, "item": film, "stars": stars} for film, stars in before]
        test += [{"user": user, "item": film} for film in last]
    texts = dict.fromkeys([*(item["text"] for item in catalogue), *(film.text for film in known.values())])
    args.output.mkdir(parents=True, exist_ok=True)
    write(args.output / "items.jsonl", catalogue)
    write(args.output / "train.jsonl", train)
    write(args.output / "test.jsonl", test)
    (args.output / "train.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    described = sum("Directed by" in item["text"] for item in catalogue)
    print(f"written to {args.output}: {len(catalogue)} films, {described} with who made them; {len(train)} ratings by {len(rated)} users,")
    print(f"{len(test)} liked films of {len({row['user'] for row in test})} users held out; {len(texts)} texts to pretrain on")


if __name__ == "__main__":
    main()
