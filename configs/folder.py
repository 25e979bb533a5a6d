"""BYOL on your own images: a folder with one subfolder a class, or with images alone (then nothing needs labels).

Command:  byol-jax pretrain --config configs/folder.py --config.data.path=my/images --workdir runs/mine
          With a subfolder a class, and test images in another folder of the same classes, k-NN accuracy is followed during the run:
          --config.data.test_path=my/test_images --config.evaluation.every_epochs=10
Hardware: one GPU; on a CPU take --config.views.size=64 --config.encoder.stem=small and smaller heads.
Expected: depends on the images. Not measured; the optimizer's numbers are those of the official small set-up (configs/imagenette.py).
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
    config.data.update(source="folder", path="images")
    config.views.update(preset="imagenet", size=128)
    config.encoder.update(name="resnet18")
    config.optimizer.update(learning_rate=2.0, weight_decay=1e-6)
    config.checkpoint.update(every_steps=500)
    return config
