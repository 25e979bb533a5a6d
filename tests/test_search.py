"""Searches: values reach the run, the median rule, going on where it stopped, mistakes, and one run from the command line."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from byol_jax import build, cli, data, parallel
from byol_jax import config as cfg
from byol_jax.build import runs
from byol_jax.build.search import search, trained, trials
from byol_jax.build.suggest import suggest
from byol_jax.checkpoint import CheckpointError
from byol_jax.config.search import Choice, Float, Int, Search, check, not_held_out
from byol_jax.config.spec import DataSpec
from byol_jax.config.study import load_study
from byol_jax.report.search import command as best
from byol_jax.report.search import write_page
from byol_jax.train import Judge, Stopped

ROOT = Path(__file__).parents[1]
HELD_OUT = {"data.split": "train[:80%]", "data.test_split": "train[80%:]"}
SPACE = {
    "optimizer.learning_rate": Float(1e-4, 1e-1, log=True),
    "batch_size": Int(64, 256, step=64),
    "encoder.channels": Choice((8, 16), (16, 32)),
    "optimizer.name": Choice("adamw", "sgd"),
}
STUDY = Search("Study", str(ROOT / "configs/digits.py"), SPACE, HELD_OUT, trials=8, startup=2, warmup=1)
TINY = """
from byol_jax.config.search import Choice, Float, Int, Search

SIZES = {"epochs": None, "steps": 4, "optimizer.warmup_epochs": None, "encoder.stages": (1,), "encoder.channels": (8,),
         "method.projector.hidden": 16, "method.predictor.hidden": 16, "evaluation.monitor_examples": 64, "logging.every_steps": 1}
