"""`byol-jax compress` on tiny runs: its levels are runs like others, its table, going on, exports, and mistakes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
import pytest

from byol_jax import build, cli, compress, data
from byol_jax import config as cfg
from byol_jax.build.compress import Settings, make, origin
from byol_jax.build.compressed import stored_bytes, variables_of
from byol_jax.convert import huggingface
from byol_jax.models import TextEncoder
from tests.data.words import learned, sentences

pytest.importorskip("qwix")
pytestmark = pytest.mark.slow  # each level is trained, measured and exported
SHARED = """
from byol_jax import config as cfg


def get_config(variant=None):
    config = cfg.default()
    config.batch_size, config.steps = 16, 2
    for head in (config.method.projector, config.method.predictor):
        head.update(hidden=16, out=8)
    config.optimizer.update(name="adamw", learning_rate=1e-3, warmup_epochs=None)
    config.evaluation.update(every_epochs=0, knn_k=5)
"""
IMAGES = """
    config.data.update(source="npz", path={path!r}, split="train", test_split="test")
    config.views.update(preset="gray", size=8)
    config.encoder.update(name="resnet", block="basic", stages=(1,), channels=(8,), stem="small")
    return config
"""
TEXTS = """
    config.data.update(source="text", path={path!r}, test_split="train[75%:]", split="train[:75%]")
    config.text.update(preset="document", tokenizer={tokenizer!r}, length=16, column="said", label_column="by", cache=None)
    config.encoder.name = "transformer"
    config.encoder.transformer.update(layers=1, hidden=16, heads=2, mlp=32, positions=16, scan=True)
    return config
"""


@pytest.fixture(autouse=True)
def standard_promotion() -> Iterator[None]:
    """qwix multiplies integers with floats as they are, which the strict promotion of all other tests forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of two steps on 64 digits."""
    place = tmp_path_factory.mktemp("images")
    train, test = (data.digits(split, size=8) for split in ("train", "test"))
    arrays = {f"{name}_images": source.images[:n] for name, source, n in (("train", train, 64), ("test", test, 24))}
    arrays |= {f"{name}_labels": source.labels[:n] for name, source, n in (("train", train, 64), ("test", test, 24))}
    np.savez(place / "images.npz", **arrays)
    return _trained(place, IMAGES.format(path=str(place / "images.npz")))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("texts")
    lines = [json.dumps({"said": text, "by": "ab"[i % 2]}) + "\n" for i, text in enumerate(sentences(64))]
    (place / "corpus.jsonl").write_text("".join(lines))
    return _trained(place, TEXTS.format(path=str(place / "corpus.jsonl"), tokenizer=str(learned(place).path)))


def _trained(place: Path, config: str) -> str:
    (place / "tiny.py").write_text(SHARED + config)
    build.pretrain(cfg.load(str(place / "tiny.py")), place / "run")
    return str(place / "run")


@pytest.fixture(scope="module")
def made(images: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Levels without training."""
    to = str(tmp_path_factory.mktemp("levels"))
    with jax.numpy_dtype_promotion("standard"):
        assert run("compress", "--workdir", images, "--to", to, *QUICK) == 0
    return to


QUICK = ("--levels", "channels50,sparse75,int8", "--recover-epochs", "0", "--calibrate", "16", "--repeats", "1")


def test_the_table_tells_of_every_level(made: str) -> None:
    result = json.loads((Path(made) / "evaluation" / "compress.json").read_text())["result"]
    rows = result["levels"]
    assert list(rows) == ["original", "channels50", "sparse75", "int8"]
    assert [row["embedding"] for row in rows.values()] == [8, 4, 8, 8]
    # Three quarters of 3x3x3x8, twice 3x3x8x8 and 1x1x8x8 weights.
    assert rows["sparse75"]["parameters"] == rows["original"]["parameters"] - (162 + 432 + 432 + 48)
    assert all(row["latency"] > 0 and row["throughput"] > 0 and 0 <= row["knn"] <= 1 and 0 <= row["linear"] <= 1 for row in rows.values())


def test_levels_are_runs_of_their_own(made: str, capsys: pytest.CaptureFixture[str]) -> None:
    spec = build.read_spec(f"{made}/channels50")
    assert (spec.encoder.name, spec.encoder.channels, spec.encoder.stem_channels) == ("resnet", (4,), 4)
    whole = np.asarray(variables_of(f"{made}/sparse75")["params"]["stage0_block0"]["conv_0"]["kernel"])
    assert int((whole == 0).sum()) == 432
    assert run("evaluate", "collapse", "--workdir", f"{made}/int8") == 0
    assert "RankMe" in capsys.readouterr().out


