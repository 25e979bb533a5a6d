"""Table 5a: how slowly the target follows. 1 leaves it random, 0 makes it the online network itself."""

from byol_jax.config.sweep import Point, Sweep
from experiments.paper.scales import METRICS, SCALES

CONSTANT = {"method.tau_schedule": "constant"}  # a schedule from 0 to 1 would be no stop-gradient of the online network

SWEEP = Sweep(
    title="The target's decay tau",
    source="Table 5a (tau at the start of its schedule; constant for 1 and 0)",
    points=(
        Point("1 (random target)", "18.8 ± 0.7", {"method.tau": 1.0, **CONSTANT}),
        Point("0.999", "69.8", {"method.tau": 0.999}),
        Point("0.99", "72.5", {"method.tau": 0.99}),
        Point("0.9", "68.4", {"method.tau": 0.9}),
        Point("0 (the online network)", "0.3", {"method.tau": 0.0, **CONSTANT}),
    ),
    scales=SCALES,
    metrics=METRICS,
)
