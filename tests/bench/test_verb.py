"""``byol-jax bench``: what it measures and writes, and its words for the user's mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from byol_jax import cli, data
from byol_jax.views import Views


def jpegs(folder: Path, count: int = 24) -> None:
    draw = np.random.default_rng(0)
    for i in range(count):
        (folder / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (20, 30, 3), np.uint8)).save(folder / f"class{i % 2}" / f"{i}.jpg")


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["bench", *argv])
    return int(caught.value.code or 0)


def lines(file: str = "r.jsonl") -> list[dict]:
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def test_step_with_the_official_form(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("step", "--config", config, "--config.seed=3", "--repeats", "2", "--baseline", "--json", "r.jsonl") == 0
    out = capsys.readouterr().out
    for words in ("samples/s", "augment", "forward + backward", "update", "official form", "GFLOP a step", "MiB a device", "times as long"):
        assert words in out
    (line,) = lines()
    assert (line["what"], line["config"], line["batch"], line["repeats"], line["synthetic"]) == ("step", config, 8, 2, False)
    assert line["changes"] == {"seed": "3"}
    assert line["samples_per_s"] == pytest.approx(8 / line["median_s"])
    assert line["ratio"] > 0
    rows = line["rows"]
    assert set(rows) == {
        "step",
        "augment, alone",
        "forward + backward, the rest",
        "update, alone",
        "official form: four passes, JAX's own layers",
    }
    # Nearly all products are the first layer's, 192 pixels to 32: forward for 2 views in 2 networks, backward for the weights of one.
    products = (4 + 2) * 8 * 2 * 192 * 32
    for flops in (line["flops"], line["baseline_flops"]):
        assert products < flops < 4 * products  # the rest: augmentation, heads, update


def test_synthetic_data_needs_no_data(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("byol_jax.bench.compiler.flops", lambda traced, compiled, devices, accumulate: float(100 * devices + accumulate))
    absent = ("--config.data.source=tfds", "--config.data.name=imagenet2012", "--config.data.path=nowhere")
    assert (
        run(
            "step",
            "--config",
            config,
            *absent,
            "--synthetic",
            "--batch-size",
            "16",
            "--config.optimizer.accumulate=2",
            "--repeats",
            "1",
            "--json",
            "r.jsonl",
        )
        == 0
    )
    assert run("eval", "--config", config, *absent, "--synthetic", "--repeats", "1", "--json", "r.jsonl") == 0
    step, encoder = lines()
    assert (step["batch"], step["synthetic"], step["changes"]["batch_size"]) == (16, True, "16")
    assert step["ratio"] is None
    assert step["flops"] == 100 * step["devices"] + 2
    assert list(encoder["rows"]) == ["encoder"]


def test_augment_and_eval(config: str) -> None:
    assert run("augment", "--config", config, "--repeats", "2", "--json", "r.jsonl") == 0
    assert run("eval", "--config", config, "--repeats", "2", "--json", "r.jsonl") == 0
    augment, encoder = lines()
    assert augment["share_of_step"] == pytest.approx(augment["rows"]["augment"]["median_s"] / augment["rows"]["step"]["median_s"])
    assert list(encoder["rows"]) == ["encoder", "encoder and its input"]


def test_input_with_the_official_form(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("byol_jax.bench.input.WINDOW", 0.01)
    jpegs(tmp_path / "images")
    assert run("input", "--config", f"{config}:folder", "--repeats", "2", "--baseline", "--json", "r.jsonl") == 0
    (line,) = lines()
    names = ["input", "official form: two decodings, float32"]
    assert list(line["rows"]) == names
    assert list(line["first_batch_s"]) == names
    assert min(line["first_batch_s"].values()) > 0
    assert line["samples_per_second_per_core"] == pytest.approx(line["samples_per_s"] / line["cores"])
    assert line["ratio"] > 0
    capsys.readouterr()
    assert run("input", "--config", config, "--repeats", "1", "--baseline") == 2  # arrays
    assert "hands out no encoded images; take a folder of JPEGs" in capsys.readouterr().err


@pytest.mark.parametrize("held", [True, False])
def test_input_that_a_run_would_not_have_is_told(
    config: str, held: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("byol_jax.bench.input.WINDOW", 0.01)
    assert run("input", "--config", config + ":held" * held, "--repeats", "1") == 0
    told = "data.on_device = True: a run's host sends indices alone. What was measured is its input with data.on_device = False."
    assert (told in " ".join(capsys.readouterr().out.split())) is held


def test_what_the_official_input_gives(tmp_path: Path) -> None:
    """Views that are whole images differ from a decoding by hand by rounding alone; smaller ones are cut apart for each view."""
    from byol_jax.data import decode_twice

    folder = tmp_path / "one"
    folder.mkdir()
    pixels = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    Image.fromarray(pixels).save(folder / "a.jpg", quality=95)
    views = Views(size=8).both(crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0))
    batch = next(iter(decode_twice.official_batches(data.folder(folder), views, batch_size=2, seed=0)))
    assert batch["label"].tolist() == [-1, -1]
    for name in ("view1", "view2"):
        assert (batch[name].dtype, batch[name].shape) == (np.float32, (2, 8, 8, 3))
        np.testing.assert_allclose(batch[name], np.broadcast_to(np.float32([200, 100, 50]) / 255, (2, 8, 8, 3)), atol=3 / 255)

    jpegs(tmp_path / "many", 6)
    source = data.folder(tmp_path / "many")
    batch = next(iter(decode_twice.official_batches(source, Views(size=8), batch_size=6, seed=0)))
    assert set(batch["label"].tolist()) == {0, 1}
    assert 0 <= batch["view1"].min() < batch["view1"].max() <= 1
    assert np.abs(batch["view1"] - batch["view2"]).mean(axis=(1, 2, 3)).min() > 0.05  # each view has a crop of its own


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["steps", "--config", "tiny.py"], "invalid choice: 'steps'"),
        (["step"], "the following arguments are required: --config"),
        (["step", "--config", "tiny.py", "--repeats", "0"], "--repeats 0: must be 1 or more"),
        (["step", "--config", "tiny.py", "--batch-size", "0"], "batch_size = 0: it must be at least 1"),
        (["step", "--config", "tiny.py", "--batch-size", "9"], "batch_size = 9"),
        (["step", "--config", "tiny.py", "--json", "r.json"], "--json r.json: must end in .jsonl"),
        (["augment", "--config", "tiny.py", "--baseline"], "--baseline: bench augment has no peer; it belongs to step, input"),
        (["eval", "--config", "tiny.py", "--baseline"], "--baseline: bench eval has no peer"),
        (["eval", "--config", "tiny.py", "--peer", "lightly"], "--peer: bench eval has no peer"),
        (["step", "--config", "tiny.py", "--peer", "solo"], "argument --peer: invalid choice: 'solo'"),
        (["input", "--config", "tiny.py", "--synthetic"], "--synthetic: bench input reads real files or arrays"),
        (["step", "--config", "tiny.py", "--baseline", "--config.optimizer.accumulate=2", "--batch-size", "16"], "no micro-batches"),
        (["step", "--config", "tiny.py", "--baseline", "--config.method.target=online"], "the official recipe has a target network"),
        (
            ["step", "--config", "tiny.py", "--synthetic", "--config.views.function=a.b:c", "--config.data.augment_on=host"],
            "--synthetic: views.function = 'a.b:c'",
        ),
    ],
)
def test_mistakes(argv: list[str], message: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*argv) == 2
    assert message in capsys.readouterr().err
