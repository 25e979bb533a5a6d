"""Images that stay on the devices: fetched rows by hand, and runs that end with the bits of those fed by the host."""

from __future__ import annotations

import importlib.util
import os
import signal
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from byol_jax import data, models, parallel, views
from byol_jax.data import Shard, index_batches, train_batches
from byol_jax.method import MLP, Byol, adamw
from byol_jax.train import Hook, pretrain, resident

spec = importlib.util.spec_from_file_location("tests_tiny", Path(__file__).parent / "tests_tiny.py")
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)

METHOD = Byol(tiny.Tiny(), MLP(hidden=8, out=8), MLP(hidden=8, out=8), num_classes=10)


@pytest.fixture(autouse=True, scope="module")
def compiled_once():
    """Every ``pretrain`` makes a step of its own; those that are equal are compiled once for all tests of this file."""
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    yield
    jax.config.update("jax_persistent_cache_min_compile_time_secs", before)


def mesh_of(devices: int) -> jax.sharding.Mesh:
    return parallel.data_mesh(jax.devices()[:devices])


def source(count: int, labelled: bool = True) -> data.ArraySource:
    """Noise, 5 x 4 pixels; counts that the devices do not divide leave the last of them rows to fill."""
    images = np.random.default_rng(1).integers(0, 256, (count, 5, 4, 3), np.uint8)
    return data.from_arrays(images, np.arange(count) % 10 - 1 if labelled else None)


# Uploading and fetching.


def test_each_device_holds_its_share_and_the_last_is_filled_up():
    held = resident.Resident(source(7), mesh_of(3))
    shards = sorted(held.rows["image"].addressable_shards, key=lambda shard: shard.device.id)
    flat = source(7).images.reshape(7, 60)
    np.testing.assert_array_equal(shards[0].data, flat[:3])
    np.testing.assert_array_equal(shards[1].data, flat[3:6])
    np.testing.assert_array_equal(shards[2].data, np.concatenate([flat[6:], np.zeros((2, 60), np.uint8)]))
    assert [shard.data.nbytes for shard in shards] == [180] * 3
    np.testing.assert_array_equal(held.rows["label"], [-1, 0, 1, 2, 3, 4, 5, 0, 0])
    assert resident.bytes_per_device(7, (5, 4, 3), 3) == sum(x.addressable_shards[0].data.nbytes for x in held.rows.values()) == 180 + 12


@pytest.mark.parametrize("labelled", [True, False], ids=["labelled", "not labelled"])
@pytest.mark.parametrize("devices", [1, 3, 8])
@pytest.mark.parametrize("count", [1, 7, 8, 50])
def test_the_fetched_rows_are_those_of_the_source(devices, count, labelled):
    """Every example, out of order and repeated; with fewer examples than devices some devices hold none."""
    examples, mesh = source(count, labelled), mesh_of(devices)
    held = resident.Resident(examples, mesh)
    index = np.random.default_rng(0).permutation(np.arange(24 * 3) % count)[: 24 * 2].astype(np.int32)
    got = jax.jit(held.fetch)(held.rows, parallel.to_global(index, mesh))
    np.testing.assert_array_equal(got["image"], examples.images[index])
    np.testing.assert_array_equal(got["label"], examples.labels[index] if labelled else np.full(48, -1))
    assert (got["image"].dtype, got["label"].dtype) == (np.uint8, np.int32)
    assert got["image"].sharding.is_equivalent_to(NamedSharding(mesh, P("data")), 4)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), held.shapes(jax.ShapeDtypeStruct((48,), jnp.int32))) == jax.tree.map(
        lambda x: (x.shape, x.dtype), got
    )


def test_the_indices_are_those_of_the_batches_from_the_host():
    examples = source(11)
    for step, shard in ((0, Shard()), (4, Shard(1, 2))):
        options = {"batch_size": 8, "seed": 3, "start_step": step, "shard": shard}
        with index_batches(examples, **options) as indices, train_batches(examples, views.small(4), **options) as batches:
            for _ in range(3):
                index, batch = next(indices)["index"], next(batches)
                assert index.dtype == np.int32
                np.testing.assert_array_equal(examples.images[index], batch["image"])
                np.testing.assert_array_equal(examples.labels[index], batch["label"])
    with index_batches(examples, batch_size=22, seed=3) as indices:  # larger than the data: two whole epochs
        assert sorted(next(indices)["index"].tolist()) == sorted([*range(11)] * 2)
    with pytest.raises(ValueError, match="batch_size=9 is not divisible by the 2 processes"):
        index_batches(examples, batch_size=9, seed=0, shard=Shard(0, 2))


