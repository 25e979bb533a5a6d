"""Weights out: a folder as model hubs want it, with weights, configuration and a card that says what is known, and no more."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from byol_jax.convert.export import to_safetensors
from byol_jax.convert.layers import Net
from byol_jax.convert.pytorch_code import pytorch_code
from byol_jax.convert.weights import ConvertError
from byol_jax.views import Views

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Story:
    """What a card tells beside the weights.

    Attributes:
      about: a sentence: what the encoder is and how it came to be.
      data: sentences on the training data.
      recipe: (key, value) of the training; empty where it is not known.
      assumed: sentences about what only seems so.
      tables: evaluations of this very checkpoint: title, headings, rows, about {"step"}, where (a phrase on the data).
      left_out: names of evaluations that are of another one.
      config: the run's configuration, for ``config.json``.
    """

    about: str
    data: str
    config: dict[str, Any]
    recipe: list[tuple[str, str]] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def check_target(folder: Path, licence: str) -> None:
    """Raises ConvertError for a folder with a card or a run in it, and for a licence that is no identifier."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        raise ConvertError(
            f"--licence {licence}: must be a hub's identifier in small letters, such as apache-2.0, mit, cc-by-nc-4.0 or other"
        )
    if folder.exists() and not folder.is_dir():
        raise ConvertError(f"{folder}: is a file; a hub wants a folder")
    if (folder / "checkpoints").exists():
        raise ConvertError(f"{folder}: there is a run in it; take another folder for the hub")
    if (folder / "README.md").exists():
        raise ConvertError(f"{folder}: there is a README.md in it already, maybe edited by hand; move it away, or take a new folder")


def to_hub(
    folder: str | Path, module: Any, variables: Any, *, views: Views, source: dict[str, Any], story: Story, licence: str = "other"
) -> list[Path]:
    """Writes ``model.safetensors``, ``model.preprocess.json``, ``config.json`` and ``README.md``, the card, into ``folder``.

    Args:
      module, variables, views, source: as for ``to_safetensors``.
      story: what the card tells.
      licence: a hub's identifier; "other" leaves a sentence that asks to choose.

    Returns:
      the four files, the card last.

    Raises:
      ConvertError: the folder has a card or a run in it, the licence is no identifier, or the encoder is no ResNet with batch norms.
    """
    folder = Path(folder)
    check_target(folder, licence)
    weights, sidecar = to_safetensors(folder / WEIGHTS, module, variables, views=views, source=source)
    config, card = folder / "config.json", folder / "README.md"
    config.write_text(json.dumps(story.config, indent=2) + "\n", encoding="utf-8")
    card.write_text(card_of(folder.resolve().name, Net.of(module), json.loads(sidecar.read_text()), story, licence), encoding="utf-8")
    return [weights, sidecar, config, card]


def card_of(name: str, net: Net, facts: dict[str, Any], story: Story, licence: str) -> str:
    """The text of the card."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["cell"] = lambda text: " ".join(str(text).replace("|", "\\|").split())
    code = pytorch_code(net, facts["padding"], WEIGHTS)
    text = environment.get_template("card.md").render(
        {**vars(story), "title": name, "name": name, "facts": facts, "code": code, "licence": licence, "width": net.channels[-1]}
    )
    return re.sub(r"\n{3,}(?![a-z])", "\n\n", text).strip() + "\n"
