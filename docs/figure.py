"""Draw the figure of the method pages: ``python docs/figure.py`` writes docs/method.svg and docs/method.png; other file names may follow.

Everything in it is drawn here, the little picture x and its two views too, so it can be changed and redrawn by anyone.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

INK, MUTED = "#1f2933", "#66727f"
ONLINE, TARGET, EMA = "#0b6bb8", "#7a8794", "#c2571a"  # blue, grey, orange: told apart without colour vision too
FILL_ONLINE, FILL_TARGET, FILL_LOSS = "#dcecf9", "#e9edf0", "#fff4d6"
TOP, BOTTOM = 4.15, 1.45  # height of the two networks' axes, in the figure's units
STYLE = {
    "font.family": "DejaVu Sans",
    "mathtext.fontset": "dejavuserif",
    "svg.fonttype": "path",  # letters as outlines: the same picture on every machine
    "svg.hashsalt": "byol_jax",  # the same file on every run
}


def picture(size: int = 120) -> np.ndarray:
    """A small landscape, float [size, size, 3] in [0, 1]: something that a crop and a change of colour leave recognisable."""
    y, x = np.mgrid[0:size, 0:size] / (size - 1)
    image = np.stack([0.55 + 0.35 * y, 0.75 + 0.15 * y, 0.95 - 0.1 * y], axis=-1)
    image[(x - 0.76) ** 2 + (y - 0.22) ** 2 < 0.011] = (1.0, 0.80, 0.25)
    far = 0.52 + 0.20 * np.abs(((x * 1.9 + 0.05) % 1) - 0.5)
    image[y > far] = (0.45, 0.55, 0.72)
    near = 0.70 + 0.05 * np.sin(5.0 * x)
    image[y > near] = (0.36, 0.62, 0.34)
    wall = (np.abs(x - 0.36) < 0.12) & (y > 0.62) & (y < 0.83)
    roof = (y > 0.49) & (y <= 0.62) & (np.abs(x - 0.36) < 0.17 * (y - 0.49) / 0.13)
    door = (np.abs(x - 0.36) < 0.033) & (y > 0.71) & (y < 0.83)
    image[wall], image[roof], image[door] = (0.97, 0.93, 0.85), (0.78, 0.25, 0.20), (0.40, 0.27, 0.20)
    return image


def views(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two views of the picture: a flipped crop with other colours, and a gray, brighter crop."""
    size = len(image)
    first = image[int(0.34 * size) : int(0.94 * size), int(0.08 * size) : int(0.68 * size)][:, ::-1]
    second = image[int(0.10 * size) : int(0.88 * size), int(0.18 * size) : int(0.96 * size)]
    gray = second @ np.array([0.2989, 0.5870, 0.1140])
    return np.clip(first[..., [1, 2, 0]] * 0.95, 0, 1), np.repeat(np.clip(1.25 * gray - 0.1, 0, 1)[..., None], 3, axis=-1)


def show(ax: Axes, image: np.ndarray, centre: tuple[float, float], side: float) -> None:
    """Put an image on the axes, framed."""
    x, y = centre
    edges = (x - side / 2, x + side / 2, y - side / 2, y + side / 2)
    ax.imshow(image, extent=edges, interpolation="nearest", zorder=3)
    ax.plot(
        [edges[0], edges[1], edges[1], edges[0], edges[0]], [edges[2], edges[2], edges[3], edges[3], edges[2]], color=INK, lw=1.0, zorder=4
    )


def box(ax: Axes, centre: tuple[float, float], size: tuple[float, float], **style: object) -> None:
    """A rounded box; ``style`` goes to the patch."""
    corner = (centre[0] - size[0] / 2, centre[1] - size[1] / 2)
    patch = FancyBboxPatch(corner, *size, boxstyle="round,pad=0,rounding_size=0.12", zorder=3, **style)  # type: ignore[arg-type]
    ax.add_patch(patch)


def block(ax: Axes, centre: tuple[float, float], text: str, name: str, *, online: bool) -> None:
    """One part of a network: its symbol, and under it its name."""
    (x, y), edge, fill = centre, ONLINE if online else TARGET, FILL_ONLINE if online else FILL_TARGET
    box(ax, (x, y), (1.04, 0.94), fc=fill, ec=edge, lw=1.8)
    ax.text(x, y + 0.10, text, ha="center", va="center", fontsize=19, color=INK, zorder=4)
    ax.text(x, y - 0.29, name, ha="center", va="center", fontsize=9.5, color=INK, zorder=4)


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], **style: object) -> None:
    """An arrow from start to end; ``style`` goes to the patch."""
    options: dict = {"arrowstyle": "-|>", "mutation_scale": 14, "lw": 1.6, "color": INK, "shrinkA": 0, "shrinkB": 0, "zorder": 2}
    ax.add_patch(FancyArrowPatch(start, end, **{**options, **style}))


def symbol(ax: Axes, x: float, y: float, text: str, name: str) -> None:
    """What an arrow carries: its symbol above, its name below."""
    ax.text(x, y + 0.13, text, ha="center", va="bottom", fontsize=14.5, color=INK)
    ax.text(x, y - 0.13, name, ha="center", va="top", fontsize=9.5, color=MUTED, linespacing=1.35)


