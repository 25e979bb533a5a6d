"""Adversarial views on the digits: accuracy on clean images. ``robust.py`` then measures the same runs under attack."""

from __future__ import annotations

from byol_jax.config.sweep import Point, Scale, Sweep

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
    scales={
        "small": Scale(
            "configs/digits.py",
            {
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
    metrics={"small": "linear"},
)
