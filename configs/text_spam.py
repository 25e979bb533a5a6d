"""BYOL on mails of the SpamAssassin corpus, from scratch."""

from __future__ import annotations

from ml_collections import ConfigDict

from byol_jax import config as cfg


def get_config(variant: str | None = None) -> ConfigDict:
    if variant:
        raise cfg.unknown_variant(variant, [])
    config = cfg.default()
    config.batch_size = 128
    config.epochs = 60
    config.data.update(source="text", path="runs/data/spam/train.jsonl", test_path="runs/data/spam/test.jsonl")
    config.text.update(preset="document", tokenizer="runs/data/spam/tokenizer.json", length=64)
    config.encoder.name = "bert_tiny"
    config.method.update(tau=0.99)
    config.method.projector.update(hidden=512, out=128)
    config.method.predictor.update(hidden=512, out=128)
    config.optimizer.update(name="adamw", learning_rate=2e-3, weight_decay=0.01, warmup_epochs=3)
    config.checkpoint.update(every_steps=500)
    config.evaluation.update(every_epochs=5, knn_k=10, held_out_examples=512)
    config.logging.update(every_steps=20)
    return config
