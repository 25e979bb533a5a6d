"""ResNets out as .safetensors: what is in the file, what its user is told, and that reading it gives the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from byol_jax import convert, models, views
from byol_jax.convert import export, layers, torch

RECIPE = views.Views(size=24, eval_crop=0.9, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))


def random_variables(module: models.ResNet) -> dict:
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32), False))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("shortcut", ["first", "shape"])
@pytest.mark.parametrize(("block", "small", "width"), [("basic", True, 2), ("bottleneck", False, 1)])
def test_out_and_in_again_is_the_same_bit_for_bit(tmp_path: Path, padding: str, shortcut: str, block: str, small: bool, width: int) -> None:
    module = models.resnet((1, 2), (8, 16), block=block, small_inputs=small, width=width, padding=padding, shortcut=shortcut, bn_axis=None)
    variables = random_variables(module)
    path, sidecar = export.to_safetensors(tmp_path / "out" / "net.safetensors", module, variables, views=RECIPE, source={"step": 7})
    weights = torch.read(path)
    jax.tree.map(np.testing.assert_array_equal, weights.variables, variables)
    assert (weights.encoder["padding"], weights.encoder["stem"]) == (padding, "small" if small else "imagenet")
    assert weights.encoder["shortcut"] == shortcut
    assert [weights.encoder["width"] * c for c in weights.encoder["channels"]] == [8 * width, 16 * width]
    assert weights.preprocess == {"size": 24, "eval_crop": 0.9, "mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 3.0)}
    assert (weights.origin["source"], weights.origin["step"], weights.origin["assumed"]) == ({"step": 7}, 7, [])
    facts = json.loads(sidecar.read_text())
    assert sidecar.name == "net.preprocess.json"
    assert (facts["padding"], facts["shortcut"], facts["size"], facts["std"]) == (padding, shortcut, 24, [1.0, 2.0, 3.0])
    assert {file.name for file in path.parent.iterdir()} == {"net.safetensors", "net.preprocess.json"}


def test_the_exported_keys_and_values() -> None:
    module = models.resnet((1,), (4,), bn_axis=None)
    variables = random_variables(module)
    tensors = layers.to_torch(layers.Net.of(module), variables)
    kernel = variables["params"]["stage0_block0"]["conv_1"]["kernel"]
    assert tensors["layer1.0.conv2.weight"][3, 1, 0, 2] == kernel[0, 2, 1, 3]
    np.testing.assert_array_equal(
        tensors["layer1.0.downsample.1.running_var"], variables["batch_stats"]["stage0_block0"]["shortcut_norm"]["var"]
    )
    np.testing.assert_array_equal(tensors["bn1.weight"], variables["params"]["stem_norm"]["scale"])


def test_an_exported_file_has_the_counters_that_strict_loading_wants(tmp_path: Path) -> None:
    module = models.resnet((1,), (4,), bn_axis=None)
    path, _ = export.to_safetensors(tmp_path / "x.safetensors", module, random_variables(module), views=RECIPE, source={})
    found = load_file(path)
    norms = {key.removesuffix(".running_mean") for key in found if key.endswith(".running_mean")}
    assert len(norms) == 4
    assert all(found[f"{norm}.num_batches_tracked"] == 0 for norm in norms)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (models.resnet50(padding="symmetric"), []),
        (models.resnet50(), ["SAME"]),
        (models.resnet18(padding="symmetric", shortcut="shape"), []),
        (models.resnet18(small_inputs=True), ["conv1", "layer1[0]", "SAME"]),
        (models.resnet50(width=2, padding="symmetric"), ["build a ResNet of these widths"]),
    ],
)
def test_what_a_user_of_the_file_is_told(module: models.ResNet, words: list[str]) -> None:
    told = export.loads(layers.Net.of(module), module.padding)
    assert "fc" in told[0]
    assert len(told) == 1 + len(words)
    assert all(word in text for word, text in zip(words, told[1:], strict=True))


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(convert.ConvertError, match="Dense: only a ResNet has torchvision's names"):
        export.to_safetensors(tmp_path / "x.safetensors", nn.Dense(2), {}, views=RECIPE, source={})
    with pytest.raises(convert.ConvertError, match=r"encoder\.norm = 'group': torchvision's ResNets have batch norms"):
        export.to_safetensors(tmp_path / "x.safetensors", models.resnet(norm="group"), {}, views=RECIPE, source={})
    with pytest.raises(convert.ConvertError, match=r"must end in \.safetensors"):
        export.to_safetensors(tmp_path / "x.pth", models.resnet(), {}, views=RECIPE, source={})
