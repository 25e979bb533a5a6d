"""Appendix F: base learning rate and weight decay, one at a time."""

from byol_jax.config.sweep import Changes, Point, Sweep
from experiments.paper.scales import METRICS, SCALES, SMALL_RATE

RATES = {0.01: "34.8 ± 3.0", 0.1: "65.0", 0.2: "71.7", 0.4: "72.3", 0.5: "71.5", 1.0: "69.4"}
DECAYS = {1e-7: "72.1", 5e-7: "72.6", 5e-6: "71.0", 1e-5: "69.6", 0.0: "diverges"}
BASE = 0.3


def rate(value: float) -> Changes:
    return {"optimizer.learning_rate": value}


SWEEP = Sweep(
    title="Learning rate and weight decay",
    source="Appendix F. At the small scale the rates are the same multiples of its own",
    points=(
        Point(f"rate {BASE}, weight decay 1e-06", "72.5"),
        *(Point(f"rate {value}", top1, rate(value), at={"small": rate(value / BASE * SMALL_RATE)}) for value, top1 in RATES.items()),
        *(Point(f"weight decay {value:g}", top1, {"optimizer.weight_decay": value}) for value, top1 in DECAYS.items()),
    ),
    scales=SCALES,
    metrics=METRICS,
)
