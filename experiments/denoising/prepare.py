"""The one-line descriptions of Debian's packages in English and German, from apt's lists.

python -m experiments.denoising.prepare /var/lib/apt/lists runs/data/debian
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from byol_jax.data import train_tokenizer

VOCAB = 8192


def contents(lists: Path, language: str) -> str:
    """What apt's lists hold in a language, decompressed."""
    found = sorted(lists.glob(f"*_i18n_Translation-{language}*"))
    if not found:
        raise SystemExit(f"{lists}: no *_i18n_Translation-{language}; first sudo apt-get -o Acquire::Languages=en,{language} update")
    command = ["/usr/lib/apt/apt-helper", "cat-file", *map(str, found)]  # whatever they are compressed with
    return subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout


def lines(content: str, language: str) -> dict[str, str]:
    """The first line of each description, by the digest of its English original."""
    return dict(re.findall(rf"^Description-md5: (\w+)\nDescription-{language}: (.+)$", content, re.MULTILINE))


def pairs(english: dict[str, str], german: dict[str, str]) -> list[tuple[str, str]]:
    """Descriptions that were translated, each English line once."""
    both = {english[key]: german[key] for key in sorted(german) if key in english and german[key] != english[key]}
    return sorted(both.items())


def main(lists: str, output: str) -> None:
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    found = pairs(*(lines(contents(Path(lists), language), language) for language in ("en", "de")))
    rows = (json.dumps({"english": english, "german": german}, ensure_ascii=False) for english, german in found)
    (folder / "pairs.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    train_tokenizer([text for pair in found for text in pair], folder / "tokenizer.json", vocab=VOCAB)
    print(f"{len(found):,} pairs written to {folder}")


if __name__ == "__main__":
    main(*sys.argv[1:])
