"""Adversarial views on the digits: accuracy on clean images. ``robust.py`` then measures the same runs under attack."""

from __future__ import annotations

from byol_jax.config.sweep import Point, Sweep
from experiments.paper.scales import narrow

RADIUS = 0.05  # of a pixel's range, 13/255
ADVERSARY = {"method.adversary.radius": RADIUS}
BESIDE = {**ADVERSARY, "method.adversary.weight": 0.5, "method.adversary.separate_statistics": True}

SWEEP = Sweep(
    title="Adversarial views",
    source="none for these data; the method is BYORL's",
    points=(
        Point("plain"),
        Point("one step", changes=ADVERSARY),
        Point("one step, beside clean views", changes=BESIDE),
        Point("three steps", changes={**ADVERSARY, "method.adversary.steps": 3}),
    ),
    scales={"small": narrow(32, 64)},
    metrics={"small": "linear"},
)
