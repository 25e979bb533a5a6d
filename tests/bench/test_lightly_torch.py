"""lightly's own parts as we assemble them, with torch itself: parameters counted by hand, the loss, a step, views of known colours.

pip install 'byol-jax[lightly]' && python -m pytest tests/bench/test_lightly_torch.py

In a process of its own: torch crashes when TensorFlow was imported before it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from byol_jax import build, data, method
from byol_jax import config as cfg
from byol_jax.method import Outputs
from byol_jax.views import Views

if importlib.util.find_spec("lightly") is None or importlib.util.find_spec("torch") is None:
    pytest.skip("needs the extra lightly", allow_module_level=True)
if "tensorflow" in sys.modules:
    pytest.skip("TensorFlow was imported before torch; run this file alone", allow_module_level=True)

import torch

from byol_jax.bench import lightly_input, lightly_step

ROOT = Path(__file__).parents[2]
TINY = {"views.size": "32", "batch_size": "4", "encoder.stem": "small", "encoder.name": "resnet18", "method.probe": "False"}
TINY |= {f"method.{head}.{key}": value for head in ("projector", "predictor") for key, value in (("hidden", "32"), ("out", "16"))}


def spec_of(config: str = "configs/imagenet.py", **changes: str) -> cfg.Spec:
    return cfg.load(config, [(key.replace("__", "."), value) for key, value in changes.items()])


def tiny(**changes: str) -> cfg.Spec:
    return cfg.load("configs/imagenet.py", [*TINY.items(), *((key.replace("__", "."), value) for key, value in changes.items())])


def count(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


# Heads of 4096 and 256 on D features, with lightly's biases: D 4096 + 2 4096 (BN), 4096 256 + 256; D = 512, 2048 and the predictor's 256.
HEADS = {features: features * 4096 + 2 * 4096 + 4096 * 256 + 256 for features in (512, 2048, 256)}


@pytest.mark.parametrize(
    ("variant", "torchvisions", "features", "more"),
    [
        # Without the classifier, 11,689,512 - 513,000. Our first stage has a projection of its own: 64 64 + 2 64.
        ("configs/imagenet.py:r18", 11_176_512, 512, 64 * 64 + 2 * 64),
        # 25,557,032 - 2,049,000.
        ("configs/imagenet.py", 23_508_032, 2048, 0),
    ],
)
def test_parameters_are_ours(variant: str, torchvisions: int, features: int, more: int) -> None:
    """A head of ours has its bias in the first layer (4096) where lightly's has it in the last (256): BN takes the first one out again."""
    spec = cfg.load(variant, [])
    online, target = lightly_step.networks(spec)
    assert count(online) == torchvisions + HEADS[features] + HEADS[256]
    assert count(target) == torchvisions + HEADS[features]
    network = build.byol(spec).network()
    shapes = jax.eval_shape(lambda key: network.init(key, jnp.zeros((2, 32, 32, 3)), train=False), jax.random.key(0))
    ours = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert ours - count(online) == more + 2 * (4096 - 256)


def test_the_small_stem() -> None:
    """3x3 of stride 1 in place of 7x7, and no pool: an image of 8 px is one of 8 px after it."""
    net, features = lightly_step.backbone(tiny().encoder)
    assert (net.conv1.weight.shape, net.conv1.bias, features) == ((64, 3, 3, 3), None, 512)
    assert net.maxpool(net.conv1(torch.zeros(1, 3, 8, 8))).shape == (1, 64, 8, 8)


