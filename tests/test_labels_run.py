"""BYOL and labels together through the command line: a mix of two label sets on the device, its metrics, and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from byol_jax import build, cli, data
from byol_jax import config as cfg
from byol_jax.checkpoint import Checkpoints

TINY = """
from byol_jax import config as cfg


def get_config(variant=None):
    config = cfg.default()
    config.batch_size = 16
    config.steps = 2
    config.data.update(source="npz", path="DATA", test_split="test", on_device=True)
    config.data.mix = ({"weight": 2, "labels": False}, {"labels": "digit"}, {"split": "other", "labels": "shade"})
    config.views.update(preset="gray", size=8)
    for view in (config.views.view1, config.views.view2):
        view.update(jitter=0.0, blur=0.0, solarize=0.0)
    config.encoder.name = "tests.train.tests_tiny:Tiny"
    for head in (config.method.projector, config.method.predictor):
        head.update(hidden=16, out=8, norm="none")
    config.method.update(supervision=0.5, label_smoothing=0.1)
    config.optimizer.update(name="adamw", learning_rate=1e-3, warmup_epochs=None)
    config.evaluation.update(every_epochs=0)
    config.logging.every_steps = 1
    return config
"""


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    return int(caught.value.code or 0)


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """Twelve digits of three classes, and six of them with a label of another kind."""
    train = data.digits("train", size=8)
    rows = np.flatnonzero(train.labels < 3)[:12]
    images = {f"{name}_images": train.images[rows[:count]] for name, count in (("train", 12), ("other", 6), ("test", 12))}
    labels = {"train_labels": train.labels[rows], "other_labels": np.arange(6) % 2, "test_labels": train.labels[rows]}
    np.savez(tmp_path / "images.npz", **images, **labels)
    path = tmp_path / "tiny.py"
    path.write_text(TINY.replace("DATA", str(tmp_path / "images.npz")))
    return str(path)


def test_two_label_sets_train_along_and_evaluation_sees_the_data_itself(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "run"
    assert run("show", "--config", tiny) == 0
    told = capsys.readouterr().out
    assert "48 examples, 3 classes of digit, 2 classes of shade" in told
    assert "probe (3 classes of digit, 2 classes of shade)" in told
    assert run("pretrain", "--config", tiny, "--workdir", str(workdir)) == 0
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    logged = {name for line in lines for name in line if name.startswith("probe")}
    assert logged == {f"probe_{what}_{name}" for what in ("loss", "top1", "top5") for name in ("digit", "shade")}
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    probe = checkpoints.restore_raw(["probe"])["probe"]
    checkpoints.close()
    assert {name: head["kernel"].shape for name, head in probe.items()} == {"digit": (8, 3), "shade": (8, 2)}
    assert len(build.labelled_source(build.read_spec(workdir))) == 12
    capsys.readouterr()
    assert run("pretrain", "--config", tiny, "--workdir", str(workdir), "--config.method.supervision=1") == 2
    assert "method.supervision: 0.5 there, 1.0 here" in capsys.readouterr().err


def test_what_does_not_fit(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "--config", tiny, "--config.method.probe=False") == 2
    err = capsys.readouterr().err
    assert "method.supervision = 0.5: it is of the probe, and needs method.probe = True" in err
    assert "method.label_smoothing = 0.1: it is of the probe, and needs method.probe = True" in err
    with pytest.raises(cfg.ConfigError, match=r"method.supervision = -1: it must be at least 0"):
        cfg.load(tiny, [("method.supervision", "-1")])
    assert run("pretrain", "--config", tiny, "--workdir", "x", "--config.data.mix=({'labels': False},)") == 2
    assert "method.supervision = 0.5: the training data has no label to learn from" in capsys.readouterr().err
