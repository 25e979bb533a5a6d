"""Table 18: the weight beta of the negatives and the temperature alpha of equation 8, with predictor and target network."""

from byol_jax.config.sweep import Point, Sweep
from experiments.paper.scales import METRICS, SCALES

PAPER = {
    0.1: {0.01: "72.2", 0.1: "72.4", 0.3: "72.7", 1.0: "72.6", 3.0: "72.5", 10.0: "72.5"},
    0.5: {0.01: "70.9", 0.1: "72.0", 0.3: "72.7", 1.0: "72.7", 3.0: "72.6", 10.0: "72.5"},
    1.0: {0.01: "53.9 ± 0.5", 0.1: "70.9", 0.3: "72.7", 1.0: "72.7", 3.0: "72.6", 10.0: "72.6"},
}

SWEEP = Sweep(
    title="Negatives beside the target network",
    source="Table 18",
    points=(
        Point("beta 0 (BYOL)", "72.5"),
        *(
            Point(f"beta {beta}, alpha {alpha}", top1, {"method.beta": beta, "method.temperature": alpha})
            for beta, row in PAPER.items()
            for alpha, top1 in row.items()
        ),
    ),
    scales=SCALES,
    metrics=METRICS,
)
