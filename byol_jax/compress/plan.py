"""What is left out of a network: along which axis of which array, and what its sizes are then. Applied to any tree of that layout."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Path = tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """How an encoder gets narrower.

    Attributes:
      cuts: path of an array in the encoder's variables, such as ("params", "stem_conv", "kernel") -> {axis: indices that stay, ascending}.
      fields: of its module, by name, as they are afterwards.
      embedding: indices of the embedding that stay; None: all.
    """

    cuts: Mapping[Path, Mapping[int, np.ndarray]]
    fields: Mapping[str, Any]
    embedding: np.ndarray | None = None

    def cut(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The encoder's variables, {"params"[, "batch_stats"]}, without what goes; numpy arrays."""
        return {kind: self._cut(tree, (kind,)) for kind, tree in variables.items()}

    def _cut(self, node: Any, path: Path) -> Any:
        if isinstance(node, Mapping):
            return {name: self._cut(child, (*path, name)) for name, child in node.items()}
        leaf = np.asarray(node)
        for axis, indices in self.cuts.get(path, {}).items():
            leaf = np.take(leaf, indices, axis=axis)
        return leaf

    def rows(self, kernel: Any) -> np.ndarray:
        """A matrix [D, ...] that reads the embedding (the projector's first, a classifier's) with the rows that are still fed."""
        return np.asarray(kernel) if self.embedding is None else np.take(np.asarray(kernel), self.embedding, axis=0)


def at(tree: Any, path: Path) -> np.ndarray:
    """The array that stands there."""
    return np.asarray(functools.reduce(lambda node, name: node[name], path, tree))


def strongest(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of the ``count`` highest of scores [C], ascending; of equal ones the first."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def how_many(size: int, share: float, multiple: int = 1) -> int:
    """What stays of ``size`` where ``share`` goes: the nearest multiple, one at least."""
    return max(round(size * (1 - share) / multiple), 1) * multiple
