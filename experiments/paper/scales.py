"""The two scales of every sweep here: the paper's ablations (Appendix F), and digits on two CPU cores."""

from __future__ import annotations

from byol_jax.config.sweep import Scale

PAPER = Scale(
    "configs/imagenet.py:e300",
    about="ResNet-50 on ImageNet, 300 epochs, batch 4096, 3 seeds (paper, Appendix F); about 64 TPU v3 cores a run there.",
)
SMALL = Scale(
    "configs/digits.py",
    {"epochs": 30, "evaluation.every_epochs": 30, "logging.every_steps": 110},
    about="configs/digits.py, 30 epochs (337 steps of 128 images of 8 x 8 pixels), 2 CPU cores; untrained network 83.7, raw pixels 90.1.",
)
SCALES = {"paper": PAPER, "small": SMALL}
METRICS = {"paper": "linear_sgd", "small": "linear_10"}
