"""Table 22: no moving average, the learning rates of predictor and projector both multiplied.

The paper finds that the predictor must be the faster of the two. Its grid and numbers were not at hand: the grid is ours, the column of the
paper empty.
"""

from byol_jax.config.sweep import Point, Sweep
from experiments.paper.scales import METRICS, SCALES

FACTORS = (1, 2, 10)

SWEEP = Sweep(
    title="No moving average, a faster predictor and projector",
    source="Table 22, whose numbers were not at hand",
    points=tuple(
        Point(
            f"predictor {predictor} x, projector {projector} x",
            changes={
                "method.target": "stop_gradient",
                "optimizer.predictor_rate": float(predictor),
                "optimizer.projector_rate": float(projector),
            },
        )
        for predictor in FACTORS
        for projector in FACTORS
    ),
    scales=SCALES,
    metrics=METRICS,
)
