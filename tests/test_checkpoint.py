"""Checkpoints: what is kept, what is refused, what survives a kill, a full disk and another mesh."""

import dataclasses
import functools
import gc
import importlib.metadata
import logging
import resource
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from byol_jax import __version__, parallel
from byol_jax.checkpoint import CheckpointError, Checkpoints
from byol_jax.method import ByolState


def state_of(value: float, width: int = 3) -> ByolState:
    """A small state with everything a real one has: nesting, an optimizer with empty and masked parts, no probe."""
    params = {"encoder": {"kernel": jnp.full((4, width), value), "bias": jnp.arange(3.0) * value}}
    online = {"params": params, "batch_stats": {"mean": jnp.full((3,), -value)}}
    tx = optax.chain(optax.masked(optax.scale_by_trust_ratio(), lambda p: jax.tree.map(lambda x: x.ndim > 1, p)), optax.trace(0.9))
    return ByolState(jnp.int32(value), online, jax.tree.map(lambda x: x + 1, online), tx.init({"online": params, "probe": {}}), {})


def assert_same_bits(got: object, wanted: object) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.fixture
def open_checkpoints(tmp_path):
    opened = []

    def make(**settings: object) -> Checkpoints:
        opened.append(Checkpoints(tmp_path / "checkpoints", **{"every_steps": 10, **settings}))
        return opened[-1]

    yield make
    for checkpoints in opened:
        checkpoints.close()


def test_what_is_saved_comes_back_bit_for_bit(open_checkpoints):
    checkpoints = open_checkpoints(note={"seed": 3, "digest": "abc"})
    assert checkpoints.save(10, state_of(7.1), {"knn_top1": 0.5})
    assert_same_bits(checkpoints.restore(state_of(0.0)), state_of(7.1))
    assert checkpoints.note() == {"seed": 3, "digest": "abc", "step": 10, "byol_jax": __version__}
    assert checkpoints.metrics() == {"knn_top1": 0.5}


def test_a_checkout_that_is_not_installed_saves_too(open_checkpoints, monkeypatch):
    """Packages on a path, as on a machine where nothing may be installed, have no metadata."""

    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert open_checkpoints().save(10, state_of(1.0))


def test_buffers_may_be_donated_as_soon_as_save_returns(open_checkpoints):
    checkpoints = open_checkpoints()
    advance = jax.jit(lambda tree: jax.tree.map(lambda x: x * 2 + 1, tree), donate_argnums=0)
    state = {"w": jnp.arange(300_000.0)}
    checkpoints.save(10, state)
    for _ in range(3):
        state = advance(state)
    jax.block_until_ready(state)
    np.testing.assert_array_equal(checkpoints.restore({"w": jax.ShapeDtypeStruct((300_000,), jnp.float32)})["w"], np.arange(300_000.0))


def test_only_due_steps_are_saved_and_none_twice(open_checkpoints):
    checkpoints = open_checkpoints()
    assert [checkpoints.save(step, state_of(1.0)) for step in (0, 5, 10, 10, 20)] == [False, False, True, False, True]
    assert checkpoints.save(23, state_of(1.0), force=True)
    assert not checkpoints.save(23, state_of(1.0), force=True)
    assert checkpoints.steps() == [10, 20, 23]


def test_the_last_ones_and_the_best_are_kept(open_checkpoints, tmp_path):
    checkpoints = open_checkpoints(keep=2)
    for step, accuracy in ((10, 0.3), (20, 0.9), (30, 0.8), (40, None), (50, float("nan"))):
        checkpoints.save(step, state_of(float(step)), None if accuracy is None else {"knn_top1": accuracy})
    checkpoints.wait()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["20", "40", "50"]
    assert checkpoints.best_step() == 20
    assert_same_bits(checkpoints.restore(state_of(0.0), step=20), state_of(20.0))


def test_the_best_is_known_after_reopening(open_checkpoints):
    first = open_checkpoints(keep=1)
    for step, accuracy in ((10, 0.9), (20, 0.8)):
        first.save(step, state_of(1.0), {"knn_top1": accuracy})
    first.close()
    again = open_checkpoints(keep=1)
    assert again.best_step() == 10
    for step in (30, 40):
        again.save(step, state_of(1.0), {"knn_top1": 0.7})
    again.wait()
    assert again.steps() == [10, 40]


def test_without_the_metric_there_is_no_best_and_the_last_ones_stay(open_checkpoints):
    checkpoints = open_checkpoints(keep=2)
    for step in (10, 20, 30):
        checkpoints.save(step, state_of(1.0))
    checkpoints.wait()
    assert checkpoints.steps() == [20, 30]
    assert checkpoints.best_step() is None


