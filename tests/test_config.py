"""The configuration: defaults from the paper, all errors at once and word for word, the way through JSON and back."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from byol_jax import config as cfg
from byol_jax import views
from byol_jax.config.check import fit, leaves, parse, type_text
from byol_jax.config.spec import Form


def spec(**changes: Any) -> cfg.Spec:
    config = cfg.default()
    config.epochs = 100
    with_changes(config, changes)
    return cfg.resolve(config)


def with_changes(config: ConfigDict, changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        *sections, last = key.split("__")
        node = config
        for section in sections:
            node = node[section]
        node[last] = value


def errors(**changes: Any) -> list[str]:
    with pytest.raises(cfg.ConfigError) as caught:
        spec(**changes)
    return list(caught.value.errors)


def test_the_defaults_are_the_papers() -> None:
    got = spec()
    assert (got.batch_size, got.seed, got.epochs, got.steps) == (4096, 0, 100, None)
    optimizer = got.optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.weight_decay, optimizer.warmup_epochs) == ("lars", 0.2, 1.5e-6, 10)
    assert (optimizer.momentum, optimizer.trust_coefficient, optimizer.accumulate) == (0.9, 1e-3, 1)
    assert (got.method.tau, got.method.tau_schedule, got.method.loss) == (0.996, "cosine", "regression")
    assert dataclasses.astuple(got.method.projector) == dataclasses.astuple(got.method.predictor) == (4096, 256, 2, "batch")
    assert (got.encoder.name, got.encoder.width, got.encoder.stem, got.encoder.zero_init_last_bn) == ("resnet50", 1, "imagenet", False)
    assert got.views.recipe() == views.imagenet(224)


def test_default_has_every_key_and_every_one_can_be_overridden() -> None:
    flat = cfg.flat(cfg.resolve({**cfg.default().to_dict(), "epochs": 100}))
    assert set(flat) == {key for key, _ in leaves(Form)}
    config = cfg.default()
    for key, _ in leaves(Form):
        node = config
        for section in key.split(".")[:-1]:
            node = node[section]
        node[key.split(".")[-1]] = "anything"  # a plain None in a ConfigDict would refuse this


@pytest.mark.parametrize("preset", list(views.PRESETS))
def test_views_are_the_preset_and_what_differs(preset: str) -> None:
    assert spec(views__preset=preset, views__size=40).views.recipe() == views.PRESETS[preset](40)
    got = spec(
        views__preset=preset, views__size=40, views__view1__crop_area=(0.4, 1), views__view2__rotation=0.3, views__eval_crop=0.9
    ).views
    expected = views.PRESETS[preset](40)
    view1 = dataclasses.replace(expected.view1, crop_area=(0.4, 1.0))
    view2 = dataclasses.replace(expected.view2, rotation=0.3)
    assert got.recipe() == dataclasses.replace(expected, view1=view1, view2=view2, eval_crop=0.9)
    assert got.preset == preset


def test_a_missing_key_takes_its_default_and_lists_are_tuples() -> None:
    got = cfg.resolve({"steps": 7, "optimizer": {"warmup_epochs": None, "learning_rate": 1}, "views": {"mean": [0, 0.5, 1]}})
    assert got == spec(epochs=None, steps=7, optimizer__warmup_epochs=None, optimizer__learning_rate=1.0, views__mean=(0.0, 0.5, 1.0))
    assert isinstance(got.optimizer.learning_rate, float)


def test_all_errors_come_at_once() -> None:
    config = cfg.default()
    config.epochs = 100
    config.bacth_size = 3
    config.optimizer.learing_rate = 0.3
    config.learning_rate = 0.3
    config.optimizer.name = "larz"
    config.encoder.width = "wide"
    config.views.view1.crop_area = (0.9, 0.1)
    config.views.view2.blur = 2
    config.method.predictor.out = 64
    with pytest.raises(cfg.ConfigError) as caught:
        cfg.resolve(config)
    assert set(caught.value.errors) == {
        "bacth_size = 3: there is no such key (did you mean 'batch_size'?)",
        "optimizer.learing_rate = 0.3: there is no such key (did you mean 'optimizer.learning_rate'?)",
        "learning_rate = 0.3: there is no such key (did you mean 'optimizer.learning_rate'?)",
        "optimizer.name = 'larz': it must be one of 'lars', 'adamw', 'sgd' (did you mean 'lars'?)",
        "encoder.width = 'wide': it must be a whole number",
        "views.view1.crop_area=(0.9, 0.1): wants 0 < low <= high <= 1",
        "views.view2.blur=2.0: a probability lies in [0, 1]",
        "method.predictor.out = 64: it must equal method.projector.out = 256, which it predicts",
    }
    assert str(caught.value).startswith("8 errors in the configuration:\n  - ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": None}, "epochs = None and steps = None: set exactly one of them"),
        ({"steps": 5}, "steps = 5 and epochs = 100: set exactly one of them, the other to None"),
        ({"epochs": 0}, "epochs = 0: it must be above 0"),
        (
            {"method__projector__layers": 0},
            "method.projector.layers = 0: a projector has at least 1 linear layer; only a predictor can be left out",
        ),
        (
            {"method__predictor": {"norm": "group", "hidden": 100}},
            "method.predictor.hidden = 100: with norm = 'group' a multiple of 16; the nearest valid is 96",
        ),
        (
            {"method": {"beta": 0.5, "normalization": "layer"}},
            "method.beta = 0.5: negatives need method.loss = 'regression' and method.normalization = 'l2'",
        ),
        (
            {"method": {"loss": "my.mod:fn", "normalization": "none"}},
            "method.normalization = 'none': your own loss 'my.mod:fn' normalises as it likes; leave 'l2'",
        ),
        ({"batch_size": True}, "batch_size = True: it must be a whole number"),
        ({"batch_size": 2.5}, "batch_size = 2.5: it must be a whole number"),
        ({"seed": -1}, "seed = -1: it must be between 0 and 2147483647"),
        (
            {"batch_size": 100, "optimizer__accumulate": 8},
            "batch_size = 100: it must be divisible by optimizer.accumulate = 8; the nearest that are: 96 or 104",
        ),
        (
            {"batch_size": 3, "optimizer__accumulate": 8},
            "batch_size = 3: it must be divisible by optimizer.accumulate = 8; the nearest that are: 8",
        ),
        (
            {"data__source": "tfsd"},
            "data.source = 'tfsd': it must be one of 'digits', 'idx', 'npz', 'folder', 'tfds', 'text', or your own 'my_pkg.mod:Name'"
            " (did you mean 'tfds'?)",
        ),
        ({"data__source": "folder"}, "data.path = None: data.source = 'folder' needs the folder"),
        ({"data__source": "npz"}, "data.path = None: data.source = 'npz' needs the .npz file"),
        ({"data__source": "tfds"}, "data.name = None: data.source = 'tfds' needs the data set's name, such as 'cifar10'"),
        ({"data__path": "x"}, "data.path = 'x': data.source = 'digits' comes with scikit-learn and reads no path"),
        ({"data__name": "x"}, "data.name = 'x': only data.source = 'tfds' has a name"),
        ({"data__in_memory": True}, "data.in_memory = True: only data.source = 'tfds' has this choice"),
        ({"data__test_path": "x"}, "data.test_path = 'x': only a folder, or files of texts, have one; set data.test_split"),
        (
            {"data__source": "folder", "data__path": "x", "data__test_split": "test"},
            "data.test_split = 'test': a folder's test images stand in data.test_path, or are a part of data.path: "
            "data.test_split = 'train[90%:]' and no data.test_path",
        ),
        (
            {"data__test_split": "train[90%"},
            "data.test_split: split 'train[90%': a part of a split is written as name[from:to], such as train[:90%], train[90%:] "
            "or train[-500:]",
        ),
        ({"data__args": {"a": 1}}, "data.args = {'a': 1}: only your own source ('my_pkg.mod:Name') takes arguments"),
        ({"data__max_bad_share": 1.5}, "data.max_bad_share = 1.5: it must be between 0 and 1"),
        (
            {"data__source": "folder", "data__path": "x", "data__on_device": True},
            "data.on_device = True: images of a folder are decoded as they are needed; leave it False, or save them as arrays of one size "
            "for data.source = 'npz'",
        ),
        (
            {"data__source": "tfds", "data__name": "x", "data__on_device": True},
            "data.on_device = True: data.source = 'tfds' needs data.in_memory = True for it, and images of one size",
        ),
        (
            {"data__on_device": True, "data__augment_on": "host"},
            "data.on_device = True: images that stay there are augmented there, and data.augment_on = 'host': it must be 'device', "
            "or data.on_device = False",
        ),
        ({"data__augment_on": "gpu"}, "data.augment_on = 'gpu': it must be one of 'device', 'host'"),
        ({"evaluation__every_epochs": -1}, "evaluation.every_epochs = -1: it must be at least 0"),
        ({"views__preset": "grey"}, "views.preset = 'grey': it must be one of 'imagenet', 'small', 'gray' (did you mean 'gray'?)"),
        ({"views__function": "nocolon"}, "views.function = 'nocolon': it must be None or your own 'my_pkg.mod:name'"),
        (
            {"views__function": "a.b:c"},
            "data.augment_on = 'device': 'a.b:c' runs in tf.data and needs augment_on = 'host'",
        ),
        ({"views__view1__hue": 0.7}, "views.view1.hue=0.7: lies in [0, 0.5]"),
        ({"views__view1__blur_sigma": (0, 1)}, "views.view1.blur_sigma=(0.0, 1.0): wants 0 < low <= high"),
        (
            {"views__mean": (0.5, 0.5)},
            "views.mean = (0.5, 0.5): it must be a tuple of 3, each item a number or None",
        ),
        ({"views__std": (0.5, 0, 1)}, "views.mean=(0.485, 0.456, 0.406), std=(0.5, 0.0, 1.0): three numbers each, and every std above 0"),
        ({"views__eval_crop": 0.0}, "views.eval_crop=0.0: a share of the shorter side, in (0, 1]"),
        (
            {"views__view1": 3},
            "views.view1 = 3: this is a section with the keys " + ", ".join(f.name for f in dataclasses.fields(views.View)),
        ),
        (
            {"encoder__name": "resnet51"},
            "encoder.name = 'resnet51': it must be one of 'resnet18', 'resnet34', 'resnet50', 'resnet101', 'resnet152', 'resnet200', "
            "'resnet', 'vit_s16', 'vit_b16', or your own 'my_pkg.mod:Name' (did you mean 'resnet50'?)",
        ),
        (
            {"encoder__stages": (1, 1)},
            "encoder.stages = (1, 1) with encoder.name = 'resnet50': that is fixed by the name; use encoder.name = 'resnet' for your own",
        ),
        (
            {"encoder__stem_channels": 8},
            "encoder.stem_channels = 8 with encoder.name = 'resnet50': that is fixed by the name; use encoder.name = 'resnet' for your own",
        ),
        (
            {"encoder__name": "resnet", "encoder__stages": (1, 1), "encoder__channels": (8,), "encoder__block": "basic"},
            "encoder.channels = (8,): it must have one entry for each of encoder.stages = (1, 1)",
        ),
        (
            {"encoder__name": "resnet", "encoder__stages": (), "encoder__channels": (8,), "encoder__block": "basic"},
            "encoder.stages = (): it must be at least 1 in every item",
        ),
        (
            {"encoder__name": "resnet", "encoder__stages": (1,), "encoder__channels": (8,)},
            "encoder.block = None: encoder.name = 'resnet' needs block, stages and channels",
        ),
        ({"encoder__args": {"a": 1}}, "encoder.args = {'a': 1}: only your own encoder ('my_pkg.mod:Name') takes arguments"),
        (
            {"encoder__name": "my.mod:Net", "encoder__width": 2},
            "encoder.width = 2: your own encoder 'my.mod:Net' is given encoder.args alone; put it there",
        ),
        (
            {"method__loss": "regresion"},
            "method.loss = 'regresion': it must be 'regression' or your own 'my_pkg.mod:name' (did you mean 'regression'?)",
        ),
        ({"method__tau": 1.01}, "method.tau = 1.01: it must be between 0 and 1"),
        ({"method__tau": float("nan")}, "method.tau = nan: it must be a number"),
        ({"optimizer__learning_rate": 0}, "optimizer.learning_rate = 0.0: it must be above 0"),
        (
            {"optimizer__warmup_steps": 3},
            "optimizer.warmup_steps = 3 and optimizer.warmup_epochs = 10: set at most one of them, the other to None",
        ),
        ({"optimizer__warmup_epochs": 100}, "optimizer.warmup_epochs = 100: the warm-up must be shorter than the run, epochs = 100"),
        ({"checkpoint__keep": 0}, "checkpoint.keep = 0: it must be at least 1"),
    ],
)
def test_the_text_of_each_error(changes: dict[str, Any], message: str) -> None:
    assert errors(**changes) == [message]


@pytest.mark.parametrize("name", ["vit_s16", "vit_b16", "bert_tiny", "huggingface"])
def test_what_only_a_resnet_has_is_told_of_other_encoders(name: str) -> None:
    changes = {"width": 2, "stem": "small", "zero_init_last_bn": True, "padding": "symmetric", "shortcut": "shape", "norm": "group"}
    left = {"width": 1, "stem": "imagenet", "zero_init_last_bn": False, "padding": "same", "shortcut": "first", "norm": "batch"}
    used = {"encoder__dtype": "bfloat16", "encoder__drop_path": 0.1, "encoder__remat": True}
    text = {"text__preset": "sentence", "text__tokenizer": "x.json", "data__source": "text", "data__path": "x"} if name[:3] != "vit" else {}
    used |= text | ({"encoder__path": "x"} if name == "huggingface" else {})
    assert errors(encoder__name=name, **used, **{f"encoder__{key}": value for key, value in changes.items()}) == [
        f"encoder.{key} = {value!r}: only a ResNet has it, encoder.name = {name!r} has not; leave it {left[key]!r}"
        for key, value in changes.items()
    ]


def test_a_rule_about_a_wrong_key_stays_silent() -> None:
    assert errors(epochs="many") == ["epochs = 'many': it must be a whole number or a number or None"]


def test_json_and_config_dict_bring_the_same_spec_back() -> None:
    got = spec(views__view1__crop_area=(0.4, 1.0), encoder__name="a.b:C", encoder__args={"width": 3, "deep": {"x": 1}}, data__path=None)
    assert cfg.from_json(cfg.to_json(got)) == cfg.resolve(cfg.to_config_dict(got)) == got
    assert json.loads(cfg.to_json(got))["views"]["view1"]["crop_area"] == [0.4, 1.0]
    with pytest.raises(cfg.ConfigError, match=r"config\.json is not JSON"):
        cfg.from_json("{")


ARGS = {"sizes": [1, (2, 3)], "deep": {1: {"x": (True, None, 0.5)}}}


@pytest.mark.parametrize("changes", [{"encoder__name": "a.b:C", "encoder__args": ARGS}, {"data__source": "a.b:C", "data__args": ARGS}])
def test_arguments_of_a_class_are_the_same_after_a_way_through_json(changes: dict[str, Any]) -> None:
    got = spec(**changes)
    assert {"sizes": (1, (2, 3)), "deep": {"1": {"x": (True, None, 0.5)}}} in (got.encoder.args, got.data.args)
    again = cfg.from_json(cfg.to_json(got))
    assert (again, cfg.differences(again, got)) == (got, [])


def test_arguments_that_json_cannot_hold_are_named_all_of_them() -> None:
    rule = "it must be a text, a number, True, False, None, a list or a dict, as JSON has them"
    args = {"deep": [{"a": {1}}], "keys": {0.5: 2}, "nan": math.nan, "root": PurePosixPath("/x")}
    assert errors(encoder__name="a.b:C", encoder__args=args) == [
        f"encoder.args.deep[0].a = {{1}}: {rule}",
        "encoder.args.keys has the key 0.5: it must be a text or a whole number",
        f"encoder.args.nan = nan: {rule}",
        f"encoder.args.root = PurePosixPath('/x'): {rule} (did you mean '/x'?)",
    ]
    assert errors(data__source="a.b:C", data__mix=[{}, {"args": {"n": 1j}}]) == [f"data.mix[1].args.n = 1j: {rule}"]


def test_digest_moves_with_what_shapes_the_state_and_with_nothing_else() -> None:
    base = spec()
    free = {"logging__every_steps": 3, "checkpoint__keep": 9, "evaluation__knn_k": 7, "data": {"test_split": "test", "on_device": True}}
    free |= {"encoder__remat": True, "optimizer__shard_state": True}
    assert cfg.digest(spec(**free)) == cfg.digest(base)
    assert cfg.differences(base, spec(**free)) == []
    for key, value in {"seed": 1, "batch_size": 8, "views__view1__flip": 0.1, "encoder__width": 2, "method__tau": 0.9}.items():
        changed = spec(**{key: value})
        assert cfg.digest(changed) != cfg.digest(base)
        dotted = key.replace("__", ".")
        assert cfg.differences(base, changed) == [f"{dotted}: {cfg.flat(base)[dotted]!r} there, {value!r} here"]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda x: st.lists(x, max_size=3)))
def test_any_value_at_any_key_gives_a_spec_or_a_config_error(value: Any) -> None:
    for key, _ in leaves(Form):
        tree: Any = value
        for part in reversed(key.split(".")):
            tree = {part: tree}
        with contextlib.suppress(cfg.ConfigError):
            assert isinstance(cfg.resolve(tree), cfg.Spec)


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("3", int, 3),
        ("1e-3", float, 1e-3),
        ("true", bool, True),
        ("False", bool, False),
        ("None", int | None, None),
        ("2024", str | None, "2024"),
        ("runs/x", str, "runs/x"),
        ("'quoted'", str, "quoted"),
        ("0.4,1", tuple[float, float], (0.4, 1)),
        ("[1, 2]", tuple[int, ...] | None, [1, 2]),
        ("3", tuple[int, ...] | None, (3,)),
        ("{'a': 1}", dict[str, Any], {"a": 1}),
        ("lars", str, "lars"),
        ("abc", int, "abc"),
    ],
)
def test_overrides_are_read_by_the_type_of_the_key(text: str, hint: Any, value: Any) -> None:
    assert parse(text, hint) == value


def test_fit_turns_values_into_the_very_type() -> None:
    assert fit([1, 2], tuple[float, ...]) == (True, (1.0, 2.0))
    assert fit(1, float) == (True, 1.0)
    assert fit(True, float)[0] is False
    assert fit((1, 2, 3), tuple[int, int])[0] is False
    assert type_text(tuple[int, ...] | None) == "a tuple, each item a whole number or None"


def test_overrides_and_file_errors_are_reported_together(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from byol_jax import config as cfg\n"
        "def get_config(variant=None):\n"
        "    if variant not in (None, 'long'):\n"
        "        raise cfg.unknown_variant(variant, ['long'])\n"
        "    config = cfg.default()\n"
        "    config.epochs = 100 if variant else 20\n"
        "    config.sede = 1\n"
        "    return config\n"
    )
    with pytest.raises(cfg.ConfigError) as caught:
        cfg.load(str(file), [("optimizer.nmae", "sgd"), ("batch_size", "many"), ("views", "3"), ("method.tau", "0.9")])
    assert set(caught.value.errors) == {
        "sede = 1: there is no such key (did you mean 'seed'?)",
        "optimizer.nmae = sgd: there is no such key (did you mean 'optimizer.name'?)",
        "batch_size = 'many': it must be a whole number",
        "views = 3: this is a section; set one of its keys, as in --config.views.preset=...",
    }
    file.write_text(file.read_text().replace("    config.sede = 1\n", ""))
    got = cfg.load(f"{file}:long", [("epochs", "None"), ("steps", "30"), ("views.view1.crop_area", "0.2,1"), ("method.tau", "0.9")])
    assert (got.epochs, got.steps, got.views.view1.crop_area, got.method.tau) == (None, 30, (0.2, 1.0), 0.9)
    assert cfg.load(str(file)).epochs == 20
    with pytest.raises(cfg.ConfigError, match=r"variant 'lang': it must be one of long \(did you mean 'long'\?\)"):
        cfg.load(f"{file}:lang")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\n", "defines no function get_config(variant=None)"),
        ("def get_config(variant=None):\n    return 3\n", "get_config returned int; it must return a ConfigDict"),
        ("def get_config(variant=None):\n    return 1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
        ("def get_config(\n", "SyntaxError"),
        (
            "from byol_jax import config as cfg\ndef get_config(variant=None):\n    c = cfg.default()\n    c.optimiser.name = 'sgd'\n",
            'Did you mean "optimizer" instead of "optimiser"?',
        ),
    ],
)
def test_a_broken_config_file_is_a_config_error(tmp_path: Path, source: str, message: str) -> None:
    file = tmp_path / "broken.py"
    file.write_text(source)
    with pytest.raises(cfg.ConfigError) as caught:
        cfg.load(str(file))
    assert message in str(caught.value)


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "digits.py").write_text("")
    with pytest.raises(cfg.ConfigError, match=r"there is no file .*digit\.py \(did you mean '.*digits\.py'\?\)"):
        cfg.load(f"{tmp_path}/digit.py:x")


def test_override_checks_the_whole_again() -> None:
    assert cfg.override(spec(), [("seed", "3")]) == spec(seed=3)
    with pytest.raises(cfg.ConfigError, match="divisible"):
        cfg.override(spec(), [("optimizer.accumulate", "3")])


def test_config_knows_neither_jax_nor_tensorflow() -> None:
    code = "import sys, byol_jax.config as c; c.default(); sys.exit(any(m in sys.modules for m in ('jax', 'flax', 'tensorflow')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
