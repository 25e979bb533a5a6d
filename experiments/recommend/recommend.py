"""Films by their text: those like a film, and those for a user, whose profile is the mean of the films that he or she liked.

Embeddings are whitened over the films' texts.

python -m experiments.recommend.recommend runs/movies runs/data/movies                       # measures
python -m experiments.recommend.recommend runs/movies runs/data/movies --like "Toy Story"    # similar films
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from usearch.index import Index

import byol_jax as byol
from byol_jax import build
from byol_jax.evaluate import Embed, Result, TfIdf, Whitened, compared, save, with_whitened
from byol_jax.evaluate.embedded import embedded
from byol_jax.evaluate.result import percent
from experiments.recommend.prepare import LIKED, key

KS = (10, 50)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@dataclass(frozen=True)
class User:
    """Places of the films that a user rated, of those liked among them, and of those liked later, which are held out."""

    seen: frozenset[int]
    liked: tuple[int, ...]
    later: frozenset[int]


def users(items: Sequence[dict[str, Any]], train: Sequence[dict[str, Any]], test: Sequence[dict[str, Any]]) -> list[User]:
    """Those who liked a film before, and have one held out, in the order of their numbers."""
    place = {item["id"]: i for i, item in enumerate(items)}
    seen: dict[int, list[int]] = {}
    liked: dict[int, list[int]] = {}
    later: dict[int, list[int]] = {}
    for row in train:
        seen.setdefault(row["user"], []).append(place[row["item"]])
        if row["stars"] >= LIKED:
            liked.setdefault(row["user"], []).append(place[row["item"]])
    for row in test:
        later.setdefault(row["user"], []).append(place[row["item"]])
    return [User(frozenset(seen[user]), tuple(liked[user]), frozenset(later[user])) for user in sorted(liked.keys() & later.keys())]


class Shelf:
    """Films by their text, searched by the cosine of embeddings."""

    def __init__(self, embed: Embed, texts: Sequence[str]) -> None:
        vectors = embedded(embed, texts)
        self.vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        self.index = Index(ndim=vectors.shape[1], metric="cos", dtype="f32")
        self.index.add(np.arange(len(texts)), self.vectors)

    def near(self, vector: np.ndarray, count: int) -> tuple[list[int], list[float]]:
        """(places of the nearest films, their cosines)."""
        found = self.index.search(vector, min(count, len(self.vectors)), exact=True)
        return [int(place) for place in found.keys], [1 - float(distance) for distance in found.distances]

    def ranked(self, user: User, count: int) -> list[int]:
        """Films for a user, the best first; none that he or she has rated."""
        profile = self.vectors[list(user.liked)].mean(0)
        return unseen(self.near(profile, count + len(user.seen))[0], user, count)


def unseen(ranking: Sequence[int], user: User, count: int) -> list[int]:
    return [place for place in ranking if place not in user.seen][:count]


def popular(everybody: Sequence[User], films: int) -> list[int]:
    """Places of all films, those liked by most users first, the earlier first among equals."""
    likes = np.bincount([place for user in everybody for place in user.liked], minlength=films)
    return [int(place) for place in np.argsort(-likes, kind="stable")]


@dataclass(frozen=True)
class Recall(Result):
    """By the number of films shown: the mean share of a user's held-out films among them, and the share of users with one or more."""

    recall: dict[int, float]
    hit: dict[int, float]
    users: int
    films: int

    def rows(self) -> tuple[str, Sequence[str], Sequence[Sequence[str]]]:
        title = f"Films liked later, found for {self.users:,} users among {self.films:,} films"
        headings = [f"{name}@{k} %" for name in ("recall", "hit rate") for k in self.recall]
        return title, headings, [[percent(share) for by in (self.recall, self.hit) for share in by.values()]]


def judge(rankings: Sequence[Sequence[int]], everybody: Sequence[User], films: int, ks: Sequence[int] = KS) -> Recall:
    """Recall and hit rate of one ranking for each user."""
    found = {k: [len(user.later.intersection(ranking[:k])) for ranking, user in zip(rankings, everybody, strict=True)] for k in ks}
    wanted = np.array([len(user.later) for user in everybody])
    recall = {k: float((np.array(hits) / wanted).mean()) for k, hits in found.items()}
    return Recall(recall, {k: float((np.array(hits) > 0).mean()) for k, hits in found.items()}, len(everybody), films)


def measure(workdir: Path, data: Path) -> None:
    """Prints recall and hit rate: BYOL, the same encoder before it, both whitened, TF-IDF, and the films liked by most."""
    items = rows(data / "items.jsonl")
    texts, everybody = [item["text"] for item in items], users(items, rows(data / "train.jsonl"), rows(data / "test.jsonl"))
    embeds = {**with_whitened(build.sentence_encoders(workdir), texts), "TF-IDF": TfIdf(texts)}
    shelves = {name: Shelf(embed, texts) for name, embed in embeds.items()}
    rankings = {name: [shelf.ranked(user, max(KS)) for user in everybody] for name, shelf in shelves.items()}
    most = popular(everybody, len(items))
    rankings["popularity"] = [unseen(most, user, max(KS)) for user in everybody]
    results = {name: judge(ranking, everybody, len(items)) for name, ranking in rankings.items()}
    result = compared(results["BYOL"].rows()[0], results)
    print(result.table())
    save(workdir, "recommend", result)


def place_of(title: str, titles: Sequence[str]) -> int:
    """Place of the film of this title, with or without its year, or of the only one whose title holds it. SystemExit names the nearest."""
    names = [key(one) for one in titles]
    without = [key(re.sub(r" \(\d+\)$", "", one)) for one in titles]
    wanted = key(title)
    for found in (
        [i for i, name in enumerate(names) if wanted in (name, without[i])],
        [i for i, name in enumerate(names) if f" {wanted} " in f" {name} "],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise SystemExit(f"{title!r}: which of {', '.join(titles[i] for i in found[:8])}?")
    near = difflib.get_close_matches(wanted, without, 3, 0.5)
    raise SystemExit(f"{title!r}: no such film" + (f"; nearest: {', '.join(titles[without.index(name)] for name in near)}" if near else ""))


def like(workdir: Path, data: Path, title: str, count: int = 10) -> None:
    """Prints the films whose texts are nearest to that of a film, with their cosines."""
    items = rows(data / "items.jsonl")
    place = place_of(title, [item["title"] for item in items])
    texts = [item["text"] for item in items]
    shelf = Shelf(Whitened(byol.load_sentence_encoder(workdir), texts), texts)
    print(items[place]["text"])
    for other, cosine in zip(*shelf.near(shelf.vectors[place], count + 1), strict=True):
        if other != place:
            print(f"{cosine:.3f}  {items[other]['text']}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--like", metavar="TITLE")
    args = parser.parse_args(arguments)
    if args.like is None:
        measure(args.workdir, args.data)
    else:
        like(args.workdir, args.data, args.like)


if __name__ == "__main__":
    main()