SEARCH = Search(
    title="Rates",
    config="CONFIG",
    changes={**SIZES, "data.split": "train[:80%]", "data.test_split": "train[80%:]", "evaluation.every_epochs": None},
    space={"optimizer.learning_rate": Float(1e-4, 1e-2, log=True), "method.tau": Choice(0.9, 0.99), "batch_size": Int(16, 32, step=16)},
    trials=3,
    startup=2,
)
"""


def curve(study, spec, place, stops, run=(0.1, 0.2, 0.3)):
    """A training that gives these accuracies, and asks after each but the last whether to stop."""
    del study, spec, place
    for evaluation, accuracy in enumerate(run[:-1]):
        if stops(evaluation, accuracy):
            return {"state": "pruned", "epoch": float(evaluation), "knn": list(enumerate(run))[: evaluation + 1]}
    return {"state": "complete", "value": run[-1], "epoch": 1.0, "knn": list(enumerate(run))}


def of_rate(study, spec, place, stops):
    """Better the nearer the rate is to 0.01."""
    best = 0.9 - 0.2 * abs(np.log10(spec.optimizer.learning_rate) + 2)
    return curve(study, spec, place, stops, (0.1, best / 2, best))


def scripted(runs):
    left = iter(runs)
    return lambda *asked: curve(*asked, run=next(left))


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_the_values_of_a_trial_reach_its_configuration(tmp_path: Path) -> None:
    seen = []
    search(dataclasses.replace(STUDY, trials=3), tmp_path, tmp_path / "runs", train=lambda *a: seen.append(a[1:3]) or curve(*a))
    for number, (row, (spec, place)) in enumerate(zip(rows_of(tmp_path), seen, strict=True)):
        got = spec.optimizer.learning_rate, spec.batch_size, list(spec.encoder.channels), spec.optimizer.name
        assert [*got] == list(row["values"].values())
        assert (spec.data.split, spec.data.test_split, spec.epochs) == ("train[:80%]", "train[80%:]", 100)
        assert place == tmp_path / "runs" / f"trial{number:03d}-{cfg.digest(spec)}"
        assert all(SPACE[key].holds(value) for key, value in row["values"].items())


def test_the_median_rule_stops_exactly_those_it_should(tmp_path: Path) -> None:
    """Two start-up trials; from evaluation 1 on, the best so far against the median of the completed trials there."""
    runs = [
        (0.1, 0.5, 0.6, 0.7),  # start-up
        (0.1, 0.1, 0.1, 0.1),  # start-up: never stopped, bad as it is; the medians are now 0.3 and 0.35
        (0.0, 0.29, 0.9, 0.9),  # stopped at 1: 0.29 < 0.3
        (0.0, 0.31, 0.36, 0.4),  # never; the medians are 0.31, 0.36
        (0.35, 0.0, 0.0, 0.0),  # at 1 its best, 0.35, holds; at 2 it is below 0.36
        (0.0, 0.31, 0.36, 0.2),  # equal to the median is enough, and the last evaluation is not judged
        (0.0, 0.4, 0.3, 0.2),  # its best holds
        (0.0, 0.3, 0.9, 0.9),  # medians of (.5 .1 .31 .31 .4): 0.31
    ]
    search(STUDY, tmp_path, tmp_path / "runs", train=scripted(runs))
    got = [(row["state"], len(row["knn"])) for row in rows_of(tmp_path)]
    done = ("complete", 4)
    assert got == [done, done, ("pruned", 2), done, ("pruned", 3), done, done, ("pruned", 2)]


@pytest.mark.parametrize("warmup", [0, 2])
def test_no_run_is_stopped_before_the_warmup(tmp_path: Path, warmup: int) -> None:
    runs = [(0.5, 0.5, 0.5, 0.5)] * 2 + [(0.1, 0.1, 0.1, 0.1)]
    search(dataclasses.replace(STUDY, trials=3, warmup=warmup), tmp_path, tmp_path, train=scripted(runs))
    assert rows_of(tmp_path)[2]["epoch"] == warmup


def test_a_search_that_was_stopped_runs_what_is_missing_and_ends_the_same(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    study = dataclasses.replace(STUDY, trials=6, startup=2)
    search(study, whole, tmp_path, train=of_rate)

    class Killed(Exception):
        pass

    def until(count):
        left = iter(range(count))

        def train(*asked):
            if next(left, None) is None:
                raise Killed
            return of_rate(*asked)

        return train

    for count in (3, 1):
        with pytest.raises(Killed):
            search(study, parts, tmp_path, train=until(count))
    told: list[str] = []
    search(study, parts, tmp_path, told.append, train=until(2))
    assert [line.split()[0] for line in told if line.startswith("[")] == ["[5/6]", "[6/6]"]
    assert rows_of(parts) == rows_of(whole)
    lines = (parts / "results.jsonl").read_text().splitlines(keepends=True)
    (parts / "results.jsonl").write_text("".join(lines[:2] + lines[3:]))  # one is taken out: it alone is run again, with its values
    search(study, parts, tmp_path, train=until(1))
    assert sorted(rows_of(parts), key=lambda row: row["trial"]) == rows_of(whole)


def test_the_next_values_come_from_optuna_given_the_trials_before() -> None:
    """The same suggestions as from Optuna's own ask and tell, with the sampler of each trial seeded by its number."""
    import optuna

    study = dataclasses.replace(STUDY, space={key: SPACE[key] for key in ("optimizer.learning_rate", "batch_size")}, startup=1)
    theirs = optuna.create_study(direction="maximize")
    rows: list[dict] = []
    for number, accuracy in enumerate((0.2, 0.9, 0.5, 0.7)):
        seed = int(np.random.SeedSequence([0, number]).generate_state(1)[0])
        theirs.sampler = optuna.samplers.TPESampler(n_startup_trials=1, seed=seed)
        trial = theirs.ask()
        wanted = {
            "optimizer.learning_rate": trial.suggest_float("optimizer.learning_rate", 1e-4, 1e-1, log=True),
            "batch_size": trial.suggest_int("batch_size", 64, 256, step=64),
        }
        assert suggest(study, rows, number).values == wanted
        state = ("complete", "diverged", "pruned", "complete")[number]
        rows.append({"trial": number, "values": wanted, "state": state, "value": accuracy, "knn": [[0, 0.1], [1, accuracy]]})
        if state != "diverged":
            trial.report(0.1, 0)
            trial.report(accuracy, 1)
        if state == "complete":
            theirs.tell(trial, accuracy)
        else:
            theirs.tell(trial, state=optuna.trial.TrialState.PRUNED)


