"""Against PyTorch itself: torchvision's and timm's ResNets in, ours out by the code that docs/checkpoints.md shows. Needs torch.

pip install 'byol-jax[torch]' torchvision timm && python -m pytest -m slow tests/convert/test_torch_parity.py
"""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest

from byol_jax import convert, models, views
from byol_jax.convert import export
from byol_jax.convert import torch as reader

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "checkpoints.md"
SIDES = (64, 65)  # where the two paddings differ, and where they agree


@pytest.fixture
def torch() -> ModuleType:
    pytest.importorskip("torchvision")
    return pytest.importorskip("torch")


def shaken(torch: Any, net: Any) -> Any:
    """Random weights and statistics, none at its default."""
    torch.manual_seed(0)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.copy_(0.3 + 0.4 * torch.rand_like(module.weight))
                module.running_var.copy_(0.5 + torch.rand_like(module.running_var))
                for tensor in (module.bias, module.running_mean):
                    tensor.copy_(0.1 * torch.randn_like(tensor))
    return net.eval()


def images(side: int) -> np.ndarray:
    return np.random.default_rng(side).normal(size=(2, side, side, 3)).astype(np.float32)


def theirs(torch: Any, net: Any, side: int) -> np.ndarray:
    with torch.no_grad():
        return net(torch.from_numpy(np.ascontiguousarray(images(side).transpose(0, 3, 1, 2)))).numpy()


def ours(module: models.ResNet, variables: Any, side: int) -> np.ndarray:
    return np.asarray(jax.jit(lambda v, x: module.apply(v, x, False))(variables, images(side)))


def module_of(weights: convert.Weights) -> models.ResNet:
    fields = weights.encoder
    options = {key: fields[key] for key in ("width", "padding", "shortcut")}
    return getattr(models, fields["name"])(small_inputs=fields["stem"] == "small", **options)


