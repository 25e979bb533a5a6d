"""What the card of a run can truly say: its data, its recipe, and the numbers that were measured on this very checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from byol_jax.build.kept import ORIGIN, read_spec
from byol_jax.config import Spec, flat, to_json
from byol_jax.convert.hub import Story
from byol_jax.workdir import folder

RECIPE = [
    *("epochs", "steps", "batch_size", "seed", "views.preset", "views.size", "encoder.dtype"),
    *("method.loss", "method.normalization", "method.target", "method.beta", "method.tau", "method.tau_schedule"),
    *(f"method.{head}.{key}" for head in ("projector", "predictor") for key in ("layers", "hidden", "out")),
    *(f"optimizer.{key}" for key in ("name", "learning_rate", "weight_decay", "warmup_epochs", "warmup_steps")),
]
PATHS = ("path", "test_path")


def story_of(workdir: Any, step: int) -> Story:
    """The story of the checkpoint at ``step`` of a run, trained here or converted."""
    spec = read_spec(workdir)
    origin = _read(folder(workdir) / ORIGIN)
    tables, left_out = measured(folder(workdir), step)
    encoder = f"A {spec.encoder.name} encoder" + (f" of width {spec.encoder.width}" if spec.encoder.width > 1 else "")
    shared: dict[str, Any] = {"config": public(spec), "tables": tables, "left_out": left_out, "assumed": origin.get("assumed", [])}
    if origin.get("format") == "torch":
        about = f"{encoder}, converted from `{origin['file']}` (PyTorch); its licence holds here too."
        return Story(about, "Not known: the weights came from another code.", **shared)
    about = f"{encoder}, trained without labels by BYOL ([arXiv 2006.07733](https://arxiv.org/abs/2006.07733))."
    recipe = [("step of this checkpoint", f"{step:,}"), *_recipe(spec)]
    if not origin:
        return Story(about, f"Trained on {data_of(spec)}.", recipe=recipe, **shared)
    if origin.get("format") == "byol_jax":
        about += f" Compressed afterwards ({origin['kind']})."
        return Story(about, f"Trained on {data_of(spec)}.", recipe=recipe, **shared)
    about += f" Converted from `{origin['file']}` ({origin['format']}, {origin['kind']}); its licence holds here too."
    return Story(about, "As the official code's runs: see what is assumed below.", recipe=recipe, **shared)


def public(spec: Spec) -> dict[str, Any]:
    """The configuration, with the folders of this machine cut from its paths."""
    tree = json.loads(to_json(spec))
    for key in PATHS:
        tree["data"][key] = tree["data"][key] and Path(tree["data"][key]).name
    return tree


def data_of(spec: Spec) -> str:
    """The training data in words."""
    data = spec.data
    where = data.name or (Path(data.path).name if data.path else "")
    return f"`{data.source}`" + (f" `{where}`" if where else "") + f", split `{data.split}`"


def _recipe(spec: Spec) -> list[tuple[str, str]]:
    values = flat(spec)
    return [(key, _text(values[key])) for key in RECIPE if values[key] is not None]


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def measured(workdir: Path, step: int) -> tuple[list[dict[str, Any]], list[str]]:
    """(the tables in ``evaluation/`` that say they are of this step, the names of the others)."""
    from byol_jax.report.history import read_evaluations

    found = read_evaluations(workdir)
    ours = [table for table in found if table.get("about", {}).get("step") == step]
    return [table | {"where": _where(table["about"]["data"])} for table in ours], [t["name"] for t in found if t not in ours]


def _where(data: dict[str, Any]) -> str:
    name = data["name"] or (data["path"] and Path(data["path"]).name)
    splits = [data["labelled_split"] or data["split"], *([data["test_split"]] if data["test_split"] else [])]
    return f"data `{data['source']}`" + (f" `{name}`" if name else "") + ", splits " + ", ".join(f"`{split}`" for split in splits)


def _read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
