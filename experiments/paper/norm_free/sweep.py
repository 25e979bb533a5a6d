"""BYOL without batch statistics (Richemond et al. 2020, arXiv 2010.10241): 1000 epochs, one seed."""

from byol_jax.config.sweep import Point, Scale, Sweep
from experiments.paper.scales import METRICS, SCALES

SWEEP = Sweep(
    title="Without batch statistics",
    source="arXiv 2010.10241, abstract",
    points=(
        Point("BatchNorm", "74.3"),
        Point(
            "GroupNorm and weight standardisation",
            "73.9",
            {"encoder.norm": "group", "method.projector.norm": "none", "method.predictor.norm": "none"},
        ),
    ),
    scales={**SCALES, "paper": Scale("configs/imagenet.py", seeds=(0,), about="ImageNet, ResNet-50, 1000 epochs, batch 4096.")},
    metrics=METRICS,
)
