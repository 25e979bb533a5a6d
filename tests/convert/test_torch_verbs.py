"""``convert --from torch`` and ``export --to safetensors``: a file becomes a run, and the run the same file again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import byol_jax
from byol_jax import build, cli

with np.load(Path(__file__).parents[1] / "golden" / "torch_resnet_tiny.npz") as file:
    GOLDEN = dict(file)
WEIGHTS = {key.removeprefix("basic/weights/"): value for key, value in GOLDEN.items() if key.startswith("basic/weights/")}


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    return int(caught.value.code or 0)


def test_a_file_becomes_a_run_and_the_run_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workdir, out = str(tmp_path / "run"), tmp_path / "out.safetensors"
    save_file({f"module.encoder_q.{key}": value for key, value in WEIGHTS.items()}, tmp_path / "in.safetensors")
    assert run("convert", "--from", "torch", str(tmp_path / "in.safetensors"), "--to", workdir, "--config.views.size=16") == 0
    assert "  - PyTorch's padding: half a kernel on each side" in capsys.readouterr().out
    spec = build.read_spec(workdir)
    assert (spec.encoder.padding, spec.encoder.shortcut, spec.encoder.stem_channels, spec.views.size) == ("symmetric", "shape", 4, 16)

    embedding = byol_jax.load_encoder(workdir).views_of(GOLDEN["basic/16/images"])
    np.testing.assert_allclose(embedding, GOLDEN["basic/16/embedding"], rtol=1e-5, atol=1e-5)

    assert run("export", "--workdir", workdir, "--to", "safetensors", "--output", str(out)) == 0
    told = capsys.readouterr().out
    assert told == f"written to {out}\nwritten to {tmp_path / 'out.preprocess.json'}\n"
    found = load_file(out)
    assert {key for key in found if not key.endswith("num_batches_tracked")} == set(WEIGHTS)
    for key, value in WEIGHTS.items():
        np.testing.assert_array_equal(found[key], value)
    facts = json.loads((tmp_path / "out.preprocess.json").read_text())
    assert facts["size"] == 16
    assert facts["source"]["converted"]["prefix"] == "module.encoder_q."


def under(prefix: str, add: float = 0) -> dict[str, np.ndarray]:
    return {f"{prefix}{key}": value + np.float32(add) for key, value in WEIGHTS.items()}


# What no library that is known saves: two networks of like names, one whose names go on after an underscore, one at the top by number.
NUMBERS = {"conv1": "0", "bn1": "1"} | {f"layer{i}": str(i + 3) for i in (1, 2, 3, 4)}
NUMBERED = {".".join([NUMBERS[head], *rest]): value + np.float32(3) for key, value in WEIGHTS.items() for head, *rest in [key.split(".")]}
STRANGE = {**under("net.left.", 0), **under("net.right.", 1), **under("net.q_", 2), **{f"net.seq.{k}": v for k, v in NUMBERED.items()}}


@pytest.mark.parametrize(("prefix", "taken", "added"), [
    ("net.left", "net.left.", 0),
    ("net.right.", "net.right.", 1),
    ("net.q_", "net.q_", 2),
    ("net.seq", "net.seq.", 3),
])  # fmt: skip
def test_a_network_named_by_hand(prefix: str, taken: str, added: float, tmp_path: Path) -> None:
    save_file(STRANGE, tmp_path / "in.safetensors")
    workdir = tmp_path / "run"
    assert run("convert", "--from", "torch", str(tmp_path / "in.safetensors"), "--to", str(workdir), "--prefix", prefix) == 0
    encoder = byol_jax.load_encoder(workdir)
    np.testing.assert_array_equal(encoder.variables["params"]["stem_norm"]["bias"], WEIGHTS["bn1.bias"] + np.float32(added))
    origin = json.loads((workdir / "origin.json").read_text())
    others = {"net.left.", "net.right.", "net.seq."} - {taken}
    assert (origin["prefix"], set(origin["passed_over"])) == (taken, others)


@pytest.mark.parametrize(("prefix", "added"), [("", 0), ("student", 1)])
def test_the_network_at_the_top_has_an_empty_prefix(prefix: str, added: float, tmp_path: Path) -> None:
    save_file({**WEIGHTS, **under("student.", 1), **under("momentum_net.", 2)}, tmp_path / "in.safetensors")
    assert run("convert", "--from", "torch", str(tmp_path / "in.safetensors"), "--to", str(tmp_path / "run"), "--prefix", prefix) == 0
    encoder = byol_jax.load_encoder(tmp_path / "run")
    np.testing.assert_array_equal(encoder.variables["params"]["stem_norm"]["bias"], WEIGHTS["bn1.bias"] + np.float32(added))


def test_a_wrong_prefix_is_told_with_those_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "in.safetensors"
    save_file(STRANGE, path)
    words = ("convert", "--from", "torch", str(path), "--to", str(tmp_path / "run"))
    assert run(*words) == 2
    assert (
        capsys.readouterr().err == f"byol-jax convert: {path}: it holds several networks; choose one by --prefix: net.left., net.right.\n"
    )
    assert run(*words, "--prefix", "net.lift") == 2
    rule = "there is no ResNet below it (nearest: 'net.left.'); there are: net.left., net.right., net.seq."
    assert capsys.readouterr().err == f"byol-jax convert: {path}: --prefix 'net.lift': {rule}\n"
    assert run(*words, "--prefix", "") == 2
    assert "--prefix '': there is no ResNet below it; there are: net.left., net.right., net.seq." in capsys.readouterr().err
    save_file({"a.weight": np.zeros(2, np.float32)}, path)
    assert run(*words, "--prefix", "net.left") == 2
    assert "there is no ResNet in it: no key ends in 'layer1.0.conv1.weight'; it has a.weight" in capsys.readouterr().err
    assert run("convert", "--from", "deepmind", str(path), "--to", str(tmp_path / "run"), "--prefix", "net.left") == 2
    assert "--prefix net.left: names a network in a file of --from torch; deepmind has none to choose" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_mistake_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({**WEIGHTS, "layer1.0.bn1.weights": np.zeros(4, np.float32)}, tmp_path / "in.safetensors")
    assert run("convert", "--from", "torch", str(tmp_path / "in.safetensors"), "--to", str(tmp_path / "run")) == 2
    assert "keys unknown: layer1.0.bn1.weights (nearest: 'layer1.0.bn1.weight')" in capsys.readouterr().err
    assert run("export", "--workdir", str(tmp_path / "run"), "--to", "safetensors", "--output", "x.safetensors") == 2
    assert "there is no run in it" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("verb", "words"), [("convert", build.READERS), ("export", build.FORMATS)])
def test_every_format_has_its_word(verb: str, words: dict, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(verb, "--help") == 0
    assert "{" + ",".join(words) + "}" in capsys.readouterr().out
