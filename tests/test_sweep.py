"""Sweeps: the studies of the repository resolve, one runs to its page and goes on where it stopped, and mistakes are told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from byol_jax import build, cli
from byol_jax import config as cfg
from byol_jax.build.sweep import results
from byol_jax.config.study import load_study
from byol_jax.config.sweep import Point, Scale, Sweep
from byol_jax.report.sweep import cell, write_page

ROOT = Path(__file__).parents[1]
STUDIES = sorted(str(file.relative_to(ROOT)) for file in ROOT.glob("experiments/paper/*/sweep.py"))
TINY = """
from byol_jax.config.sweep import Point, Scale, Sweep

SIZES = {"epochs": None, "steps": 2, "optimizer.warmup_epochs": None, "encoder.stages": (1,), "encoder.channels": (8,), "batch_size": 16,
         "method.projector.hidden": 16, "method.predictor.hidden": 16, "evaluation.monitor_examples": 64, "logging.every_steps": 1}
TOO_FAST = {"optimizer.name": "sgd", "optimizer.learning_rate": 1e37}
SWEEP = Sweep(
    title="Rates",
    source="Table 0",
    points=(Point("slow", "1.0", {"optimizer.learning_rate": 1e-3}), Point("too fast", "0.1", TOO_FAST)),
    scales={"small": Scale("CONFIG", SIZES, seeds=(0,), about="two steps")},
    metrics={"small": "knn"},
)
"""


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_of_the_paper_resolves_at_all_its_scales(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    study, first, folder = load_study(name)  # checks every point
    assert (first, folder.name) == ("paper", Path(name).parent.name)
    assert set(study.scales) in ({"paper", "small"}, {"paper"})
    config = study.spec(study.points[0], "paper", 0)
    assert (config.encoder.name, config.batch_size) == ("resnet50", 4096)
    own = {"networks": (1000, 0.2), "norm_free": (1000, 0.2), "epochs": (40, 0.45)}
    assert (config.epochs, config.optimizer.learning_rate) == own.get(folder.name, (300, 0.3))


def test_a_study_may_import_what_stands_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the console script starts: with the script's own folder on the path, not the current one."""
    (tmp_path / "beside_the_configs.py").write_text("TITLE = 'Rates'")
    (tmp_path / "sweep.py").write_text(
        TINY.replace("CONFIG", str(ROOT / "configs/digits.py"))
        .replace('"Rates"', "TITLE")
        .replace("SWEEP =", "from beside_the_configs import TITLE\nSWEEP =")
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    assert load_study("sweep.py")[0].title == "Rates"


def test_there_are_studies() -> None:
    four = {"augmentations", "tau", "target", "batch_size"}
    others = {"epochs", "rate_factors", "loss_norm", "predictor_rate", "contrastive", "heads", "networks", "rates", "norm_free"}
    assert four | others == {Path(name).parent.name for name in STUDIES}


def test_the_paper_s_simclr_and_batch_of_64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    target, _, _ = load_study("experiments/paper/target/sweep.py")
    simclr = next(target.spec(point, "paper", 2) for point in target.points if "SimCLR" in point.name)
    got = simclr.method.predictor.layers, simclr.method.target, simclr.method.beta, simclr.method.temperature, simclr.seed
    assert got == (0, "online", 1.0, 0.1, 2)
    batch, _, _ = load_study("experiments/paper/batch_size/sweep.py")
    last = batch.points[-1]
    assert (last.name, last.paper, batch.spec(last, "paper", 0).optimizer.accumulate) == ("1/64 (64)", "59.7 ± 1.5", 64)
    assert last not in batch.at("small")


def test_a_sweep_runs_notes_what_diverged_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "study" / "sweep.py"
    file.parent.mkdir()
    file.write_text(TINY.replace("CONFIG", str(ROOT / "configs/digits.py")))
    words = ["sweep", str(file), "--workdir", str(tmp_path / "runs")]
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    assert left.value.code == 0
    rows = [json.loads(line) for line in (file.parent / "results.jsonl").read_text().splitlines()]
    assert [(row["point"], row["seed"]) for row in rows] == [("slow", 0), ("too fast", 0)]
    assert set(rows[0]["metrics"]) == {"knn", "linear", "linear_10", "linear_sgd", "loss", "embedding_std", "rankme"}
    assert rows[0]["steps"] == 2
    assert rows[1]["diverged"].startswith("step 1: the loss is nan")
    page = (file.parent / "results.md").read_text()
    assert f"| slow | 1.0 | {100 * rows[0]['metrics']['knn']:.1f} (one seed) | {rows[0]['metrics']['loss']:.2f} | " in page
    assert "| too fast | 0.1 |  1 diverged |  |  |" in page
    assert (file.parent / "results.png").stat().st_size > 1000

    (file.parent / "results.jsonl").write_text(json.dumps(rows[1]) + "\n")  # the first is forgotten: it alone is measured again
    capsys.readouterr()
    build.sweep(*load_study(str(file))[:2], file.parent, tmp_path / "runs")
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")] == ["[1/2] slow, seed 0"]
    again = [json.loads(line) for line in (file.parent / "results.jsonl").read_text().splitlines()]
    assert again[1]["metrics"] == rows[0]["metrics"]  # its run stood in the working folder


def test_a_point_that_was_measured_with_another_configuration_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, ran = tmp_path / "sweep.py", []
    text = TINY.replace("CONFIG", str(ROOT / "configs/digits.py")).replace("(0,)", "(0, 1)")
    monkeypatch.setattr(sys.modules["byol_jax.build.sweep"], "measure", lambda spec, workdir: ran.append(spec.seed) or {"metrics": {}})

    def run(source: str) -> None:
        file.write_text(source)
        build.sweep(*load_study(str(file))[:2], tmp_path, tmp_path / "runs", lambda line: None)

    run(text)
    run(text.replace("two steps", "of two steps").replace('"logging.every_steps": 1', '"logging.every_steps": 2'))
    assert ran == [0, 0, 1, 1]
    with pytest.raises(cfg.ConfigError) as caught:
        run(text.replace("1e-3", "1e-4"))
    changed = "was measured with another configuration: optimizer.learning_rate: 0.001 there, 0.0001 here"
    wanted = [
        f"{tmp_path / 'results.jsonl'}, line {line}: point 'slow', seed {seed}, {changed}; "
        "delete the line, and it runs again, or take the old values back"
        for line, seed in ((1, 0), (3, 1))
    ]
    assert list(caught.value.errors) == wanted
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    old = [json.dumps({key: row[key] for key in row if key != "config"}) + "\n" for row in rows]
    (tmp_path / "results.jsonl").write_text("".join(old))  # of an earlier version
    run(text.replace("1e-3", "1e-4"))
    assert ran == [0, 0, 1, 1]


def test_of_several_processes_the_first_says_what_is_missing_and_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here is the second, whose own file knows another point than that of the first."""
    (tmp_path / "sweep.py").write_text(TINY.replace("CONFIG", str(ROOT / "configs/digits.py")))
    known = json.dumps({"scale": "small", "point": "slow", "seed": 0}) + "\n"
    (tmp_path / "results.jsonl").write_text(known)
    told: list[str] = []
    first_knows = iter([False, True])
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", lambda mine: np.bool_(next(first_knows)))
    monkeypatch.setattr(sys.modules["byol_jax.build.sweep"], "measure", lambda spec, workdir: {"metrics": {}})
    page = build.sweep(*load_study(str(tmp_path / "sweep.py"))[:2], tmp_path, tmp_path / "runs", told.append)
    assert told == ["[1/2] slow, seed 0"]
    assert (page, page.exists()) == (tmp_path / "results.md", False)
    assert (tmp_path / "results.jsonl").read_text() == known


def test_the_page_by_hand(tmp_path: Path) -> None:
    study = Sweep(
        "Study", "Table 1", (Point("a", "70.0"), Point("b", at={"big": None})), {"big": Scale("x.py"), "desk": Scale("y.py")},
        {"big": "linear", "desk": "knn"},
    )  # fmt: skip
    metrics = ({"knn": 0.5, "loss": 0.0, "rankme": 3.0}, {"knn": 0.7, "loss": 1.0, "rankme": 3.0})
    rows = [{"scale": "desk", "point": "a", "seed": seed, "metrics": found} for seed, found in enumerate(metrics)]
    assert cell(study, rows, "desk", "a") == "60.0 ± 10.0"
    assert cell(study, rows, "big", "a") == "not run yet"
    assert cell(study, rows, "big", "b") == "not at this scale"
    page = write_page(study, rows, tmp_path).read_text()
    assert "| a | 70.0 | not run yet | 60.0 ± 10.0 | 0.50 | 3.00 |" in page


def test_the_paper_s_numbers_stand_beside_the_keys_that_made_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)

    def point(study: str, name: str) -> tuple[str, cfg.Spec]:
        sweep = load_study(f"experiments/paper/{study}/sweep.py")[0]
        found = next(point for point in sweep.points if point.name == name)
        return found.paper, sweep.spec(found, "paper", 0)

    paper, spec = point("heads", "projector 1, predictor 3 layers")
    assert (paper, spec.method.projector.layers, spec.method.predictor.layers) == ("65.7", 1, 3)
    paper, spec = point("heads", "projection of 16")
    assert (paper, spec.method.projector.out, spec.method.predictor.out) == ("69.9", 16, 16)
    paper, spec = point("contrastive", "beta 1.0, alpha 0.01")
    assert (paper, spec.method.beta, spec.method.temperature, spec.method.target) == ("53.9 ± 0.5", 1.0, 0.01, "ema")
    paper, spec = point("predictor_rate", "10 x")
    assert (paper, spec.optimizer.predictor_rate, spec.method.target) == ("66.6", 10.0, "stop_gradient")
    _, spec = point("rate_factors", "predictor 10 x, projector 2 x")
    rates = spec.optimizer.predictor_rate, spec.optimizer.projector_rate, spec.method.target
    assert rates == (10.0, 2.0, "stop_gradient")
    paper, spec = point("epochs", "1000 epochs")
    assert (paper, spec.epochs, spec.optimizer.learning_rate, spec.method.tau) == ("74.3", 1000, 0.2, 0.996)
    paper, spec = point("rates", "weight decay 5e-06")
    assert (paper, spec.optimizer.weight_decay, spec.optimizer.learning_rate) == ("71.0", 5e-6, 0.3)
    paper, spec = point("networks", "resnet200 x2")
    assert (paper, spec.encoder.name, spec.encoder.width) == ("79.6", "resnet200", 2)
    paper, spec = point("norm_free", "GroupNorm and weight standardisation")
    assert (paper, spec.encoder.norm, spec.method.projector.norm, spec.method.predictor.norm) == ("73.9", "group", "none", "none")


def test_mistakes_in_a_sweep(tmp_path: Path) -> None:
    def refuse(text: str, name: str = "sweep.py", source: str = TINY) -> None:
        (tmp_path / "sweep.py").write_text(source.replace("CONFIG", str(ROOT / "configs/digits.py")))
        with pytest.raises(cfg.ConfigError) as caught:
            load_study(str(tmp_path / name))
        assert text in str(caught.value)

    refuse("scale 'smal' must be one of small (did you mean 'small'?)", "sweep.py:smal")
    refuse("there is no file", "sweeep.py")
    refuse("defines no SWEEP = Sweep(...) and no SEARCH", source="x = 1")
    refuse("sweep.py: ModuleNotFoundError: No module named 'nowhere'", source="import nowhere")
    refuse("metrics['small'] = 'top1': must be one of knn, linear", source=TINY.replace('"knn"}', '"top1"}'))
    refuse("point 'slow': there are 2 of this name", source=TINY.replace("too fast", "slow"))
    wrong = TINY.replace('{"optimizer.learning_rate": 1e-3}', '{"optimizer.learning_rat": 1}')
    refuse("point 'slow' at scale small: optimizer.learning_rat = 1: there is no such key (did you mean", source=wrong)
    (tmp_path / "results.jsonl").write_text("{}\n{half")
    with pytest.raises(cfg.ConfigError, match=r"line 2: is no JSON"):
        results(tmp_path)
