"""Results of one kind side by side: the same evaluation of BYOL, of the encoder before it, and of a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from byol_jax.evaluate.result import Result


@dataclass(frozen=True)
class Compared(Result):
    """Results by the name of what was evaluated, in one table: their own rows after a first column with the name."""

    title: str
    results: Mapping[str, Result]

    def __post_init__(self) -> None:
        if not self.results:
            raise ValueError(f"compared: {self.title}: there is no result; give one at least")
        first_name, first = next(iter(self.results.items()))
        for name, result in self.results.items():
            if type(result) is not type(first) or list(result.rows()[1]) != list(first.rows()[1]):
                what = [f"{n!r} is a {type(r).__name__} of columns {list(r.rows()[1])}" for n, r in ((first_name, first), (name, result))]
                raise ValueError(f"compared: {' and '.join(what)}; only results of one kind can stand side by side")
        object.__setattr__(self, "text_columns", (0, *(column + 1 for column in first.text_columns)))

    def rows(self) -> tuple[str, Sequence[str], Sequence[Sequence[str]]]:
        headings = ("features", *next(iter(self.results.values())).rows()[1])
        return self.title, headings, [(name, *row) for name, result in self.results.items() for row in result.rows()[2]]

    def to_json(self) -> dict[str, Any]:
        """Each result's own JSON by its name."""
        return {name: result.to_json() for name, result in self.results.items()}


def compared(title: str, results: Mapping[str, Result]) -> Compared:
    """One table of several results.

    Args:
      title: above the table.
      results: name -> result; all of one kind, with the same columns.

    Raises:
      ValueError: no result, or results of different kinds.
    """
    return Compared(title, dict(results))
