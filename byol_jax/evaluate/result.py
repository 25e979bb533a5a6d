"""What every evaluation returns: a result that prints itself and can be kept as JSON beside the run."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich import box
from rich.console import Console
from rich.table import Table

from byol_jax.workdir import folder, write_text


@dataclass(frozen=True)
class Result:
    """Base of the result dataclasses. Accuracies are shares in [0, 1]; tables show per cent."""

    text_columns: ClassVar[tuple[int, ...]] = (0,)  # set flush left; numbers are set flush right

    def rows(self) -> tuple[str, Sequence[str], Sequence[Sequence[str]]]:
        """Title, column headings and cells of the table."""
        raise TypeError(f"{type(self).__name__} has no table")

    def rich(self) -> Table:
        """The table, without its title, for a rich console."""
        _, headings, cells = self.rows()
        table = Table(box=box.SIMPLE_HEAD)
        for i, heading in enumerate(headings):
            table.add_column(heading, justify="left" if i in self.text_columns else "right", no_wrap=True)
        for row in cells:
            table.add_row(*row)
        return table

    def table(self) -> str:
        """Title and table as plain text."""
        out = io.StringIO()
        Console(file=out, width=140, color_system=None).print(self.rich())
        lines = [line.rstrip() for line in out.getvalue().splitlines()]
        return "\n".join([self.rows()[0], *(line for line in lines if line)])

    def to_json(self) -> dict[str, Any]:
        """The result as JSON-ready data (keys of mappings become text)."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def percent(share: float) -> str:
    """``0.98765 -> "98.8"``."""
    return f"{100 * share:.1f}"


def save(workdir: str | os.PathLike[str], name: str, result: Result, about: dict[str, Any] | None = None) -> Any:
    """Writes ``workdir/evaluation/<name>.json`` (whole or not at all) and returns its path.

    Args:
      about: on what it was measured, as JSON: the step, the data.
    """
    path = folder(workdir) / "evaluation" / f"{name}.json"
    title, headings, cells = result.rows()
    content = {
        "title": title,
        "headings": list(headings),
        "rows": [list(row) for row in cells],
        "text_columns": list(result.text_columns),
        "result": result.to_json(),
        **({"about": about} if about else {}),
    }
    write_text(path, json.dumps(content, indent=1) + "\n")
    return path