def test_diverged_and_failed_trials_are_results(tmp_path: Path) -> None:
    ways = [
        lambda *a: {"state": "diverged", "why": "step 3: the loss is nan", "knn": [(0, 0.9)]},
        lambda *a: (_ for _ in ()).throw(ValueError("batch_size = 20: no")),
        curve,
        lambda *a: (_ for _ in ()).throw(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")),
    ]
    left = iter(ways)
    page = search(dataclasses.replace(STUDY, trials=4), tmp_path, tmp_path, train=lambda *a: next(left)(*a)).read_text()
    assert [row["state"] for row in rows_of(tmp_path)] == ["diverged", "failed", "complete", "failed"]
    cells = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")][2:]
    assert [line[0] for line in cells] == ["| 2", "| 0", "| 1", "| 3"]
    assert cells[1][5] == "diverged (step 3: the loss is nan)"
    assert cells[2][5] == "failed (batch_size = 20: no)"


def test_a_general_mistake_ends_the_search(tmp_path: Path) -> None:
    def broken(*asked):
        raise ValueError("no such data")

    with pytest.raises(ValueError, match="no such data"):
        search(STUDY, tmp_path, tmp_path, train=broken)
    assert len(rows_of(tmp_path)) == 3

    def full(*asked):
        raise CheckpointError("the disk is full")

    with pytest.raises(CheckpointError):
        search(STUDY, tmp_path, tmp_path, train=full)
    assert len(rows_of(tmp_path)) == 3  # it says nothing of the values


def test_the_page_by_hand(tmp_path: Path) -> None:
    study = dataclasses.replace(STUDY, config="configs/digits.py", changes={**HELD_OUT, "epochs": 10}, space={"method.tau": Float(0.9, 1)})
    rows = [
        {"trial": 0, "values": {"method.tau": 0.91}, "state": "pruned", "epoch": 4.0, "knn": [[0, 0.1], [1, 0.25]]},
        {"trial": 1, "values": {"method.tau": 0.92}, "state": "complete", "value": 0.5, "epoch": 10.0, "knn": [[0, 0.1], [1, 0.5]]},
        {"trial": 2, "values": {"method.tau": 0.93}, "state": "complete", "value": 0.75, "epoch": 10.0, "knn": [[0, 0.1], [1, 0.75]]},
    ]
    page = write_page(study, rows, tmp_path).read_text()
    told = "(`data.split = 'train[:80%]'`, `data.test_split = 'train[80%:]'`)"
    assert f"Judged on training images that were held out {told}, never on the test set." in page
    table = [line for line in page.splitlines() if line.startswith("| ")]
    assert table[2:] == [
        "| 2 | 0.93 | complete | 75.0 | 10.0 75.0 |",
        "| 1 | 0.92 | complete | 50.0 | 10.0 50.0 |",
        "| 0 | 0.91 | pruned at epoch 4 |  | 10.0 25.0 |",
    ]
    wanted = "byol-jax pretrain --config configs/digits.py --config.epochs=10 --config.method.tau=0.93 --workdir runs/best"
    assert wanted in page.splitlines()
    assert (tmp_path / "results.png").stat().st_size > 1000


def test_the_command_of_the_best_values_trains_on_the_same_data() -> None:
    held = {"data.split": "train[:80%]", "data.labelled_split": "train[:80%]", "data.test_split": "train[80%:]", "data.test_path": "t"}
    changes = {"data.path": "my images", **held, "data.augment_on": "host", "epochs": 10}
    study = dataclasses.replace(STUDY, config="configs/folder.py", changes=changes)
    kept = "'--config.data.path=my images' --config.data.augment_on=host --config.epochs=10 --config.method.tau=0.9"
    assert best(study, {"method.tau": 0.9}) == f"byol-jax pretrain --config configs/folder.py {kept} --workdir runs/best"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": {"optimizer.learning_rat": Float(0, 1)}}, "space['optimizer.learning_rat']: there is no such key (did you mean"),
        ({"space": {"optimizer.learning_rate": Float(0, 1)}}, "Float(low=0, high=1, log=False): optimizer.learning_rate = 0.0: it must be"),
        ({"space": {"batch_size": Float(16, 32)}}, "batch_size = 16.0: it must be a whole number"),
        ({"space": {"batch_size": Int(16, 40, step=16)}}, "high must be low and a multiple of step = 16"),
        ({"space": {"batch_size": Int(16, 64, step=16, log=True)}}, "log needs low above 0 and step = 1"),
        ({"space": {"method.tau": Float(0.99, 0.9)}}, "low and high must be numbers, low below high"),
        ({"space": {"method.tau": Float(0, 0.9, log=True)}}, "log needs low above 0"),
        ({"space": {"method.tau": Choice(0.9, 0.9)}}, "give two values or more, each once"),
        ({"space": {"method.tau": (0.9, 0.99)}}, "must be Float(low, high), Int(low, high) or Choice(value, value, ...)"),
        (
            {"space": {"optimizer.name": Choice("adamw", "adam")}},
            "optimizer.name = 'adam': it must be one of 'lars', 'adamw', 'sgd' (did you",
        ),
        ({"space": {"data.test_split": Choice("a", "b")}}, "space['data.test_split']: is not for a search to choose"),
        ({"space": {"seed": Int(0, 9)}}, "space['seed']: is not for a search to choose"),
        ({"space": {"epochs": Int(5, 9)}, "changes": {**HELD_OUT, "epochs": 9}}, "space['epochs']: stands in changes too"),
        ({"space": {}}, "space = {}: name at least one key"),
        ({"metric": "knm"}, "metric = 'knm': must be one of knn, linear, linear_10, linear_sgd (did you mean 'knn'?)"),
        ({"trials": 0}, "trials = 0: must be a whole number, 1 or more"),
        ({"changes": {**HELD_OUT, "evaluation.every_epochs": 0}}, "evaluation.every_epochs = 0: a search needs the k-NN accuracy"),
        ({"changes": {**HELD_OUT, "epoch": 0}}, "epoch = 0: there is no such key (did you mean 'epochs'?)"),
        ({"changes": {}}, "data.test_split = 'test': a search chooses by these images, so they must be training images, held out"),
    ],
)
def test_mistakes_in_a_search(change, message) -> None:
    check(STUDY)
    with pytest.raises(cfg.ConfigError) as caught:
        check(dataclasses.replace(STUDY, **change))
    assert message in str(caught.value)