def test_the_images_are_an_argument_of_the_compiled_step():
    """A constant would be copied into the program, and compiled again for other data; and only indices are sent."""
    mesh = mesh_of(2)
    held = resident.Resident(source(50), mesh)
    step = resident.compiled(lambda state, batch: (state + batch["label"].sum(), {}), held, mesh)
    batch = parallel.to_global({"index": np.arange(6, dtype=np.int32)}, mesh)
    assert int(step(parallel.replicate(np.int32(0), mesh), batch)[0]) == -1 + 0 + 1 + 2 + 3 + 4
    text = jax.jit(held.fetch).lower(held.rows, batch["index"]).as_text()
    assert "dense<" not in text or max(len(line) for line in text.splitlines()) < 500
    assert not held.rows["image"].is_deleted()


# Whole runs.


def run(devices: int, on_device: bool, **changes: object):
    settings = {"views": views.gray(8), "batch_size": 16, "steps": 8, "optimizer": adamw(1e-2), "mesh": mesh_of(devices), "writers": ()}
    settings |= {"evaluate_every_epochs": 0, "data_on_device": on_device, "data": source(43), "method": METHOD, **changes}
    return pretrain(settings.pop("method"), settings.pop("data"), **settings)


def assert_same_bits(got: object, wanted: object) -> None:
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(wanted), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), jax.tree_util.keystr(path)


class StopAt(Hook):
    def __init__(self, done: int) -> None:
        self._done = done

    def tick(self, done: int) -> None:
        if done == self._done:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("devices", [1, 8])
def test_a_run_ends_with_the_same_bits_also_when_resumed_on_the_other_road(devices, tmp_path):
    """Eight steps are three epochs of 43 examples: batches of two epochs among them."""
    whole = run(devices, on_device=False)
    assert_same_bits(run(devices, on_device=True).state, whole.state)
    with pytest.raises(SystemExit):
        run(devices, on_device=True, workdir=tmp_path, writers=[StopAt(3)])
    again = run(devices, on_device=True, workdir=tmp_path)
    assert again.step == 8
    assert_same_bits(again.state, whole.state)
    if devices == 8:
        with pytest.raises(SystemExit):
            run(devices, on_device=False, workdir=tmp_path / "other", writers=[StopAt(3)])
        assert_same_bits(run(devices, on_device=True, workdir=tmp_path / "other").state, whole.state)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
def test_the_whole_recipe_through_a_convolutional_network_keeps_the_bits(devices):
    """Crops, colours, blur, solarisation: where a compiler that fused the fetch into them could round otherwise."""
    images = np.random.default_rng(2).integers(0, 256, (40, 24, 20, 3), np.uint8)
    options = {
        "method": Byol(models.resnet((1,), (8,)), MLP(hidden=8, out=8), MLP(hidden=8, out=8), num_classes=3),
        "data": data.from_arrays(images, np.arange(40) % 3),
        "views": views.imagenet(16),
        "steps": 3,
    }
    assert_same_bits(run(devices, on_device=True, **options).state, run(devices, on_device=False, **options).state)


# What does not fit.


class Files:
    def __len__(self) -> int:
        return 43

    def __getitem__(self, i: int) -> dict:
        return {"image": np.zeros((5, 4, 3), np.uint8)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": Files()}, r"data_on_device = True: Files is not in memory as one array; pass what byol\.data\.from_arrays"),
        ({"augment_on": "host"}, "data_on_device = True with augment_on = 'host'"),
        ({"views": lambda example, seed: {}}, "data_on_device = True: views of your own run on the host"),
    ],
)
def test_what_cannot_stay_on_the_device(changes, message):
    with pytest.raises(ValueError, match=message):
        run(2, on_device=True, **changes)


def test_data_larger_than_half_the_memory():
    """1,000 images of 3,072 bytes and a label: 250 * 3,076 = 769,000 bytes on each of 4 devices."""
    resident.check_memory(1000, (32, 32, 3), 4, 1_538_000)
    resident.check_memory(1000, (32, 32, 3), 4, None)
    wanted = r"1,000 images of 32x32 take 0\.8 MB on each of 4 device\(s\), more than 50% of its 1\.0 MB; take 7 devices, or leave"
    with pytest.raises(ValueError, match=wanted):  # 143 * 3,076 = 439,868 on each of 7; 167 * 3,076 = 513,692 on each of 6
        resident.check_memory(1000, (32, 32, 3), 4, 1_000_000)


def test_the_memory_is_what_the_smallest_device_tells(monkeypatch):
    told = [types.SimpleNamespace(memory_stats=lambda stats=stats: stats) for stats in (None, {}, {"bytes_limit": 7}, {"bytes_limit": 5})]
    assert resident._memory(told) == 5
    assert resident._memory(told[:2]) is None
    monkeypatch.setattr(resident, "_memory", lambda devices: 2000)
    with pytest.raises(ValueError, match="data_on_device: 43 images of 5x4 take"):
        run(2, on_device=True)
