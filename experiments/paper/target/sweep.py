"""Table 19: from BYOL to SimCLR. P is the predictor, xi the target network, sg(theta) the online network as a constant."""

from byol_jax.config.sweep import Point, Sweep
from experiments.paper.scales import METRICS, SCALES

NO_PREDICTOR = {"method.predictor.layers": 0}
NEGATIVES = {"method.beta": 1.0, "method.temperature": 0.1}
CONSTANT = {"method.target": "stop_gradient"}
ONLINE = {"method.target": "online"}

SWEEP = Sweep(
    title="Predictor, target, negatives",
    source="Table 19",
    points=(
        Point("P, xi, beta 0 (BYOL)", "72.5"),
        Point("P, xi, beta 1", "70.9", NEGATIVES),
        Point("no P, xi, beta 1", "70.7", {**NO_PREDICTOR, **NEGATIVES}),
        Point("P, sg(theta), beta 1", "70.2", {**CONSTANT, **NEGATIVES}),
        Point("no P, sg(theta), beta 1", "69.2", {**NO_PREDICTOR, **CONSTANT, **NEGATIVES}),
        Point("P, theta, beta 1", "69.0", {**ONLINE, **NEGATIVES}),
        Point("no P, theta, beta 1 (SimCLR)", "69.4", {**NO_PREDICTOR, **ONLINE, **NEGATIVES}),
        Point("P, sg(theta), beta 0", "5.5", CONSTANT),
        Point("P, theta, beta 0", "0.3", ONLINE),
        Point("no P, xi, beta 0", "0.2", NO_PREDICTOR),
        Point("no P, sg(theta), beta 0", "0.1", {**NO_PREDICTOR, **CONSTANT}),
        Point("no P, theta, beta 0", "0.1", {**NO_PREDICTOR, **ONLINE}),
    ),
    scales=SCALES,
    metrics=METRICS,
)
