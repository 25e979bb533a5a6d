"""A converted checkpoint as a run: outputs as the official network gives them, and training that goes on where it stopped."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import build, cli, method
from byol_jax import config as cfg
from byol_jax.build import methods, objects
from byol_jax.build.convert import READERS, convert, spec_of, whole_state
from byol_jax.checkpoint import Checkpoints
from byol_jax.convert import ConvertError, deepmind
from byol_jax.convert.haiku import LEAVES, path_of
from byol_jax.models.forms import traced_for
from byol_jax.parallel import data_mesh
from byol_jax.views import IMAGENET_MEAN, IMAGENET_STD

GOLDEN = Path(os.environ.get("BYOL_GOLDEN_DIR", Path(__file__).parents[1] / "golden"))
TINY = str(GOLDEN / "g_tiny_pretrain.pkl")


def normalised(golden: dict[str, np.ndarray], view: str) -> np.ndarray:
    mean, std = (np.asarray(x, np.float32) for x in (IMAGENET_MEAN, IMAGENET_STD))
    return (golden[f"{view}_u8"].astype(np.float32) / np.float32(255) - mean) / std


def assert_close(ours: Any, theirs: np.ndarray, tolerance: float = 1e-5) -> None:
    """Largest difference, in units of the reference's rms."""
    worst = np.abs(np.asarray(ours) - theirs).max() / np.sqrt(np.mean(theirs.astype(np.float64) ** 2))
    assert worst <= tolerance, f"{worst:.1e}"


def restored(workdir: Path, spec: cfg.Spec, classes: int) -> method.ByolState:
    """The state as ``pretrain`` takes it up."""
    image = jax.ShapeDtypeStruct((8, spec.views.size, spec.views.size, 3), jnp.float32)
    tx = objects.optimizer(spec, objects.learning_rate(spec, deepmind.IMAGENET))
    like = jax.eval_shape(
        lambda key: method.init(methods.byol(spec, classes), tx, key, {"view1": image, "view2": image}), jax.random.key(0)
    )
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    try:
        return checkpoints.restore(like)
    finally:
        checkpoints.close()


@pytest.mark.parametrize("name", ["ResNet18", pytest.param("ResNet50", marks=pytest.mark.slow)])
def test_outputs_of_the_official_network(name: str, fixture: Any, write: Any, pretraining: Any, tmp_path: Path) -> None:
    """Embedding, projection and prediction after pickle, conversion and checkpoint. One set of weights stands for target and momentum."""
    f = fixture(name)
    params, state = f.params(), f.state()
    path = write(pretraining(SimpleNamespace(params=params, target=params, mu=params, state=state, target_state=state)), 312784)
    text = convert("deepmind", path, tmp_path / "run", [("views.size", "64")])
    assert f"{name.lower()}, width 1" in text
    assert "complete at step 312,784" in text

    spec, view = build.read_spec(tmp_path / "run"), normalised(f.golden, "view1")
    assert (spec.epochs, spec.batch_size) == (1000, 4096)
    encoder = build.load_encoder(tmp_path / "run")
    assert_close(encoder.views_of(view), f.golden["eval/embedding"])
    online = restored(tmp_path / "run", spec, f.config["num_classes"]).online
    outputs = jax.jit(lambda variables, x: methods.byol(spec).network().apply(variables, x, False))(online, view)
    for part in ("embedding", "projection", "prediction"):
        assert_close(getattr(outputs, part), f.golden[f"eval/{part}"])


def test_a_linear_classifier_of_the_official_code(fixture: Any, write: Any, linear_evaluation: Any, tmp_path: Path) -> None:
    """The encoder and the logits of the golden linear evaluation, from a linear-eval pickle."""
    f = fixture("ResNet18")
    params, state = f.params(), f.state()
    classifier = {"linear": params["classifier"]}
    path = write(linear_evaluation(SimpleNamespace(params=params, state=state, classifier=classifier)), 25022, "linear-eval.pkl")
    convert("deepmind", path, tmp_path / "run")
    embedding = np.asarray(build.load_encoder(tmp_path / "run").views_of(normalised(f.golden, "view1")))
    assert_close(embedding, f.golden["eval/embedding"])
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", read_only=True)
    probe = checkpoints.restore_raw(["probe"])["probe"]
    checkpoints.close()
    assert_close(embedding @ probe["kernel"] + probe["bias"], f.golden["eval/logits"])


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The official writer's own file, converted; weights, spec and directory."""
    folder = tmp_path_factory.mktemp("tiny") / "run"
    text = convert("deepmind", TINY, folder, [("views.size", "32")])
    return SimpleNamespace(folder=folder, spec=build.read_spec(folder), weights=deepmind.read(TINY), text=text)