def test_what_counts_as_held_out() -> None:
    def told(**values) -> str:
        return "; ".join(not_held_out(DataSpec(**values)))

    assert told(split="train[:90%]", test_split="train[90%:]") == ""
    assert told(source="tfds", name="stl10", split="unlabelled", labelled_split="train[:500]", test_split="train[500:]") == ""
    assert told(source="folder", split="train[:90%]", test_split="train[90%:]") == ""
    assert "data.test_split = None: a search chooses" in told()
    assert "data.test_split = 'train': a search chooses" in told(test_split="train")
    assert "data.test_path = 'val': a search chooses" in told(source="folder", test_path="val", split="train[:90%]")
    assert "'test[50%:]': a search chooses" in told(split="train", test_split="test[50%:]")
    assert "'test+train': a search chooses" in told(split="train", test_split="test+train")
    assert "'train[80%:]' may share images with 'train'" in told(test_split="train[80%:]")
    assert "'train[80%:]' may share images with 'train[:90%]'" in told(split="train[:90%]", test_split="train[80%:]")
    assert "'train[80%:]' may share images with 'train[:90%]'" in told(labelled_split="train[:90%]", split="x", test_split="train[80%:]")
    folder = {"source": "folder", "split": "a[:90%]", "labelled_split": "train[:50%]", "test_split": "train[50%:]"}
    assert "may share images with 'a[:90%]'" in told(**folder)
    wanted = 'changes={"data.labelled_split": "train[:80%]", "data.test_split": "train[80%:]"}; if they are that already, say held_out=True'
    assert wanted in told(split="unlabelled", labelled_split="train", test_split="test")
    check(dataclasses.replace(STUDY, changes={}, held_out=True))


