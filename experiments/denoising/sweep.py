"""Pairs broken on purpose: a share of second views is of another image. Plain BYOL, the least trusted pairs dropped, a bounded loss."""

from __future__ import annotations

from typing import Any

from byol_jax.config.sweep import Point, Scale, Sweep

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
    scales={
        "small": Scale(
            "configs/digits.py",
            {
                "data.augment_on": "host",
                "data.on_device": False,
                "encoder.channels": (32, 64),
                "batch_size": 128,
                "epochs": 30,
                "method.tau": 0.99,
                "optimizer.warmup_epochs": 1.5,
                "evaluation.every_epochs": 30,
                "logging.every_steps": 56,
            },
            about="configs/digits.py with channels 32 and 64, tau 0.99, 30 epochs: 337 steps of 128 images of 16 x 16 pixels.",
        )
    },
    metrics={"small": "linear_10"},
)
