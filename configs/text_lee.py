"""BYOL on the 300 background documents of the Lee corpus."""

from __future__ import annotations

from ml_collections import ConfigDict

from byol_jax import config as cfg


def get_config(variant: str | None = None) -> ConfigDict:
    if variant not in (None, "minilm"):
        raise cfg.unknown_variant(variant, ["minilm"])
    config = cfg.default()
    config.batch_size = 50
    config.epochs = 100
    config.data.update(source="text", path="runs/data/lee/train.txt")
    config.text.update(preset="document", tokenizer="runs/data/lee/tokenizer.json", length=64)
    config.encoder.name = "bert_tiny"
    config.method.update(tau=0.99)
    for head in (config.method.projector, config.method.predictor):
        head.update(hidden=512, out=128)
    config.optimizer.update(name="adamw", learning_rate=5e-3, weight_decay=0.01, warmup_epochs=5)
    config.checkpoint.update(every_steps=300)
    config.evaluation.update(every_epochs=10)
    config.logging.update(every_steps=20)
    if variant == "minilm":
        config.batch_size = 32
        config.epochs = 4
        config.encoder.update(name="huggingface", path="model")
        config.text.update(tokenizer=None, length=128)
        config.method.tau = 0.999
        config.optimizer.update(learning_rate=2e-4, warmup_epochs=1)
    return config
