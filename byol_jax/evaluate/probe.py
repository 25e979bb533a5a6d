"""A linear classifier in a file: what ``evaluate linear --save`` writes and ``serve --probe`` reads.

An ``.npz`` without pickles: ``weights`` float32 [D, C] and ``bias`` float32 [C], for embeddings as the encoder gives them (scaling is
folded in), and ``class_names`` str [C]. The probability of a class is the softmax of ``embedding @ weights + bias``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from byol_jax.data.files import legible
from byol_jax.evaluate.linear import Classifier


@dataclass(frozen=True)
class Probe:
    """A classifier of embeddings [N, D] with the names of its C classes."""

    weights: np.ndarray
    bias: np.ndarray
    class_names: list[str]

    def probabilities(self, embedding: np.ndarray) -> np.ndarray:
        """float64 [N, C] that sum to 1 in each row."""
        logits = embedding.astype(np.float64) @ self.weights + self.bias
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    def best(self, embedding: np.ndarray, top: int) -> list[list[dict[str, Any]]]:
        """For each embedding its ``top`` most probable classes, "label", "class" and "probability", the most probable first."""
        found = self.probabilities(embedding)
        ranked = np.argsort(-found, axis=1, kind="stable")[:, :top]
        return [
            [{"label": i, "class": self.class_names[i], "probability": float(row[i])} for i in places.tolist()]
            for row, places in zip(found, ranked, strict=True)
        ]


def save_probe(path: str | os.PathLike[str], classifier: Classifier, class_names: Sequence[str] | None) -> None:
    """Writes the file, whole or not at all; classes without names are called by their numbers."""
    weights, bias = (np.asarray(part, np.float32) for part in classifier)
    names = list(class_names or map(str, range(len(bias))))[: len(bias)]
    target = check_target(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{os.getpid()}.{target.name}")
    np.savez(partial, weights=weights, bias=bias, class_names=np.array(names))
    partial.replace(target)


def check_target(path: str | os.PathLike[str]) -> Path:
    """The path. ValueError for one that does not end in .npz."""
    if Path(path).suffix != ".npz":
        raise ValueError(f"--save {path}: must end in .npz")
    return Path(path)


def load_probe(path: str | os.PathLike[str]) -> Probe:
    """Reads the file. ValueError for one that is not there, or not of this kind."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as columns:
            found = Probe(columns["weights"], columns["bias"], [legible(name) for name in columns["class_names"].tolist()])
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file; `byol-jax evaluate linear --save {path}` writes it") from None
    except Exception as error:  # zipfile and numpy raise many kinds on a file of another kind
        raise ValueError(f"{path}: is no classifier of `byol-jax evaluate linear --save FILE.npz` ({error})") from None
    if found.weights.ndim != 2 or found.bias.shape != found.weights.shape[1:] or len(found.class_names) != len(found.bias):
        shapes = f"weights {list(found.weights.shape)}, bias {list(found.bias.shape)}, {len(found.class_names)} class_names"
        raise ValueError(f"{path}: {shapes}; expected [D, C], [C] and C")
    return found
