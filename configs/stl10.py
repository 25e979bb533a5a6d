"""BYOL on STL-10: 100,000 unlabelled images of 96x96 to learn from; 5,000 labelled and 8,000 test images to evaluate with.

Command:  byol-jax pretrain --config configs/stl10.py --workdir runs/stl10
Hardware: one GPU.
Expected: not measured yet. The optimizer's numbers are those of the official small set-up (configs/imagenette.py). For comparison,
          sthalles/PyTorch-BYOL reports 75.2% for a ResNet-18 after 80 epochs at batch 64 with SGD.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from byol_jax import config as cfg


def get_config(variant: str | None = None) -> ConfigDict:
    if variant:
        raise cfg.unknown_variant(variant, [])
    config = cfg.default()
    config.batch_size = 256
    config.epochs = 200
    config.data.update(source="tfds", name="stl10", split="unlabelled", labelled_split="train", test_split="test")
    config.data.update(in_memory=True, on_device=True)  # 2.8 GB over all devices
    config.views.update(preset="imagenet", size=96, eval_crop=1.0)
    config.encoder.update(name="resnet18")
    config.method.update(probe=False)  # there is no label to learn from during pretraining
    config.optimizer.update(learning_rate=2.0, weight_decay=1e-6)
    config.checkpoint.update(every_steps=1000)
    config.evaluation.update(every_epochs=10)
    return config
