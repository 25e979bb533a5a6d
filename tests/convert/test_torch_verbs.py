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
