"""The pictures of the report, each a matplotlib ``Figure`` (no pyplot: nothing global, no window)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, PercentFormatter

from byol_jax.report.history import Curve

# Told apart with any colour vision (Petroff 2021, arXiv 2107.02270). On the map each class has a marker, too.
COLOURS = ("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd")
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")
SAME, OTHER = COLOURS[0], COLOURS[6]  # blue and orange: right and wrong, for any colour vision
INK = "#222222"
STYLE: dict[Any, Any] = {
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "text.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "axes.axisbelow": True,
}

# A panel: title, label of the y axis, (metric, legend) pairs, and what the axis is: "", "log" or "share".
Panel = tuple[str, str, tuple[tuple[str, str], ...], str]
TRAINING: tuple[Panel, ...] = (
    ("Loss", "sum of both terms", (("loss", "training batches"), ("held_out_loss", "held-out examples")), ""),
    (
        "Prediction meets projection",
        "cosine",
        (("cosine_1", "view 1 predicts view 2"), ("cosine_2", "view 2 predicts view 1")),
        "",
    ),
    ("Learning rate", "learning rate", (("learning_rate", "learning rate"),), ""),
    ("Target decay", "tau", (("tau", "tau"),), ""),
    ("Gradient", "global norm", (("grad_norm", "gradient norm"),), "log"),
    ("Speed", "examples/s", (("examples_per_second", "examples/s"),), "zero"),
)
QUALITY: tuple[Panel, ...] = (
    ("Accuracy", "accuracy", (("knn_top1", "k-NN (test set)"), ("probe_top1", "online probe (training batches)")), "share"),
    ("Spread of the embeddings", "std × √D", (("embedding_std", "training batches"), ("features_std", "evaluation examples")), "zero"),
    ("Dimensions in use", "RankMe", (("rankme", "RankMe"),), "zero"),
)


def curves(found: dict[str, Curve], panels: Sequence[Panel]) -> Figure | None:
    """A panel for each of those whose metrics the run has; None if there is none."""
    shown = [panel for panel in panels if any(name in found for name, _ in panel[2])]
    if not shown:
        return None
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * columns, 2.9 * rows), layout=_layout(0.1))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax, panel in zip(axes, shown, strict=False):
            _panel(ax, found, panel)
        for ax in axes[len(shown) :]:
            ax.remove()
    return figure


def _panel(ax: Axes, found: dict[str, Curve], panel: Panel) -> None:
    title, label, series, kind = panel
    present = [(name, legend) for name, legend in series if name in found]
    for (name, legend), colour in zip(present, (COLOURS[0], COLOURS[6]), strict=False):
        curve = found[name]
        few = len(curve.steps) <= 40
        ax.plot(curve.steps, curve.values, color=colour, label=legend, marker="o" if few else None, markersize=3.5)
    ax.set(title=title, xlabel="step", ylabel=label)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.ticklabel_format(axis="y", useOffset=False) if kind != "log" else ax.set_yscale("log")
    if kind == "share":
        ax.set_ylim(0, 1)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if kind == "zero":
        ax.set_ylim(0, None)
    if len(series) > 1:
        ax.legend(fontsize=8.5)


def view_pairs(originals: np.ndarray, draws: Sequence[tuple[np.ndarray, np.ndarray]]) -> Figure:
    """A row for each image: the image, then the two views of each draw.

    Args:
      originals: [N, H, W, 3], uint8 or float in [0, 1].
      draws: pairs of [N, S, S, 3], float in [0, 1].
    """
    columns = 1 + 2 * len(draws)
    gaps = [1.0, *([0.12, 1.0, 1.0] * len(draws))]  # a narrow empty column before each pair
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.15 * columns + 0.14 * len(draws), 1.12 * len(originals) + 0.35), layout=_layout(0.02))
        axes = figure.subplots(len(originals), len(gaps), squeeze=False, gridspec_kw={"width_ratios": gaps})
        for row, ax_row in enumerate(axes):
            tiles: list[Any] = [originals[row]]
            for pair in draws:
                tiles += [None, pair[0][row], pair[1][row]]
            titles = ["image", *(["", "view 1", "view 2"] * len(draws))]
            for ax, tile, title in zip(ax_row, tiles, titles, strict=True):
                _tile(ax, tile)
                if row == 0:
                    ax.set_title(title, loc="center", fontsize=10, fontweight="normal")
    return figure


def embedding_map(points: np.ndarray, label: np.ndarray, names: Sequence[str] | None) -> Figure:
    """A scatter of 2-D points [N, 2], coloured by class; up to 30 classes with their names, each at its middle if there is room for all."""
    classes = [int(c) for c in np.unique(label) if c >= 0]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 6.6), layout="constrained")
        ax = figure.subplots()
        without = points[label < 0]
        if len(without):
            ax.scatter(without[:, 0], without[:, 1], s=9, color="#888888", linewidths=0, label="no label")
        for i, c in enumerate(classes):
            at = points[label == c]
            marker = MARKERS[i % len(MARKERS)]
            ax.scatter(
                at[:, 0],
                at[:, 1],
                s=26 if len(points) < 800 else 13,
                color=COLOURS[i % len(COLOURS)],
                marker=marker,
                alpha=0.75,
                linewidths=0,
                label=names[c] if names else str(c),
            )
        ax.set_aspect("equal", adjustable="datalim")
        ax.set(xticks=[], yticks=[], xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)")
        ax.grid(visible=False)
        if len(classes) <= 30:
            _name_classes(figure, ax, [(names[c] if names else str(c), _middle(points[label == c])) for c in classes])
    return figure


def neighbours(
    queries: np.ndarray,
    found: np.ndarray,
    cosine: np.ndarray,
    same: np.ndarray | None,
    captions: tuple[list[str], list[list[str]]],
    *,
    digits: int = 2,
) -> Figure:
    """A row for each query: the image, then its nearest neighbours.

    Args:
      queries: [M, H, W, 3]. found: [M, K, H, W, 3].
      cosine: [M, K].
      same: bool [M, K], whether the neighbour is of the query's class (its frame is blue, else orange and dashed); None: no frames.
      captions: names of the queries' and of the neighbours' classes ("" for none).
      digits: of a cosine.
    """
    gaps = [1.0, 0.18, *([1.0] * found.shape[1])]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.15 * (1 + found.shape[1]) + 0.2, 1.42 * len(queries) + 0.3), layout=_layout(0.03))
        axes = figure.subplots(len(queries), len(gaps), squeeze=False, gridspec_kw={"width_ratios": gaps})
        for row, ax_row in enumerate(axes):
            _tile(ax_row[0], queries[row])
            _tile(ax_row[1], None)
            ax_row[0].set_xlabel(captions[0][row], fontsize=9, fontweight="bold", labelpad=3)
            for k, ax in enumerate(ax_row[2:]):
                _tile(ax, found[row, k])
                ax.set_xlabel(f"{captions[1][row][k]}  {cosine[row, k]:.{digits}f}".strip(), fontsize=8.5, labelpad=3)
                if same is not None:
                    _frame(ax, good=bool(same[row, k]))
        axes[0, 0].set_title("query", loc="center", fontsize=10, fontweight="normal")
        axes[0, 2].set_title("nearest first", loc="left", fontsize=10, fontweight="normal")
    return figure


def _layout(pad: float) -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=pad, h_pad=pad, wspace=0.0, hspace=0.0)


def _tile(ax: Axes, image: np.ndarray | None) -> None:
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    if image is None:
        ax.set_facecolor("none")
    else:
        ax.imshow(image, interpolation="nearest")


def _frame(ax: Axes, *, good: bool) -> None:
    ax.spines[:].set_visible(True)
    for spine in ax.spines.values():
        spine.set(color=SAME if good else OTHER, linewidth=2.2, linestyle="-" if good else (0, (2.2, 1.2)))


def _middle(points: np.ndarray) -> np.ndarray:
    """The point nearest to the coordinates' medians: a name placed there always lies on its class."""
    return points[np.square(points - np.median(points, 0)).sum(1).argmin()]


def _name_classes(figure: Figure, ax: Axes, places: Sequence[tuple[str, np.ndarray]]) -> None:
    """Each name at its place; all of them in a legend if some would lie on each other."""
    halo = [withStroke(linewidth=4, foreground="white")]
    options: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 13, "fontweight": "bold", "path_effects": halo}
    written = [ax.text(at[0], at[1], name, **options) for name, at in places]
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in written]
    if any(box.overlaps(other) for i, box in enumerate(boxes) for other in boxes[:i]):
        for text in written:
            text.remove()
        figure.legend(loc="outside right upper", fontsize=9, markerscale=1.5)
