"""How long to train: the paper's 1000 and 300 epochs, the official preset of 40, and 100."""

from byol_jax.config.sweep import Changes, Point, Scale, Sweep
from configs.imagenet import PRESETS
from experiments.paper.scales import METRICS

PAPER = {40: "61.5 ± 0.5 (authors, deepmind-research issue 76)", 100: "66.5 (arXiv 2011.10566, Table 4)", 300: "72.5", 1000: "74.3"}


def preset(epochs: int) -> Changes:
    learning_rate, weight_decay, tau = PRESETS[epochs]
    return {
        "epochs": epochs,
        "optimizer.learning_rate": learning_rate,
        "optimizer.weight_decay": weight_decay,
        "method.tau": tau,
    }


SWEEP = Sweep(
    title="Epochs",
    source="Section 3 and Appendix F; two rows from elsewhere, as they say",
    points=tuple(Point(f"{epochs} epochs", top1, preset(epochs)) for epochs, top1 in PAPER.items()),
    scales={"paper": Scale("configs/imagenet.py", about="ImageNet, ResNet-50, batch 4096; 512 TPU v3 cores for 8 hours for the longest.")},
    metrics={"paper": METRICS["paper"]},
)
