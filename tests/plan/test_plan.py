"""The verb on eight fake devices: what it compiles is what pretraining jits, and only sums cross the devices."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from byol_jax import build, cli, config, parallel, plan
from byol_jax.method import placement
from byol_jax.plan import cache, hlo, topology
from byol_jax.plan import compile as compiling
from byol_jax.plan.compile import compile_step, size_of, trace
from byol_jax.plan.inputs import look
from byol_jax.train import pretrain as pretraining

SHAPED = {"view1": ((16, 16, 3), np.dtype(np.uint8)), "view2": ((16, 16, 3), np.dtype(np.uint8)), "label": ((), np.dtype(np.int32))}
CONFIG = """
from byol_jax import config as cfg


def get_config(variant=None):
    config = cfg.default()
    config.batch_size, config.epochs = 16, 2
    config.views.update(preset="gray", size=8)
    config.encoder.update(name="resnet", block="basic", stages=(1,), channels=(8,), stem="small")
    for head in (config.method.projector, config.method.predictor):
        head.update(hidden=16, out=8)
    config.optimizer.update(name="adamw", learning_rate=1e-3, warmup_epochs=1)
    config.evaluation.update(every_epochs=0)
    return config
"""


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    path = tmp_path / "tiny.py"
    path.write_text(CONFIG)
    jax.devices()
    return str(path)


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """(config file, cache, page) of a plan that has been made once."""
    jax.devices()  # JAX has started: a plan takes the eight devices that are there
    config_file, kept = tmp_path_factory.mktemp("plan") / "tiny.py", tmp_path_factory.mktemp("cache")
    config_file.write_text(CONFIG)
    page, faults = plan.plan(config.load(str(config_file), []), "cpu:8", cache=kept)
    assert faults == []
    return str(config_file), str(kept), page


def test_only_gradients_statistics_and_metrics_cross_devices(planned: tuple[str, str, str]) -> None:
    spec = config.load(planned[0], [])
    found = cache.load(next(Path(planned[1]).iterdir()))
    assert found is not None
    assert list(found.collectives or {}) == ["all-reduce"]
    assert (found.devices, found.hosts, found.rows) == (8, 1, 2)
    shapes, _ = trace(spec, parallel.data_mesh(), look(spec))
    assert found.gradients == size_of({"online": shapes.online["params"], "probe": shapes.probe})
    assert found.statistics == 2 * 3 * size_of(shapes.online["batch_stats"])
    count, size = (found.collectives or {})["all-reduce"]
    assert found.gradients + found.statistics < size < found.gradients + found.statistics + 4096
    assert count > 3
    assert found.flops > 0
    assert not found.looped
    assert found.arguments > size_of(shapes)
    assert found.temporaries > 0


def test_what_a_loss_compares_over_the_batch_is_gathered_in_each_micro_batch(planned: tuple[str, str, str]) -> None:
    # negatives come from the whole micro-batch: 2 views of 8 projections of 8 numbers, in each of 2 micro-batches
    spec = config.load(planned[0], [("method.beta", "0.5"), ("optimizer.accumulate", "2")])
    found = compile_step(spec, topology.find("cpu:8"), look(spec))
    collectives = found.collectives or {}
    assert collectives["all-gather"] == [2, 2 * 2 * 8 * 8 * 4]
    assert found.faults() == []
    shapes, _ = trace(spec, parallel.data_mesh(), look(spec))
    assert found.statistics == 2 * 2 * 3 * size_of(shapes.online["batch_stats"])
    assert found.gradients + found.statistics < collectives["all-reduce"][1] < found.gradients + found.statistics + 8192


def test_how_much_pairs_agree_is_gathered_and_nothing_like_it_elsewhere(planned: tuple[str, str, str]) -> None:
    spec = config.load(planned[0], [("method.denoise.share", "0.25")])
    found = compile_step(spec, topology.find("cpu:8"), look(spec))
    assert (found.collectives or {})["all-gather"] == [1, 16 * 4]
    assert found.faults() == []
    names = ("jit(step)/shard_map/whole_batch/all_gather", "jit(step)/shard_map/encoder/all_gather", "jit(step)/shard_map")
    needed = [compiling._needed(hlo.Collective("all-gather", 64, 1, name), shard_state=False) for name in names]
    assert needed == [True, False, False]


@pytest.mark.slow
def test_of_a_split_state_the_parameters_are_gathered_once_and_nothing_else(
    planned: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    split = ("optimizer.shard_state", "True")
    spec = config.load(planned[0], [split, ("optimizer.name", "lars")])
    found = compile_step(spec, topology.find("cpu:8"), look(spec))
    shapes, _ = trace(spec, parallel.data_mesh(), look(spec))
    weights = [leaf for leaf in jax.tree.leaves([shapes.trained, shapes.target["params"]]) if leaf.ndim > 1]
    unused = shapes.target["params"]["predictor"]["linear_1"]["kernel"]  # nobody asks the target for a prediction
    assert (found.collectives or {})["all-gather"] == [len(weights) - 1, size_of(weights) - size_of(unused)]
    assert found.gathered == size_of(weights)
    assert found.faults() == []
    whole = size_of(shapes) + size_of([shapes.step])
    held = whole - size_of([leaf for leaf in jax.tree.leaves(shapes) if leaf.ndim > 1]) * 7 // 8
    assert held - 64 < found.arguments < held + 1024  # and the batch
    beside = config.load(planned[0], [split, ("method.beta", "0.5")])
    assert compile_step(beside, topology.find("cpu:8"), look(beside)).faults() == []
    monkeypatch.setattr(placement, "WHOLE_BATCH", "by_mistake")  # the same program, which JAX's cache now holds, with another name
    (fault, *_) = compile_step(beside, topology.find("cpu:8"), look(beside)).faults()
    assert fault.startswith("all-gather of 1 x 1,024 bytes in jit(spread_step)/shard_map/")


@pytest.mark.parametrize("changed", [(), ("optimizer.shard_state",), ("data.on_device",)])
def test_what_is_compiled_is_what_pretraining_jits(
    tiny: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: tuple[str, ...]
) -> None:
    spec, texts = config.load(tiny, [(key, "True") for key in changed]), []

    class Stop(Exception):
        pass

    def fit(state: Any, step: Any, stream: Any, *, mesh: Any, **_: Any) -> None:
        texts.append(step.trace(state, parallel.to_global(next(stream), mesh)).lower().as_text())
        raise Stop

    monkeypatch.setitem(pretraining.__globals__, "fit", fit)
    with pytest.raises(Stop):
        build.pretrain(spec, tmp_path / "run")
    assert texts == [trace(spec, parallel.data_mesh(), look(spec))[1].lower().as_text()]


def test_the_verb_and_its_cache(planned: tuple[str, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file_of_config, kept_before, first = planned
    shutil.copytree(kept_before, tmp_path / "cache")
    argv = ("plan", "--config", file_of_config, "--topology", "cpu:8", "--cache", str(tmp_path / "cache"))
    assert "cpu:8: 8 x CPU, 1 host of 8" in first
    assert "16: 2 a chip" in first
    assert "  all-reduce  " in first
    assert "179 steps (2 epochs of 1,438 examples)" in first
    (file,) = (tmp_path / "cache").iterdir()
    kept = json.loads(file.read_text())
    assert kept["versions"] == {name: __import__(name).__version__ for name in ("jax", "jaxlib")}

    def no_compiler(*_: object) -> None:
        raise AssertionError("compiled again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "compile_step", no_compiler)
        assert run(*argv) == 0
        second = capsys.readouterr().out
        assert f"from the cache: {file}" in second
        assert [line for line in first.splitlines() if "compiled in" not in line] == [
            line for line in second.splitlines() if "from the cache" not in line
        ]
        with pytest.raises(AssertionError, match="compiled again"):
            cli.main([*argv, "--config.encoder.channels=16"])

    kept["compiled"]["strangers"] = ["all-gather of 1 x 64 bytes in loss"]
    file.write_text(json.dumps(kept))
    assert run(*argv) == 1
    out, err = capsys.readouterr()
    assert "This step is not as it should be\n  - all-gather of 1 x 64 bytes in loss" in out
    assert err.startswith("byol-jax plan: all-gather of 1 x 64 bytes in loss: only gradients")
    file.write_text("half a fi")
    assert cache.load(file) is None


def test_mistakes_are_told_before_anything_is_compiled(tiny: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    common = ("plan", "--config", tiny, "--cache", str(tmp_path / "cache"), "--topology")
    assert run(*common, "cpu:8", "--config.batch_size=12") == 2
    assert "nearest: 8 or 16" in capsys.readouterr().err
    assert run(*common, "v5f:2x2") == 2
    assert "--topology v5f:2x2: must be one of v4, v5e" in capsys.readouterr().err
    nowhere = ("--config.data.source=tfds", "--config.data.name=imagenet2012", f"--config.data.path={tmp_path}")
    assert run(*common, "cpu:8", *nowhere) == 2
    assert "data.name = 'imagenet2012': not prepared on this machine; give --examples N and --classes N instead" in capsys.readouterr().err
    assert run(*common, "cpu:8", *nowhere, "--examples", "9", "--config.method.probe=False", "--config.data.in_memory=True") == 2
    assert "the shape of a batch comes from it: plan where it is" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_what_the_step_is_fed(tiny: str, tmp_path: Path) -> None:
    here = look(config.load(tiny, []))
    assert (here.examples, here.classes) == (1438, 10)
    assert here.batch == {"image": ((8, 8, 3), np.dtype(np.uint8)), "label": ((), np.dtype(np.int32))}
    absent = [("data.source", "tfds"), ("data.name", "imagenet2012"), ("data.path", str(tmp_path)), ("views.size", "16")]
    told = look(config.load(tiny, absent), examples=1000, classes=7)
    assert (told.examples, told.classes, told.batch) == (1000, 7, SHAPED)
    assert look(config.load(tiny, [*absent, ("method.probe", "False")]), examples=1000).classes == 0


def test_a_network_of_ones_own_is_not_kept(tiny: str, tmp_path: Path) -> None:
    assert cache.place(tmp_path, config.load(tiny, []), {"a": 1}) == cache.place(tmp_path, config.load(tiny, []), {"a": 1})
    assert cache.place(tmp_path, config.load(tiny, []), {"a": 1}) != cache.place(tmp_path, config.load(tiny, []), {"a": 2})
    assert cache.place(tmp_path, config.load(tiny, [("method.loss", "my.losses:loss")]), {}) is None


def test_a_plan_is_kept_for_its_teacher_and_the_code_that_makes_the_method(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, teacher = topology.find("cpu:8"), tmp_path / "teacher"
    teacher.mkdir()
    spec = config.load(tiny, [("method.teacher.workdir", str(teacher))])
    inputs, places = look(spec), []
    for name, value in (("channels", "8"), ("channels", "16"), ("dtype", "bfloat16"), ("remat", "True")):
        (teacher / "config.json").write_text(config.to_json(config.load(tiny, [(f"encoder.{name}", value)])))
        places.append(cache.place(tmp_path, spec, cache.key(spec, machine, inputs)))
    assert len(set(places)) == 4
    own = config.resolve({"steps": 100, "batch_size": 64, "encoder": {"name": "my.nets:Net"}})
    (teacher / "config.json").write_text(config.to_json(own))
    assert cache.place(tmp_path, spec, {}) is None

    before = cache.source_digest()
    shutil.copytree(cache.PACKAGE, tmp_path / "package", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cache, "PACKAGE", tmp_path / "package")
    assert cache.source_digest() == before
    with (tmp_path / "package" / "build" / "methods.py").open("a") as file:
        file.write("# changed")
    assert cache.source_digest() != before


def test_the_text_of_a_program_of_this_compiler_is_read() -> None:
    mesh = parallel.data_mesh(jax.devices())

    def mixed(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.lax.psum(x, "data"), jax.lax.all_gather(x, "data")

    spec = jax.sharding.PartitionSpec
    step = jax.jit(jax.shard_map(mixed, mesh=mesh, in_specs=spec("data"), out_specs=spec(), check_vma=False))
    text = step.lower(jax.ShapeDtypeStruct((8, 5), np.float32)).compile().as_text()
    assert hlo.totals(hlo.collectives(text)) == {"all-reduce": (1, 20), "all-gather": (1, 160)}
