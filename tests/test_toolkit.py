"""What is put around the method by keys: that it is built as said, what does not fit, and a student taught through the command line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

import byol_jax as byol
from byol_jax import augment, build, cli, method, models
from byol_jax import config as cfg
from byol_jax.checkpoint import Checkpoints
from byol_jax.method.passes import clean

TINY = """
from byol_jax import config as cfg


def get_config(variant=None):
    config = cfg.default()
    config.batch_size = 16
    config.steps = 2
    config.data.update(source="digits", on_device=True)
    config.views.update(preset="gray", size=8)
    config.encoder.update(name="resnet", block="basic", stages=(1,), channels=(8,), stem="small")
    for head in (config.method.projector, config.method.predictor):
        head.update(hidden=8, out=6)
    config.optimizer.update(name="adamw", learning_rate=1e-3, warmup_epochs=None)
    config.evaluation.every_epochs = 0
    return config
"""


def spec(**changes: Any) -> cfg.Spec:
    config = cfg.default()
    config.update_from_flattened_dict({"epochs": 20, "views.preset": "gray", **{f"method.{key}": value for key, value in changes.items()}})
    return cfg.resolve(config)


def test_without_its_keys_the_method_is_byol_s_own() -> None:
    """So the compiled step is the same too: it is a function of this value."""
    made = build.byol(spec())
    assert (made.passes, made.loss, made.target) == (clean, method.regression_loss, "ema")
    assert made.memory_loss.start() == ()


def test_an_adversary() -> None:
    chosen = spec(**{"adversary.radius": 0.05, "adversary.norm": "l2", "adversary.steps": 3, "adversary.weight": 0.5})
    views = chosen.views
    assert build.byol(chosen).passes == method.Adversary(
        augment.Pixels(views.mean, views.std), method.Ball("l2", 0.05), steps=3, weight=0.5
    )


def test_distrust_of_pairs() -> None:
    found = build.byol(spec(**{"denoise.share": 0.2, "denoise.softness": 0.1, "denoise.warmup_steps": 7, "denoise.decay": 0.9})).loss
    assert isinstance(found, method.Denoised)
    assert dataclasses.astuple(found)[:4] == (0.2, 0.1, 7, 0.9)
    chosen = spec(**{"denoise.share": 0.2, "denoise.warmup_steps": 7})
    parts: Any = build.byol(dataclasses.replace(chosen, optimizer=dataclasses.replace(chosen.optimizer, accumulate=4))).loss
    assert parts.warmup == 28  # which the loss counts by micro-batch
    one = method.Outputs(None, *(jnp.asarray([[[1.0, 0.0]], [[0.0, 1.0]]]),) * 2)
    bounded: Any = build.byol(spec(**{"denoise.bounded": 0.5})).loss
    assert float(bounded(one, one)[0]) == pytest.approx(2 * (1 - np.exp(-1)) / 0.5)
    both: Any = build.byol(spec(**{"denoise.bounded": 0.5, "denoise.share": 0.2})).loss
    assert float(both.shape(2.0)) == pytest.approx((1 - np.exp(-1)) / 0.5)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"adversary.radius": 0.1, "adversary.weight": 0.0}, "method.adversary.weight = 0: must be above 0"),
        ({"adversary.radius": 0.1, "adversary.separate_statistics": True}, "leaves no pass over clean views"),
        ({"denoise.share": 0.1, "beta": 1.0}, "method.denoise.share = 0.1: needs method.loss = 'regression'"),
        ({"denoise.bounded": 1.0, "normalization": "none"}, "method.denoise.bounded = 1.0: needs"),
        ({"teacher.similarity": 1.0}, "method.teacher.similarity = 1.0: needs method.teacher.workdir"),
        ({"teacher.workdir": "x", "teacher.feature": 0.0}, "nothing else is learned from the teacher"),
        ({"teacher.workdir": "x", "target": "online"}, "the teacher is the target; leave method.target = 'ema', it is 'online'"),
        ({"teacher.workdir": "x", "teacher.similarity": 1.0, "denoise.share": 0.1}, "would drop pairs; set one of them to 0"),
        ({"teacher.workdir": "x", "teacher.match": "projecton"}, "did you mean 'projection'"),
        ({"adversary.norm": "l1"}, "it must be one of 'linf', 'l2'"),
    ],
)
def test_keys_that_do_not_go_together(changes, told) -> None:
    with pytest.raises(cfg.ConfigError) as caught:
        spec(**changes)
    assert told in str(caught.value)
    assert len(caught.value.errors) == 1


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def taught(tmp_path_factory) -> Path:
    """A folder with a teacher, and a student of it stopped at its first step and gone on with."""
    place = tmp_path_factory.mktemp("taught")
    (place / "tiny.py").write_text(TINY)
    assert run("pretrain", "--config", f"{place}/tiny.py", "--workdir", f"{place}/teacher") == 0
    student = ["--config", f"{place}/tiny.py", "--config.encoder.channels=(4,)", "--config.method.projector.out=5"]
    student += ["--config.method.predictor.out=5", f"--config.method.teacher.workdir={place}/teacher", "--config.checkpoint.every_steps=1"]
    assert run("pretrain", *student, "--workdir", f"{place}/student") == 0
    return place


def variables(place: Path, field: str) -> Any:
    checkpoints = Checkpoints(place / "checkpoints", read_only=True)
    try:
        return checkpoints.restore_raw([field])[field]
    finally:
        checkpoints.close()


def test_the_student_s_target_is_the_teacher(taught) -> None:
    kept, teacher = variables(taught / "student", "target"), variables(taught / "teacher", "online")
    assert sorted(kept["params"]) == ["encoder", "projector"]
    chex.assert_trees_all_equal(kept["params"], {part: teacher["params"][part] for part in ("encoder", "projector")})
    chex.assert_trees_all_equal(kept["batch_stats"]["encoder"], teacher["batch_stats"]["encoder"])
    predictor = variables(taught / "student", "online")["params"]["predictor"]
    assert {leaf.shape[-1] for leaf in jax.tree.leaves(predictor)} == {8, 6}  # its own hidden units, and as many numbers as the teacher's
    assert "tau" not in json.loads((taught / "student" / "metrics.jsonl").read_text().splitlines()[-1])


def test_a_finished_student_comes_back(taught, capsys) -> None:
    assert run("pretrain", "--workdir", f"{taught}/student") == 0
    assert "step 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            ["--config.views.mean=0.4,0.4,0.4"],
            "views.mean = (0.4, 0.4, 0.4): the teacher's is (0.5, 0.5, 0.5), and it sees the student's views",
        ),
        (["--config.method.teacher.workdir=nowhere"], "there is no run in it"),
    ],
)
def test_teachers_that_do_not_fit(taught, flags, told, capsys) -> None:
    first = ["--config", f"{taught}/tiny.py", f"--config.method.teacher.workdir={taught}/teacher"]
    assert run("show", *first, *flags) == 2
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_under_attack_by_the_command_line(taught, capsys) -> None:
    flags = ["--radii", "8/255,0.5", "--norm", "l2", "--steps", "2", "--restarts", "2", "--config.data.test_split=test[:10%]"]
    assert run("evaluate", "robust", "--workdir", f"{taught}/teacher", *flags) == 0
    assert "the worst of 2 starts" in capsys.readouterr().out
    kept = json.loads((taught / "teacher" / "evaluation" / "robust.json").read_text())["result"]
    assert list(kept["accuracy"]) == ["0.0", str(8 / 255), "0.5"]
    assert kept["accuracy"]["0.0"] >= kept["accuracy"]["0.5"]


def test_texts_are_attacked_in_training_where_words_are_embedded() -> None:
    """A Transformer without dropout: the loss of changed embeddings is higher than that of the tokens as they are."""
    encoder = models.TextEncoder(12, layers=1, hidden=8, heads=2, mlp=8, positions=6, dropout=0.0, attention_dropout=0.0)
    tokens = np.random.default_rng(0).integers(3, 12, (2, 8, 6)).astype(np.int32)
    batch = {"view1": tokens[0], "view2": tokens[1]}
    plain = method.Byol(encoder, method.MLP(8, 4), method.MLP(8, 4))
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])
    losses = []
    for passes in (clean, method.Adversary(augment.Embeddings(8), method.Ball("linf", 0.5), random_start=False)):
        one = dataclasses.replace(plain, passes=passes)
        state = byol.init(one, optax.sgd(0.1), jax.random.key(0), batch, mesh=mesh)
        step = jax.jit(byol.make_train_step(one, optax.sgd(0.1), ema=byol.ema_decay(0.9, 5), mesh=mesh))
        losses.append(float(step(state, batch)[1]["loss"]))
    assert losses[1] > losses[0] + 0.1