def test_8_bits_are_kept_as_measured(made: str) -> None:
    stored = variables_of(f"{made}/int8")
    assert compress.is_int8(stored)
    assert stored["params"]["stem_conv"]["kernel"]["qvalue"].dtype == np.int8
    pictures = data.digits("test", size=8).images[:5]
    first, second = (build.load_encoder(f"{made}/int8")(pictures) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    floating = build.load_encoder(f"{made}/int8", floating=True)(pictures)
    assert 0 < np.abs(first - floating).max() < 0.1 * np.abs(floating).max()


def test_8_bits_leave_as_stablehlo_and_in_float32(made: str, tmp_path: Path) -> None:
    pictures = data.digits("test", size=8).images[:5]
    for kind, file in (("stablehlo", "a.stablehlo"), ("safetensors", "a.safetensors")):
        assert run("export", "--workdir", f"{made}/int8", "--to", kind, "--output", str(tmp_path / file)) == 0
    program = jax.export.deserialize(bytearray((tmp_path / "a.stablehlo").read_bytes()))
    np.testing.assert_allclose(program.call(pictures), build.load_encoder(f"{made}/int8")(pictures), rtol=1e-4, atol=1e-5)
    assert run("convert", "--from", "torch", str(tmp_path / "a.safetensors"), "--to", str(tmp_path / "back"), "--config.views.size=8") == 0
    back, ours = build.load_encoder(tmp_path / "back"), build.load_encoder(f"{made}/int8", floating=True)
    np.testing.assert_array_equal(back.variables["params"]["stem_conv"]["kernel"], ours.variables["params"]["stem_conv"]["kernel"])


def test_the_same_command_makes_nothing_again_and_another_is_refused(images: str, made: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file: file.stat().st_mtime_ns for file in Path(made).rglob("*/checkpoints/*/_CHECKPOINT_METADATA")}
    settings = Settings(epochs=0, calibrate=16)
    found = origin(images, build.read_spec(images), None, settings)
    assert [make(found, level, made, settings).name for level in ("channels50", "sparse75", "int8")] == ["channels50", "sparse75", "int8"]
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert run("compress", "--workdir", images, "--to", made, *QUICK, "--calibrate", "8") == 2
    assert "was made otherwise: calibrate = 16 there, 8 here; take a new --to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--levels", "chanels50"), "--levels chanels50: it must be channels1 to channels99"),
        (("--levels", "int8qat", "--recover-epochs", "0"), "--levels int8qat: quantisation-aware is a training"),
        (("--recover-epochs", "-1", "--calibrate", "0"), "2 errors"),
        (("--recover", "labels", "--recover-epochs", "1.5"), "nearest: 2"),
        (("--recover-rate", "0"), "must be above 0"),
        (("--repeats", "0"), "--repeats 0: must be 1 or more"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(
    images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], text: str
) -> None:
    assert run("compress", "--workdir", images, "--to", str(tmp_path / "to"), *flags) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "to").exists()


