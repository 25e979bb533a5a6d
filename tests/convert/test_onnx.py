"""Encoders out as ONNX, run by onnxruntime. The slow ones need the extra "onnx"."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from byol_jax import convert, evaluate, models, views
from byol_jax.convert.onnx import convertible, to_onnx
from byol_jax.convert.stablehlo import forward
from byol_jax.models.forms import as_jax_has_it
from byol_jax.models.resnet import StandardizedConv

RECIPE = views.Views(size=12, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 0.5))


def drawn(module: models.ResNet) -> dict:
    variables = jax.jit(module.init, static_argnums=2)(jax.random.key(0), jnp.zeros((1, 12, 12, 3)), False)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: np.asarray(leaf) + rng.uniform(0, 0.3, leaf.shape).astype(np.float32), variables)


ENCODERS = {
    "small stem": {},
    "imagenet stem": {"small_inputs": False},
    "symmetric": {"small_inputs": False, "padding": "symmetric", "shortcut": "shape"},
    "bottleneck": {"block": "bottleneck", "padding": "symmetric"},
    "group": {"norm": "group", "channels": (16, 32)},
    "group, all of it": {"norm": "group", "channels": (64, 128), "block": "bottleneck", "small_inputs": False, "padding": "symmetric"},
    "bfloat16": {"dtype": jnp.bfloat16},
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the converter's
@pytest.mark.parametrize("options", ENCODERS.values(), ids=ENCODERS)
def test_onnxruntime_gives_the_same_embeddings(options: dict, tmp_path: Path) -> None:
    pytest.importorskip("jax2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    module = models.resnet((1, 1), **{"channels": (4, 8), **options})
    variables = drawn(module)
    path, sidecar = to_onnx(tmp_path / "x.onnx", module, variables, views=RECIPE, source={"step": 7})
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    encoder = evaluate.Encoder(module.clone(dtype=jnp.float32), variables, RECIPE)
    for batch in (1, 5):
        images = np.random.default_rng(batch).integers(0, 256, (batch, 12, 12, 3), np.uint8)
        wanted = encoder(images)
        found = session.run(None, {session.get_inputs()[0].name: images})[0]
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.sqrt(np.mean(wanted**2)))
    facts = json.loads(sidecar.read_text())
    assert (facts["input"], facts["output"]) == ("uint8[b, 12, 12, 3], RGB", f"float32[b, {module.channels[-1]}]")
    assert facts["source"] == {"step": 7}


class Own(nn.Module):
    """A user's encoder: its pool is converted rightly; jax2onnx 0.17.1 overlooks what "standardised" does, the others fail."""

    kind: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = (StandardizedConv if self.kind == "standardised" else nn.Conv)(4, (3, 3), name="conv")(x)
        if self.kind == "size":
            x = x[: int(x.shape[0])]
        if self.kind == "lax":
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
        return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 0))).mean((1, 2))


WRONG = {
    "standardised": "Own: jax2onnx turned it into a network that gives other embeddings; nothing was written; take --to stablehlo",
    "lax": "Own: onnxruntime does not run what jax2onnx made of it: .*; nothing was written",
    "size": "Own: jax2onnx does not convert it: .*; nothing was written",
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_encoders_of_ones_own(tmp_path: Path) -> None:
    pytest.importorskip("jax2onnx")
    pytest.importorskip("onnxruntime")
    variables = Own("plain").init(jax.random.key(0), jnp.zeros((1, 12, 12, 3)), False)
    assert to_onnx(tmp_path / "x.onnx", Own("plain"), variables, views=RECIPE, source={})[0].is_file()
    for kind, error in WRONG.items():
        with pytest.raises(convert.ConvertError, match=error):
            to_onnx(tmp_path / f"{kind}.onnx", Own(kind), variables, views=RECIPE, source={})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.onnx", "x.preprocess.json"]


@pytest.mark.parametrize("options", ENCODERS.values(), ids=ENCODERS)
def test_what_is_converted_is_the_encoder(options: dict) -> None:
    """Before jax2onnx, in the same form on every platform: bit for bit; where kernels are standardised twice, to float32's own error."""
    module = models.resnet((1, 1), **{"channels": (4, 8), **options})
    variables = drawn(module)
    images = np.random.default_rng(1).integers(0, 256, (3, 12, 12, 3), np.uint8)
    with as_jax_has_it():
        wanted = np.asarray(forward(module, variables, RECIPE)(images))
    found = np.asarray(convertible(module, variables, RECIPE)(images))
    near = 2e-5 * np.sqrt(np.mean(wanted**2)) if module.norm == "group" else 0
    np.testing.assert_allclose(found, wanted, rtol=0, atol=near)


@pytest.mark.parametrize("options", ENCODERS.values(), ids=ENCODERS)
def test_what_is_converted_chooses_nothing_by_platform(options: dict) -> None:
    """jax2onnx knows no ``platform_index``."""
    module = models.resnet((1, 1), **{"channels": (4, 8), **options})
    images = jnp.zeros((3, 12, 12, 3), jnp.uint8)
    variables = drawn(module)
    assert "platform_index" in str(jax.make_jaxpr(forward(module, variables, RECIPE))(images))
    assert "platform_index" not in str(jax.make_jaxpr(convertible(module, variables, RECIPE))(images))


def test_what_is_told_before_anything_is_converted(tmp_path: Path) -> None:
    with pytest.raises(convert.ConvertError, match=r"must end in \.onnx"):
        to_onnx(tmp_path / "x.bin", models.resnet(), {}, views=RECIPE, source={})
    if importlib.util.find_spec("jax2onnx") is None:
        with pytest.raises(convert.ConvertError, match=r"needs jax2onnx, which is not installed: pip install 'byol-jax\[onnx\]'"):
            to_onnx(tmp_path / "x.onnx", models.resnet(), {}, views=RECIPE, source={})