def test_half_a_checkpoint_is_not_seen_and_swept_away(open_checkpoints, tmp_path):
    first = open_checkpoints()
    first.save(10, state_of(1.0))
    first.close()
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "10", folder / "20.orbax-checkpoint-tmp")
    (folder / "trash").mkdir()
    shutil.copytree(folder / "10" / "note", folder / "trash" / "5" / "note")
    again = open_checkpoints()
    assert again.latest_step() == 10
    again.save(20, state_of(2.0))
    again.wait()
    assert again.steps() == [10, 20]
    assert sorted(path.name for path in folder.iterdir()) == ["10", "20"]


def damage(step: int, folder, pattern: str) -> None:
    """What a power cut may leave: the names are there, the bytes are not."""
    damaged = [path for path in (folder / str(step) / "state").rglob(pattern) if path.is_file()]
    assert damaged
    for path in damaged:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # orbax leaves its other reads behind when one fails
@pytest.mark.parametrize("pattern", ["_METADATA", "d/*"])
def test_a_damaged_latest_is_set_aside_with_a_warning(open_checkpoints, tmp_path, caplog, pattern):
    first = open_checkpoints()
    for step in (10, 20):
        first.save(step, state_of(float(step)))
    first.close()
    damage(20, tmp_path / "checkpoints", pattern)
    with caplog.at_level(logging.WARNING, logger="byol_jax.checkpoint"):
        again = open_checkpoints()
        assert_same_bits(again.restore(state_of(0.0)), state_of(10.0))
    assert "step 20 cannot be read" in caplog.text
    assert again.steps() == [10]
    assert (tmp_path / "checkpoints" / "damaged-20").is_dir()
    assert again.save(20, state_of(3.0))
    again.wait()
    gc.collect()  # what orbax left behind complains here, not in the next test


@pytest.fixture
def emptied(open_checkpoints, tmp_path):
    """Steps 10 and 20 with numbers, and a way to leave a file of one of them without a byte."""
    first = open_checkpoints()
    for step in (10, 20):
        first.save(step, {"w": jnp.full(3, float(step))}, {"knn_top1": step / 100})
    first.close()
    return lambda file: (tmp_path / "checkpoints" / file).write_bytes(b"")


@pytest.mark.parametrize("file", ["note/metadata", "metrics/metrics", "state/_METADATA"])
def test_a_latest_with_an_empty_json_file_is_set_aside_under_a_free_name(open_checkpoints, emptied, tmp_path, caplog, file):
    emptied(f"20/{file}")
    folder = tmp_path / "checkpoints"
    (folder / "damaged-20").mkdir()
    (folder / "damaged-20" / "before").touch()
    with caplog.at_level(logging.WARNING, logger="byol_jax.checkpoint"):
        again = open_checkpoints()
        assert again.note()["step"] == 10
    reason = f"{folder}/20/{file} is no JSON object (Expecting value: line 1 column 1 (char 0))"
    moved = f"checkpoint at step 20 cannot be read ({reason}): moved to {folder}/damaged-20-2, taking the one before it"
    assert caplog.messages[-1] == moved
    assert again.restore({"w": jnp.zeros(3)})["w"].tolist() == [10.0, 10.0, 10.0]
    assert (again.steps(), again.metrics(), again.best_step()) == ([10], {"knn_top1": 0.1}, 10)
    assert (folder / "damaged-20-2" / file).is_file()


@pytest.mark.parametrize("file", ["note/metadata", "metrics/metrics", "state/_METADATA"])
def test_a_reader_hears_which_file_is_damaged_and_may_take_another_step(emptied, tmp_path, file):
    emptied(f"20/{file}")
    folder = tmp_path / "checkpoints"
    reader = Checkpoints(folder, read_only=True)
    said = rf"checkpoint {folder}/20: cannot be read: {folder}/20/{file} is no JSON object \(.*\); other steps: \[10\]"
    whole = functools.partial(reader.restore, {"w": jnp.zeros(3)})
    for read in (reader.note, reader.metrics, reader.fields, functools.partial(reader.restore_raw, ["w"]), whole):
        with pytest.raises(CheckpointError, match=said):
            read()
    assert (reader.note(10)["step"], reader.restore_raw(["w"], 10)["w"].tolist()) == (10, [10.0, 10.0, 10.0])
    assert reader.steps() == [10, 20]
    reader.close()


def test_damaged_metrics_of_an_older_step_leave_the_latest_as_it_is(open_checkpoints, emptied):
    emptied("10/metrics/metrics")
    again = open_checkpoints()
    assert (again.note()["step"], again.steps(), again.best_step()) == (20, [10, 20], 20)


def test_the_only_checkpoint_is_never_set_aside(open_checkpoints, emptied, tmp_path):
    shutil.rmtree(tmp_path / "checkpoints" / "10")
    emptied("20/note/metadata")
    checkpoints = open_checkpoints()
    with pytest.raises(CheckpointError, match=r"20: cannot be read: .*20/note/metadata is no JSON object \([^;]*$"):
        checkpoints.note()
    assert checkpoints.steps() == [20]


