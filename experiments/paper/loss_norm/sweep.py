"""Table 20: how prediction and target are normalised before their squared distance."""

from byol_jax.config.sweep import Point, Sweep
from experiments.paper.scales import METRICS, SCALES

PAPER = {"l2": "72.5", "layer": "72.5 ± 0.4", "none": "67.4", "batch": "65.3"}

SWEEP = Sweep(
    title="Normalisation in the loss",
    source="Table 20",
    points=tuple(Point(name, top1, {"method.normalization": name}) for name, top1 in PAPER.items()),
    scales=SCALES,
    metrics=METRICS,
)
