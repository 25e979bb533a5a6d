"""Weights from PyTorch and back, without torch: golden embeddings that torchvision computed, every library's prefixes, and what is refused.

tests/golden/torch_resnet_tiny.npz was made by make_torch_tiny.py, which says how; test_torch_parity.py (slow) has the real networks.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from byol_jax import convert, models, views
from byol_jax.convert import layers, state_dict, torch

with np.load(Path(__file__).parents[1] / "golden" / "torch_resnet_tiny.npz") as file:
    GOLDEN = dict(file)


def golden(block: str) -> dict[str, np.ndarray]:
    start = f"{block}/weights/"
    return {key.removeprefix(start): value for key, value in GOLDEN.items() if key.startswith(start)}


BASIC = golden("basic")


def saved(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, path)
    return path


def under(prefix: str, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{prefix}{key}": value for key, value in tensors.items()}


def module_of(weights: convert.Weights, **changes: object) -> models.ResNet:
    fields: dict[str, Any] = weights.encoder | changes
    parts = (fields["stages"], fields["channels"])
    options = {key: fields[key] for key in ("block", "width", "stem_channels", "padding", "shortcut")}
    return models.resnet(*parts, small_inputs=fields["stem"] == "small", **options)


def embedded(module: models.ResNet, variables: dict, images: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(lambda v, x: module.apply(v, x, False))(variables, images))


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_embeddings_equal_torchs(block: str, tmp_path: Path) -> None:
    weights = torch.read(saved(tmp_path / "net.safetensors", golden(block)))
    for side in (16, 17):
        images, expected = GOLDEN[f"{block}/{side}/images"], GOLDEN[f"{block}/{side}/embedding"]
        np.testing.assert_allclose(embedded(module_of(weights), weights.variables, images), expected, rtol=1e-5, atol=1e-5)


def test_the_wrong_padding_differs_where_sides_are_even(tmp_path: Path) -> None:
    """At 17 the map is odd at every stride (17, 9, 5, 3); at 16 the official code's padding moves all of it."""
    weights = torch.read(saved(tmp_path / "net.safetensors", BASIC))
    apart = {}
    for side in (16, 17):
        wrong = embedded(module_of(weights, padding="same"), weights.variables, GOLDEN[f"basic/{side}/images"])
        apart[side] = np.abs(wrong - GOLDEN[f"basic/{side}/embedding"]).max()
    assert apart[16] > 0.1
    assert apart[17] < 1e-5


def test_what_the_shapes_say(tmp_path: Path) -> None:
    basic, bottleneck = (torch.read(saved(tmp_path / f"{block}.safetensors", golden(block))) for block in ("basic", "bottleneck"))
    parts = {"name": "resnet", "width": 1, "stem_channels": 4, "padding": "symmetric"}
    shapes = {"block": "basic", "stages": (2, 1), "channels": (4, 8), "stem": "imagenet", "shortcut": "shape"}
    assert basic.encoder == {**parts, **shapes}
    shapes = {"block": "bottleneck", "stages": (1, 2), "channels": (16, 32), "stem": "small", "shortcut": "first"}
    assert bottleneck.encoder == {**parts, **shapes}
    assert basic.preprocess == {"size": 224, "eval_crop": 0.875, "mean": views.IMAGENET_MEAN, "std": views.IMAGENET_STD}
    assert (bottleneck.preprocess["size"], bottleneck.preprocess["eval_crop"]) == (32, 1.0)
    assert (basic.classifier, basic.origin["prefix"], basic.origin["left_out"]) == (None, "", [])
    assert not any("CIFAR" in text for text in basic.origin["assumed"])
    assert any("solo-learn's for CIFAR pads by 2" in text for text in bottleneck.origin["assumed"])
    assert bottleneck.classifier is not None
    np.testing.assert_array_equal(bottleneck.classifier["kernel"], GOLDEN["bottleneck/weights/fc.weight"].T)
    np.testing.assert_array_equal(bottleneck.classifier["bias"], np.ones(3))


