"""Your own texts: a file of lines, JSONL, CSV or TSV, or a folder (docs/text.md); labels are not needed.

Command:  byol-jax pretrain --config configs/text.py --config.data.path=my/texts.txt --workdir runs/mine
          before it, once: byol-jax data tokenizer --config configs/text.py --config.data.path=my/texts.txt
Hardware: one GPU or TPU chip for a corpus of a million passages; a corpus of some thousand trains on two CPU cores.
Expected: depends on the texts. Nothing was measured with these values; configs/text_small.py is a smaller form that was.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from byol_jax import config as cfg


def get_config(variant: str | None = None) -> ConfigDict:
    if variant:
        raise cfg.unknown_variant(variant, [])
    config = cfg.default()
    config.batch_size = 256
    config.epochs = 20
    config.data.update(source="text", path=".")
    config.text.update(preset="document", tokenizer="runs/text/tokenizer.json", length=128)
    config.encoder.name = "bert_small"
    config.method.update(tau=0.99)
    for head in (config.method.projector, config.method.predictor):
        head.update(hidden=2048, out=256)
    config.optimizer.update(name="adamw", learning_rate=5e-4, weight_decay=0.01, warmup_epochs=1)
    return config