def agree(a: np.ndarray, b: np.ndarray) -> None:
    """To 1e-4 of the root mean square, in every number."""
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= 1e-4 * np.sqrt(np.mean(b**2))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvision_in(torch: Any, name: str, tmp_path: Path) -> None:
    """From a .pth as DDP saves it, with the classifier."""
    import torchvision

    net = shaken(torch, getattr(torchvision.models, name)(num_classes=7))
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "net.pth")
    weights = reader.read(tmp_path / "net.pth")
    assert (weights.encoder["name"], weights.origin["prefix"]) == (name, "state_dict.module.")
    assert weights.classifier is not None
    for side in SIDES:
        embedding = ours(module_of(weights), weights.variables, side)
        agree(embedding @ weights.classifier["kernel"] + weights.classifier["bias"], theirs(torch, net, side))
    net.fc = torch.nn.Identity()
    for side in SIDES:
        agree(ours(module_of(weights), weights.variables, side), theirs(torch, net, side))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_timm_in(torch: Any, name: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    net = shaken(torch, timm.create_model(name, num_classes=0))
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    weights = reader.read(tmp_path / "net.safetensors")
    assert weights.encoder["name"] == name
    for side in SIDES:
        agree(ours(module_of(weights), weights.variables, side), theirs(torch, net, side))


@pytest.mark.parametrize("name", ["wide_resnet50_2", "resnext50_32x4d"])
def test_torchvisions_other_widths_are_refused(torch: Any, name: str, tmp_path: Path) -> None:
    import torchvision

    torch.save(getattr(torchvision.models, name)().state_dict(), tmp_path / "net.pth")
    with pytest.raises(convert.ConvertError, match=r"wide_resnet50_2 widens its inner" if "wide" in name else "ResNeXt"):
        reader.read(tmp_path / "net.pth")


class Boom:
    def __reduce__(self) -> tuple:
        return os.system, ("touch ran",)


def test_a_pth_with_code_in_it_runs_nothing(torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"conv1.weight": torch.zeros(2)}, "args": Boom()}, "net.pth")
    with pytest.raises(convert.ConvertError, match=r"net\.pth: holds more than weights, and is not loaded"):
        reader.read("net.pth")
    assert not Path("ran").exists()
    whole = Path("net.pth").read_bytes()
    for name, damaged in (("cut.pth", whole[: len(whole) // 2]), ("empty.pth", b""), ("text.pth", b"hello there")):
        Path(name).write_bytes(damaged)
        with pytest.raises(convert.ConvertError, match=rf"{name}: (is not a whole PyTorch file|holds more than weights)"):
            reader.read(name)


def shown(tag: str) -> str:
    """A code block of the page."""
    found = re.search(rf"<!-- tested: {tag} -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"docs/checkpoints.md has no block {tag!r}"
    return found[1]


def exported(module: models.ResNet, folder: Path) -> Any:
    """Random variables of a network, written as mine.safetensors."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32), False))
    rng = np.random.default_rng(1)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        name, z = path[-1].key, rng.normal(size=leaf.shape)
        fan_in = np.prod(leaf.shape[:-1])
        made = {"kernel": z * np.sqrt(2 / fan_in), "scale": 0.5 + 0.1 * z, "var": 1 + 0.3 * np.abs(z)}
        return np.asarray(made.get(name, 0.1 * z), np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    export.to_safetensors(folder / "mine.safetensors", module, variables, views=views.imagenet(64), source={})
    return variables


WIDENED = ("net.fc = nn.Identity()", "net.fc = nn.Identity()\nnet = widened(net, 2)")
CASES = {
    "resnet50, symmetric": ("symmetric", models.resnet50(padding="symmetric", bn_axis=None), []),
    "resnet18, symmetric": ("symmetric", models.resnet18(padding="symmetric", shortcut="shape", bn_axis=None), [("resnet50", "resnet18")]),
    "resnet18, same": ("same", models.resnet18(bn_axis=None), []),
    "resnet50, same": ("same", models.resnet50(bn_axis=None), [("resnet18", "resnet50"), ("net.layer1[0].downsample", "_")]),
    "resnet18, width 2, same": (
        "same",
        models.resnet18(width=2, bn_axis=None),
        [WIDENED, ("nn.Conv2d(64, 64, 1, bias=False), nn.BatchNorm2d(64)", "nn.Conv2d(128, 128, 1, bias=False), nn.BatchNorm2d(128)")],
    ),
    "resnet18, small stem, same": (
        "same",
        models.resnet18(small_inputs=True, bn_axis=None),
        [("net.fc =", "net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)\nnet.maxpool = nn.Identity()\nnet.fc =")],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_ours_out_by_the_code_of_the_page(torch: Any, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tag, module, edits = CASES[case]
    monkeypatch.chdir(tmp_path)
    variables = exported(module, tmp_path)
    code = shown(tag)
    for old, new in edits:
        assert old in code
        code = code.replace(old, new)
    scope: dict[str, Any] = {"nn": torch.nn}
    exec(shown("wide"), scope)
    exec(code, scope)
    for side in SIDES:
        agree(theirs(torch, scope["net"], side), ours(module, variables, side))
    if module.padding == "same" and case.startswith("resnet18, same"):
        for layer in scope["net"].modules():  # the same weights with PyTorch's padding embed otherwise
            layer._forward_pre_hooks.clear()
            if isinstance(layer, torch.nn.Conv2d | torch.nn.MaxPool2d):
                kernel = layer.kernel_size if isinstance(layer.kernel_size, int) else layer.kernel_size[0]
                layer.padding = kernel // 2
        wrong, right = theirs(torch, scope["net"], 64), ours(module, variables, 64)
        assert np.abs(wrong - right).max() > 0.1 * np.sqrt(np.mean(right**2))


def test_the_golden_file_is_what_its_maker_makes(torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("make_torch_tiny", HERE / "make_torch_tiny.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    kept = maker.GOLDEN
    monkeypatch.setattr(maker, "GOLDEN", tmp_path / "again.npz")
    maker.main()
    with np.load(kept) as old, np.load(tmp_path / "again.npz") as new:
        assert set(old) == set(new)
        for key in old:
            np.testing.assert_allclose(new[key], old[key], rtol=1e-6, atol=1e-7)
