"""``pretrain`` on real sources with the smallest network: it learns, resumes, evaluates, and refuses what does not fit."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import os
import signal
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from byol_jax import data, parallel, views
from byol_jax.checkpoint import CheckpointError, Checkpoints
from byol_jax.method import MLP, Byol, adamw, ema_decay
from byol_jax.train import Hook, pretrain, start

spec = importlib.util.spec_from_file_location("tests_tiny", Path(__file__).parent / "tests_tiny.py")
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)

METHOD = Byol(tiny.Tiny(), MLP(hidden=8, out=8), MLP(hidden=8, out=8), num_classes=10)
MESH = parallel.data_mesh(jax.devices()[:2])
TX = adamw(1e-2)


@pytest.fixture(autouse=True, scope="module")
def compiled_once():
    """Every ``pretrain`` makes a step of its own; those that are equal are compiled once for all tests of this file."""
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    yield
    jax.config.update("jax_persistent_cache_min_compile_time_secs", before)


def source(count: int = 40) -> data.ArraySource:
    rng = np.random.default_rng(0)
    return data.from_arrays(rng.integers(0, 256, (count, 8, 8, 3), np.uint8), np.arange(count) % 10)


def run(**changes: object):
    settings = {"views": views.gray(8), "batch_size": 8, "steps": 6, "optimizer": TX, "mesh": MESH, "writers": ("jsonl",), "log_every": 1}
    if "epochs" in changes:
        del settings["steps"]
    return pretrain(changes.pop("method", METHOD), changes.pop("data", source()), **{**settings, "evaluate_every_epochs": 0, **changes})


def assert_same_bits(got: object, wanted: object) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def lines(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


class StopAt(Hook):
    def __init__(self, done: int) -> None:
        self._done = done

    def tick(self, done: int) -> None:
        if done == self._done:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_stopped_by_sigterm_and_called_again_ends_as_an_undisturbed_one(tmp_path, capsys):
    whole = run(workdir=tmp_path / "whole")
    with pytest.raises(SystemExit) as left:
        run(workdir=tmp_path / "stopped", writers=["jsonl", StopAt(2)])
    assert left.value.code == 0
    assert capsys.readouterr().out == "saved at step 3; run the same command to go on\n"
    assert [line["step"] for line in lines(tmp_path / "stopped")] == [0, 1, 2]
    again = run(workdir=tmp_path / "stopped")
    assert_same_bits(again.state, whole.state)
    assert again.step == int(again.state.step) == 6
    assert [line["step"] for line in lines(tmp_path / "stopped")] == [0, 1, 2, 3, 4, 5]
    assert {"loss", "cosine_1", "cosine_2", "tau", "grad_norm", "embedding_std", "probe_top1"} <= set(lines(tmp_path / "whole")[0])
    assert [a["loss"] for a in lines(tmp_path / "stopped")] == [b["loss"] for b in lines(tmp_path / "whole")]
    note = Checkpoints(tmp_path / "whole" / "checkpoints", read_only=True).note()
    assert {"seed": 0, "batch_size": 8, "steps": 6, "examples": 40, "step": 6}.items() <= note.items()
    finished = run(workdir=tmp_path / "whole")  # nothing left to do
    assert_same_bits(finished.state, whole.state)
    assert finished.metrics["loss"] == whole.metrics["loss"]


def test_without_a_target_network(tmp_path):
    """Resumed bit for bit, its encoder read as always; an older checkpoint, with a target network that nothing used, is refused."""
    options = {"method": dataclasses.replace(METHOD, target="stop_gradient"), "test_data": source(13), "evaluate_every_epochs": 1}
    whole = run(**options, workdir=tmp_path / "whole", steps=6)
    with pytest.raises(SystemExit):
        run(**options, workdir=tmp_path / "stopped", writers=["jsonl", StopAt(2)])
    again = run(**options, workdir=tmp_path / "stopped")
    assert_same_bits(again.state, whole.state)
    assert again.state.target == {}
    losses = [[line["loss"] for line in lines(tmp_path / name) if "loss" in line] for name in ("stopped", "whole")]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6
    assert "tau" not in lines(tmp_path / "whole")[0]
    assert {"knn_top1", "rankme", "embedding_std"} <= set(whole.metrics)
    online = Checkpoints(tmp_path / "whole" / "checkpoints", read_only=True).restore_raw(["online"])["online"]
    assert_same_bits(online, whole.state.online)

    old = Checkpoints(tmp_path / "old" / "checkpoints")
    old.save(3, whole.state.replace(step=whole.state.step - 3, target=whole.state.online), force=True)
    old.close()
    with pytest.raises(CheckpointError, match=r"target/batch_stats/.*: only in the checkpoint.*or choose another workdir"):
        run(**options, workdir=tmp_path / "old")


def test_evaluation_in_the_run_and_the_encoder_after_it(tmp_path):
    made = run(workdir=tmp_path, epochs=1, test_data=source(13), evaluate_every_epochs=0.4, monitor_examples=30, knn_k=5)
    found = {line["step"]: line for line in lines(tmp_path) if "knn_top1" in line}
    assert sorted(found) == [0, 2, 4, 5]  # 5 steps an epoch, two of them between evaluations, and the end
    for line in found.values():
        assert 0 <= line["knn_top1"] <= line["knn_top5"] <= 1
        assert 1 <= line["rankme"] <= 8.1
        assert 0 <= line["features_std"] <= 1
    assert made.metrics["knn_top1"] == found[5]["knn_top1"]
    best = Checkpoints(tmp_path / "checkpoints", read_only=True)
    assert best.metrics(5)["knn_top1"] == found[5]["knn_top1"]
    assert best.metrics(best.best_step())["knn_top1"] == max(found[n]["knn_top1"] for n in (2, 4, 5))
    embedding = made.encoder()(source().images)
    assert embedding.shape == (40, 8)
    assert embedding.std() > 0


def test_the_papers_optimizer_is_the_default(tmp_path):
    made = run(workdir=tmp_path, optimizer=None, learning_rate=0.4, steps=20, tau=ema_decay(0.9, 20))
    rates = [line["learning_rate"] for line in lines(tmp_path)]
    peak = 0.4 * 8 / 256
    np.testing.assert_allclose(rates[:3], [0, peak / 2, peak], rtol=1e-6)  # warm-up: a tenth of the run
    assert rates[-1] < 0.02 * peak
    assert lines(tmp_path)[0]["tau"] == pytest.approx(0.9)
    assert made.step == 20


def test_without_a_workdir_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run().step == 6
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def stood(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("stood")
    run(workdir=workdir)
    return workdir


def test_another_network_in_the_same_workdir_is_refused(stood):
    other = Byol(tiny.Tiny(), MLP(hidden=16, out=8), MLP(hidden=8, out=8))
    with pytest.raises(CheckpointError, match=r"does not fit this run: online/batch_stats/projector/.*choose another workdir"):
        pretrain(other, source(), views=views.gray(8), batch_size=8, steps=6, optimizer=TX, mesh=MESH, workdir=stood, writers=())


def test_going_on_with_other_settings_is_said(stood, caplog):
    with caplog.at_level(logging.WARNING, logger="byol_jax.train"):
        run(workdir=stood, seed=5)
    assert "going on with another seed = 5 (it was 0)" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": dataclasses.replace(METHOD, num_classes=9)}, "num_classes = 9: the data have the label 9, .*: num_classes = 10"),
        ({"batch_size": 7}, "batch_size = 7: must be a multiple of 2 .*nearest: 6 or 8"),
        ({"steps": None}, "steps = None, epochs = None: give exactly one"),
        ({"epochs": 1, "steps": 3}, "give exactly one"),
        ({"epochs": 0.1}, "40 examples in batches of 8 make no step"),
        ({"learning_rate": 0.1}, "learning_rate = 0.1: your own optimizer has its rate inside"),
        ({"views": "gray"}, "views: str is neither a recipe"),
        ({"evaluate_every_epochs": -1}, "evaluate_every_epochs = -1"),
        ({"writers": ["jsonl", "tensorbord"]}, "did you mean 'tensorboard'"),
        ({"views": lambda example, seed: {}, "test_data": source()}, "eval_views: needed"),
    ],
)
def test_settings_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        run(**changes)


def test_lengths_and_intervals():
    assert start.length(None, 3, 100, 16) == 18  # whole batches in 300 examples
    assert start.evaluation_interval(None, 95, 100, 16) == 10
    assert start.evaluation_interval(2, 95, 100, 16) == 12
    assert start.evaluation_interval(0, 95, 100, 16) == 0


def test_a_schedule_beside_an_optimizer_is_only_logged():
    tx, logged = start.optimization(optax.sgd(0.1), optax.constant_schedule(0.3), 10, 16, 100)
    assert logged["learning_rate"](0) == 0.3
    updates, _ = tx.update({"w": np.ones(2, np.float32)}, tx.init({"w": np.ones(2, np.float32)}))
    np.testing.assert_allclose(updates["w"], -0.1)