def test_where_a_search_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(jax, "process_count", lambda: 4)
        with pytest.raises(cfg.ConfigError, match=r"a search runs in one process, on all its devices; here are 4: start it on one host"):
            search(STUDY, tmp_path, tmp_path, train=curve)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "optuna", None)
        with pytest.raises(cfg.ConfigError, match=r"needs optuna, which is not installed: pip install 'byol-jax\[search\]'"):
            search(STUDY, tmp_path, tmp_path, train=curve)
    assert not list(tmp_path.iterdir())


def test_results_of_another_study_are_not_gone_on_with(tmp_path: Path) -> None:
    study = dataclasses.replace(STUDY, trials=1)
    search(study, tmp_path, tmp_path, train=curve)
    assert list(trials(study, tmp_path)) == [0]
    for space, key in (
        ({**SPACE, "batch_size": Int(2, 3)}, "batch_size"),
        ({"batch_size": SPACE["batch_size"]}, "optimizer.learning_rate"),
        ({**SPACE, "method.tau": Float(0, 1)}, "method.tau"),
    ):
        with pytest.raises(cfg.ConfigError, match=rf"line 1: trial 0 was made in another space: {key} = "):
            trials(dataclasses.replace(study, space=space), tmp_path)
    (tmp_path / "results.jsonl").write_text('{"scale": "small", "point": "a", "seed": 0}\n')
    with pytest.raises(cfg.ConfigError, match="line 1: is no trial of a search; a search wants a folder of its own"):
        search(study, tmp_path, tmp_path, train=curve)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"metric": "linear_10"}, "metric: 'knn' there, 'linear_10' here"),
        ({"changes": {**HELD_OUT, "epochs": 5, "optimizer.warmup_epochs": 1}},
         "epochs: 100 there, 5 here; optimizer.warmup_epochs: 5 there, 1 here"),
        ({"changes": {**HELD_OUT, "data.test_split": "train[90%:]"}}, "data.test_split: 'train[80%:]' there, 'train[90%:]' here"),
        ({"changes": {**HELD_OUT, "evaluation.every_epochs": 2}}, "evaluation.every_epochs: 10 there, 2 here"),
        ({"config": "fashion_mnist.py", "metric": "linear"}, "metric: 'knn' there, 'linear' here; batch_size:"),
    ],
)  # fmt: skip
def test_results_of_another_measurement_are_not_ranked_with_new_ones(tmp_path: Path, change: dict, told: str) -> None:
    space = {"optimizer.learning_rate": Float(1e-4, 1e-1, log=True)}
    study = dataclasses.replace(STUDY, trials=1, space=space)
    search(study, tmp_path, tmp_path, train=curve)
    (row,) = rows_of(tmp_path)
    assert row["metric"] == "knn"
    assert {"data.split": "train[:80%]", "data.test_split": "train[80%:]", "views.preset": "gray"}.items() <= row["config"].items()
    assert "optimizer.learning_rate" not in row["config"]
    aside = {**HELD_OUT, "logging.every_steps": 7, "checkpoint.keep": 9, "data.max_bad_share": 0.5}
    assert list(trials(dataclasses.replace(study, changes=aside, trials=3, title="x"), tmp_path)) == [0]
    other = dataclasses.replace(study, **{**change, **({"config": str(ROOT / "configs" / change["config"])} if "config" in change else {})})
    with pytest.raises(cfg.ConfigError) as caught:
        search(other, tmp_path, tmp_path, train=curve)
    assert f"results.jsonl, line 1: trial 0 is of another search: {told}" in str(caught.value)
    assert str(caught.value).endswith("; move the file away to search anew, or take the old values back")
    (tmp_path / "results.jsonl").write_text(json.dumps({key: row[key] for key in row if key not in ("metric", "config")}) + "\n")
    assert list(trials(other, tmp_path)) == [0]  # of an earlier version


