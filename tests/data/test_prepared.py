"""The length of a prepared TFDS data set, from its notes alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from byol_jax.data.prepared import prepared_length


def note(root: Path, folder: str, **splits: list[int]) -> None:
    path = root / folder / "dataset_info.json"
    path.parent.mkdir(parents=True)
    parts = [{"name": name, "shardLengths": [str(n) for n in lengths]} for name, lengths in splits.items()]
    path.write_text(json.dumps({"splits": parts}))


def test_lengths_versions_and_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note(tmp_path, "pics/9.0.0", train=[1])
    note(tmp_path, "pics/10.0.0", train=[5, 6], test=[3])
    note(tmp_path, "nette/160px-v2/1.0.0", train=[7])
    assert prepared_length("pics", "train", tmp_path) == 11
    assert prepared_length("pics:9.0.0", "train", tmp_path) == 1
    assert prepared_length("pics:9.*.*", "train", tmp_path) == 1
    assert prepared_length("pics", "train+test", tmp_path) == 14
    assert prepared_length("nette/160px-v2", "train", tmp_path) == 7
    assert prepared_length("pics", "train[:10%]", tmp_path) is None
    assert prepared_length("pics", "valid", tmp_path) is None
    assert prepared_length("absent", "train", tmp_path) is None
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert prepared_length("pics", "test") == 3