@pytest.mark.parametrize(
    ("name", "module", "fields"),
    [
        ("resnet18", models.resnet18(shortcut="shape"), {"width": 1, "shortcut": "shape"}),
        ("resnet34", models.resnet34(), {"width": 1, "shortcut": "first"}),
        ("resnet50", models.resnet50(width=2), {"width": 2}),
        ("resnet152", models.resnet152(width=3), {"width": 3}),
        ("resnet200", models.resnet200(small_inputs=True), {"width": 1, "stem": "small"}),
    ],
)
def test_the_papers_networks_are_found_by_name(name: str, module: models.ResNet, fields: dict) -> None:
    net = torch._net(layers.expected(layers.Net.of(module)))
    assert net == layers.Net.of(module)
    assert net.spec().items() >= {"name": name, **fields}.items()


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("shortcut", ["first", "shape"])
def test_the_names_fit_the_module(block: str, shortcut: str) -> None:
    """The table of layers has exactly the variables that the network has."""
    module = models.resnet((1, 2), (8, 16), block=block, shortcut=shortcut, bn_axis=None)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32), False))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), variables)
    net = layers.Net.of(module)
    tensors = layers.to_torch(net, zeros)
    assert {key: value.shape for key, value in tensors.items()} == layers.expected(net)
    back = flatten_dict(layers.from_torch(net, tensors))
    assert {path: leaf.shape for path, leaf in back.items()} == {path: leaf.shape for path, leaf in flatten_dict(variables).items()}


OTHER = {key: value + 1 for key, value in BASIC.items()}
SEQUENTIAL = [("conv1", "0"), ("bn1", "1"), ("layer1", "4"), ("layer2", "5")]


