"""BYOL from scratch on small corpora: passages of the Brown corpus, mails (spam), news (lee), the questions of a service desk (faq), tweets
(tweets), films by who made them (movies); on news from MiniLM's weights (minilm); mails and a tenth of their labels together
(spam_joint, which nobody has measured yet).

Command:  byol-jax pretrain --config configs/text_small.py --workdir runs/brown        (or configs/text_small.py:spam, :lee, ...)
          before it, once: experiments/text_brown (text_spam, text_lee, faq_search, sentiment_monitor, recommend) says how to get the
          corpus, then byol-jax data tokenizer --config configs/text_small.py
Hardware: 2 CPU cores, minutes.
Expected: measured with seed 0 on two shared cores, beside the same network untrained and TF-IDF. Brown, linear accuracy of 15 genres: 32.1%
          (untrained 22.9, TF-IDF 44.8). spam, linear accuracy: 93.9% (90.3, 99.0); with one label a class 79.2% (55.5, 71.8). lee, Spearman
          with human judgements: 0.216 (0.092, 0.283); minilm, the same: 0.543 (0.512 before BYOL). Whitened: faq, first reply right
          71.8% (69.6, 75.7); movies, recall@10 2.7% (2.0, 3.6). tweets, linear accuracy: 52.1% (52.4, 63.6).
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from byol_jax import config as cfg


def both(**changes: Any) -> dict[str, Any]:
    """The same in both views."""
    return {f"text.{view}.{name}": value for view in ("view1", "view2") for name, value in changes.items()}


VARIANTS: dict[str, dict[str, Any]] = {
    "spam": {"epochs": 10},
    "spam_joint": {
        "epochs": 10,
        "data.mix": ({"weight": 3, "labels": False}, {"weight": 1, "split": "train[:10%]"}),
        "method.supervision": 1.0,
    },
    "lee": {"batch_size": 50, "epochs": 100, "optimizer.learning_rate": 5e-3, "optimizer.warmup_epochs": 5},
    "faq": {"epochs": 40, "text.length": 48, **both(span=(0.4, 0.9), delete=0.1)},
    "tweets": {"epochs": 4, "text.length": 48, "optimizer.warmup_epochs": 1, **both(span=(0.5, 0.9), delete=0.1)},
    "movies": {"epochs": 8, "optimizer.warmup_epochs": 1, **both(span=(0.3, 0.7), delete=0.1)},
    "minilm": {
        "batch_size": 32,
        "epochs": 4,
        "text.length": 128,
        "text.tokenizer": None,  # the model's own
        "encoder.name": "huggingface",
        "encoder.path": "model",
        "method.tau": 0.999,
        "optimizer.learning_rate": 2e-4,
        "optimizer.warmup_epochs": 1,
    },
}

OF_ANOTHER = {"minilm": "lee", "spam_joint": "spam"}


def get_config(variant: str | None = None) -> ConfigDict:
    if variant is not None and variant not in VARIANTS:
        raise cfg.unknown_variant(variant, list(VARIANTS))
    config = cfg.default()
    config.batch_size = 128
    config.epochs = 20
    folder = f"runs/data/{OF_ANOTHER.get(variant or '', variant or 'brown')}"
    config.text.update(preset="document", tokenizer=f"{folder}/tokenizer.json", length=64)
    config.data.update(source="text", path=f"{folder}/train.txt")
    config.encoder.name = "bert_tiny"
    config.method.update(tau=0.99)
    for head in (config.method.projector, config.method.predictor):
        head.update(hidden=512, out=128)
    config.optimizer.update(name="adamw", learning_rate=2e-3, weight_decay=0.01, warmup_epochs=3)
    config.checkpoint.update(every_steps=200)
    config.evaluation.update(every_epochs=5, knn_k=10)
    config.logging.update(every_steps=20)
    if variant in (None, "spam", "spam_joint"):  # these have classes and a test set
        config.data.update(path=f"{folder}/train.jsonl", test_path=f"{folder}/test.jsonl")
        config.evaluation.held_out_examples = 512
    config.update_from_flattened_dict(VARIANTS.get(variant or "", {}))
    return config
