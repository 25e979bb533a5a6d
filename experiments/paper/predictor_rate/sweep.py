"""Table 21: no moving average (the target is the online network, as a constant), the predictor's learning rate multiplied."""

from byol_jax.config.sweep import Point, Sweep
from experiments.paper.scales import METRICS, SCALES

CONSTANT = {"method.target": "stop_gradient"}
PAPER = {0: "0.01", 1: "5.5", 2: "62.8", 10: "66.6", 20: "66.3"}

SWEEP = Sweep(
    title="No moving average, a faster predictor",
    source="Table 21",
    points=(
        Point("BYOL", "72.5"),
        *(Point(f"{factor} x", top1, {**CONSTANT, "optimizer.predictor_rate": float(factor)}) for factor, top1 in PAPER.items()),
    ),
    scales=SCALES,
    metrics=METRICS,
)
