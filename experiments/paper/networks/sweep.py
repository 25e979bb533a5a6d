"""Tables 1 and 9: wider and deeper encoders, 1000 epochs. One seed each, as there."""

from byol_jax.config.sweep import Point, Scale, Sweep
from experiments.paper.scales import METRICS

PAPER = {
    "resnet50": {1: "74.3", 2: "77.4", 3: "78.2", 4: "78.6"},
    "resnet101": {1: "76.4", 2: "78.7", 3: "78.4"},
    "resnet152": {1: "77.3", 2: "79.0", 3: "79.5"},
    "resnet200": {1: "77.8", 2: "79.6"},
}

SWEEP = Sweep(
    title="Wider and deeper encoders",
    source="Tables 1 and 9",
    points=tuple(
        Point(f"{name} x{width}", top1, {"encoder.name": name, "encoder.width": width})
        for name, row in PAPER.items()
        for width, top1 in row.items()
    ),
    scales={"paper": Scale("configs/imagenet.py", seeds=(0,), about="ImageNet, 1000 epochs, batch 4096; 512 TPU v3 cores there.")},
    metrics={"paper": METRICS["paper"]},
)
