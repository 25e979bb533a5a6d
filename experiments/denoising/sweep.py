"""Pairs broken on purpose: a share of second views is of another image. Plain BYOL, the least trusted pairs dropped, a bounded loss."""

from __future__ import annotations

from typing import Any

from byol_jax.config.sweep import Point, Sweep
from experiments.paper.scales import narrow

FUNCTIONS = {0: "clean", 10: "broken10", 20: "broken20", 40: "broken40"}
WARMUP = {"method.denoise.warmup_steps": 50}


def of(percent: int, name: str, changes: dict[str, Any]) -> Point:
    """A point at which so many pairs are broken."""
    function = {"views.function": f"experiments.denoising.broken:{FUNCTIONS[percent]}"}
    return Point(f"{percent}% broken, {name}", changes={**function, **changes})


def dropped(percent: int) -> tuple[str, dict[str, Any]]:
    return f"{percent}% dropped", {"method.denoise.share": percent / 100, **WARMUP}


PLAIN: tuple[str, dict[str, Any]] = ("plain", {})
BOUNDED: tuple[str, dict[str, Any]] = ("bounded, q = 1", {"method.denoise.bounded": 1.0})
POINTS = (
    *(of(0, *kind) for kind in (PLAIN, dropped(10), BOUNDED)),
    *(of(10, *kind) for kind in (PLAIN, dropped(10))),
    *(of(20, *kind) for kind in (PLAIN, dropped(20))),
    *(of(40, *kind) for kind in (PLAIN, dropped(40), BOUNDED)),
)

SWEEP = Sweep(
    title="False pairs",
    source="none; pairs are broken on purpose",
    points=POINTS,
    scales={"small": narrow(32, 64, {"data.augment_on": "host", "data.on_device": False})},
    metrics={"small": "linear_10"},
)
