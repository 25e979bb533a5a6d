"""The Lee corpus (news of 2001 and 2002, with human judgements of similarity) as train.txt and pairs.tsv, from the package gensim.

pip download --no-deps gensim && unzip -q gensim-*.whl 'gensim/test/test_data/*'
python -m experiments.text_lee.prepare gensim/test/test_data runs/data/lee

Lee, Pincombe and Welsh, "An empirical evaluation of models of text document similarity", Cognitive Science 2005: 50 documents, each pair
judged by 8 to 12 students; 300 further documents as background.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from pathlib import Path

DOCUMENTS, BACKGROUND = 50, 300


def lines(file: Path, count: int) -> list[str]:
    """The documents of a file, one a line. Raises SystemExit where it is not the one that is wanted."""
    found = file.read_bytes().decode("latin-1").splitlines() if file.is_file() else []  # its pounds are bytes of 163
    if len(found) != count:
        raise SystemExit(f"{file}: has {len(found)} lines, {count} are wanted: gensim's folder test/test_data")
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args(arguments)
    background, documents = lines(args.folder / "lee_background.cor", BACKGROUND), lines(args.folder / "lee.cor", DOCUMENTS)
    judged = [[float(number) for number in line.split()] for line in lines(args.folder / "similarities0-1.txt", DOCUMENTS)]
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "train.txt").write_text("\n".join(background) + "\n", encoding="utf-8")
    pairs = list(itertools.combinations(range(DOCUMENTS), 2))
    with (args.output / "pairs.tsv").open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out, delimiter="\t")
        table.writerow(["sentence1", "sentence2", "score"])
        table.writerows([documents[i], documents[j], judged[i][j]] for i, j in pairs)
    print(f"written to {args.output}: {BACKGROUND} documents to train on, {len(pairs)} judged pairs of {DOCUMENTS} others")


if __name__ == "__main__":
    main()