def test_the_loss_by_hand() -> None:
    torch.manual_seed(0)
    online, target = lightly_step.networks(tiny())
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.mul_(1 + 0.1 * torch.randn_like(parameter))
    views = torch.randn(2, 4, 3, 32, 32)
    found = lightly_step.loss(online, target, *views)
    predictions = [online(view) for view in views]
    goals = [target(view) for view in views]
    cosines = [(p * z).sum(1) / (p.norm(dim=1) * z.norm(dim=1)) for p, z in ((predictions[0], goals[1]), (predictions[1], goals[0]))]
    assert found.item() == pytest.approx(-(cosines[0].mean() + cosines[1].mean()).item() / 2, rel=1e-5)
    arrays = [jnp.stack([np.asarray(each.detach()) for each in both]) for both in (predictions, goals)]
    ours, _ = method.regression_loss(Outputs(None, None, arrays[0]), Outputs(None, arrays[1], None))
    assert float(ours) == pytest.approx(4 + 4 * found.item(), rel=1e-5)
    found.backward()
    assert all(parameter.grad is None for parameter in target.parameters())
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in online[0].parameters())


def test_a_step_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, trains the online network, and moves the target by 1 - tau of the way to it."""

    def absent(net: object) -> object:
        def call(*views: object) -> None:
            raise OSError("no g++\nmore of it")

        return call

    monkeypatch.setattr(torch, "compile", absent)
    step = lightly_step.Step(tiny(method__tau="0.75", method__probe="True", optimizer__learning_rate="3"))
    assert ": not compiled (no g++), channels_last, float32, LARS. Its step has its views made beforehand" in step.note
    assert step.note.endswith("ours makes them inside, and trains its linear probe along.")
    assert step.views[0].is_contiguous(memory_format=torch.channels_last)
    before = [parameter.clone() for parameter in step.target.parameters()]
    weights = [parameter.clone() for parameter in step.online.parameters()]
    with torch.no_grad():
        expected = lightly_step.loss(step.online, step.target, *step.views)
    jax.block_until_ready(step())
    assert step.loss.item() == pytest.approx(expected.item(), rel=1e-4)
    pairs = zip(before, step.online.parameters(), step.target.parameters(), strict=False)
    for old, online, new in pairs:
        torch.testing.assert_close(new, 0.75 * old + 0.25 * online.detach())
    assert all(not torch.equal(old, new) for old, new in zip(weights, step.online.parameters(), strict=True) if old.ndim > 1)


def test_the_optimizer_is_the_configurations() -> None:
    online, _ = lightly_step.networks(tiny())
    lars = lightly_step.optimizer(tiny(batch_size="512", optimizer__learning_rate="0.2", optimizer__weight_decay="1e-3"), online)
    decayed, free = lars.param_groups
    assert {parameter.ndim > 1 for parameter in decayed["params"]} == {True}
    assert {parameter.ndim for parameter in free["params"]} == {1}
    assert len(decayed["params"]) + len(free["params"]) == len(list(online.parameters()))
    assert (decayed["weight_decay"], free["weight_decay"], decayed["lr"], decayed["momentum"]) == (1e-3, 0.0, 0.4, 0.9)
    names = {name: type(lightly_step.optimizer(tiny(optimizer__name=name), online)).__name__ for name in ("lars", "sgd", "adamw")}
    assert names == {"lars": "LARS", "sgd": "SGD", "adamw": "AdamW"}


def test_where_it_can_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lightly_step.device() == "cpu"  # of several fake devices, which share the cores
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(cfg.ConfigError, match="JAX has 8 x gpu here; lightly is measured on one GPU or on the CPU"):
        lightly_step.device()
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    for there in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        with contextlib.nullcontext() if there else pytest.raises(cfg.ConfigError, match=r"torch .* sees none; JAX_PLATFORMS=cpu"):
            assert lightly_step.device() == "cuda"


def views_of(image: np.ndarray, transform: Any) -> list[np.ndarray]:
    return [view.numpy() for view in transform(Image.fromarray(image))]


PLAIN: dict[str, Any] = {"crop_area": (1.0, 1.0), "flip": 0.0, "jitter": 0.0, "grayscale": 0.0, "blur": 0.0, "solarize": 0.0}


def test_its_transform_does_what_the_recipe_says() -> None:
    """On an image whose left half is (200, 100, 50) and whose right half is black; lightly's threshold is 128."""
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, :4] = 200, 100, 50
    bare = Views(size=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)).both(**PLAIN)

    def left(views: Views, column: int = 0) -> list[list[float]]:
        return [view[:, 0, column].tolist() for view in views_of(image, lightly_input.whole(views))]

    colour = [(value / 255 - 0.5) / 0.25 for value in (200, 100, 50)]
    inverted = [(value / 255 - 0.5) / 0.25 for value in (55, 100, 50)]
    assert left(bare) == [pytest.approx(colour, abs=1e-5)] * 2
    assert left(bare.both(flip=1.0), 7) == [pytest.approx(colour, abs=1e-5)] * 2
    assert left(bare.both(solarize=1.0)) == [pytest.approx(inverted, abs=1e-5)] * 2
    assert all(len(set(view)) == 1 for view in left(bare.both(grayscale=1.0)))
    assert left(bare.both(blur=1.0, blur_sigma=(2.0, 2.0)), 3)[0][0] < colour[0]  # the edge is soft
    assert left(bare.both(jitter=1.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0))[0] == pytest.approx(colour, abs=0.05)
    asymmetric = Views(size=8, view1=bare.view1, view2=bare.both(solarize=1.0).view2, mean=bare.mean, std=bare.std)
    assert left(asymmetric) == [pytest.approx(colour, abs=1e-5), pytest.approx(inverted, abs=1e-5)]


