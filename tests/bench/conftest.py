"""A configuration so small that a benchmark of it takes seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

CONFIG = """
from byol_jax import config as cfg


def get_config(variant=None):
    config = cfg.default()
    config.batch_size = 8
    config.epochs = 2
    if variant == "folder":
        config.data.update(source="folder", path="images")
    else:
        config.data.update(source="digits", test_split="test", on_device=variant == "held")
    config.views.update(preset="gray", size=8)
    config.encoder.update(name="bench_tiny:Dense")
    for head in (config.method.projector, config.method.predictor):
        head.update(hidden=16, out=8, norm="none")
    config.optimizer.update(name="sgd", learning_rate=1e-3, warmup_epochs=None)
    return config
"""
ENCODER = """
from flax import linen as nn


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(32)(x.reshape(len(x), -1))
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A config file in a folder that is the current one: digits; with ":folder" a folder "images", with ":held" digits on the device."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.py").write_text(CONFIG)
    (tmp_path / "bench_tiny.py").write_text(ENCODER)
    return "tiny.py"
