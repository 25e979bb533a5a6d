"""BYOL on CIFAR-10: 50,000 training and 10,000 test images of 32x32, ten classes.

Command:  byol-jax pretrain --config configs/cifar10.py --workdir runs/cifar10
Hardware: one GPU; variant small: 2 CPU cores.
Expected: not measured yet. The optimizer's numbers are those of the official small set-up (configs/imagenette.py). For comparison,
          solo-learn reports 92.6% online linear top-1 for a ResNet-18 after 1000 epochs at batch 256, with a LARS of its own settings.

    variant    what
    (none)     ResNet-18, 1000 epochs; TensorFlow Datasets prepares the images
    e200       the same, 200 epochs
    small      a ResNet of five convolutions on crops of 16x16 pixels, 20,000 of the images: for the study of the augmentations, which
               has its numbers (experiments/paper/augmentations). It reads runs/data/cifar10.npz (experiments/cifar10/prepare.py).
               Its learning rate, 4 and not 8, was chosen by k-NN on the last 5,000 training images.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from byol_jax import config as cfg

VARIANTS = ("e200", "small")


def get_config(variant: str | None = None) -> ConfigDict:
    if variant and variant not in VARIANTS:
        raise cfg.unknown_variant(variant, VARIANTS)
    config = cfg.default()
    if variant == "small":
        return _small(config)
    config.batch_size = 256
    config.epochs = 200 if variant == "e200" else 1000
    config.data.update(source="tfds", name="cifar10", split="train", test_split="test", in_memory=True, on_device=True)
    config.views.update(preset="small", size=32)
    config.encoder.update(name="resnet18", stem="small")
    config.optimizer.update(learning_rate=2.0, weight_decay=1e-6)
    config.checkpoint.update(every_steps=1000)
    config.evaluation.update(every_epochs=20)
    return config


def _small(config: ConfigDict) -> ConfigDict:
    config.batch_size = 128
    config.epochs = 30
    config.data.update(source="npz", path="runs/data/cifar10.npz", split="train[:40%]", test_split="test", on_device=True)
    config.views.update(preset="imagenet", size=16, eval_crop=None)
    for view in (config.views.view1, config.views.view2):
        view.update(crop_area=(0.2, 1.0))
    config.encoder.update(name="resnet", block="basic", stages=(1, 1), channels=(64, 128), stem="imagenet")
    config.method.update(tau=0.99)
    for head in (config.method.projector, config.method.predictor):
        head.update(hidden=256, out=64)
    config.optimizer.update(learning_rate=4.0, weight_decay=1e-6, warmup_epochs=0.5)
    config.checkpoint.update(every_steps=1000)
    config.evaluation.update(every_epochs=5)
    config.logging.update(every_steps=40)
    return config
