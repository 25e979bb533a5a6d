"""BYOL on CIFAR-10: 50,000 training and 10,000 test images of 32x32, ten classes.

Command:  byol-jax pretrain --config configs/cifar10.py --workdir runs/cifar10
Hardware: one GPU.
Expected: not measured yet. The optimizer's numbers are those of the official small set-up (configs/imagenette.py). For comparison,
          solo-learn reports 92.6% online linear top-1 for a ResNet-18 after 1000 epochs at batch 256, with a LARS of its own settings.
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
    config.data.update(source="tfds", name="cifar10", split="train", test_split="test", in_memory=True)
    config.views.update(preset="small", size=32)
    config.encoder.update(name="resnet18", stem="small")
    config.optimizer.update(learning_rate=2.0, weight_decay=1e-6)
    config.checkpoint.update(every_steps=1000)
    config.evaluation.update(every_epochs=20)
    return config
