"""Official checkpoints as Weights: which encoder it is, which leaf goes where, what a file that does not fit is told."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from byol_jax import models
from byol_jax.convert import ConvertError, deepmind, haiku
from byol_jax.convert.weights import NAMED
from byol_jax.models.forms import as_jax_has_it

GOLDEN = Path(os.environ.get("BYOL_GOLDEN_DIR", Path(__file__).parents[1] / "golden"))
TABLES = json.loads((GOLDEN / "f_tables_full.json").read_text()) | json.loads((GOLDEN / "f_tables_full_wide.json").read_text())
STEM = "tiny_res_net/~/initial_conv"
BLOCK = "tiny_res_net/~/block_group_1/~/block_0/~"


def blank(shapes: Any) -> dict[str, dict[str, np.ndarray]]:
    """Arrays of these shapes that take no memory."""
    return {m: {n: np.broadcast_to(np.float32(0), shape) for n, shape in leaves.items()} for m, leaves in shapes.items()}


@pytest.mark.parametrize("name", TABLES)
def test_the_encoder_is_known_by_its_shapes(name: str) -> None:
    fields, shapes = haiku.encoder_of(blank(TABLES[name]["params"]))
    network, width = name.removesuffix("x").split("_")
    assert (fields["name"], fields["width"]) == ({"TinyResNet": "resnet"}.get(network, network.lower()), int(width))
    table = {m: {n: tuple(shape) for n, shape in leaves.items()} for m, leaves in TABLES[name]["params"].items()}
    embedding = table["classifier"]["w"][0]
    assert {**shapes, **haiku.head_shapes(blank(table), embedding)} == table
    averages = {m: {"average": tuple(leaves["average"])} for m, leaves in TABLES[name]["state"].items()}
    assert haiku.stats_shapes({**shapes, **haiku.head_shapes(blank(table), embedding)}) == averages


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("name", NAMED)
def test_every_encoder_of_the_paper_in_every_width(name: str, width: int) -> None:
    """Shapes by the official rule, under our names, against our own module."""
    module = getattr(models, name)(width=width)
    shapes = haiku.encoder_shapes("res_net", list(module.stage_sizes), list(module.channels), module.block, width)
    fields, found = haiku.encoder_of(blank(shapes))
    assert (fields, found) == ({"name": name, "width": width, "stem": "imagenet"}, shapes)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    with as_jax_has_it():  # all forms have these shapes
        ours = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, False), image)
    trees = {"params": haiku.params_tree(blank(shapes)), "batch_stats": haiku.stats_tree(blank(haiku.stats_shapes(shapes)))}
    for kind, tree in trees.items():
        flat = {path: leaf.shape for path, leaf in flatten_dict(tree["encoder"]).items()}
        assert flat == {path: leaf.shape for path, leaf in flatten_dict(ours[kind]).items()}


@pytest.mark.parametrize(
    "module", ["momentum/linear", "projector/linear_2", "res_net50/~/block_group_0/~/conv_0", "res_net50", "linear", ""]
)
def test_a_name_the_official_networks_do_not_have(module: str) -> None:
    with pytest.raises(ConvertError, match=f"module {module}: "):
        haiku.path_of(module)


def test_every_leaf_lands_in_its_place(tiny: Callable[..., Any], write: Callable[..., str], pretraining: Callable[..., Any]) -> None:
    t = tiny()
    weights = deepmind.read(write(pretraining(t), 1234))
    state = weights.state
    assert state is not None
    assert state.step == 1234
    trees = {
        "params": (t.params, {**state.online["params"], "probe": state.probe}),
        "mu": (t.mu, {**state.momentum["online"], "probe": state.momentum["probe"]}),
        "target": ({m: leaves for m, leaves in t.target.items() if m != "classifier"}, state.target["params"]),
    }
    for theirs, ours in trees.values():
        flat = flatten_dict(ours, sep="/")
        assert len(flat) == sum(len(leaves) for leaves in theirs.values())
        assert {leaf.dtype for leaf in flat.values()} == {np.dtype(np.float32)}
        np.testing.assert_array_equal(flat["encoder/stem_conv/kernel"], theirs[STEM]["w"])
        np.testing.assert_array_equal(
            flat["encoder/stage1_block0/shortcut_norm/bias"], theirs[f"{BLOCK}/shortcut_batchnorm"]["offset"].ravel()
        )
        np.testing.assert_array_equal(flat["predictor/norm_0/scale"], theirs["predictor/batch_norm"]["scale"].ravel())
        np.testing.assert_array_equal(flat["projector/linear_1/kernel"], theirs["projector/linear_1"]["w"])
    np.testing.assert_array_equal(state.probe["bias"], t.params["classifier"]["b"])
    for who, theirs in (("online", t.state), ("target", t.target_state)):
        stats = flatten_dict(getattr(state, who)["batch_stats"], sep="/")
        assert len(stats) == len(theirs)
        np.testing.assert_array_equal(
            stats["encoder/stage1_block0/norm_1/var"], theirs[f"{BLOCK}/batchnorm_1/~/var_ema"]["average"].ravel()
        )
        np.testing.assert_array_equal(stats["projector/norm_0/mean"], theirs["projector/batch_norm/~/mean_ema"]["average"].ravel())
    np.testing.assert_array_equal(weights.variables["params"]["stem_conv"]["kernel"], t.params[STEM]["w"])


@pytest.mark.parametrize("file", ["g_tiny_pretrain.pkl", "g_tiny_pretrain_legacy2020style.pkl"])
def test_files_of_the_official_writer(file: str) -> None:
    weights = deepmind.read(GOLDEN / file)
    assert weights.encoder["name"] == "resnet"
    assert (weights.encoder["stages"], weights.encoder["channels"], weights.encoder["stem_channels"]) == ((1,) * 4, (8,) * 4, 64)
    assert weights.recipe["method"]["projector"] == {"hidden": 32, "out": 16}
    assert (weights.origin["kind"], weights.origin["step"], weights.origin["classes"]) == ("pretraining", 1234, 10)
    assert json.loads(json.dumps(weights.origin)) == weights.origin
    assert any("10 classes" in text for text in weights.origin["assumed"])


def test_linear_evaluation(tiny: Callable[..., Any], write: Callable[..., str], linear_evaluation: Callable[..., Any]) -> None:
    t = tiny()
    weights = deepmind.read(write(linear_evaluation(t), 99, "linear-eval.pkl"))
    assert weights.state is None
    assert weights.classifier is not None
    np.testing.assert_array_equal(weights.classifier["kernel"], t.classifier["linear"]["w"])
    np.testing.assert_array_equal(weights.classifier["bias"], t.classifier["linear"]["b"])
    np.testing.assert_array_equal(
        weights.variables["batch_stats"]["stem_norm"]["mean"], t.state["tiny_res_net/~/initial_batchnorm/~/mean_ema"]["average"].ravel()
    )
    assert (weights.origin["kind"], weights.origin["file"]) == ("linear evaluation", "linear-eval.pkl")


@pytest.mark.parametrize(
    ("step", "epochs", "batch", "rate", "decay", "tau"),
    [
        (312784, 1000, 4096, 0.2, 1.5e-6, 0.996),
        (93835, 300, 4096, 0.3, 1e-6, 0.99),
        (187670, 300, 2048, 0.3, 1e-6, 0.99),  # an ablation checkpoint of Figure 3a
        (6005470, 300, 64, 0.3, 1e-6, 0.99),
        (12511, 40, 4096, 0.45, 1e-6, 0.97),
        (312783, 1000, 4096, 0.2, 1.5e-6, 0.996),
    ],
)
def test_the_last_step_tells_the_recipe(
    step: int,
    epochs: int,
    batch: int,
    rate: float,
    decay: float,
    tau: float,
    tiny: Callable[..., Any],
    write: Callable[..., str],
    pretraining: Any,
) -> None:
    weights = deepmind.read(write(pretraining(tiny()), step))
    recipe = weights.recipe
    assert (recipe["epochs"], recipe["batch_size"], recipe["method"]["tau"]) == (epochs, batch, tau)
    assert (recipe["optimizer"]["learning_rate"], recipe["optimizer"]["weight_decay"]) == (rate, decay)
    assert any("is not the end of any run" in text for text in weights.origin["assumed"]) == (step == 312783)


def test_the_presets_are_those_of_the_config_file() -> None:
    path = Path(__file__).parents[2] / "configs" / "imagenet.py"
    spec = importlib.util.spec_from_file_location("imagenet_config", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PRESETS == deepmind.PRESETS


def without(tree: dict[str, Any], module: str) -> dict[str, Any]:
    return {name: leaves for name, leaves in tree.items() if name != module}


def changed(tree: dict[str, Any], module: str, **leaves: Any) -> dict[str, Any]:
    return {**tree, module: {**tree.get(module, {}), **leaves}}


F32 = np.float32
BROKEN: dict[str, tuple[Callable[[SimpleNamespace], dict[str, Any]], str]] = {
    "no stem": (lambda t: {"online_params": without(t.params, STEM)}, "no module ends in /~/initial_conv"),
    "no block conv": (lambda t: {"online_params": without(t.params, f"{BLOCK}/conv_1")}, rf"{BLOCK}/conv_1: is missing"),
    "no norm": (lambda t: {"online_params": without(t.params, f"{BLOCK}/batchnorm_1")}, rf"{BLOCK}/batchnorm_1: has no numbers 'scale'"),
    "narrow conv": (
        lambda t: {"online_params": changed(t.params, f"{BLOCK}/conv_0", w=np.zeros((3, 3, 8, 7), F32))},
        rf"{BLOCK}/conv_0: w has shape \(3, 3, 8, 7\); resnet of width 1 has \(3, 3, 8, 8\)",
    ),
    "odd stem": (
        lambda t: {"online_params": changed(t.params, STEM, w=np.zeros((7, 7, 3, 96), F32))},
        rf"{STEM}: w has shape \(7, 7, 3, 96\); resnet of width 1 has \(7, 7, 3, 64\)",
    ),
    "small stem": (lambda t: {"online_params": changed(t.params, STEM, w=np.zeros((3, 3, 3, 64), F32))}, rf"{STEM}: w has shape"),
    "whole numbers": (lambda t: {"online_params": changed(t.params, STEM, w=np.zeros((7, 7, 3, 64), int))}, rf"{STEM}: has no numbers 'w'"),
    "second version": (
        lambda t: {"online_params": changed(t.params, "tiny_res_net/~/final_batchnorm", scale=np.ones(8, F32))},
        r"tiny_res_net/~/final_batchnorm: resnet of width 1 has none of this name",
    ),
    "no projector": (lambda t: {"online_params": without(t.params, "projector/linear")}, r"projector/linear: is missing"),
    "wide projector": (
        lambda t: {"online_params": changed(t.params, "projector/linear", w=np.zeros((9, 32), F32))},
        r"projector/linear: w has shape \(9, 32\); online_params of this network has \(8, 32\)",
    ),
    "other target": (lambda t: {"target_params": without(t.target, STEM)}, rf"{STEM}: has no numbers 'w'; target_params"),
    "momentum of another": (
        lambda t: {"opt_state": [{}, {"mu": changed(t.mu, "classifier", b=np.zeros(9, F32))}]},
        r"classifier: b has shape \(9,\); mu of this network has \(10,\)",
    ),
    "no momentum": (lambda t: {"opt_state": [{}, {"nu": t.mu}]}, r"opt_state: holds no LARS momentum"),
    "no averages": (lambda t: {"online_state": {}}, r"/~/mean_ema: has no numbers 'average'"),
    "modules without names": (lambda t: {"online_params": [1, 2]}, r"online_params: it must hold modules"),
    "extra module": (lambda t: {"online_params": changed(t.params, "jigsaw", w=np.ones((8, 8), F32))}, r"jigsaw: online_params of this"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_first_module_that_does_not_fit_is_named(
    name: str, tiny: Callable[..., Any], write: Callable[..., str], pretraining: Callable[..., Any]
) -> None:
    change, message = BROKEN[name]
    t = tiny()
    path = write(pretraining(t, **change(t)))
    with pytest.raises(ConvertError, match=message) as caught:
        deepmind.read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_classifier_of_another_encoder(
    tiny: Callable[..., Any], write: Callable[..., str], linear_evaluation: Callable[..., Any]
) -> None:
    other = {"linear": {"w": np.ones((9, 10), np.float32), "b": np.ones(10, np.float32)}}
    with pytest.raises(ConvertError, match=r"linear: w has shape \(9, 10\); a linear classifier on this encoder has \(8, 10\)"):
        deepmind.read(write(linear_evaluation(tiny(), classif_params=other)))


def test_without_a_target_it_is_an_encoder_alone(
    tiny: Callable[..., Any], write: Callable[..., str], pretraining: Callable[..., Any]
) -> None:
    weights = deepmind.read(write(pretraining(tiny(), target_params=None, opt_state=())))
    assert weights.state is None
    assert weights.origin["lacks"] == ["target_params", "opt_state"]
    assert weights.classifier is not None


@pytest.mark.parametrize(
    ("experiment", "step", "message"),
    [
        ({"weights": 1}, 1, "it is of another experiment than BYOL"),
        ([1], 1, "it is of another experiment than BYOL"),
        ({"online_params": {}}, -1, "step = -1: it must be a whole number"),
        ({"online_params": {}}, 1.5, "step = 1.5: it must be a whole number"),
    ],
)
def test_another_experiment(experiment: Any, step: Any, message: str, write: Callable[..., str]) -> None:
    with pytest.raises(ConvertError, match=message):
        deepmind.read(write(experiment, step))


@pytest.mark.parametrize(
    ("content", "message"), [(b"\x80\x02]q\x00.", "it holds a list"), (b"\x80\x02}X\x01\x00\x00\x00aK\x01s.", "it holds the keys a")]
)
def test_a_pickle_of_something_else(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "f.pkl").write_bytes(content)
    with pytest.raises(ConvertError, match=f"is no checkpoint of the official code.*{message}"):
        deepmind.read(tmp_path / "f.pkl")
