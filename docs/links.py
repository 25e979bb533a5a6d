"""Keep the pages' links into the code true: ``python docs/links.py`` renews the line numbers of every link like

    [`regression_loss`](../byol_jax/method/loss.py#L12-L30)

in docs/*.md and README.md. The link's text names a function or class (``Class.method`` too), its numbers the lines it spans.
tests/test_docs.py fails where a number is old; a name that is gone must be mended by hand.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\[`(?P<name>[A-Za-z_][\w.]*)`\]\((?P<path>[\w./-]+\.py)#L(?P<first>\d+)(?:-L(?P<last>\d+))?\)")


def pages(root: Path = ROOT) -> list[Path]:
    """Every page whose links are kept."""
    return [*sorted((root / "docs").glob("*.md")), root / "README.md"]


def definitions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, int, int]]:
    """(dotted name, first line, last line) of every function and class under ``tree``, nested ones too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield prefix + node.name, node.lineno, node.end_lineno or node.lineno
            yield from definitions(node, prefix + node.name + ".")
        else:
            yield from definitions(node, prefix)


def span(source: Path, name: str) -> tuple[int, int]:
    """The lines of ``name`` in ``source``, from its def or class line to its last; ValueError unless it is there exactly once."""
    if not source.is_file():
        raise ValueError(f"{source}: no such file, but a page links to {name!r} in it")
    found = [(first, last) for dotted, first, last in definitions(ast.parse(source.read_text(encoding="utf-8"))) if dotted == name]
    if len(found) != 1:
        raise ValueError(f"{source}: {name!r} is defined {len(found)} times, and a link needs it exactly once")
    return found[0]


def renewed(text: str, folder: Path) -> str:
    """``text``, a page in ``folder``, with every link's numbers as the code has them now; ValueError lists every link that cannot be."""
    problems: list[str] = []

    def renew(match: re.Match[str]) -> str:
        try:
            first, last = span((folder / match["path"]).resolve(), match["name"])
        except ValueError as problem:
            problems.append(str(problem))
            return match[0]
        return f"[`{match['name']}`]({match['path']}#L{first}-L{last})"

    new = LINK.sub(renew, text)
    if problems:
        raise ValueError("\n".join(problems))
    return new


def main() -> None:
    """Renew every page, and say which changed."""
    for page in pages():
        old = page.read_text(encoding="utf-8")
        new = renewed(old, page.parent)
        if new != old:
            page.write_text(new, encoding="utf-8")
            print(f"renewed {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