def test_the_state_is_whole(tiny_run: SimpleNamespace) -> None:
    """Every leaf that was in the file is in the checkpoint, bit by bit; the schedules stand at the file's step."""
    found, training = restored(tiny_run.folder, tiny_run.spec, 10), tiny_run.weights.state
    assert int(found.step) == 1234
    link = found.opt_state
    assert int(link[3].count) == 1234
    pairs = [
        (found.online, training.online),
        (found.target, training.target),
        (link[2].trace, training.momentum),
        (found.probe, training.probe),
    ]
    for ours, theirs in pairs:
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert len(jax.tree.leaves(found)) == sum(len(jax.tree.leaves(theirs)) for _, theirs in pairs) + 2


def test_a_step_goes_on_with_the_momentum_and_the_schedules(tiny_run: SimpleNamespace) -> None:
    """Rate and tau of step 1234 by the official formulas; the old momentum counts 0.9 times; parameters follow it."""
    spec, before = tiny_run.spec, restored(tiny_run.folder, tiny_run.spec, 10)
    schedule = objects.learning_rate(spec, deepmind.IMAGENET)
    tx = objects.optimizer(spec, schedule)
    steps = {"ema": objects.tau(spec, deepmind.IMAGENET), "log": {"learning_rate": schedule}}
    step = jax.jit(traced_for(data_mesh(), method.make_train_step(methods.byol(spec, 10), tx, **steps)))
    random = np.random.default_rng(0)
    batch = {f"view{v}": random.normal(size=(8, 32, 32, 3)).astype(np.float32) for v in (1, 2)} | {"label": np.arange(8, dtype=np.int32)}
    after, metrics = step(before, batch)

    assert float(metrics["learning_rate"]) == pytest.approx(1234 / 3127 * 0.2 * 16, rel=1e-6)
    assert float(metrics["tau"]) == pytest.approx(1 - 0.004 * (np.cos(np.pi * 1234 / 312784) + 1) / 2, rel=1e-7)
    assert (int(after.step), int(after.opt_state[3].count)) == (1235, 1235)
    old, trace = before.opt_state[2].trace, after.opt_state[2].trace
    still = before.opt_state[:2] + (before.opt_state[2]._replace(trace=jax.tree.map(jnp.zeros_like, old)),) + before.opt_state[3:]
    fresh = step(dataclasses.replace(before, opt_state=still), batch)[0].opt_state[2].trace
    rate = metrics["learning_rate"]

    def check(was: Any, now: Any, new: Any, p0: Any, p1: Any) -> None:
        np.testing.assert_allclose(now, 0.9 * was + new, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(p1, p0 - rate * now, rtol=1e-5, atol=1e-6)

    jax.tree.map(check, old, trace, fresh, before.trained, after.trained)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(old)) > 1e-3


@pytest.mark.slow
def test_the_next_step_of_the_official_code(fixture: Any, write: Any, pretraining: Any, tmp_path: Path) -> None:
    """A checkpoint just before the golden step, converted: the step's logs and norms are the official ones."""
    f = fixture("ResNet18")
    config, params = f.config, f.params()
    zero = {m: {n: np.zeros_like(a) for n, a in leaves.items()} for m, leaves in f.state().items()}
    mu = {m: {n: np.zeros_like(a) for n, a in leaves.items()} for m, leaves in params.items()}
    parts = SimpleNamespace(params=params, target=f.params("target:"), mu=mu, state=zero, target_state=zero)
    rates, lars = config["lr_schedule_config"], config["optimizer_config"]
    keys = {
        "epochs": None,
        "steps": config["max_steps"],
        "batch_size": config["batch_size"],
        "views.size": 64,
        "method.tau": config["base_target_ema"],
        "optimizer.learning_rate": rates["base_learning_rate"],
        "optimizer.warmup_epochs": None,
        "optimizer.warmup_steps": rates["warmup_steps"],
        "optimizer.weight_decay": lars["weight_decay"],
        "optimizer.trust_coefficient": lars["eta"],
        "optimizer.momentum": lars["momentum"],
    }
    path = write(pretraining(parts), config.get("first_global_step", 5))
    convert("deepmind", path, tmp_path / "run", [(key, str(value)) for key, value in keys.items()])

    spec = build.read_spec(tmp_path / "run")
    before = restored(tmp_path / "run", spec, config["num_classes"])
    schedule = objects.learning_rate(spec, deepmind.IMAGENET)
    made = {"ema": objects.tau(spec, deepmind.IMAGENET), "log": {"learning_rate": schedule}}
    step = jax.jit(method.make_train_step(methods.byol(spec, config["num_classes"]), objects.optimizer(spec, schedule), **made))
    batch = {view: normalised(f.golden, view) for view in ("view1", "view2")} | {"label": f.golden["labels"]}
    after, metrics = step(before, batch)

    logs = {
        "loss": "repr_loss",
        "probe_loss": "classif_loss",
        "probe_top1": "top1_accuracy",
        "tau": "tau",
        "learning_rate": "learning_rate",
    }
    for ours, theirs in logs.items():
        assert float(metrics[ours]) == pytest.approx(float(f.golden[f"step0/log_{theirs}"]), rel=1.2e-6)
    norms = json.loads(f.golden["param_names_json"].tobytes())
    for tree, key in (({**after.online["params"], "probe": after.probe}, "params"), (after.target["params"], "target")):
        for (module, name), norm in zip(norms, f.golden[f"step0/{key}_norm"], strict=True):
            if (module, name) in (("projector/linear", "b"), ("predictor/linear", "b")) or (module == "classifier" and key == "target"):
                continue  # a bias before a norm has no gradient but noise; the target's classifier is not kept
            leaf = tree
            for part in [*path_of(module), LEAVES[name]]:
                leaf = leaf[part]
            assert np.linalg.norm(leaf) == pytest.approx(norm, rel=2e-5), (key, module, name)


