"""The house as a test: who may import whom, and how long a file or a function may get."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "byol_jax"
FILES = sorted(PACKAGE.rglob("*.py"))

# A room may import rooms of a lower layer, itself, and (in the layers named here) its neighbours.
LAYERS = [
    {"views", "workdir"},
    {"method", "models", "augment", "data", "parallel"},
    {"checkpoint", "compress", "convert", "evaluate", "report"},
    {"train"},
    {"config", "build", "bench", "plan"},
    {"serve"},
    {"flags", "cli", "__main__"},
]
NEIGHBOURS_MEET = (2, 4, 6)
LAYER_OF = {room: layer for layer, rooms in enumerate(LAYERS) for room in rooms}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Yields (line, absolute dotted name) of everything imported, wherever in the file it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


@functools.cache
def edges(path: Path) -> list[tuple[int, str]]:
    package = ".".join(path.relative_to(ROOT).parent.parts)
    return list(imports(ast.parse(path.read_text()), package))


def uses(path: Path, library: str) -> list[int]:
    return [line for line, name in edges(path) if name == library or name.startswith(library + ".")]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    layer = LAYER_OF[room]
    for line, name in edges(path):
        if not name.startswith("byol_jax."):
            continue
        other = name.split(".")[1]
        if other == room or other not in LAYER_OF:
            continue
        below = LAYER_OF[other] < layer
        beside = LAYER_OF[other] == layer and layer in NEIGHBOURS_MEET
        assert below or beside, f"{path}:{line}: {room} may not import {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_each_library_stays_in_its_room(path: Path) -> None:
    room = room_of(path)
    where = str(path.relative_to(ROOT))
    assert not uses(path, "jax._src"), where
    if room != "data":
        assert not uses(path, "tensorflow") + uses(path, "tensorflow_datasets"), f"{where}: only data/ knows TensorFlow"
    if room in ("data", "views", "config"):
        assert not uses(path, "jax") + uses(path, "flax") + uses(path, "optax"), f"{where} must not know JAX"
    if room != "checkpoint":
        assert not uses(path, "orbax"), f"{where}: only checkpoint.py knows orbax"
    if room != "serve":
        libraries = ("fastapi", "starlette", "uvicorn", "prometheus_client", "python_multipart")
        assert not any(uses(path, library) for library in libraries), f"{where}: only serve/ knows HTTP"
    if room not in ("cli", "flags"):
        assert not uses(path, "argparse") + uses(path, "absl.flags"), f"{where}: flags belong to the cli"
    if room == "method":
        outside = {name.split(".")[0] for _, name in edges(path)} - {"jax", "flax", "optax", "chex", "byol_jax"} - sys.stdlib_module_names
        assert not outside, f"{where}: method/ is jax, flax and optax only, not {outside}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= (80 if path == PACKAGE / "__init__.py" else 300)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 80, f"{path}:{node.lineno}: {node.name} has {length} lines"


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import byol_jax, byol_jax.method, byol_jax.models, byol_jax.augment, byol_jax.train, byol_jax.data", "tensorflow"),
        ("import byol_jax.bench", "tensorflow"),
        ("import byol_jax.config", "jax"),
        ("import byol_jax.cli", "jax"),
        ("import byol_jax.build, byol_jax.serve", "fastapi"),
    ],
)
def test_what_an_import_does_not_bring(statement: str, absent: str) -> None:
    code = f"{statement}; import sys; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120).returncode == 0


def test_the_rules_catch_an_upward_import(tmp_path: Path) -> None:
    tree = ast.parse("from ..train import loop\nfrom byol_jax import build\nimport byol_jax.cli\nfrom . import step\n")
    names = [name for _, name in imports(tree, "byol_jax.method")]
    assert names == ["byol_jax.train.loop", "byol_jax.build", "byol_jax.cli", "byol_jax.method.step"]
