"""The scales of the sweeps here: the paper's ablations (Appendix F), and small ones for two CPU cores."""

from __future__ import annotations

import dataclasses

from byol_jax.config.sweep import Changes, Scale

PAPER = Scale(
    "configs/imagenet.py:e300",
    about="ResNet-50 on ImageNet, 300 epochs, batch 4096, 3 seeds (paper, Appendix F); about 64 TPU v3 cores a run there.",
)
SMALL_RATE = 4.4  # of configs/digits.py
SMALL = Scale(
    "configs/digits.py",
    {
        "batch_size": 128,
        "epochs": 30,
        "method.tau": 0.99,  # the paper's, in its ablations
        "optimizer.warmup_epochs": 1.5,
        "evaluation.every_epochs": 30,
        "logging.every_steps": 56,
    },
    seeds=(0, 1),
    about="configs/digits.py with tau 0.99, 30 epochs: 337 steps of 128 images of 16 x 16 pixels, 2 CPU cores.",
)
SCALES = {"paper": PAPER, "small": SMALL}
METRICS = {"paper": "linear_sgd", "small": "linear_10"}


def narrow(first: int, second: int, changes: Changes | None = None) -> Scale:
    """``SMALL`` with so many channels in its two stages, three seeds, and further changes."""
    about = f"configs/digits.py with channels {first} and {second}, tau 0.99, 30 epochs: 337 steps of 128 images of 16 x 16 pixels."
    return dataclasses.replace(
        SMALL, changes={**SMALL.changes, "encoder.channels": (first, second), **(changes or {})}, seeds=(0, 1, 2), about=about
    )
