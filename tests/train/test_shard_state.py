"""A state that is split over the devices between two steps: the same training, less memory on each."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from byol_jax import data, parallel, views
from byol_jax.method import MLP, Byol, lars
from byol_jax.train import Hook, Run, pretrain, start

spec: Any = importlib.util.spec_from_file_location("tests_tiny", Path(__file__).parent / "tests_tiny.py")
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)
rng = np.random.default_rng(0)
IMAGES, LABELS = rng.integers(0, 256, (64, 8, 8, 3), np.uint8), rng.integers(0, 10, 64)


def on(devices: int) -> Any:
    return parallel.data_mesh(jax.devices()[:devices])


@pytest.mark.parametrize(
    ("shape", "devices", "axis"),
    [
        ((3, 3, 16, 64), 8, 3),  # the largest of those that 8 divides
        ((3, 3, 16, 60), 8, 2),
        ((1, 1, 64, 64), 8, 2),  # the first of equals
        ((3, 3, 6, 20), 8, None),
        ((3, 3, 6, 21), 3, 3),
        ((512,), 8, None),  # a bias
        ((), 8, None),
    ],
)
def test_which_axis_is_split(shape: tuple[int, ...], devices: int, axis: int | None) -> None:
    spec = parallel.spread({"w": jax.ShapeDtypeStruct(shape, np.float32)}, on(devices))["w"].spec
    assert tuple(spec) == (() if axis is None else (*[None] * axis, "data"))


def method() -> Byol:
    return Byol(tiny.Tiny(), MLP(hidden=32, out=8), MLP(hidden=32, out=8), num_classes=10)


def train(workdir: Any, devices: int, shard_state: bool, steps: int = 6, **options: Any) -> Run:
    settings: dict[str, Any] = {"views": views.gray(8), "batch_size": 16, "steps": steps, "seed": 3, "mesh": on(devices)}
    settings |= {"optimizer": lars(0.5), "evaluate_every_epochs": 0, "checkpoint_every": 3, "log_every": 1, "writers": ["jsonl"]}
    given = data.from_arrays(IMAGES, LABELS)
    return pretrain(method(), given, workdir=workdir, shard_state=shard_state, **settings | options)


def bytes_on_each(state: Any) -> set[int]:
    """What each device holds."""
    total: dict[Any, int] = {}
    for leaf in jax.tree.leaves(state):
        for shard in leaf.addressable_shards:
            total[shard.device] = total.get(shard.device, 0) + shard.data.nbytes
    return set(total.values())


def assert_close(got: Any, wanted: Any) -> None:
    """To a millionth of the largest number of each leaf."""

    def check(a: Any, b: Any) -> None:
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=1e-6 * max(float(np.abs(b).max(initial=0)), 1.0))

    jax.tree.map(check, got, wanted)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tmp_path_factory.mktemp("whole"), 8, shard_state=False)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tmp_path_factory.mktemp("shared"), 8, shard_state=True)


def test_it_ends_as_without(whole: Run, shared: Run) -> None:
    """LARS divides by norms of whole weights: were they of a device's share, a step would be about the root of 8 too long."""
    assert_close(shared.state, whole.state)
    for name in ("loss", "grad_norm", "probe_loss"):
        np.testing.assert_allclose(shared.metrics[name], whole.metrics[name], rtol=1e-5)


def test_each_device_holds_an_eighth_of_the_weights(whole: Run, shared: Run) -> None:
    leaves = jax.tree.leaves(whole.state)
    weights = sum(leaf.nbytes for leaf in leaves if leaf.ndim > 1)  # 8 divides an axis of each
    rest = sum(leaf.nbytes for leaf in leaves if leaf.ndim < 2)
    assert bytes_on_each(whole.state) == {weights + rest}
    assert bytes_on_each(shared.state) == {weights // 8 + rest}


def test_the_encoder_is_taken_out_of_a_split_state(whole: Run, shared: Run) -> None:
    np.testing.assert_allclose(shared.encoder()(IMAGES), whole.encoder()(IMAGES), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("before", "after"), [((8, True), (2, False)), ((4, False), (8, True))])
def test_a_checkpoint_of_one_kind_is_taken_up_by_the_other_on_other_devices(
    whole: Run, tmp_path: Any, before: tuple[int, bool], after: tuple[int, bool]
) -> None:
    class Stop(Exception):
        pass

    class Die(Hook):
        def tick(self, done: int) -> None:
            if done == 4:
                raise Stop

    with pytest.raises(Stop):
        train(tmp_path, *before, writers=["jsonl", Die()])
    assert (tmp_path / "checkpoints" / "3").is_dir()
    run = train(tmp_path, *after)
    assert_close(run.state, whole.state)
    assert any(not leaf.is_fully_replicated for leaf in jax.tree.leaves(run.state)) == after[1]


def test_the_step_compiles_once(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step leaves lies as what it was given: else the second would be compiled anew."""
    made: list[Any] = []
    build = start.compiled

    def compiled(*args: Any, **kwargs: Any) -> Any:
        made.append(build(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(start, "compiled", compiled)
    train(tmp_path, 4, shard_state=True, steps=3)
    assert made[0]._cache_size() == 1


def test_with_images_on_the_devices(tmp_path: Any, shared: Run) -> None:
    run = train(tmp_path, 8, shard_state=True, data_on_device=True)
    assert_close(run.state, shared.state)
