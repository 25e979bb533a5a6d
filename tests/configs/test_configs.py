"""Every config file and variant: it resolves, says on top what a reader must know, and its model can be built."""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path
from typing import Any

import jax
import pytest

from byol_jax import build
from byol_jax import config as cfg
from byol_jax.build.show import shapes
from tests.data.words import learned

FOLDER = Path(__file__).parents[2] / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
RECIPES = ["e40", "e100", "e300", "e1000", "b512"]
NETWORKS = [f"r{name}" for name in ("18", "34", "50x2", "50x3", "50x4", "101", "101x2", "101x3", "152", "152x2", "152x3", "200", "200x2")]
NETWORKS += ["vit_s16", "vit_b16"]
VARIANTS = {
    "imagenet": [*RECIPES, *NETWORKS],
    "digits": ["adversarial", "denoised", "student", "sparse", "int8qat"],
    "fashion_mnist": ["tfds", "joint"],
    "cifar10": ["e200", "small"],
    "text_small": ["spam", "spam_joint", "lee", "minilm", "faq", "tweets", "movies"],
}
ALL = NAMES + [f"{name}:{variant}" for name, variants in VARIANTS.items() for variant in variants]
TOP_LEVEL = {
    "seed",
    "batch_size",
    "epochs",
    "steps",
    "data",
    "views",
    "text",
    "encoder",
    "method",
    "optimizer",
    "checkpoint",
    "evaluation",
    "logging",
}

# Encoder parameters in millions: the column "Param." of the paper's Table 1.
TABLE_1 = {
    "imagenet": 24,
    "imagenet:r101": 43,
    "imagenet:r152": 58,
    "imagenet:r200": 63,
    "imagenet:r50x2": 94,
    "imagenet:r101x2": 170,
    "imagenet:r50x3": 211,
    "imagenet:r152x2": 232,
    "imagenet:r200x2": 250,
    "imagenet:r50x4": 375,
    "imagenet:r101x3": 382,
    "imagenet:r152x3": 522,
}


_MODELS: dict[str, Any] = {}