def numbered(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As nn.Sequential(*list(net.children())[:-1]) names its parts."""
    heads = dict(SEQUENTIAL)
    return {f"{heads[head]}.{rest}": value for (head, _, rest), value in ((key.partition("."), value) for key, value in tensors.items())}


HEAD = {"projector.0.weight": np.zeros((4, 8), np.float32)}
LIBRARIES = {
    "torchvision": ("", {}),
    "DDP": ("module.", {}),
    "lightly": ("backbone.", {**under("backbone_momentum.", OTHER), **under("projection_head.", HEAD)}),
    "solo-learn": ("state_dict.backbone.", {**under("state_dict.momentum_backbone.", OTHER), **under("state_dict.", HEAD)}),
    "solo-learn, old": ("state_dict.encoder.", {**under("state_dict.momentum_encoder.", OTHER), **under("state_dict.", HEAD)}),
    "VISSL": ("classy_state_dict.base_model.model.trunk._feature_blocks.", under("classy_state_dict.base_model.model.heads.", HEAD)),
    "mmselfsup, BYOL": ("state_dict.backbone.", {**under("state_dict.online_net.0.", BASIC), **under("state_dict.target_net.0.", OTHER)}),
    "MoCo": ("state_dict.module.encoder_q.", under("state_dict.module.encoder_k.", OTHER)),
    "MoCo v3": ("state_dict.module.base_encoder.", under("state_dict.module.momentum_encoder.", OTHER)),
    "DINO": ("student.module.backbone.", under("teacher.backbone.", OTHER)),
    "byol-pytorch": ("online_encoder.net.", under("target_encoder.net.", OTHER)),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_online_encoder_is_found_in_what_libraries_save(library: str, tmp_path: Path) -> None:
    prefix, others = LIBRARIES[library]
    counters = {"bn1.num_batches_tracked": np.int64(7)} | {"fc.0.weight": np.zeros((4, 8), np.float32)}
    weights = torch.read(saved(tmp_path / "x.safetensors", {**under(prefix, {**BASIC, **counters}), **others}))
    plain = torch.read(saved(tmp_path / "plain.safetensors", BASIC))
    jax.tree.map(np.testing.assert_array_equal, weights.variables, plain.variables)
    assert weights.encoder == plain.encoder
    assert weights.origin["prefix"] == prefix
    assert weights.classifier is None  # fc.0 is a projection's
    assert len(weights.origin["passed_over"]) == len(
        {key.split("conv1")[0] for key in others if key.endswith("conv1.weight") and "layer" not in key}
    )


def test_a_sequential_of_children_by_number(tmp_path: Path) -> None:
    """lightly's usual backbone: nn.Sequential(*list(resnet.children())[:-1]); without the pool, layer1 is number 3."""
    plain = torch.read(saved(tmp_path / "plain.safetensors", BASIC))
    tensors = {**under("backbone.", numbered(BASIC)), **under("backbone_momentum.", numbered(OTHER))}
    weights = torch.read(saved(tmp_path / "x.safetensors", tensors))
    jax.tree.map(np.testing.assert_array_equal, weights.variables, plain.variables)
    assert (weights.origin["prefix"], weights.origin["passed_over"]) == ("backbone.", ["backbone_momentum."])
    without_relu = {re.sub(r"^[45]\.", lambda m: f"{int(m[0][0]) - 2}.", key): value for key, value in numbered(BASIC).items()}
    with pytest.raises(convert.ConvertError, match="the ReLU between them was lost"):
        torch.read(saved(tmp_path / "y.safetensors", without_relu))


def test_a_prefix_chooses(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.safetensors", {**under("encoder_q.", BASIC), **under("encoder_k.", OTHER)})
    slow = torch.read(path, prefix="encoder_k")
    np.testing.assert_array_equal(slow.variables["params"]["stem_norm"]["bias"], BASIC["bn1.bias"] + 1)
    assert (slow.origin["prefix"], slow.origin["passed_over"]) == ("encoder_k.", ["encoder_q."])
    with pytest.raises(
        convert.ConvertError, match=r"--prefix 'encoder_g': .* \(nearest: 'encoder_q.'\); there are: encoder_k., encoder_q."
    ):
        torch.read(path, prefix="encoder_g")
    with pytest.raises(convert.ConvertError, match=r"several networks; choose one by --prefix: a\., b\."):
        torch.read(saved(tmp_path / "y.safetensors", {**under("a.", BASIC), **under("b.", OTHER)}))
    with pytest.raises(convert.ConvertError, match=r"momentum or target networks alone; choose one by --prefix: teacher\."):
        torch.read(saved(tmp_path / "z.safetensors", under("teacher.", BASIC)))


def test_fc_is_a_classifier_only_where_nothing_but_wrappers_stand_before_it(tmp_path: Path) -> None:
    tensors = golden("bottleneck")
    linear = torch.read(saved(tmp_path / "x.safetensors", under("state_dict.module.", tensors)))
    projection = torch.read(saved(tmp_path / "y.safetensors", under("module.encoder_q.", tensors)))
    assert linear.classifier is not None
    assert linear.origin["left_out"] == []
    assert projection.classifier is None
    assert projection.origin["left_out"] == ["fc.bias", "fc.weight"]


WIDE = {
    **golden("bottleneck"),
    "layer1.0.conv1.weight": np.zeros((8, 4, 1, 1), np.float32),
    "layer1.0.conv2.weight": np.zeros((8, 8, 3, 3)),
}
GROUPED = {**golden("bottleneck"), "layer1.0.conv2.weight": np.zeros((4, 2, 3, 3), np.float32)}
REFUSED = {
    "no ResNet": ({"encoder.layers.0.attn": np.zeros(1)}, "there is no ResNet in it: no key ends in 'layer1.0.conv1.weight'"),
    "a layer more": (
        {**BASIC, "layer1.0.se.fc1.weight": np.zeros((1, 1))},
        r"keys unknown: layer1\.0\.se\.fc1\.weight \(nearest: 'layer1",
    ),
    "a layer too few": ({k: v for k, v in BASIC.items() if k != "layer2.0.bn1.bias"}, r"keys missing: layer2\.0\.bn1\.bias$"),
    "misspelt": (
        {k.replace("layer2.0.bn1.bias", "layer2.0.bn1.beta"): v for k, v in BASIC.items()},
        r"unknown: layer2\.0\.bn1\.beta \(nearest: 'layer2\.0\.bn1\.bias'\); missing: layer2\.0\.bn1\.bias",
    ),
    "another shape": (
        {**BASIC, "layer1.1.conv2.weight": np.zeros((4, 5, 3, 3))},
        r"of another shape: layer1\.1\.conv2\.weight \[4, 5, 3, 3\], not \[4, 4, 3, 3\]",
    ),
    "a block missing": (
        {k: v for k, v in BASIC.items() if not k.startswith("layer1.0.bn")},
        r"missing: layer1\.0\.bn1\.weight, .* and 5 more",
    ),
    "another stem": ({**BASIC, "conv1.weight": np.zeros((4, 3, 5, 5))}, r"conv1\.weight \[4, 3, 5, 5\]: ours are 7x7 .* or 3x3"),
    "a deep stem": (
        {k.replace("conv1.weight", "conv1.0.weight") if k == "conv1.weight" else k: v for k, v in BASIC.items()},
        "it lacks conv1.weight",
    ),
    "wide inside": (WIDE, "has 8 channels inside a block of 16, not 16 / 4 = 4; a wide ResNet as wide_resnet50_2"),
    "grouped": (GROUPED, r"grouped convolutions \(ResNeXt\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_ours_cannot_be_is_refused_by_name(case: str, tmp_path: Path) -> None:
    tensors, message = REFUSED[case]
    with pytest.raises(convert.ConvertError, match=message) as caught:
        torch.read(saved(tmp_path / "x.safetensors", tensors))
    assert str(caught.value).startswith(f"{tmp_path / 'x.safetensors'}: ")


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = saved(tmp_path / "x.safetensors", BASIC).read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-10])
    (tmp_path / "x.pth").write_bytes(b"no torch file")
    (tmp_path / "x.h5").write_bytes(b"")
    for name, message in [
        ("none.pth", "there is no such file"),
        ("x.h5", r"ends in \.safetensors, \.pth, \.pt, \.ckpt, \.tar or \.bin"),
        ("cut.safetensors", r"is not a whole \.safetensors file"),
    ]:
        with pytest.raises(convert.ConvertError, match=message):
            torch.read(tmp_path / name)
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    with pytest.raises(convert.ConvertError, match=r"needs torch, .* pip install 'byol-jax\[torch\]'"):
        torch.read(tmp_path / "x.pth")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(convert.ConvertError, match=r"needs safetensors, .* pip install 'byol-jax\[safetensors\]'"):
        torch.read(tmp_path / "x.safetensors")


class Loader:
    """A torch of some version, which notes what it is asked to load."""

    def __init__(self, version: str) -> None:
        self.__version__, self.asked = version, []

    def load(self, path: Path, **options: object) -> dict:
        self.asked.append((path, options))
        return {}


@pytest.mark.parametrize("version", ["1.13.1", "2.4.0", "2.5.1+cu124"])
def test_a_torch_whose_loader_can_run_code_loads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    path, loader = tmp_path / "x.pth", Loader(version)
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", loader)
    with pytest.raises(convert.ConvertError) as caught:
        state_dict.load(path)
    told = f"{path}: is not loaded by torch {version}, whose weights-only loader can be made to run code (CVE-2025-32434); "
    assert str(caught.value) == told + "take 2.6 or newer: pip install -U 'torch>=2.6'"
    assert loader.asked == []


@pytest.mark.parametrize("version", ["2.6.0", "2.6.0a0+git1", "2.10.0+cpu", "3.0.0"])
def test_a_newer_torch_loads_weights_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    path, loader = tmp_path / "x.pth", Loader(version)
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", loader)
    assert state_dict.load(path) == ({}, {})
    assert loader.asked == [(path, {"map_location": "cpu", "weights_only": True})]


def test_the_extra_wants_a_torch_that_may_load() -> None:
    setup = (Path(__file__).parents[2] / "setup.py").read_text(encoding="utf-8")
    assert '"torch": ["torch>=2.6", *SAFETENSORS]' in setup
    assert state_dict.SAFE == (2, 6)


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    import ml_dtypes

    for dtype in (np.float16, ml_dtypes.bfloat16, np.float64):
        tensors = {key: value.astype(dtype) for key, value in BASIC.items()}
        kernel = torch.read(saved(tmp_path / "x.safetensors", tensors)).variables["params"]["stem_conv"]["kernel"]
        assert kernel.dtype == np.float32
        np.testing.assert_array_equal(kernel, tensors["conv1.weight"].astype(np.float32).transpose(2, 3, 1, 0))


def test_a_header_that_only_pretends_to_be_ours(tmp_path: Path) -> None:
    for text in ("{", "[1]"):
        save_file(BASIC, tmp_path / "x.safetensors", metadata={"byol_jax": text})
        with pytest.raises(convert.ConvertError, match="the header's byol_jax is not JSON as our export writes it"):
            torch.read(tmp_path / "x.safetensors")
