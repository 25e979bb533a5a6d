"""What was compiled once is not compiled again: one JSON file a plan, under a digest of everything that shapes it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from byol_jax.build import objects
from byol_jax.build.kept import read_spec
from byol_jax.config import Spec, digest
from byol_jax.config.rules import is_own
from byol_jax.plan.compile import Compiled, versions
from byol_jax.plan.inputs import Inputs
from byol_jax.plan.topology import Topology
from byol_jax.workdir import write_text

FOLDER = "~/.cache/byol_jax/plan"
PACKAGE = Path(__file__).parents[1]
SHAPING = (
    "method",
    "models",
    "augment",
    "views.py",
    "parallel.py",
    "train/resident.py",
    "train/start.py",
    "build/methods.py",
    "build/objects.py",
    "build/texts.py",
    "plan/compile.py",
    "plan/hlo.py",
    "plan/kernels.py",
    "plan/products.py",
)


def key(spec: Spec, topology: Topology, inputs: Inputs) -> dict[str, Any]:
    """Everything that the result of ``compile_step`` depends on; plain values."""
    networks = _networks(spec)
    batch = {name: [list(row), str(dtype)] for name, (row, dtype) in inputs.batch.items()}
    return {
        "config": [digest(one) for one in networks],
        # Of texts these come from the tokenizer and the model's folder, too.
        "encoder": [_plain_fields(objects.encoder(one)) for one in networks],
        "free": [spec.encoder.remat, spec.optimizer.shard_state],  # not in the digest: the training ends the same
        "topology": topology.name,
        "chip": topology.chip.name,
        "classes": inputs.classes,
        "examples": inputs.examples,
        "batch": batch,
        "held": inputs.held,
        "versions": versions(topology),
        "source": source_digest(),
    }


def _networks(spec: Spec) -> list[Spec]:
    """The run's configuration, and its teacher's: the first has no more of it than the name of a folder."""
    teacher = spec.method.teacher.workdir
    return [spec] if teacher is None else [spec, read_spec(teacher)]


def _plain_fields(module: Any) -> dict[str, Any]:
    """Numbers and names that the module was made with."""
    found = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
    return {name: value for name, value in found.items() if isinstance(value, int | float | str)}


def source_digest() -> str:
    """Of the package's code that a step is made by."""
    total = hashlib.sha256()
    for part in SHAPING:
        path = PACKAGE / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            total.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0" + file.read_bytes())
    return total.hexdigest()[:12]


def place(folder: str | os.PathLike[str], spec: Spec, known: dict[str, Any]) -> Path | None:
    """The file of a plan; None for a network, loss or views of the user's own, whose code no digest here sees."""
    names = [spec.method.loss, spec.views.function, *(one.encoder.name for one in _networks(spec))]
    if any(name and is_own(name) for name in names):
        return None
    name = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]
    return Path(folder).expanduser() / f"{name}.json"


def load(file: Path | None) -> Compiled | None:
    """What was compiled before; None if nothing was, or the file is no such thing any more."""
    if file is None or not file.is_file():
        return None
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))["compiled"]
        return Compiled(**kept | {"strangers": tuple(kept["strangers"])})
    except (ValueError, KeyError, TypeError):
        return None


def save(file: Path | None, known: dict[str, Any], compiled: Compiled) -> None:
    """Whole or not at all."""
    if file is not None:
        write_text(file, json.dumps({**known, "compiled": dataclasses.asdict(compiled)}) + "\n")
