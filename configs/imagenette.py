"""BYOL on Imagenette (9,469 training images, ten ImageNet classes) at 128 px: the official small set-up.

Command:  byol-jax pretrain --config configs/imagenette.py --workdir runs/imagenette
Hardware: one GPU; the official code took about 4 hours on a V100.
Expected: about 92.3% online linear top-1 (README of the official code). Not measured yet.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from byol_jax import config as cfg


def get_config(variant: str | None = None) -> ConfigDict:
    if variant:
        raise cfg.unknown_variant(variant, [])
    config = cfg.default()
    config.batch_size = 256
    config.epochs = 1000
    config.data.update(source="tfds", name="imagenette/160px-v2", split="train", test_split="validation")
    config.views.update(preset="imagenet", size=128)
    config.encoder.update(name="resnet18")
    config.optimizer.update(learning_rate=2.0, weight_decay=1e-6)
    config.checkpoint.update(every_steps=1000)
    config.evaluation.update(every_epochs=20)
    return config