def model(spec: cfg.Spec) -> Any:
    """Many variants share a network, and tracing a deep one takes seconds."""
    key = f"{spec.encoder} {spec.method.projector} {spec.method.predictor} {spec.views.size} {spec.text}"
    if key not in _MODELS:
        _MODELS[key] = shapes(spec)
    return _MODELS[key]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tokenizer.json."""
    return str(learned(tmp_path_factory.mktemp("words")).path)


def load(name: str, **changes: str) -> cfg.Spec:
    stem, _, variant = name.partition(":")
    return cfg.load(f"{FOLDER / stem}.py" + (f":{variant}" if variant else ""), changes.items())


def file_of(name: str) -> str:
    stem, _, variant = name.partition(":")
    return f"{FOLDER / stem}.py" + (f":{variant}" if variant else "")


def test_the_promised_files_are_there() -> None:
    images = ["cifar10", "digits", "fashion_mnist", "folder", "imagenet", "imagenette", "stl10"]
    assert [*images, "text", "text_small"] == NAMES


@pytest.mark.parametrize("name", ALL)
def test_it_resolves_and_its_model_builds(name: str, words: str) -> None:
    config = cfg.config_file(file_of(name))
    if config.text.preset is not None:  # the tokenizer is made, or comes with a model, on the user's machine
        config.text.tokenizer = words
    if config.encoder.path is not None:
        config.encoder.update(name="minilm", path=None)
    config.method.teacher.workdir = None  # a run that the user has made
    assert set(config) == TOP_LEVEL
    assert {"every_steps", "keep"} <= set(config.checkpoint)
    spec = cfg.resolve(config)
    assert cfg.from_json(cfg.to_json(spec)) == spec
    with jax.numpy_dtype_promotion("standard" if spec.encoder.fake_int8 else "strict"):  # qwix promotes as it likes
        out, variables = model(spec)
    assert out.embedding.shape == (1, variables["params"]["projector"]["linear_0"]["kernel"].shape[0])
    assert out.projection.shape == out.prediction.shape == (1, spec.method.predictor.out)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]["encoder"]))
    if name in TABLE_1:
        assert round(parameters / 1e6) == TABLE_1[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_header_says_command_hardware_and_what_to_expect(name: str) -> None:
    text = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text())) or ""
    assert re.search(rf"^Command: +byol-jax pretrain --config configs/{name}\.py", text, re.MULTILINE)
    assert re.search(r"^Hardware: ", text, re.MULTILINE)
    assert re.search(r"^Expected: ", text, re.MULTILINE)
    assert re.search(r"\bmeasured\b", text, re.IGNORECASE)
    for variant in VARIANTS.get(name, []):
        assert re.search(rf"\b{variant}\b", text), f"{variant} is not in the header"


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_variant_is_told_with_the_known_ones(name: str) -> None:
    with pytest.raises(cfg.ConfigError, match="variant 'e10'") as caught:
        load(f"{name}:e10")
    assert all(variant in str(caught.value) for variant in VARIANTS.get(name, []))


@pytest.mark.parametrize(
    ("variant", "epochs", "rate", "decay", "tau"),
    [("e40", 40, 0.45, 1e-6, 0.97), ("e100", 100, 0.45, 1e-6, 0.99), ("e300", 300, 0.3, 1e-6, 0.99), ("e1000", 1000, 0.2, 1.5e-6, 0.996)],
)
def test_imagenet_presets(variant: str, epochs: int, rate: float, decay: float, tau: float) -> None:
    spec = load(f"imagenet:{variant}")
    got = (spec.epochs, spec.optimizer.learning_rate, spec.optimizer.weight_decay, spec.method.tau)
    assert got == (epochs, rate, decay, tau)
    # Official code: T = epochs * 1281167 // 4096, W = 10 * 1281167 // 4096.
    assert build.steps(spec, 1281167) == {40: 12511, 100: 31278, 300: 93835, 1000: 312784}[epochs]
    assert build.warmup_steps(spec, 1281167) == 3127


def test_the_512_batch_setup_of_appendix_g() -> None:
    spec = load("imagenet:b512")
    got = (spec.batch_size, spec.epochs, spec.optimizer.learning_rate, spec.method.tau, spec.optimizer.weight_decay)
    assert got == (512, 1000, 0.4, 0.9995, 1.5e-6)


@pytest.mark.parametrize("name", ["vit_s16", "vit_b16"])
def test_vits_as_moco_v3_sets_them(name: str) -> None:
    spec = load(f"imagenet:{name}")
    chosen = spec.optimizer
    assert (spec.encoder.name, spec.batch_size, spec.epochs, spec.method.tau) == (name, 4096, 300, 0.99)
    assert (chosen.name, chosen.learning_rate, chosen.weight_decay, chosen.warmup_epochs) == ("adamw", 1.5e-4, 0.1, 40)


@pytest.mark.parametrize("name", ["digits", "fashion_mnist", "fashion_mnist:tfds", "cifar10", "cifar10:e200", "cifar10:small", "stl10"])
def test_small_data_stays_on_the_device(name: str) -> None:
    assert load(name).data.on_device


def test_cifar10_of_200_epochs_differs_in_its_length_alone() -> None:
    assert cfg.differences(load("cifar10"), load("cifar10:e200")) == ["epochs: 1000 there, 200 here"]


def test_imagenette_is_the_official_small_setup() -> None:
    spec = load("imagenette")
    assert (spec.encoder.name, spec.views.size, spec.batch_size, spec.epochs) == ("resnet18", 128, 256, 1000)
    assert (spec.optimizer.learning_rate, spec.optimizer.weight_decay, spec.method.tau) == (2.0, 1e-6, 0.996)
