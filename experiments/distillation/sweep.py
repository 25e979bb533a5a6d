"""A small student taught by the encoder of the demo (runs/digits), against the same student pretrained alone, at equal steps."""

from __future__ import annotations

from byol_jax.config.sweep import Point, Sweep
from experiments.paper.scales import narrow

TEACHER = {"method.teacher.workdir": "runs/digits"}

SWEEP = Sweep(
    title="A taught student",
    source="none for these data",
    points=(
        Point("alone"),
        Point("taught: the teacher's projection", changes=TEACHER),
        Point("taught: its embedding", changes={**TEACHER, "method.teacher.match": "embedding"}),
        Point("taught: projection and similarities", changes={**TEACHER, "method.teacher.similarity": 1.0}),
    ),
    scales={"small": narrow(8, 16)},
    metrics={"small": "linear_10"},
)
