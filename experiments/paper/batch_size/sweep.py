"""Table 16: batch statistics and gradients of N smaller batches, averaged: only the norms see the smaller batch."""

from byol_jax.config.sweep import Point, Sweep
from experiments.paper.scales import METRICS, SCALES

PAPER = {1: "72.5", 2: "72.4", 4: "72.2", 8: "72.2", 16: "71.8", 32: "69.6 ± 0.5", 64: "59.7 ± 1.5"}
BIGGEST = 16  # at the small scale: 8 images a micro-batch

SWEEP = Sweep(
    title="Batch size by accumulation",
    source="Table 16 (BYOL)",
    points=tuple(
        Point(f"1/{parts} ({4096 // parts})", top1, {"optimizer.accumulate": parts}, at={"small": None} if parts > BIGGEST else {})
        for parts, top1 in PAPER.items()
    ),
    scales=SCALES,
    metrics=METRICS,
)