def inputs(ax: Axes) -> None:
    """x, the two augmentations, and the two views."""
    image, middle = picture(), (TOP + BOTTOM) / 2
    first, second = views(image)
    show(ax, image, (0.85, middle), 1.3)
    ax.text(0.55, middle - 0.78, "image $x$", ha="center", va="top", fontsize=11, color=INK)
    for y, view, draw, name in (
        (TOP, first, r"$t\sim\mathcal{T}$", "view $v$"),
        (BOTTOM, second, r"$t'\sim\mathcal{T}^{\,\prime}$", "view $v'$"),
    ):
        side = 1 if y > middle else -1
        arrow(ax, (1.1, middle + side * 0.65), (2.1, y), connectionstyle=f"arc3,rad={-0.25 * side}")
        ax.text(0.95, middle + side * 1.25, draw, ha="center", va="center", fontsize=14, color=INK)
        show(ax, view, (2.65, y), 1.06)
        ax.text(2.65, y + side * 0.72, name, ha="center", va="center", fontsize=11, color=INK)


def networks(ax: Axes) -> None:
    """The online network above, the target network below, and what flows through them."""
    columns = (4.15, 6.35, 8.55)
    for y, letter, prime, online in ((TOP, r"\theta", "", True), (BOTTOM, r"\xi", r"^{\prime}", False)):
        arrow(ax, (3.2, y), (columns[0] - 0.54, y))
        block(ax, (columns[0], y), rf"$f_{{{letter}}}$", "encoder", online=online)
        arrow(ax, (columns[0] + 0.52, y), (columns[1] - 0.54, y))
        symbol(ax, (columns[0] + columns[1]) / 2, y, rf"$y{prime}_{{{letter}}}$", "embedding" + ("\n(kept)" if online else ""))
        block(ax, (columns[1], y), rf"$g_{{{letter}}}$", "projector", online=online)
        if online:
            arrow(ax, (columns[1] + 0.52, y), (columns[2] - 0.54, y))
        symbol(ax, (columns[1] + columns[2]) / 2, y, rf"$z{prime}_{{{letter}}}$", "projection")
    block(ax, (columns[2], TOP), r"$q_{\theta}$", "predictor", online=True)
    symbol(ax, 9.72, TOP, r"$q_{\theta}(z_{\theta})$", "prediction")
    ax.text(3.63, TOP + 1.02, "online network", fontsize=12.5, weight="bold", color=ONLINE, va="center")
    ax.text(5.42, TOP + 1.02, r"its parameters $\theta$ are trained by gradient", fontsize=10.5, color=INK, va="center")
    ax.text(3.63, BOTTOM - 0.98, "target network", fontsize=12.5, weight="bold", color=MUTED, va="center")
    ax.text(5.42, BOTTOM - 0.98, r"its parameters $\xi$ follow $\theta$; no gradient reaches them", fontsize=10.5, color=INK, va="center")


def averages(ax: Axes) -> None:
    """The moving average, from online to target, for encoder and projector."""
    for x in (4.15, 6.35):
        arrow(ax, (x, TOP - 0.5), (x, BOTTOM + 0.5), color=EMA, lw=2.0, linestyle=(0, (5, 2.5)), mutation_scale=17)
    ax.text(5.25, 2.98, "moving average", ha="center", va="center", fontsize=10.5, color=EMA)
    ax.text(5.25, 2.62, r"$\xi\leftarrow\tau\xi+(1-\tau)\theta$", ha="center", va="center", fontsize=12.5, color=EMA)


def loss(ax: Axes) -> None:
    """The two ends meet: the loss, the stop-gradient, and the way the gradient goes."""
    middle = (TOP + BOTTOM) / 2
    box(ax, (10.95, middle), (2.66, 1.24), fc=FILL_LOSS, ec=INK, lw=1.4)
    ax.text(10.95, middle + 0.27, "loss", ha="center", va="center", fontsize=10.5, color=INK, zorder=4)
    ax.text(
        10.95,
        middle - 0.15,
        r"$2-2\,\cos\left(q_{\theta}(z_{\theta}),\,z^{\prime}_{\xi}\right)$",
        ha="center",
        va="center",
        fontsize=13,
        color=INK,
        zorder=4,
    )
    for y, start, end in ((TOP, 9.07, middle + 0.64), (BOTTOM, 6.87, middle - 0.64)):
        arrow(ax, (start, y), (10.95, end), connectionstyle="angle,angleA=0,angleB=90,rad=8")
    for x in (9.42, 9.54):
        ax.plot([x, x + 0.12], [BOTTOM - 0.26, BOTTOM + 0.26], color="#b3261e", lw=2.6, zorder=5)
    ax.text(9.54, BOTTOM - 0.40, "stop-gradient", ha="center", va="top", fontsize=10.5, color="#b3261e")
    ax.text(10.95, BOTTOM - 0.98, r"+ the same with $v$ and $v'$ swapped", ha="center", va="center", fontsize=10.5, color=INK)
    arrow(ax, (11.25, middle + 0.66), (9.2, TOP + 0.62), color=ONLINE, lw=2.0, connectionstyle="angle,angleA=90,angleB=180,rad=8")
    ax.text(10.3, TOP + 0.78, "gradient", ha="center", va="center", fontsize=10.5, color=ONLINE)


def draw() -> Figure:
    """The whole figure."""
    figure = Figure(figsize=(12.5, 5.3))
    ax = figure.add_axes((0, 0, 1, 1))
    inputs(ax)
    networks(ax)
    averages(ax)
    loss(ax)
    ax.set(xlim=(0, 12.5), ylim=(0.15, 5.45), aspect="equal")
    ax.axis("off")
    return figure


def main(path: Path) -> None:
    """Draw and write the figure."""
    with mpl.rc_context(STYLE):
        metadata = {"Date": None} if path.suffix == ".svg" else None
        draw().savefig(path, facecolor="white", metadata=metadata, dpi=160)


if __name__ == "__main__":
    here = Path(__file__)
    for file in sys.argv[1:] or [here.with_name("method.svg"), here.with_name("method.png")]:
        main(Path(file))
