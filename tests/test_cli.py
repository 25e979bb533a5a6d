"""The command line: flags, exit codes, words for the user's mistakes, and one tiny run from pretraining to evaluation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import byol_jax
import byol_jax.build
from byol_jax import cli

ROOT = Path(__file__).parents[1]
TINY = """
from byol_jax import config as cfg


def get_config(variant=None):
    if variant not in (None, "wide"):
        raise cfg.unknown_variant(variant, ["wide"])
    config = cfg.default()
    config.batch_size = 16
    config.steps = 3
    config.data.update(source="npz", path="DATA", split="unlabelled", labelled_split="train", test_split="test")
    config.views.update(preset="gray", size=8)
    config.encoder.update(name="resnet", block="basic", stages=(1,), channels=(8,), stem="small", width=2 if variant else 1)
    for head in (config.method.projector, config.method.predictor):
        head.update(hidden=16, out=8)
    config.optimizer.update(name="adamw", learning_rate=1e-3, warmup_epochs=None)
    config.checkpoint.every_steps = 2
    config.evaluation.update(every_epochs=1, knn_k=5)
    config.logging.every_steps = 1
    return config
"""


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A config file over 40 unlabelled, 44 labelled and 20 test images: digits 0 and 1."""
    train, test = (byol_jax.data.digits(split, size=8) for split in ("train", "test"))
    rows = [np.flatnonzero(source.labels < 2) for source in (train, test)]
    arrays = {"unlabelled_images": train.images[rows[0][:40]], "train_images": train.images[rows[0][40:84]]}
    arrays |= {
        "train_labels": train.labels[rows[0][40:84]],
        "test_images": test.images[rows[1][:20]],
        "test_labels": test.labels[rows[1][:20]],
    }
    np.savez(tmp_path / "images.npz", **arrays)
    path = tmp_path / "tiny.py"
    path.write_text(TINY.replace("DATA", str(tmp_path / "images.npz")))
    return str(path)


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    return int(caught.value.code or 0)


def test_overrides_are_taken_out_in_both_spellings() -> None:
    words, overrides = cli.split(["pretrain", "--config.seed=3", "--config", "f.py", "--config.views.size", "8", "--config.data.path=a=b"])
    assert words == ["pretrain", "--config", "f.py"]
    assert overrides == [("seed", "3"), ("views.size", "8"), ("data.path", "a=b")]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: VERB"),
        (["pretain"], "invalid choice: 'pretain'"),
        (["pretrain", "--config", "x"], "the following arguments are required: --workdir"),
        (["pretrain", "--conf", "x"], "the following arguments are required: --workdir"),
        (["convert", "--from", "torchvision", "x"], "invalid choice: 'torchvision'"),
        (["convert", "x"], "the following arguments are required: --from, --to"),
        (
            ["evaluate", "fewlabels", "--workdir", "x", "--labels", "1,many"],
            "argument --labels: '1,many': must be whole numbers, such as 1,2,5 or all",
        ),
        (["evaluate", "semisup", "--workdir", "x", "--share", "1%"], "argument --share: '1%': must be numbers, such as 0.01,0.1"),
        (["evaluate", "kmeans", "--workdir", "x"], "invalid choice: 'kmeans'"),
        (["show"], "one of the arguments --config --workdir is required"),
        (["show", "--config", "x", "--config.seed"], "--config.seed needs a value"),
        (["show", "--config.seed", "--config", "x"], "--config.seed needs a value"),
    ],
)
def test_wrong_flags(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*argv) == 2
    assert message in capsys.readouterr().err


