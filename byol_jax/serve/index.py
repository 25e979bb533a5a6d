"""Nearest neighbours in a file of embeddings: exact, by cosine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from byol_jax.data.files import legible
from byol_jax.evaluate.whitening import Whitening, spread

AT_ONCE = 2**25  # cosines held at a time: 128 MB


@dataclass(frozen=True)
class Index:
    """N embeddings and what is known of each.

    Attributes:
      unit: float32 [N, D], each of length 1.
      columns: by name ("path" or "text", "index", "label"), N values each.
      class_names: names of the labels, or None.
      whitening: what embeddings go through before they are compared, as those in ``unit`` have; None: nothing.
    """

    unit: np.ndarray
    columns: dict[str, np.ndarray]
    class_names: list[str] | None = None
    whitening: Whitening | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, whiten: bool = False) -> Index:
        """Reads what ``byol-jax embed --output FILE.npz`` writes.

        Args:
          whiten: take out of the embeddings what all in the file share, see ``evaluate.whitening``.

        Raises:
          ValueError: no such file, one of another kind, or too small a one to whiten by.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as found:
                embedding = np.asarray(found["embedding"], np.float32)
                columns = {name: found[name] for name in ("path", "text", "index", "label") if name in found}
                names = [legible(name) for name in found["class_names"].tolist()] if "class_names" in found else None
        except FileNotFoundError:
            raise ValueError(f"--index {path}: there is no such file; `byol-jax embed --output {path}` writes it") from None
        except Exception as error:  # zipfile and numpy raise many kinds on a file of another kind
            raise ValueError(f"--index {path}: is no .npz of `byol-jax embed --output` ({error})") from None
        wrong = embedding.ndim != 2 or not len(embedding) or any(len(column) != len(embedding) for column in columns.values())
        if wrong or not np.isfinite(embedding).all():
            raise ValueError(
                f"--index {path}: expected finite embeddings [N, D] and N of {', '.join(columns)}; got {list(embedding.shape)}"
            )
        if not whiten:
            return cls(_unit(embedding), columns, names)
        if len(embedding) < 2:
            raise ValueError(f"--whiten: learns from two embeddings or more; --index {path} holds {len(embedding)}")
        whitening = Whitening(spread(embedding))
        return cls(_unit(whitening(embedding)), columns, names, whitening)

    def nearest(self, embedding: np.ndarray, k: int) -> list[list[dict[str, Any]]]:
        """What is known of the k of the highest cosine (all N if fewer) with each of float32 [M, D], the earlier first among equals."""
        embedding = embedding if self.whitening is None else self.whitening(embedding)
        block = max(AT_ONCE // len(self.unit), 1)
        parts = (_unit(embedding[start : start + block]) @ self.unit.T for start in range(0, len(embedding), block))
        return [[self._entry(int(i), float(row[i])) for i in _best(row, k)] for part in parts for row in part]

    def _entry(self, position: int, cosine: float) -> dict[str, Any]:
        known = {name: column[position].item() for name, column in self.columns.items()}
        known |= {"path": legible(known["path"])} if "path" in known else {}
        label = known.pop("label", -1)
        if label >= 0:
            known |= {"label": label} | ({"class": self.class_names[label]} if self.class_names else {})
        return {"cosine": cosine, **known}


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-6))


def _best(cosine: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k highest, the earlier first among equals."""
    if k < len(cosine):
        least = np.partition(cosine, len(cosine) - k)[len(cosine) - k]
        candidates = np.flatnonzero(cosine >= least)
    else:
        candidates = np.arange(len(cosine))
    return candidates[np.argsort(-cosine[candidates], kind="stable")][:k]
