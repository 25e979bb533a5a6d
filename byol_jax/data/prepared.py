"""How many examples a prepared TFDS data set has, read from its own notes: no TensorFlow, no download."""

from __future__ import annotations

import json
import os
from pathlib import Path


def prepared_length(name: str, split: str, data_dir: str | Path | None = None) -> int | None:
    """Examples of a plain split ("train", or several, "train+test") of a data set that stands prepared on this disk; else None.

    Args:
      name: as for ``tfds``, "cifar10" or "imagenette/160px-v2"; the newest version counts unless one is named.
      data_dir: None is TFDS's own default ($TFDS_DATA_DIR, or ~/tensorflow_datasets).
    """
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    base, _, version = name.partition(":")
    notes = [note for note in (root / base).glob("**/dataset_info.json") if note.parent.match(version or "*")]
    if not notes:
        return None
    newest = max(notes, key=lambda note: [int(part) if part.isdigit() else -1 for part in note.parent.name.split(".")])
    splits = {part["name"]: sum(map(int, part.get("shardLengths", []))) for part in json.loads(newest.read_text())["splits"]}
    parts = [part.strip() for part in split.split("+")]
    return sum(splits[part] for part in parts) if all(part in splits for part in parts) else None
