"""Encoders out as StableHLO: run by a process that has jax and not this package."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import convert, evaluate, models, views
from byol_jax.convert.stablehlo import to_stablehlo

RECIPE = views.Views(size=12, eval_crop=0.9, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 0.5))
BATCHES = (1, 5)
PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"
AROUND = """
import sys
import numpy as np

for batch in (1, 5):
    images = np.load(f"in{batch}.npy")
    exec(open("code.py").read())
    np.save(f"out{batch}.npy", embeddings)
assert encoder.platforms == ("cpu", "cuda", "tpu"), encoder.platforms
assert not {"byol_jax", "flax"} & sys.modules.keys()
"""


def run_elsewhere(folder: Path, module: nn.Module, variables: dict) -> None:
    """Compares the file, loaded by the page's code in a new process, with the encoder here."""
    encoder = evaluate.Encoder(module, variables, RECIPE)
    rng = np.random.default_rng(1)
    images = {batch: rng.integers(0, 256, (batch, 12, 12, 3), np.uint8) for batch in BATCHES}
    for batch, array in images.items():
        np.save(folder / f"in{batch}.npy", array)
    code = re.search(r"<!-- tested: stablehlo -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert code
    (folder / "code.py").write_text(code[1])
    to_stablehlo(folder / "mine.stablehlo", module, encoder.variables, views=RECIPE, source={"step": 7})
    done = subprocess.run([sys.executable, "-c", AROUND], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for batch, array in images.items():
        found, wanted = np.load(folder / f"out{batch}.npy"), encoder(array)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
        assert wanted.std() > 1e-2


def drawn(module: nn.Module) -> dict:
    """Variables with running statistics that are not at their defaults."""
    variables = module.init(jax.random.key(0), jnp.zeros((1, 12, 12, 3)), False)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: np.asarray(leaf) + rng.uniform(0, 0.3, leaf.shape).astype(np.float32), variables)


def test_a_process_without_this_package_gives_the_same_embeddings(tmp_path: Path) -> None:
    module = models.resnet((1, 1), (4, 8))
    run_elsewhere(tmp_path, module, drawn(module))
    facts = json.loads((tmp_path / "mine.preprocess.json").read_text())
    assert (facts["input"], facts["output"]) == ("uint8[b, 12, 12, 3], RGB", "float32[b, 8]")
    assert (facts["size"], facts["mean"], facts["std"]) == (12, [0.1, 0.2, 0.3], [1.0, 2.0, 0.5])
    assert (facts["source"], facts["jax"]) == ({"step": 7}, jax.__version__)
    assert not list(tmp_path.glob("*.partial"))


class Own(nn.Module):
    """An encoder of no house, in bfloat16."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.Dense(3, dtype=jnp.bfloat16)(x.reshape(x.shape[0], -1))


def test_any_encoder_can_be_written(tmp_path: Path) -> None:
    run_elsewhere(tmp_path, Own(), drawn(Own()))


class Counting(Own):
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return super().__call__(x, train) * jnp.asarray(np.arange(int(x.shape[0]))[:, None], jnp.bfloat16)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(convert.ConvertError, match=r"must end in \.stablehlo"):
        to_stablehlo(tmp_path / "x.bin", Own(), {}, views=RECIPE, source={})
    with pytest.raises(convert.ConvertError, match=r"Counting: needs to know the size of the batch, .*: Symbolic dimension 'b'"):
        to_stablehlo(tmp_path / "x.stablehlo", Counting(), drawn(Counting()), views=RECIPE, source={})
    assert not list(tmp_path.iterdir())
