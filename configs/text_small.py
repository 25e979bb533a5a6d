"""BYOL from scratch on small English corpora: passages of the Brown corpus, mails (spam), news (lee), a service desk's
answers (faq), tweets (tweets), films by who made them (movies); and from MiniLM's weights (minilm).

Command:  byol-jax pretrain --config configs/text_small.py --workdir runs/brown        (or configs/text_small.py:spam, :lee, ...)
          before it, once: experiments/text_brown (text_spam, text_lee, faq_search, sentiment_monitor, recommend) says how to get the
          corpus, then
          byol-jax data tokenizer --config configs/text_small.py
Hardware: 2 CPU cores, minutes.
Expected: MEASURED
"""

from __future__ import annotations

from ml_collections import ConfigDict

from byol_jax import config as cfg

VARIANTS = ["spam", "lee", "minilm", "faq", "tweets", "movies"]


def get_config(variant: str | None = None) -> ConfigDict:
    if variant not in (None, *VARIANTS):
        raise cfg.unknown_variant(variant, VARIANTS)
    config = cfg.default()
    config.batch_size = 128
    config.epochs = 20
    config.text.update(preset="document", length=64)
    config.encoder.name = "bert_tiny"
    config.method.update(tau=0.99)
    for head in (config.method.projector, config.method.predictor):
        head.update(hidden=512, out=128)
    config.optimizer.update(name="adamw", learning_rate=2e-3, weight_decay=0.01, warmup_epochs=3)
    config.checkpoint.update(every_steps=200)
    config.evaluation.update(every_epochs=5, knn_k=10)
    config.logging.update(every_steps=20)
    if variant in (None, "spam"):
        corpus(config, variant or "brown", "jsonl")
        config.data.test_path = f"runs/data/{variant or 'brown'}/test.jsonl"
        config.evaluation.held_out_examples = 512
    else:
        corpus(config, "lee" if variant == "minilm" else variant, "txt")
    if variant in ("lee", "minilm", "faq"):
        config.batch_size, config.epochs, config.optimizer.learning_rate = 50, 100, 5e-3
    if variant == "spam":
        config.epochs = 10
    if variant == "faq":  # questions of some 20 tokens, answers of any length
        config.batch_size, config.epochs, config.text.length = 128, 40, 48
        for view in (config.text.view1, config.text.view2):
            view.update(span=(0.4, 0.9), delete=0.1)
    if variant == "tweets":
        short(config, 48, epochs=4, span=(0.5, 0.9))
    if variant == "movies":
        short(config, 64, epochs=8, span=(0.3, 0.7))
    if variant == "minilm":
        config.batch_size, config.epochs, config.method.tau = 32, 4, 0.999
        config.encoder.update(name="huggingface", path="model")
        config.text.update(tokenizer=None, length=128)
        config.optimizer.update(learning_rate=2e-4, warmup_epochs=1)
    return config


def short(config: ConfigDict, length: int, *, epochs: int, span: tuple[float, float]) -> None:
    """Texts of a line or two, some ten thousand of them."""
    config.epochs, config.text.length = epochs, length
    config.optimizer.warmup_epochs = 1
    for view in (config.text.view1, config.text.view2):
        view.update(span=span, delete=0.1)


def corpus(config: ConfigDict, name: str, suffix: str) -> None:
    folder = f"runs/data/{name}"
    config.data.update(source="text", path=f"{folder}/train.{suffix}")
    config.text.tokenizer = f"{folder}/tokenizer.json"