def test_an_encoder_of_8_bits_is_not_compressed_again(made: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compress", "--workdir", f"{made}/int8", "--to", str(tmp_path / "to"), *QUICK) == 2
    assert "has 8 bits already" in capsys.readouterr().err


def test_an_ordinary_run_has_nothing_of_it(images: str) -> None:
    spec = build.read_spec(images)
    params = {"online": {"encoder": {"kernel": np.ones((2, 2), np.float32)}}, "probe": {}}
    state = build.optimizer(spec, lambda step: 0.1).init(params)
    assert not any(
        type(node).__name__ == "SparseState" for node in jax.tree.leaves(state, is_leaf=lambda n: type(n).__name__ == "SparseState")
    )
    assert type(build.encoder(spec)).__module__ == "byol_jax.models.resnet"


def test_bytes_are_those_of_a_checkpoint_of_the_encoder_alone() -> None:
    noise = np.random.default_rng(0).integers(-128, 128, (256, 1024), np.int8)
    sizes = [
        stored_bytes({"params": {"kernel": kernel}})
        for kernel in (noise, noise.astype(np.float32) * 1.1, np.zeros((256, 1024), np.float32))
    ]
    assert 262_144 <= sizes[0] < 272_144
    assert sizes[2] < 10_000 < sizes[0] < sizes[1]


def levels_of(workdir: str, to: Path, *flags: str) -> dict[str, Any]:
    assert run("compress", "--workdir", workdir, "--to", str(to), "--repeats", "1", "--calibrate", "16", *flags) == 0
    return json.loads((to / "evaluation" / "compress.json").read_text())["result"]["levels"]


def test_levels_are_trained_by_byol_and_go_on(images: str, tmp_path: Path) -> None:
    levels_of(images, tmp_path, "--levels", "channels50,sparse75,int8qat", "--recover-epochs", "3", "--recover-rate", "0.1")
    for level in ("channels50", "sparse75", "int8qat_training"):
        lines = [json.loads(line) for line in (tmp_path / level / "metrics.jsonl").read_text().splitlines()]
        assert max(line["step"] for line in lines) == 12  # 3 epochs of 64 in batches of 16
        chosen = build.read_spec(tmp_path / level).optimizer
        assert chosen.learning_rate == pytest.approx(1e-4)
        assert (chosen.sparsity, chosen.sparsity_steps) == ((0.75, 6) if level == "sparse75" else (0, 1000))
    kernel = np.asarray(variables_of(tmp_path / "sparse75")["params"]["stage0_block0"]["conv_0"]["kernel"])
    assert int((kernel == 0).sum()) == 432
    assert compress.is_int8(variables_of(tmp_path / "int8qat"))
    assert build.pretrain(build.read_spec(tmp_path / "sparse75"), tmp_path / "sparse75").step == 12


def test_a_run_that_computed_as_if_with_8_bits_is_stored_as_any_other(images: str, tmp_path: Path) -> None:
    levels_of(images, tmp_path / "first", "--levels", "int8qat", "--recover-epochs", "1", "--recover-rate", "0.1")
    as_if = tmp_path / "first/int8qat_training"
    assert build.read_spec(as_if).encoder.fake_int8
    levels_of(str(as_if), tmp_path / "second", "--levels", "channels50,int8", "--recover-epochs", "0")
    assert not build.read_spec(tmp_path / "second/int8").encoder.fake_int8
    same = jax.tree.map(np.array_equal, variables_of(tmp_path / "first/int8qat"), variables_of(tmp_path / "second/int8"))
    assert all(jax.tree.leaves(same))
    spec = build.read_spec(tmp_path / "second/channels50")
    assert (spec.encoder.fake_int8, spec.encoder.channels) == (True, (4,))
    for kind in ("safetensors", "stablehlo"):
        assert run("export", "--workdir", str(as_if), "--to", kind, "--output", str(tmp_path / f"a.{kind}")) == 0
    pictures = data.digits("test", size=8).images[:5]
    program = jax.export.deserialize(bytearray((tmp_path / "a.stablehlo").read_bytes()))
    ours = build.load_encoder(as_if, floating=True)(pictures)
    np.testing.assert_allclose(program.call(pictures), ours, rtol=1e-5, atol=1e-6)
    rounded = build.load_encoder(as_if)(pictures)
    assert 0 < np.abs(rounded - ours).max() < 0.1 * np.abs(ours).max()


def test_zeros_stay_while_other_levels_are_trained(images: str, tmp_path: Path) -> None:
    levels_of(images, tmp_path / "first", "--levels", "sparse75", "--recover-epochs", "2")
    levels_of(str(tmp_path / "first/sparse75"), tmp_path / "second", "--levels", "channels50", "--recover-epochs", "1")
    assert build.read_spec(tmp_path / "second/channels50").optimizer.sparsity == 0.75
    kernel = np.asarray(variables_of(tmp_path / "second/channels50")["params"]["stage0_block0"]["conv_0"]["kernel"])
    assert int((kernel == 0).sum()) == 108  # of 3x3x4x4


def test_levels_are_trained_on_labels(images: str, tmp_path: Path) -> None:
    levels_of(images, tmp_path, "--levels", "channels50,sparse75,int8qat", "--recover", "labels", "--recover-epochs", "2")
    kernel = np.asarray(variables_of(tmp_path / "sparse75")["params"]["stage0_block0"]["conv_0"]["kernel"])
    before = np.asarray(variables_of(images)["params"]["stage0_block0"]["conv_0"]["kernel"])
    assert int((kernel == 0).sum()) == 432
    assert not np.array_equal(kernel[kernel != 0], before[kernel != 0])


def test_texts_are_made_smaller_too_and_leave_for_hugging_face(texts: str, tmp_path: Path) -> None:
    rows = levels_of(texts, tmp_path, "--levels", "channels50,sparse75,int8", "--recover-epochs", "1")
    assert [row["embedding"] for row in rows.values()] == [16, 16, 16, 16]
    sizes = build.read_spec(tmp_path / "channels50").encoder.transformer
    assert (sizes.mlp, sizes.heads, sizes.head_width, sizes.scan) == (16, 1, 8, False)
    for level in ("channels50", "int8"):
        assert run("export", "--workdir", str(tmp_path / level), "--to", "huggingface", "--output", str(tmp_path / f"hf_{level}")) == 0
        fields, variables = huggingface.read(tmp_path / f"hf_{level}")
        encoder = build.load_encoder(tmp_path / level, floating=True)
        tokens = np.array([[1, 5, 6, 2, *[encoder.module.pad] * 12]], np.int32)
        np.testing.assert_allclose(TextEncoder(**fields).apply(variables, tokens, False), encoder(tokens), rtol=1e-4, atol=1e-5)
