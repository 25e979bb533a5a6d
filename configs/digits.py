"""BYOL on scikit-learn's digits: 1797 images of 8x8; nothing to download. The demo.

Command:  byol-jax pretrain --config configs/digits.py --workdir runs/digits
Hardware: 2 CPU cores, minutes.
Expected: better than raw pixels with few labels (`byol-jax evaluate fewlabels --workdir runs/digits`). Not measured yet.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from byol_jax import config as cfg


def get_config(variant: str | None = None) -> ConfigDict:
    if variant:
        raise cfg.unknown_variant(variant, [])
    config = cfg.default()
    config.batch_size = 128
    config.epochs = 100
    config.data.update(source="digits", split="train", test_split="test")
    config.views.update(preset="gray", size=8)
    for view in (config.views.view1, config.views.view2):
        view.update(crop_area=(0.4, 1.0), rotation=0.3, brightness=0.3, contrast=0.3)
    config.encoder.update(name="resnet", block="basic", stages=(1, 1), channels=(64, 128), stem="small")
    config.method.update(tau=0.99)
    for head in (config.method.projector, config.method.predictor):
        head.update(hidden=256, out=64)
    config.optimizer.update(name="adamw", learning_rate=4e-3, weight_decay=1e-4, warmup_epochs=5)
    config.checkpoint.update(every_steps=200)
    config.evaluation.update(every_epochs=10)
    config.logging.update(every_steps=10)
    return config
