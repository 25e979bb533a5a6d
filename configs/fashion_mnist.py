"""BYOL on Fashion-MNIST: 60,000 training and 10,000 test images of 28x28, gray, ten classes.

Command:  byol-jax pretrain --config configs/fashion_mnist.py --workdir runs/fashion
          (the IDX files in data.path, where Debian's package dataset-fashion-mnist puts them)
          byol-jax pretrain --config configs/fashion_mnist.py:tfds --workdir runs/fashion    (downloads by TensorFlow Datasets)
Hardware: 2 CPU cores, about half an hour.
Expected: k-NN and linear accuracy above the same network untrained. Not measured yet.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from byol_jax import config as cfg


def get_config(variant: str | None = None) -> ConfigDict:
    config = cfg.default()
    config.batch_size = 256
    config.epochs = 6
    config.data.update(split="train", test_split="test")
    match variant:
        case None:
            config.data.update(source="idx", path="/usr/share/datasets/fashion-mnist")
        case "tfds":
            config.data.update(source="tfds", name="fashion_mnist", in_memory=True)
        case _:
            raise cfg.unknown_variant(variant, ["tfds"])
    config.views.update(preset="gray", size=28)
    for view in (config.views.view1, config.views.view2):
        view.update(crop_area=(0.25, 1.0), flip=0.5)
    config.encoder.update(name="resnet", block="basic", stages=(1, 1, 1), channels=(16, 32, 64), stem="small")
    config.method.update(tau=0.99)
    for head in (config.method.projector, config.method.predictor):
        head.update(hidden=256, out=64)
    config.optimizer.update(name="adamw", learning_rate=2e-3, weight_decay=1e-4, warmup_epochs=0.5)
    config.checkpoint.update(every_steps=200)
    config.evaluation.update(every_epochs=1)
    config.logging.update(every_steps=20)
    return config
