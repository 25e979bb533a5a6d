"""The pages' links into the code are true, the two languages say the same, and the figure draws."""

from __future__ import annotations

import importlib.util
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def load(name: str) -> ModuleType:
    """A script of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


links = load("links")
PAGES = links.pages()
METHOD = [DOCS / "method.md", DOCS / "method.zh.md"]


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_starts_at_the_definition_it_names(page: Path) -> None:
    for match in links.LINK.finditer(read(page)):
        lines = read(page.parent / match["path"]).splitlines()
        line, name = lines[int(match["first"]) - 1], match["name"].split(".")[-1]
        assert re.match(rf"\s*(def|class) {name}\b", line), f"{page.name}: {match[0]} points at {line!r}: run `python docs/links.py`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_link_is_out_of_date(page: Path) -> None:
    assert links.renewed(read(page), page.parent) == read(page), f"{page.name} is out of date: run `python docs/links.py`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", read(page)) + re.findall(
        r'(?:src|href)="(?!https?://|#)([^"#]+)', read(page)
    )
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_no_link_into_code_escapes_the_check() -> None:
    for page in METHOD:
        text = read(page)
        assert len(links.LINK.findall(text)) >= 10
        assert len(links.LINK.findall(text)) == text.count(".py#"), (
            f"{page.name}: a link into code is not of the form that docs/links.py knows"
        )


def test_both_languages_have_the_same_links_formulas_and_numbers() -> None:
    english, chinese = (read(page) for page in METHOD)
    assert links.LINK.findall(english) == links.LINK.findall(chinese)
    formula = re.compile(r"\$([^$]+)\$")
    assert sorted(set(formula.findall(english))) == sorted(set(formula.findall(chinese)))
    number = re.compile(r"(?<![\w.])\d+\.\d+(?!\w|\.\d)")
    assert sorted(number.findall(english)) == sorted(number.findall(chinese))


@pytest.mark.parametrize("page", METHOD, ids=lambda page: page.name)
def test_formulas_are_set_where_github_renders_them(page: Path) -> None:
    """GitHub wants a space before a formula and no letter after it (Chinese ones count); a bar would end the table's cell."""
    text = read(page)
    for match in re.finditer(r"\$([^$]+)\$", text):
        assert text[match.start() - 1].isspace(), match[0]
        assert not text[match.end()].isalnum(), match[0]
        assert "|" not in match[0]
        assert match[1] == match[1].strip()


def test_a_moved_definition_is_found_again_and_a_lost_one_is_named(tmp_path: Path) -> None:
    source = tmp_path / "code.py"
    source.write_text("import os\n\n\nclass A:\n    def run(self):\n        return os\n\n\ndef run():\n    return 1\n", encoding="utf-8")
    text = "[`A.run`](code.py#L1) and [`run`](code.py#L2-L3)"
    assert links.renewed(text, tmp_path) == "[`A.run`](code.py#L5-L6) and [`run`](code.py#L9-L10)"
    with pytest.raises(ValueError, match=r"'walk' is defined 0 times.*(\n.*)*no such file"):
        links.renewed("[`walk`](code.py#L1) [`run`](gone.py#L1)", tmp_path)


def test_the_figure_draws_and_is_the_same_each_time(tmp_path: Path) -> None:
    figure = load("figure")
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    figure.main(first)
    figure.main(second)
    assert first.read_bytes() == second.read_bytes()
    root = ElementTree.parse(DOCS / "method.svg").getroot()
    assert ElementTree.parse(first).getroot().attrib["viewBox"] == root.attrib["viewBox"]