def small_data(folder: Path) -> list[str]:
    """Flags that put eight 40-pixel images of ten classes in the place of ImageNet."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (20, 40, 40, 3), dtype=np.uint8)
    labels = np.arange(20) % 10
    np.savez(folder / "images.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    keys = {"data.source": "npz", "data.path": folder / "images.npz", "data.name": None, "data.test_split": "test", "views.size": 32}
    keys |= {"batch_size": 8, "epochs": None, "steps": 1236, "optimizer.warmup_epochs": None, "optimizer.warmup_steps": 10}
    keys |= {"evaluation.every_epochs": 0, "logging.every_steps": 1}
    return [f"--config.{key}={value}" for key, value in keys.items()]


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    return int(caught.value.code or 0)


def test_from_the_command_line_pretraining_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workdir = str(tmp_path / "run")
    assert run("convert", "--from", "deepmind", TINY, "--to", workdir, *small_data(tmp_path)) == 0
    out = capsys.readouterr().out
    assert "deepmind, pretraining, step 1,234" in out
    assert "encoder: resnet, width 1, 19,072 parameters" in out
    assert f"byol-jax pretrain --workdir {workdir}" in out
    assert run("evaluate", "knn", "--workdir", workdir) == 0
    assert run("report", "--workdir", workdir) == 0
    assert run("convert", "--from", "deepmind", TINY, "--to", workdir) == 2
    assert "there is a run in it already" in capsys.readouterr().err

    assert run("pretrain", "--workdir", workdir) == 0
    assert "\nstep 1236: loss " in capsys.readouterr().out
    assert sorted(int(child.name) for child in (tmp_path / "run" / "checkpoints").iterdir() if child.name.isdigit()) == [1234, 1236]
    logged = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert set(logged) == {1234, 1235}


def test_an_encoder_alone(tiny: Any, write: Any, linear_evaluation: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It evaluates, and says that there is nothing to train on from."""
    workdir = str(tmp_path / "run")
    path = write(linear_evaluation(tiny()), 99, "linear-eval.pkl")
    assert run("convert", "--from", "deepmind", path, "--to", workdir, *small_data(tmp_path)) == 0
    out = capsys.readouterr().out
    assert "training on: no, the file holds an encoder alone" in out
    assert "classifier: 8 numbers an image, 10 classes" in out
    assert "byol-jax pretrain" not in out
    assert run("evaluate", "knn", "--workdir", workdir) == 0
    capsys.readouterr()
    assert run("pretrain", "--workdir", workdir) == 2
    assert "it holds an encoder alone (from linear-eval.pkl), no target network and no optimizer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "asks for os.system")]
)
def test_a_bad_file_leaves_no_folder(content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.pkl").write_bytes(content)
    assert run("convert", "--from", "deepmind", str(tmp_path / "bad.pkl"), "--to", str(tmp_path / "run")) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_words_of_the_command_line_are_the_readers(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert", "--help") == 0
    assert "--from {" + ",".join(READERS) + "}" in capsys.readouterr().out
    with pytest.raises(ConvertError, match=r"--from deepmnd: it must be one of .* \(did you mean 'deepmind'\?\)"):
        convert("deepmnd", TINY, "nowhere")


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        ({"encoder.width": "2"}, ConvertError, "norm_0/mean: [8] in the checkpoint, [16] in encoder.name = 'resnet' of width 2"),
        (
            {"method.projector.out": "8", "method.predictor.out": "8"},
            ConvertError,
            "linear_0/kernel: [16, 32] in the checkpoint, [8, 32] in",
        ),
        ({"optimizer.name": "sgd"}, cfg.ConfigError, "optimizer.name = 'sgd': the checkpoint holds the momentum of 'lars'"),
    ],
)
def test_a_configuration_of_another_network(flags: dict[str, str], error: type[ValueError], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=re.escape(message)):
        convert("deepmind", TINY, tmp_path / "run", flags.items())
    assert not (tmp_path / "run").exists()


def test_without_a_probe_the_classifier_stays_behind() -> None:
    weights = deepmind.read(TINY)
    assert weights.state is not None
    state = whole_state(cfg.override(spec_of(weights), [("method.probe", "False")]), weights.state)
    assert state.probe == {}
    assert state.opt_state[2].trace["probe"] == {}
