"""``write_report``: one self-contained HTML page, and its pictures beside it."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from byol_jax.data import spread
from byol_jax.evaluate.encoder import Encoder
from byol_jax.evaluate.features import features
from byol_jax.report import history, pictures, plots
from byol_jax.report.kinds import KINDS, Shown
from byol_jax.report.texts import Table
from byol_jax.views import TextViews, Views
from byol_jax.workdir import folder as run_folder

CAPTIONS = {
    "quality": (
        "What the embedding is worth",
        "Accuracy of classifiers on the frozen embedding, and the signs of a collapse: a spread or dimensions in use that fall towards 0.",
    ),
    "training": (
        "Training",
        "The loss is the sum of both terms, 2 - 2 cos each: 0 where every prediction meets its projection, 4 for unrelated directions.",
    ),
    "views": ("Views", "{kind[views]}"),
    "map": (
        "Map of the embeddings",
        "t-SNE of {examples:,} embeddings, l2-normalised. Colours and names are labels the encoder never saw.",
    ),
    "neighbours": ("Nearest neighbours", "{kind[neighbours]}"),
}


def write_report(
    workdir: str | os.PathLike[str],
    encoder: Encoder,
    source: Any,
    views: Views | TextViews | None,
    *,
    test: Any = None,
    examples: int = 2000,
    bank: int = 10_000,
    seed: int = 0,
) -> Any:
    """Writes ``workdir/report/index.html`` and its PNGs.

    The page stands alone: pictures are embedded, nothing is fetched. Sections whose material the run lacks are left out; of texts, views
    and neighbours are shown if the source has the ``tokenizer`` that made the tokens.

    Args:
      workdir: of the run: ``metrics.jsonl``, and if they are there ``evaluation/*.json`` and ``config.json``.
      encoder: the frozen encoder.
      source: training examples, among which neighbours are looked for.
      views: recipe whose views are shown; None leaves them out (views of your own function).
      test: examples for the map, and queries for neighbours; None takes them from ``source``.
      examples: how many embeddings the map shows at most.
      bank: among how many training examples neighbours are looked for at most.
      seed: of everything drawn at random.

    Returns:
      Path of the page.
    """
    run = run_folder(workdir)
    found = history.read_metrics(run)
    shown = source if test is None else test
    names = getattr(source, "class_names", None)
    sample, kept = spread(shown, examples), spread(source, bank)
    asked = kept if test is None or test is source else sample  # the same object where both are one source: a query must not find itself
    kind = KINDS[encoder.views.content]
    material: dict[str, Shown] = {
        "quality": plots.curves(found, plots.QUALITY),
        "training": plots.curves(found, plots.TRAINING),
        "views": None if views is None else kind.views(source, views, seed),
        "map": pictures.embedding_map(features(encoder, sample, max_bad_share=1.0), names, seed=seed),
        "neighbours": kind.neighbours(encoder, asked, kept, features(encoder, kept, max_bad_share=1.0), names, seed=seed),
    }
    folder = run / "report"
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"examples": len(sample), "kind": kind.captions}
    sections = [_section(folder, name, shown, facts) for name, shown in material.items() if shown is not None]
    page = _template().render(
        title=run.resolve().name,
        headlines=history.headlines(found),
        sections=sections,
        tables=history.read_evaluations(run),
        config=history.read_config(run),
    )
    path = folder / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def _section(folder: Any, name: str, shown: Figure | Table, facts: dict[str, Any]) -> dict[str, Any]:
    """What the template needs of it; a picture is saved, too."""
    heading, caption = CAPTIONS[name]
    section = {"name": name, "heading": heading, "caption": caption.format(**facts)}
    if isinstance(shown, Table):
        return {**section, "table": shown}
    buffer = io.BytesIO()
    shown.savefig(buffer, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    (folder / f"{name}.png").write_bytes(buffer.getvalue())
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return {**section, "table": None, "uri": uri, "width": round(shown.get_figwidth() * 100)}


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("page.html")
