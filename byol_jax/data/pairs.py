"""Pairs of texts with a gold score of how alike they are: what semantic similarity (STS) is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from byol_jax.data.arrays import nearest
from byol_jax.data.lines import each_row, filled, finite
from byol_jax.data.records import rows


@dataclass(frozen=True)
class Pairs:
    """N pairs of texts.

    Attributes:
      first, second: the two texts of each pair.
      gold: float64[N], how alike they are by human judgement; higher is more alike, on any scale (0 to 5 in STS).
    """

    first: list[str]
    second: list[str]
    gold: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.first) == len(self.second) == len(self.gold) or self.gold.ndim != 1:
            raise ValueError(
                f"pairs: {len(self.first)} and {len(self.second)} texts with scores of shape {self.gold.shape}; expected N each"
            )

    def __len__(self) -> int:
        return len(self.first)


def pairs(path: str | Path, *, columns: Sequence[str] = ("sentence1", "sentence2", "score"), max_bad_share: float = 0.01) -> Pairs:
    """Pairs from a .tsv, .csv or .jsonl file; see ``lines.each_row`` for the formats.

    Args:
      columns: names of the first text, the second text and the score in the file's first line, or of an object's keys. A TSV or CSV file
        without such a line has these three columns.
      max_bad_share: largest share of lines that may be bad (another number of columns, a score that is no number, an empty text, bytes that
        are not UTF-8); they are left out, with a warning in the log.

    Raises:
      ValueError: no such file, a column that is not there, no pair, or more bad lines; the first of these are named.
    """
    if len(columns) != 3 or len(set(columns)) != 3:
        raise ValueError(f"columns={tuple(columns)}: give three names, of the first text, the second text and the score")
    found: list[tuple[str, str, float]] = []

    def use(first: str, second: str, score: str) -> None:
        found.append((filled(first, columns[0]), filled(second, columns[1]), finite(score, columns[2])))

    each_row(path, columns, use, number=columns[2], max_bad_share=max_bad_share)
    if not found:
        raise ValueError(f"{path}: holds no pair")
    return Pairs([row[0] for row in found], [row[1] for row in found], np.array([row[2] for row in found], np.float64))


def sts_tfds(
    name: str = "glue/stsb",
    split: str = "validation",
    *,
    columns: Sequence[str] = ("sentence1", "sentence2", "label"),
    data_dir: str | Path | None = None,
) -> Pairs:
    """Pairs from TensorFlow Datasets, in the split's own order; downloaded and prepared if they are not yet.

    Args:
      name: "glue/stsb" is STS-B, scored 0 to 5. split: its "validation" is what is scored without a leaderboard (1,500 pairs).
      columns: the features that hold the first text, the second text and the score.
      data_dir: where prepared data lies; None is TFDS's own default.

    Raises:
      ValueError: unknown data set, split or feature, or a split whose scores are kept secret (all -1, as GLUE's "test").
    """
    found, features = rows(name, split, data_dir=data_dir)
    missing = [column for column in columns if column not in features]
    if missing:
        known = sorted(features)
        raise ValueError(f"sts_tfds: {name} has no feature {missing[0]!r}{nearest(missing[0], known)}; it has {known}")
    examples = list(found)
    gold = np.array([example[columns[2]] for example in examples], np.float64)
    if (gold == -1).all():
        raise ValueError(f"sts_tfds: {name} {split} has no gold scores (all are -1); take another split, such as validation")
    first, second = ([example[column].decode("utf-8") for example in examples] for column in columns[:2])
    return Pairs(first, second, gold)
