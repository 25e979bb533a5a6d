"""Vision Transformers: counts and tables by value, timm's forward pass, and a patch projection that nothing moves."""

from __future__ import annotations

import importlib.util
import math
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import method as m
from byol_jax import models
from byol_jax.models.vit import patch_projection, positions

GOLDEN = Path(__file__).parents[1] / "golden" / "torch_vit_tiny.npz"
HEADS, HIDDEN = 4, 16


@pytest.mark.parametrize(("name", "hidden", "known"), [("vit_s16", 384, 21_294_720), ("vit_b16", 768, 85_056_768)])
def test_parameters(name: str, hidden: int, known: int) -> None:
    """What is trained. With the fixed parts, a projection with its bias and 197 positions, ViT-S has timm's 21,665,664."""
    encoder = getattr(models, name)()
    shapes = jax.eval_shape(lambda: encoder.init(jax.random.key(0), np.zeros((1, 224, 224, 3), np.float32), False))
    layer = 12 * hidden**2 + 13 * hidden  # four square matrices, an MLP four times as wide, their biases, two norms
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 12 * layer + 2 * hidden + hidden == known
    fixed = 769 * hidden + 197 * hidden
    assert known + fixed == {384: 21_665_664, 768: 85_798_656}[hidden]
    assert shapes["params"]["stack"]["block_11"]["attention"]["query"]["kernel"].shape == (hidden, 12, hidden // 12)


def test_positions_by_hand() -> None:
    """Frequencies 1 and 1/100 for 8 features; in two rows of three, patch 5 is row 1, column 2."""
    table = positions(2, 3, 8)
    assert table.shape == (6, 8)
    np.testing.assert_array_equal(table[0], [0, 0, 1, 1, 0, 0, 1, 1])
    row, column = (1, 0.01), (2, 0.02)
    wanted = [*map(math.sin, row), *map(math.cos, row), *map(math.sin, column), *map(math.cos, column)]
    np.testing.assert_allclose(table[5], wanted, atol=1e-7)
    np.testing.assert_allclose(table[2, :4], [0, 0, 1, 1])  # row 0 still


def test_patch_projection_by_hand() -> None:
    """Uniform within sqrt(6 / (3 * 16 * 16 + 384)) = 0.0721688; the first number of seed 0 is 0.5488135 of the way."""
    projection = patch_projection(16, 384, 0)
    assert projection.shape == (768, 384)
    assert np.abs(projection).max() == pytest.approx(0.0721688, rel=1e-4)
    assert projection.std() == pytest.approx(0.0721688 / math.sqrt(3), rel=1e-2)
    assert projection[0, 0] == pytest.approx(0.0721688 * (2 * 0.5488135 - 1), rel=1e-5)


def test_initialisation_is_moco_v3_s() -> None:
    encoder = models.ViT(layers=1, hidden=64, heads=4, mlp=256)
    params = jax.jit(partial(encoder.init, train=True))(jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))["params"]
    block = params["stack"]["block_0"]
    attention = block["attention"]
    square, wide = math.sqrt(6 / 128), math.sqrt(6 / 320)
    kernels = [(attention[name]["kernel"], square) for name in ("query", "key", "value", "out")]
    for kernel, bound in [*kernels, (block["mlp_0"]["kernel"], wide), (block["mlp_1"]["kernel"], wide)]:
        assert 0.99 * bound < float(jnp.abs(kernel).max()) <= bound
        assert float(kernel.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert float(params["cls"].std()) == pytest.approx(1e-6, rel=0.4)


def from_timm(tensors: Any) -> dict[str, Any]:
    """timm's weights as ours; the projection and the positions have no place among them."""

    def dense(name: str, *shape: int) -> dict[str, np.ndarray]:
        return {"kernel": tensors[f"{name}.weight"].T.reshape(*shape), "bias": tensors[f"{name}.bias"].reshape(shape[1:])}

    def norm(name: str) -> dict[str, np.ndarray]:
        return {"scale": tensors[f"{name}.weight"], "bias": tensors[f"{name}.bias"]}

    stack = {}
    for i in range(2):
        name, split = f"blocks.{i}", (HEADS, HIDDEN // HEADS)
        qkv = {
            ours: {
                "kernel": tensors[f"{name}.attn.qkv.weight"][j * HIDDEN : (j + 1) * HIDDEN].T.reshape(HIDDEN, *split),
                "bias": tensors[f"{name}.attn.qkv.bias"][j * HIDDEN : (j + 1) * HIDDEN].reshape(split),
            }
            for j, ours in enumerate(("query", "key", "value"))
        }
        out = {"kernel": tensors[f"{name}.attn.proj.weight"].T.reshape(*split, HIDDEN), "bias": tensors[f"{name}.attn.proj.bias"]}
        stack[f"block_{i}"] = {
            "attention": {**qkv, "out": out},
            "attention_norm": norm(f"{name}.norm1"),
            "mlp_0": dense(f"{name}.mlp.fc1", HIDDEN, 4 * HIDDEN),
            "mlp_1": dense(f"{name}.mlp.fc2", 4 * HIDDEN, HIDDEN),
            "mlp_norm": norm(f"{name}.norm2"),
        }
    return {"cls": tensors["cls_token"].reshape(HIDDEN), "norm": norm("norm"), "stack": stack}


def test_the_forward_pass_is_timm_s() -> None:
    with np.load(GOLDEN) as golden:
        tensors = {name.removeprefix("weights/"): golden[name] for name in golden if name.startswith("weights/")}
        images, wanted = golden["images"], golden["embedding"]
    encoder = models.ViT(layers=2, hidden=HIDDEN, heads=HEADS, mlp=4 * HIDDEN, patch=4)
    projection = patch_projection(4, HIDDEN, 0).reshape(4, 4, 3, HIDDEN)
    np.testing.assert_array_equal(projection.transpose(3, 2, 0, 1), tensors["patch_embed.proj.weight"])
    np.testing.assert_allclose(positions(3, 3, HIDDEN), tensors["pos_embed"][0, 1:], atol=1e-7)
    variables = {"params": from_timm(tensors)}
    assert jax.tree.map(np.shape, variables) == jax.tree.map(
        np.shape, jax.eval_shape(lambda: encoder.init(jax.random.key(0), images, False))
    )
    np.testing.assert_allclose(jax.jit(partial(encoder.apply, train=False))(variables, images), wanted, atol=2e-5)


def test_patches_are_read_row_by_row() -> None:
    """One pixel moves its patch's token alone: with no layers, the class token sees none of it; with one, it does."""
    x = np.zeros((1, 8, 12, 3), np.float32)
    y = x.copy()
    y[0, 5, 9, 1] = 1.0
    for layers in (0, 1):
        encoder = models.ViT(layers=layers, hidden=8, heads=2, mlp=8, patch=4)
        variables = jax.jit(partial(encoder.init, train=False))(jax.random.key(0), x)
        run = jax.jit(partial(encoder.apply, variables, train=False))
        assert (float(jnp.abs(run(x) - run(y)).max()) > 1e-4) == (layers == 1)


def test_no_optimizer_sees_the_patch_projection() -> None:
    """Nothing of its shape is among the parameters, and online and target network embed a patch alike."""
    encoder = models.ViT(layers=1, hidden=8, heads=2, mlp=8, patch=4)
    x = np.zeros((2, 8, 8, 3), np.float32)
    method = m.Byol(encoder, m.MLP(8, 4), m.MLP(8, 4))
    state = jax.eval_shape(lambda key: m.init(method, m.adamw(1e-3), key, {"view1": x, "view2": x}), jax.random.key(0))
    assert set(state.online["params"]["encoder"]) == {"cls", "norm", "stack"}
    assert state.online["batch_stats"].keys() == {"projector", "predictor"}


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({}, (1, 30, 40, 3), r"sides are multiples of 16; it was given \[1, 30, 40, 3\]; the nearest size: 32 x (32|48)"),
        ({}, (1, 8, 16, 3), r"the nearest size: 16 x 16"),
        ({}, (1, 32, 32, 1), r"takes images \[B, H, W, 3\] .* it was given \[1, 32, 32, 1\]\n"),
        ({"heads": 5}, (1, 32, 32, 3), r"ViT\(hidden=384, heads=5\): hidden must be divisible by heads; the nearest number that fits: 4"),
        ({"hidden": 18, "heads": 2}, (1, 32, 32, 3), r"ViT\(hidden=18\): .* hidden divisible by 4; nearest: 16"),
    ],
)
def test_refused(options: dict[str, Any], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.ViT(**options).init(jax.random.key(0), np.zeros(shape, np.float32), True)


@pytest.mark.slow
def test_the_golden_file_is_what_its_maker_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Needs timm: pip install 'byol-jax[torch]' timm."""
    pytest.importorskip("timm")
    spec = importlib.util.spec_from_file_location("make_vit_tiny", Path(__file__).with_name("make_vit_tiny.py"))
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    monkeypatch.setattr(maker, "GOLDEN", tmp_path / "again.npz")
    maker.main()
    with np.load(GOLDEN) as old, np.load(tmp_path / "again.npz") as new:
        assert set(old) == set(new)
        for key in old:
            np.testing.assert_allclose(new[key], old[key], rtol=1e-5, atol=1e-6)
