"""Every parameter and running average of the official networks has its like in ours, name by name and shape by shape."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict

from byol_jax import method as m
from byol_jax import models
from byol_jax.convert.haiku import LEAVES, path_of
from byol_jax.models.forms import as_jax_has_it

GOLDEN = Path(os.environ.get("BYOL_GOLDEN_DIR", Path(__file__).parent / "golden"))
TABLES = json.loads((GOLDEN / "f_tables_full.json").read_text()) | json.loads((GOLDEN / "f_tables_full_wide.json").read_text())
TINY = partial(models.resnet, (1, 1, 1, 1), (8, 8, 8, 8), small_inputs=False, stem_channels=64)
OURS = {"ResNet18": models.resnet18, "ResNet50": models.resnet50, "ResNet200": models.resnet200, "TinyResNet": TINY}


def ours(name: str, head: dict) -> m.ByolState:
    network, width = name.removesuffix("x").split("_")
    encoder = OURS[network](width=int(width))
    mlp = m.MLP(head["predictor/linear"]["w"][1], head["predictor/linear_1"]["w"][1])
    method = m.Byol(encoder, mlp, mlp.copy(), num_classes=head["classifier"]["w"][1])
    image = jax.ShapeDtypeStruct((8, 64, 64, 3), jnp.float32)
    with as_jax_has_it():  # all forms have these shapes
        return jax.eval_shape(lambda: m.init(method, m.lars(0.1), jax.random.key(0), {"view1": image, "view2": image}))


def our_name(module: str) -> str:
    return "/".join(path_of(module))


@pytest.mark.parametrize("name", TABLES)
def test_names_and_shapes(name: str) -> None:
    state = ours(name, TABLES[name]["params"])
    params = {"/".join(path): list(leaf.shape) for path, leaf in flatten_dict(state.online["params"]).items()}
    stats = {"/".join(path): list(leaf.shape) for path, leaf in flatten_dict(state.online["batch_stats"]).items()}

    expected: dict[str, list[int]] = {}
    for module, leaves in TABLES[name]["params"].items():
        for leaf, shape in leaves.items() if module != "classifier" else ():
            expected[f"{our_name(module)}/{LEAVES[leaf]}"] = shape if leaf == "w" else shape[-1:]
    assert params == expected
    averages = {module.rpartition("/~/"): leaves["average"][-1:] for module, leaves in TABLES[name]["state"].items()}
    assert stats == {f"{our_name(owner)}/{LEAVES[kind]}": shape for (owner, _, kind), shape in averages.items()}
    assert {k: list(v.shape) for k, v in state.probe.items()} == {
        "kernel": TABLES[name]["params"]["classifier"]["w"],
        "bias": TABLES[name]["params"]["classifier"]["b"],
    }


def test_sizes_of_the_paper() -> None:
    """Parameters with 4096-256 heads, from the official code: ResNet-50 1x has 23.5 million in its encoder."""

    def count(tree):
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    state = ours("ResNet50_1x", TABLES["ResNet50_1x"]["params"])
    params = state.online["params"]
    assert [count(params[k]) for k in ("encoder", "projector", "predictor")] == [23_508_032, 9_449_472, 2_109_440]
    assert count(state.trained) == 37_115_944