def test_all_mistakes_are_told_at_once_without_a_traceback(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--config.optimizer.nmae=sgd", "--config.batch_size", "many", "--config.method.tau=2")
    assert run("pretrain", "--config", tiny, "--workdir", str(tmp_path / "run"), *flags) == 2
    err = capsys.readouterr().err
    assert err.splitlines()[0] == "byol-jax pretrain: 3 errors in the configuration:"
    assert set(err.splitlines()[1:]) == {
        "  - optimizer.nmae = sgd: there is no such key (did you mean 'optimizer.name'?)",
        "  - batch_size = 'many': it must be a whole number",
        "  - method.tau = 2: it must be between 0 and 1",
    }
    assert not (tmp_path / "run").exists()


def test_traceback_on_request(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no run in it"):
        cli.main(["evaluate", "knn", "--traceback", "--workdir", str(tmp_path)])


@pytest.mark.parametrize("verb", [["pretrain"], ["evaluate", "knn"], ["evaluate", "fewlabels"], ["report"], ["show"]])
def test_a_folder_without_a_run(verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*verb, "--workdir", str(tmp_path)) == 2
    assert f"--workdir {tmp_path}: there is no run in it" in capsys.readouterr().err


def test_a_batch_the_devices_cannot_share(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workdir = str(tmp_path / "run")
    assert run("pretrain", "--config", tiny, "--workdir", workdir, "--config.batch_size=12") == 2  # the tests see 8 devices
    err = capsys.readouterr().err
    assert "12" in err
    assert "8 or 16" in err
    assert "Traceback" not in err


def test_show_prints_and_trains_nothing(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "--config", f"{tiny}:wide", "--config.optimizer.learning_rate=0.5") == 0
    out = capsys.readouterr().out
    assert "    learning_rate = 0.5\n" in out
    assert "embedding: 16 numbers an example" in out
    assert "steps in all: 3\n" in out
    assert run("show", "--config", f"{tiny}:wode") == 2
    assert "variant 'wode': it must be one of wide (did you mean 'wide'?)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_whose_images_stay_on_the_device_tells_the_same(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Digit for digit, on the tests' 8 devices; and it can go on without."""
    told = []
    for name, flag in (("resident", "true"), ("fed", "false")):
        place = ["--config", tiny, "--workdir", str(tmp_path / name), "--config.evaluation.every_epochs=0"]
        assert run("pretrain", *place, f"--config.data.on_device={flag}") == 0
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        told.append([{key: line[key] for key in ("step", "loss", "grad_norm", "embedding_std")} for line in lines])
    assert told[0] == told[1]
    assert len(told[0]) == 3
    assert run("pretrain", "--config", tiny, "--workdir", str(tmp_path / "resident"), "--config.evaluation.every_epochs=0") == 0
    capsys.readouterr()
    assert run("pretrain", *place, "--config.data.on_device=true", "--config.data.augment_on=host") == 2
    assert "data.augment_on = 'host': it must be 'device', or data.on_device = False" in capsys.readouterr().err


def test_a_run_from_pretraining_to_evaluation(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = tmp_path / "run"
    assert run("pretrain", "--config", tiny, "--workdir", str(workdir)) == 0
    out = capsys.readouterr().out
    assert "step 3: loss " in out
    assert "knn_top1 " in out  # its neighbours come from the labelled split
    assert f"  byol-jax evaluate fewlabels --workdir {workdir}\n" in out
    assert json.loads((workdir / "config.json").read_text())["batch_size"] == 16

    assert run("pretrain", "--config", tiny, "--workdir", str(workdir), "--config.seed=1") == 2
    assert "seed: 0 there, 1 here" in capsys.readouterr().err

    assert run("evaluate", "knn", "--workdir", str(workdir)) == 0
    few = ("--labels", "1,2,3,5", "--draws", "2")  # all labels take half a minute to compile
    assert run("evaluate", "fewlabels", "--workdir", str(workdir), *few) == 0
    out = capsys.readouterr().out
    for features in ("BYOL", "untrained", "pixels"):
        assert features in out
    result = json.loads((workdir / "evaluation" / "fewlabels.json").read_text())["result"]
    assert set(result["accuracy"]) == {"BYOL", "untrained", "pixels"}
    assert (result["classes"], result["test_examples"]) == (2, 20)
    assert {n: len(tries) for n, tries in result["accuracy"]["BYOL"]["linear"].items()} == {"1": 2, "2": 2, "3": 2, "5": 2}
    assert (workdir / "evaluation" / "knn.json").is_file()

    images = tmp_path / "images.npz"
    assert run("embed", "--workdir", str(workdir), "--input", f"{images}:test", "--output", str(tmp_path / "e.npz")) == 0
    with np.load(tmp_path / "e.npz") as embedded, np.load(images) as given:
        expected = byol_jax.build.load_encoder(workdir)(given["test_images"])
        np.testing.assert_allclose(embedded["embedding"], expected, atol=1e-5)
        assert embedded["label"].tolist() == given["test_labels"].tolist()
    assert run("embed", "--workdir", str(workdir), "--input", "nowhere", "--output", str(tmp_path / "f.npz")) == 2
    assert "--input nowhere: there is no such folder; give a folder of images" in capsys.readouterr().err

    asked: list[tuple[int, int, int]] = []

    def write_report(folder: str, encoder: byol_jax.Encoder, source: Any, recipe: Any, *, test: Any) -> Path:
        asked.append((len(source), len(test), recipe.size))
        return Path(folder) / "page.html"

    monkeypatch.setattr(byol_jax.report, "write_report", write_report)  # the page itself is tested in its room
    assert run("report", "--workdir", str(workdir)) == 0
    assert asked == [(44, 20, 8)]
    assert f"written to {workdir / 'page.html'}" in capsys.readouterr().out

    assert run("evaluate", "knn", "--workdir", str(workdir), "--config.data.test_split=None") == 2
    assert "data.test_split = None: this evaluation needs test data" in capsys.readouterr().err
    assert run("evaluate", "knn", "--workdir", str(workdir), "--step", "77") == 2
    assert "no step 77" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (byol_jax.train.Diverged("step 3: the loss is nan"), 1),
        (byol_jax.checkpoint.SaveError("checkpoint at step 5: the disk is full"), 1),
        (byol_jax.checkpoint.CheckpointError("checkpoint at step 5: does not fit this run"), 2),
        (ValueError("12 of the 40 files seen so far cannot be decoded"), 2),
        (FileNotFoundError("no such folder"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(byol_jax.build, "pretrain", fails)
    assert run("pretrain", "--config", tiny, "--workdir", "x") == code
    assert capsys.readouterr().err == ("" if code == 130 else f"byol-jax pretrain: {error}\n")


def evaluated(workdir: Path, name: str) -> dict[str, Any]:
    return json.loads((workdir / "evaluation" / f"{name}.json").read_text())["result"]


def test_the_papers_protocols(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workdir = tmp_path / "run"
    assert run("pretrain", "--config", tiny, "--workdir", str(workdir), "--config.evaluation.every_epochs=0") == 0
    common = ("--workdir", str(workdir))

    assert run("evaluate", "linear_paper", *common, "--epochs", "2", "--batch-size", "16", "--regularised") == 0
    result = evaluated(workdir, "linear_paper_regularised")
    assert result["protocol"] == "SGD, crops and flips, regularised"
    assert list(result["held_out"]) == ["0.4", "0.3", "0.2", "0.1", "0.05"]
    assert (result["train_examples"], result["test_examples"]) == (44, 20)

    grid = ("--rates", "0.1,1", "--epochs", "1", "--batch-size", "8")
    assert run("evaluate", "semisup", *common, "--share", "0.25,0.5", *grid) == 0
    result = evaluated(workdir, "semisup_25pct")
    assert set(result["held_out"]) == {"rate0.1-epochs1", "rate1-epochs1"}
    assert (result["train_examples"], result["test_examples"]) == (11, 20)
    assert evaluated(workdir, "semisup_50pct")["train_examples"] == 22
    points = sorted((workdir / "evaluation" / "finetune" / "semisup_25pct").iterdir())
    assert [path.name for path in points] == ["rate0.1-epochs1.json", "rate1-epochs1.json"]
    before = [path.stat().st_mtime_ns for path in points]
    assert run("evaluate", "semisup", *common, "--share", "0.25", *grid) == 0
    assert [path.stat().st_mtime_ns for path in points] == before  # nothing was trained again

    capsys.readouterr()
    assert run("evaluate", "transfer", *common, "--tasks", "dtd,pets", "--data-dir", str(tmp_path)) == 2
    err = capsys.readouterr().err
    assert f"byol-jax evaluate: --data-dir {tmp_path}: none of the data sets is there; prepare one:\n  tfds build dtd " in err
    assert run("evaluate", "semisup", *common, "--share", "2") == 2
    assert "--share 2: must lie between 0 and 1" in capsys.readouterr().err
    imagenet = ("--config.data.source=tfds", "--config.data.name=imagenet2012:5.*.*")
    assert run("evaluate", "semisup", *common, *imagenet, "--share", "0.02") == 2
    assert "the fixed subsets 0.01 and 0.1; nearest: 0.01" in capsys.readouterr().err
    assert run("evaluate", "linear_paper", *common, "--epochs", "2,3") == 2
    assert "--epochs 2,3: linear_paper trains for one number of epochs" in capsys.readouterr().err
    assert run("evaluate", "knn", *common, "--epochs", "2") == 2
    assert "--epochs: evaluate knn has no options; it belongs to linear_paper, semisup" in capsys.readouterr().err
    assert run("evaluate", "linear_paper", *common, "--batch-size", "0") == 2
    assert "--batch-size 0: must be 1 or more" in capsys.readouterr().err


def test_every_evaluation_has_its_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", "--help") == 0
    assert "{" + ",".join(byol_jax.build.EVALUATIONS) + "}" in capsys.readouterr().out


def test_help_imports_neither_jax_nor_tensorflow() -> None:
    code = (
        "import sys\nfrom byol_jax import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit(any(name in sys.modules for name in ('jax', 'tensorflow', 'flax')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "pretrain" in done.stdout


def test_python_m_is_the_same_program() -> None:
    done = subprocess.run([sys.executable, "-m", "byol_jax", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()[:2]) == (0, ["usage:", "byol-jax"])
