"""A service desk that looks its replies up: known questions in a vector index, the best replies to a new one, or "no match".

python -m experiments.faq_search.desk runs/faq runs/data/faq                          # measures; chooses the threshold
python -m experiments.faq_search.desk runs/faq runs/data/faq --ask "Quanto custa?"    # replies
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from usearch.index import Index

import byol_jax as byol
from byol_jax import build
from byol_jax.evaluate import Embed, TfIdf, Whitened, at_threshold, calibrated, with_whitened
from byol_jax.evaluate.threshold import ThresholdResult

KEPT = "faq_search.json"  # in the run's evaluation folder
ANSWERS = "BYOL, whitened"  # what replies, whatever was measured beside it


def background(data: Path) -> list[str]:
    """The questions that the encoder was trained on."""
    return (data / "train.txt").read_text(encoding="utf-8").splitlines()


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Desk:
    """Known questions and their answers, searched by the cosine of embeddings."""

    def __init__(self, embed: Embed, known: Sequence[dict[str, str]]) -> None:
        self.embed, self.known = embed, known
        vectors = embed([one["question"] for one in known])
        self.index = Index(ndim=vectors.shape[1], metric="cos")
        self.index.add(np.arange(len(known)), vectors)

    def best(self, questions: Sequence[str], count: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """(places int[N, count] of the nearest known questions, their cosines)."""
        vectors = self.embed(questions)
        found = self.index.search(vectors, count) if len(questions) > 1 else self.index.search(vectors[0], count)
        return np.asarray(found.keys).reshape(len(questions), count), 1 - np.asarray(found.distances).reshape(len(questions), count)


@dataclass(frozen=True)
class Judged:
    """How a desk does on new questions: its first reply, its first five, and what a threshold makes of it."""

    first: float
    five: float
    threshold: ThresholdResult


def judge(desk: Desk, calibrate: list[dict[str, Any]], test: list[dict[str, Any]]) -> Judged:
    """The threshold is chosen on ``calibrate``, everything else is measured on ``test``."""

    def scores(asked: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        places, cosine = desk.best([one["text"] for one in asked])
        wanted = np.array([one["id"] for one in asked])
        has = wanted >= 0
        return cosine[has, 0], places[has, 0] == wanted[has], cosine[~has, 0]

    threshold = calibrated(*scores(calibrate)).threshold
    answerable = [one for one in test if one["id"] >= 0]
    places, _ = desk.best([one["text"] for one in answerable], 5)
    hits = places == np.array([[one["id"]] for one in answerable])
    return Judged(float(hits[:, 0].mean()), float(hits.any(1).mean()), at_threshold(threshold, *scores(test)))


def compare(workdir: Path, data: Path) -> None:
    """Measures BYOL, the same encoder before it, both whitened, and TF-IDF; prints a table, keeps the thresholds beside the run."""
    known, texts = rows(data / "faq.jsonl"), background(data)
    embeds = {**with_whitened(build.sentence_encoders(workdir), texts), "TF-IDF": TfIdf(texts)}
    print(f"{'':20}{'first %':>9}{'in five %':>11}{'threshold':>11}{'answered right %':>18}{'told none %':>13}{'balanced %':>12}")
    kept = {}
    for name, embed in embeds.items():
        found = judge(Desk(embed, known), rows(data / "calibrate.jsonl"), rows(data / "test.jsonl"))
        limit = found.threshold
        shares = (limit.answered_right, limit.told_none, limit.balanced_accuracy)
        cells = [f"{100 * found.first:9.1f}", f"{100 * found.five:11.1f}", f"{limit.threshold:11.3f}"]
        cells += [f"{100 * share:{width}.1f}" for share, width in zip(shares, (18, 13, 12), strict=True)]
        print(f"{name:20}{''.join(cells)}")
        kept[name] = {"first": found.first, "five": found.five, "threshold": limit.threshold, "balanced_accuracy": limit.balanced_accuracy}
    (workdir / "evaluation").mkdir(exist_ok=True)
    (workdir / "evaluation" / KEPT).write_text(json.dumps(kept, indent=1) + "\n")


def ask(workdir: Path, data: Path, question: str) -> None:
    """Prints the three best replies above the threshold, with their cosines."""
    limit = json.loads((workdir / "evaluation" / KEPT).read_text())[ANSWERS]["threshold"]
    desk = Desk(Whitened(byol.load_sentence_encoder(workdir), background(data)), rows(data / "faq.jsonl"))
    places, cosine = (found[0] for found in desk.best([question], 3))
    good = [(desk.known[place], score) for place, score in zip(places, cosine, strict=True) if score >= limit]
    for one, score in good:
        print(f"{score:.3f}  {one['question']}\n       {one['answer']}\n")
    if not good:
        print(f"no match (nearest {cosine[0]:.3f}, wanted {limit:.3f}: {desk.known[places[0]]['question']})")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--ask", metavar="QUESTION")
    args = parser.parse_args(arguments)
    if args.ask is None:
        compare(args.workdir, args.data)
    elif not (args.workdir / "evaluation" / KEPT).is_file():
        raise SystemExit("no threshold yet: run the same command without --ask first")
    else:
        ask(args.workdir, args.data, args.ask)


if __name__ == "__main__":
    main()