def test_the_rows_of_the_repository_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    study, _, folder = load_study("experiments/search_digits/search.py")
    assert list(trials(study, folder)) == list(range(16))


def test_a_file_defines_one_study_and_a_search_has_no_scales(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    study, scale, folder = load_study("experiments/search_digits/search.py")
    assert (type(study), scale, folder.name) == (Search, "", "search_digits")
    with pytest.raises(cfg.ConfigError, match="a search has no scales; leave :small out"):
        load_study("experiments/search_digits/search.py:small")
    with pytest.raises(cfg.ConfigError, match=r"did you mean 'experiments/search_digits/search\.py'"):
        load_study("experiments/search_digit/search.py")
    both = "from experiments.paper.tau.sweep import SWEEP\nfrom experiments.search_digits.search import SEARCH\n"
    (tmp_path / "both.py").write_text(both)
    with pytest.raises(cfg.ConfigError, match="defines both SWEEP and SEARCH; a folder has one page"):
        load_study(str(tmp_path / "both.py"))


def command(*words: str) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main(["sweep", *words])
    return int(left.value.code or 0)


@pytest.mark.slow
def test_a_search_from_the_command_line_and_a_trial_that_was_interrupted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one_device = parallel.data_mesh(jax.devices()[:1])  # compiles in half the time
    monkeypatch.setattr(parallel, "data_mesh", lambda devices=None: one_device)
    file = tmp_path / "study" / "search.py"
    file.parent.mkdir()
    file.write_text(TINY.replace("CONFIG", str(ROOT / "configs/digits.py")))
    study, _, _ = load_study(str(file))
    first = study.spec(suggest(study, [], 0).values)
    place, before = tmp_path / "runs" / f"trial000-{cfg.digest(first)}", []
    with pytest.raises(Stopped):
        build.pretrain(first, place, hooks=[Judge("knn_top1", lambda done, accuracy: before.append([done, accuracy]) or done == 3)])
    capsys.readouterr()

    words = str(file), "--workdir", str(tmp_path / "runs")
    assert command(*words) == 0
    rows = rows_of(file.parent)
    assert [(row["trial"], row["state"]) for row in rows[:2]] == [(0, "complete"), (1, "complete")]
    assert [evaluation for evaluation, _ in rows[0]["knn"]] == [0, 1, 2, 3, 4]  # all that is counted, whenever it was measured
    assert rows[0]["knn"][:4] == before
    out = capsys.readouterr().out
    assert "step 0" not in out[: out.index("[2/3]")], "the first trial went on"
    assert rows[0]["value"] == rows[0]["knn"][-1][1]
    assert build.read_spec(place) == first
    assert rows[2]["state"] == ("pruned" if rows[2]["knn"][-1][0] < 4 else "complete")
    assert (file.parent / "results.png").stat().st_size > 1000

    assert command(*words) == 0  # all is done: nothing is run
    assert capsys.readouterr().out == f"written to {file.parent / 'results.md'}\n"
    assert command(*words, "--config.seed=3") == 2


def own(split: str, labels: dict[str, list[int]]):
    """A source of a configuration: black images with these labels, by the name of the split."""
    return data.from_arrays(np.zeros((10, 16, 16, 3), np.uint8), np.array(labels[split], np.int32))


def test_a_search_on_data_without_labels_is_refused_before_the_first_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    none, one, both = [-1] * 10, [-1] * 9 + [3], [3] * 10
    ran = []
    metrics = {"knn_top1": 0.5}
    monkeypatch.setattr(runs, "pretrain", lambda spec, workdir, hooks: ran.append(1) or types.SimpleNamespace(step=1, metrics=metrics))

    def run(train: list[int], test: list[int], metric: str = "knn", **changes) -> list[str]:
        source = {"data.source": "tests.test_search:own", "data.args": {"labels": {"train": train, "train[80%:]": test}}}
        changes = {**source, "data.split": "train", "data.test_split": "train[80%:]", **changes}
        study = dataclasses.replace(STUDY, changes=changes, space={"method.tau": Float(0.9, 1)}, trials=1, metric=metric, held_out=True)
        try:
            search(study, tmp_path, tmp_path / "runs")
        except cfg.ConfigError as error:
            return list(error.errors)
        return []

    some = "examples have a label; metric = 'knn' needs a label of at least one: give a split or a folder with labels"
    every = "examples have a label; metric = 'linear' needs a label of each: give a split or a folder with labels"
    every += ", or metric = 'knn', which takes those that have one"
    assert run(none, none) == [f"data.split = 'train': 0 of 10 {some}", f"data.test_split = 'train[80%:]': 0 of 10 {some}"]
    assert run(both, none) == [f"data.test_split = 'train[80%:]': 0 of 10 {some}"]
    assert run(one, both, **{"evaluation.monitor_examples": 5}) == [f"data.split = 'train': 0 of 5 {some}"]
    assert run(one, both, "linear") == [f"data.split = 'train': 1 of 10 {every}"]
    assert run(both, both, **{"data.test_split": None})[0].startswith("data.test_split = None: this evaluation needs test data")
    assert (ran, list(tmp_path.iterdir())) == ([], [])
    assert run(one, one) == []
    assert ran == [1]


@pytest.mark.parametrize(("stop_at", "asked", "state", "epoch"), [(4, 7, "complete", 7), (2, 4, "pruned", 4), (3, 6, "pruned", 6)])
def test_a_run_is_asked_at_every_evaluation_but_the_last_cannot_stop_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int, asked: int, state: str, epoch: int
) -> None:
    """Seven steps of a whole epoch each, evaluated at 0, 2, 4, 6 and at the end."""
    accuracies, seen = {0: 0.1, 2: 0.2, 4: 0.3, 6: 0.4, 7: 0.5}, []

    def pretrain(spec, workdir, hooks):
        for done, accuracy in accuracies.items():
            for hook in hooks:
                hook.log(done, {"loss": 1.0})
                seen.append(done)
                hook.log(done, {"knn_top1": accuracy})
        return types.SimpleNamespace(step=7, metrics={"knn_top1": 0.5})

    monkeypatch.setattr(runs, "pretrain", pretrain)
    changes = {**HELD_OUT, "epochs": 7, "optimizer.warmup_epochs": 0, "evaluation.every_epochs": 2, "batch_size": 100}
    spec = dataclasses.replace(STUDY, changes=changes).spec({})
    row = trained(STUDY, spec, tmp_path, lambda evaluation, _: evaluation == stop_at, examples=100)
    assert (row["state"], row["epoch"], seen[-1]) == (state, epoch, asked)
    assert row["knn"] == [(-(-done // 2), accuracy) for done, accuracy in accuracies.items() if done <= asked]
    assert row.get("value") == (0.5 if state == "complete" else None)


def test_another_metric_is_measured_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "pretrain", lambda spec, workdir, hooks: types.SimpleNamespace(step=11, metrics={"knn_top1": 0.5}))
    monkeypatch.setattr(runs, "load_encoder", lambda workdir, spec: (workdir, spec))
    monkeypatch.setattr(
        sys.modules["byol_jax.build.search"], "accuracies", lambda spec, of: {"linear": 0.75} if of == (tmp_path, spec) else {}
    )
    row = trained(dataclasses.replace(STUDY, metric="linear"), STUDY.spec({}), tmp_path, lambda *a: False, examples=1150)
    assert (row["state"], row["value"], row["epoch"]) == ("complete", 0.75, 11 * STUDY.spec({}).batch_size / 1150)


def test_the_same_rows_give_the_same_values_and_another_seed_others() -> None:
    one, same = (suggest(STUDY, [], 0).values for _ in range(2))
    assert one == same
    assert suggest(dataclasses.replace(STUDY, seed=1), [], 0).values != one
    assert suggest(STUDY, [], 1).values != one
