"""Table 14: depth of projector and predictor, and the size of the projection."""

from byol_jax.config.sweep import Point, Sweep
from experiments.paper.scales import METRICS, SCALES

DEPTHS = {1: ("61.9", "65.0", "65.7"), 2: ("71.5", "72.5", "71.4"), 3: ("71.4", "72.1", "72.1")}
SIZES = {16: "69.9", 32: "71.3", 64: "72.2", 128: "72.5", 512: "72.6"}  # and 256: the baseline

SWEEP = Sweep(
    title="Projector and predictor",
    source="Table 14",
    points=(
        *(
            Point(f"projector {deep}, predictor {also} layers", top1, {"method.projector.layers": deep, "method.predictor.layers": also})
            for deep, row in DEPTHS.items()
            for also, top1 in enumerate(row, 1)
        ),
        *(
            Point(f"projection of {size}", top1, {"method.projector.out": size, "method.predictor.out": size})
            for size, top1 in SIZES.items()
        ),
    ),
    scales=SCALES,
    metrics=METRICS,
)
