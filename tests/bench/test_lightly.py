"""What lightly can be compared in, and what is said where it cannot, or is not there. Nothing here needs torch."""

from __future__ import annotations

import importlib.util
import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from byol_jax import config as cfg
from byol_jax.bench import lightly


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("encoder.name", "resnet200", "encoder.name = 'resnet200': --peer lightly takes torchvision's resnet18, resnet34, resnet50"),
        ("encoder.width", "2", "encoder.width = 2: --peer lightly takes 1 alone"),
        ("encoder.norm", "group", "encoder.norm = 'group': --peer lightly takes 'batch' alone"),
        ("encoder.remat", "True", "encoder.remat = True: --peer lightly takes False alone"),
        ("method.projector.layers", "3", "method.projector.layers = 3: --peer lightly takes 2 alone"),
        ("method.predictor.norm", "none", "method.predictor.norm = 'none': --peer lightly takes 'batch' alone"),
        ("method.loss", "a.b:c", "method.loss = 'a.b:c': --peer lightly takes 'regression' alone"),
        ("method.target", "online", "method.target = 'online': --peer lightly takes 'ema' alone"),
        ("optimizer.accumulate", "2", "optimizer.accumulate = 2: --peer lightly takes 1 alone"),
    ],
)
def test_what_its_step_cannot_be(key: str, value: str, message: str) -> None:
    with pytest.raises(cfg.ConfigError) as caught:
        lightly.for_step(cfg.load("configs/imagenet.py", [(key, value)]))
    assert len(caught.value.errors) == 1
    assert caught.value.errors[0].startswith(message)


def test_an_encoder_of_free_stages_and_all_faults_at_once() -> None:
    changes = {"encoder.name": "resnet", "encoder.stages": "1,1", "encoder.channels": "8,8", "encoder.block": "basic"}
    with pytest.raises(cfg.ConfigError) as caught:
        lightly.for_step(cfg.load("configs/imagenet.py", [*changes.items(), ("method.beta", "0.5")]))
    name, beta = caught.value.errors
    assert name.startswith("encoder.name = 'resnet': --peer lightly takes torchvision's resnet18")
    assert beta == "method.beta = 0.5: --peer lightly takes 0.0 alone"


def test_what_its_input_cannot_be() -> None:
    changes = {"views.view1.crop_area": "0.2,0.5", "views.view2.crop_ratio": "1,1", "views.view2.solarize_threshold": "0.25"}
    with pytest.raises(cfg.ConfigError) as caught:
        lightly.for_input(cfg.load("configs/imagenet.py", list(changes.items())))
    assert caught.value.errors == (
        "data.source = 'tfds': --peer lightly reads image files or arrays, that is folder, npz, idx, digits",
        "views.view1.crop_area = (0.2, 0.5): --peer lightly takes (0.2, 1.0) alone",
        "views.view2.crop_ratio = (1.0, 1.0): --peer lightly takes (0.75, 1.3333333333333333) alone",
        "views.view2.solarize_threshold = 0.25: --peer lightly takes 0.5 alone",
    )
    own = [("views.function", "a.b:c"), ("data.augment_on", "host")]
    with pytest.raises(cfg.ConfigError, match=r"views.function = 'a.b:c': --peer lightly takes None alone"):
        lightly.for_input(cfg.load("configs/folder.py", own))


@pytest.mark.parametrize("door", [lightly.for_step, lightly.for_input])
def test_without_the_extra(door: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("torch", "lightly") else SimpleNamespace())
    with pytest.raises(cfg.ConfigError, match=r"needs torch, lightly, not installed here: pip install 'byol-jax\[lightly\]'"):
        door(cfg.load("configs/folder.py", []))


def test_tensorflow_must_not_be_there_before_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace())
    module: Any = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "tensorflow", module)
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    with pytest.raises(cfg.ConfigError, match="TensorFlow was imported already"):
        lightly.for_input(cfg.load("configs/folder.py", []))


@pytest.mark.parametrize(("variable", "ours"), [("XLA_PYTHON_CLIENT_PREALLOCATE", "false"), ("OMP_WAIT_POLICY", "PASSIVE")])
@pytest.mark.parametrize("chosen", [None, "ACTIVE"])
def test_both_share_the_machine_unless_the_user_has_chosen(
    variable: str, ours: str, chosen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace())
    monkeypatch.setattr(importlib, "import_module", lambda name: name)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    for name in ("XLA_PYTHON_CLIENT_PREALLOCATE", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, str(chosen))
        if chosen is None:
            monkeypatch.delenv(name)
    made: Any = lightly.for_step(cfg.load("configs/imagenet.py", []))
    assert made == "byol_jax.bench.lightly_step"
    assert os.environ[variable] == (chosen or ours)


def test_what_is_said_of_each_side() -> None:
    def note(config: str, **changes: str) -> str:
        return lightly.input_note(cfg.load(config, list(changes.items())))

    assert "ours cuts and resizes the crops, in uint8, and the device does the rest" in note("configs/folder.py")
    assert "ours sends whole images" in note("configs/digits.py")
    assert note("configs/folder.py", **{"data.augment_on": "host"}).endswith("in float32; so are ours.")
