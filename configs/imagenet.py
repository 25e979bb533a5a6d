"""BYOL on ImageNet (1,281,167 images, 1000 classes) at 224 px, as in the paper.

Command:  byol-jax pretrain --config configs/imagenet.py:e300 --workdir /shared/runs/e300
          (the same command on every host of a pod, the workdir where all of them see it; TFDS has prepared imagenet2012)
Hardware: the paper used 512 TPU v3 cores for about 8 hours (1000 epochs); variant b512: 64 cores for about 4 days.
Expected: linear evaluation, top-1 %, from the paper unless said otherwise. None of them measured by us yet.

    variant   what                                                     expected
    (none)    ResNet-50, 1000 epochs, batch 4096                       74.3 (Table 1)
    e40       40 epochs                                                62 +- 0.5 online (deepmind-research issue 76)
    e100      100 epochs                                               66.5 (SimSiam paper, Table 4)
    e300      300 epochs                                               72.5 (Section 5)
    e1000     1000 epochs, the same as none                            74.3 (Table 1)
    b512      batch 512, 1000 epochs                                   73.7 (Appendix G)
    r18, r34  ResNet-18 and -34, 1000 epochs                           no published number known to us
    r50x2     a wider or deeper network of Table 1, 1000 epochs:       77.4   r50x3 78.2   r50x4 78.6
              r101 76.4   r101x2 78.7   r101x3 78.4   r152 77.3   r152x2 79.0   r152x3 79.5   r200 77.8   r200x2 79.6
    vit_s16   ViT-S/16, 300 epochs, AdamW as MoCo v3 sets it           71.4 (BYOL with ViT-S in the DINO paper, Table 2)
    vit_b16   ViT-B/16, the same                                       no published number known to us

On TPU and recent GPUs ``--config.encoder.dtype=bfloat16`` saves time and memory; the paper's numbers are float32.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from byol_jax import config as cfg

# epochs -> base learning rate, weight decay, base tau (official presets; paper, Section 5 and Appendix B)
PRESETS = {40: (0.45, 1e-6, 0.97), 100: (0.45, 1e-6, 0.99), 300: (0.3, 1e-6, 0.99), 1000: (0.2, 1.5e-6, 0.996)}
EPOCHS = {f"e{epochs}": epochs for epochs in PRESETS}
NETWORKS = {f"r{depth}": (depth, 1) for depth in (18, 34, 101, 152, 200)}
NETWORKS |= {f"r{depth}x{width}": (depth, width) for depth in (50, 101, 152) for width in (2, 3)}
NETWORKS |= {"r50x4": (50, 4), "r200x2": (200, 2)}
VITS = ("vit_s16", "vit_b16")
VARIANTS = (*EPOCHS, "b512", *NETWORKS, *VITS)


def get_config(variant: str | None = None) -> ConfigDict:
    if variant and variant not in VARIANTS:
        raise cfg.unknown_variant(variant, VARIANTS)
    config = cfg.default()
    config.batch_size = 4096
    config.epochs = EPOCHS.get(variant, 1000)
    config.data.update(source="tfds", name="imagenet2012", split="train", test_split="validation")
    config.views.update(preset="imagenet", size=224)
    depth, width = NETWORKS.get(variant, (50, 1))
    config.encoder.update(name=f"resnet{depth}", width=width)
    learning_rate, weight_decay, tau = PRESETS[config.epochs]
    config.method.update(tau=tau)
    config.optimizer.update(learning_rate=learning_rate, weight_decay=weight_decay, warmup_epochs=10)
    if variant == "b512":  # Appendix G
        config.batch_size = 512
        config.method.update(tau=0.9995)
        config.optimizer.update(learning_rate=0.4)
    if variant in VITS:  # the commands in the README of MoCo v3
        config.epochs = 300
        config.encoder.update(name=variant)
        config.method.update(tau=0.99)
        config.optimizer.update(name="adamw", learning_rate=1.5e-4, weight_decay=0.1, warmup_epochs=40)
    config.checkpoint.update(every_steps=1000, keep=3)
    config.evaluation.update(every_epochs=10, monitor_examples=50_000)
    config.logging.update(every_steps=50)
    return config
