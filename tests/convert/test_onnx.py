"""Encoders out as ONNX, run by onnxruntime. The slow ones need the extra "onnx"."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import convert, evaluate, models, views
from byol_jax.convert.onnx import to_onnx

RECIPE = views.Views(size=12, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 0.5))


def drawn(module: models.ResNet) -> dict:
    variables = module.init(jax.random.key(0), jnp.zeros((1, 12, 12, 3)), False)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: np.asarray(leaf) + rng.uniform(0, 0.3, leaf.shape).astype(np.float32), variables)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the converter's
@pytest.mark.parametrize("options", [{}, {"small_inputs": False}, {"block": "bottleneck", "padding": "symmetric"}])
def test_onnxruntime_gives_the_same_embeddings(options: dict, tmp_path: Path) -> None:
    pytest.importorskip("jax2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    module = models.resnet((1, 1), (4, 8), **options)
    encoder = evaluate.Encoder(module, drawn(module), RECIPE)
    path, sidecar = to_onnx(tmp_path / "x.onnx", module, encoder.variables, views=RECIPE, source={"step": 7})
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        images = np.random.default_rng(batch).integers(0, 256, (batch, 12, 12, 3), np.uint8)
        wanted = encoder(images)
        found = session.run(None, {session.get_inputs()[0].name: images})[0]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.sqrt(np.mean(wanted**2)))
    facts = json.loads(sidecar.read_text())
    assert (facts["input"], facts["output"], facts["source"]) == ("uint8[b, 12, 12, 3], RGB", "float32[b, 8]", {"step": 7})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_wrong_conversion_is_not_written(tmp_path: Path) -> None:
    """jax2onnx 0.17.1 forgets the padding of a symmetric pool."""
    pytest.importorskip("jax2onnx")
    module = models.resnet((1,), (4,), small_inputs=False, padding="symmetric")
    with pytest.raises(convert.ConvertError, match="ResNet: jax2onnx turned it into a network that gives other embeddings"):
        to_onnx(tmp_path / "x.onnx", module, drawn(module), views=RECIPE, source={})
    assert not list(tmp_path.iterdir())


def test_what_is_told_before_anything_is_converted(tmp_path: Path) -> None:
    with pytest.raises(convert.ConvertError, match=r"must end in \.onnx"):
        to_onnx(tmp_path / "x.bin", models.resnet(), {}, views=RECIPE, source={})
    if importlib.util.find_spec("jax2onnx") is None:
        with pytest.raises(convert.ConvertError, match=r"needs jax2onnx, which is not installed: pip install 'byol-jax\[onnx\]'"):
            to_onnx(tmp_path / "x.onnx", models.resnet(), {}, views=RECIPE, source={})