def test_asking_for_a_damaged_step_by_name_is_an_error(open_checkpoints, tmp_path):
    checkpoints = open_checkpoints()
    checkpoints.save(10, state_of(1.0))
    checkpoints.wait()
    damage(10, tmp_path / "checkpoints", "_METADATA")
    with pytest.raises(CheckpointError, match="10: cannot be read"):
        checkpoints.restore(state_of(0.0), step=10)


def test_restored_onto_another_number_of_devices(open_checkpoints):
    one, four = parallel.data_mesh(jax.devices()[:1]), parallel.data_mesh(jax.devices()[:4])
    checkpoints = open_checkpoints()
    checkpoints.save(10, parallel.replicate(state_of(3.3), four))
    for mesh in (one, four, parallel.data_mesh()):
        restored = checkpoints.restore(parallel.replicate(state_of(0.0), mesh))
        assert_same_bits(restored, state_of(3.3))
        assert restored.step.sharding.mesh == mesh


def test_another_network_is_refused_by_name_of_the_leaf(open_checkpoints):
    checkpoints = open_checkpoints()
    checkpoints.save(10, state_of(1.0))
    message = r"does not fit this run: online/params/encoder/kernel: saved float32\[4, 3\], this run float32\[4, 5\].*another workdir"
    with pytest.raises(CheckpointError, match=message):
        checkpoints.restore(state_of(1.0, width=5))
    with pytest.raises(CheckpointError, match="probe/kernel: not in the checkpoint"):
        checkpoints.restore(state_of(1.0).replace(probe={"kernel": jnp.zeros(3)}))
    with pytest.raises(CheckpointError, match="target/batch_stats/mean: only in the checkpoint"):
        checkpoints.restore(state_of(1.0).replace(target={"params": state_of(1.0).target["params"]}))


def test_a_memory_is_kept_and_one_that_is_empty_leaves_no_trace(open_checkpoints):
    checkpoints = open_checkpoints()
    full = dataclasses.replace(state_of(1.5), memory={"threshold": jnp.float32(0.25)})
    checkpoints.save(10, full)
    checkpoints.save(20, state_of(2.5))
    checkpoints.wait()
    assert_same_bits(checkpoints.restore(full, 10), full)
    assert checkpoints.restore(state_of(0.0), 20).memory == ()
    with pytest.raises(CheckpointError, match="has no memory; it has online, opt_state, probe, step, target"):
        checkpoints.restore_raw(["memory"], 20)


def test_some_fields_without_the_optimizer(open_checkpoints, tmp_path):
    checkpoints = open_checkpoints()
    checkpoints.save(10, state_of(2.5), {"knn_top1": 0.5})
    checkpoints.wait()
    reader = Checkpoints(tmp_path / "checkpoints", read_only=True)
    raw = reader.restore_raw(["online"])
    assert list(raw) == ["online"]
    assert isinstance(raw["online"]["params"]["encoder"]["kernel"], np.ndarray)
    assert_same_bits(raw["online"], state_of(2.5).online)
    with pytest.raises(CheckpointError, match="has no onlin; it has online, opt_state, "):
        reader.restore_raw(["onlin"])
    with pytest.raises(CheckpointError, match="read_only"):
        reader.save(20, state_of(1.0))
    reader.close()


def test_nothing_there(open_checkpoints, tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        Checkpoints(tmp_path / "nowhere", read_only=True)
    checkpoints = open_checkpoints()
    assert (checkpoints.latest_step(), checkpoints.best_step(), checkpoints.steps()) == (None, None, [])
    with pytest.raises(CheckpointError, match=r"no step.*there: none"):
        checkpoints.restore(state_of(1.0))
    checkpoints.save(10, state_of(1.0))
    with pytest.raises(CheckpointError, match=r"no step 7 in .*there: \[10\]"):
        checkpoints.restore(state_of(1.0), step=7)
    with pytest.raises(ValueError, match="keep = 0"):
        Checkpoints(tmp_path, keep=0)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot use the folder"):
        Checkpoints(tmp_path / "file" / "checkpoints")


def test_disk_full_is_said_once_and_the_old_checkpoint_is_intact(open_checkpoints, caplog):
    """A real limit of this process (RLIMIT_FSIZE, with SIGXFSZ ignored) makes the writes fail in the kernel."""
    checkpoints = open_checkpoints()
    checkpoints.save(10, state_of(1.0))
    checkpoints.wait()
    big = {"w": jnp.asarray(np.random.default_rng(0).random(200_000, np.float32))}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        checkpoints.save(20, big)
        with pytest.raises(CheckpointError, match=r"checkpoint at step 20: cannot be written to .*; step 10 is intact"):
            checkpoints.wait()
        assert "Traceback" not in caplog.text  # orbax logs the error from every thread; it is raised, once
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    checkpoints.close()
    again = open_checkpoints()
    assert again.steps() == [10]
    assert_same_bits(again.restore(state_of(0.0)), state_of(1.0))
    assert again.save(20, state_of(2.0))
    again.wait()
    assert again.steps() == [10, 20]
