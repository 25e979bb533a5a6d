"""A small student taught by the encoder of the demo (runs/digits), against the same student pretrained alone, at equal steps."""

from __future__ import annotations

from byol_jax.config.sweep import Point, Scale, Sweep

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
    scales={
        "small": Scale(
            "configs/digits.py",
            {
                "encoder.channels": (8, 16),
                "batch_size": 128,
                "epochs": 30,
                "method.tau": 0.99,
                "optimizer.warmup_epochs": 1.5,
                "evaluation.every_epochs": 30,
                "logging.every_steps": 56,
            },
            about="configs/digits.py with channels 8 and 16, tau 0.99, 30 epochs: 337 steps of 128 images of 16 x 16 pixels.",
        )
    },
    metrics={"small": "linear_10"},
)