def test_crops_alone_are_pixels() -> None:
    image = np.full((20, 30, 3), (200, 100, 50), np.uint8)
    for view in views_of(image, lightly_input.crops(Views(size=8))):
        assert (view.dtype, view.shape) == (np.float32, (3, 8, 8))
        np.testing.assert_allclose(view, np.broadcast_to(np.float32([200, 100, 50]).reshape(3, 1, 1) / 255, (3, 8, 8)), atol=1e-6)


@pytest.mark.parametrize("of", ["folder", "arrays"])
def test_batches_have_no_end_until_they_are_closed(of: str, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 20, 20, 3), np.uint8)
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    source = data.folder(tmp_path) if of == "folder" else data.from_arrays(images)
    with lightly_input.batches(source, lightly_input.crops(Views(size=8)), 4) as batches:
        found = [next(batches) for _ in range(4)]  # 16 of 6 images
        assert multiprocessing.active_children()
    assert not multiprocessing.active_children()
    assert [[(tuple(view.shape), view.dtype) for view in batch] for batch in found] == [[((4, 3, 8, 8), torch.float32)] * 2] * 4
    assert not torch.equal(found[0][0], found[0][1])


@pytest.mark.slow
@pytest.mark.parametrize("what", ["step", "input"])
def test_through_the_command_line(what: str, tmp_path: Path) -> None:
    for i in range(8):
        Image.fromarray(np.full((20, 20, 3), 10 * i, np.uint8)).save(tmp_path / f"{i}.jpg")
    if what == "step":
        config, how, changes = "configs/imagenet.py", "--synthetic", TINY
    else:
        config, how, changes = "configs/folder.py", "--baseline", {"data.path": str(tmp_path), "views.size": "32", "batch_size": "4"}
    flags = ["--config", config, how, *(f"--config.{key}={value}" for key, value in changes.items())]
    argv = ["bench", what, *flags, "--peer", "lightly", "--repeats", "1", "--json", str(tmp_path / "r.jsonl")]
    env = os.environ | {"CXX": "/none", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}  # no compiler, which takes a minute; one device
    subprocess.run([sys.executable, "-m", "byol_jax", *argv], cwd=ROOT, env=env, check=True, timeout=900)
    (line,) = [json.loads(text) for text in (tmp_path / "r.jsonl").read_text().splitlines()]
    names = {"step": ["lightly"], "input": ["the official form", "lightly", "lightly, crops alone"]}[what]
    assert list(line["peers"]) == names
    assert all(peer["ratio"] > 0 and peer["cpu_ratio"] > 0 for peer in line["peers"].values())
    assert set(names[-2:]) <= set(line["rows"])
    assert (line["ratio"] is None) == (what == "step")
    assert {"torch", "torchvision", "lightly"} <= set(line["versions"])
