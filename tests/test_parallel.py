"""Start-up, mesh and the way from host rows to global arrays (two processes: test_two_processes.py)."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from byol_jax import parallel


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch):
    for name in (*parallel._EXPLICIT, "BYOL_DISTRIBUTED", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def calls(monkeypatch):
    seen = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **kwargs: seen.append((args, kwargs)))
    return seen


def test_a_plain_machine_starts_nothing(calls):
    parallel.initialize()
    assert calls == []


def test_a_slurm_allocation_without_a_step_or_with_one_task_starts_nothing(calls, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    parallel.initialize()
    assert calls == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("SLURM_STEP_NUM_TASKS", "4"), ("OMPI_COMM_WORLD_SIZE", "2"), ("TPU_WORKER_HOSTNAMES", "a,b"), ("BYOL_DISTRIBUTED", "1")],
)
def test_a_cluster_is_left_to_jax(calls, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    parallel.initialize()
    assert calls == [((), {})]


def test_the_search_can_be_switched_off(calls, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("BYOL_DISTRIBUTED", "0")
    parallel.initialize()
    assert calls == []


def test_explicit_processes(calls, monkeypatch):
    for name, value in zip(parallel._EXPLICIT, ("10.0.0.1:1234", "8", "3"), strict=True):
        monkeypatch.setenv(name, value)
    parallel.initialize()
    assert calls == [(("10.0.0.1:1234",), {"num_processes": 8, "process_id": 3})]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("h:1", "", "0"), r"BYOL_PROCESS_COUNT: not set"),
        (("h", "2", "0"), r"BYOL_COORDINATOR = 'h': must be host:port"),
        (("h:1", "2", "2"), r"BYOL_PROCESS_INDEX = '2', BYOL_PROCESS_COUNT = '2': .* 0 <= index < count"),
        (("h:1", "two", "0"), r"whole numbers"),
    ],
)
def test_explicit_processes_said_wrong(calls, monkeypatch, values, message):
    for name, value in zip(parallel._EXPLICIT, values, strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        parallel.initialize()
    assert calls == []


def test_mesh_holds_the_devices_in_order():
    mesh = parallel.data_mesh(list(reversed(jax.devices()[:3])))
    assert mesh.axis_names == ("data",)
    assert [d.id for d in mesh.devices] == [0, 1, 2]
    assert parallel.data_mesh().size == len(jax.devices())
    with pytest.raises(ValueError, match="devices: is empty"):
        parallel.data_mesh([])


def test_rows_are_split_in_order_and_come_back_whole():
    mesh = parallel.data_mesh(jax.devices()[:4])
    batch = {"image": np.arange(16, dtype=np.uint8).reshape(8, 2), "label": np.arange(8, dtype=np.int32)}
    arrays = parallel.to_global(batch, mesh)
    for i, shard in enumerate(sorted(arrays["label"].addressable_shards, key=lambda s: s.device.id)):
        np.testing.assert_array_equal(shard.data, [2 * i, 2 * i + 1])
    back = parallel.gather_to_host(arrays)
    np.testing.assert_array_equal(back["image"], batch["image"])
    assert back["image"].dtype == np.uint8


def test_replicate_puts_the_whole_on_every_device():
    mesh = parallel.data_mesh(jax.devices()[:2])
    x = parallel.replicate({"a": np.arange(3.0, dtype=np.float32)}, mesh)["a"]
    assert x.is_fully_replicated
    assert x.sharding.mesh == mesh
    assert [shard.data.shape for shard in x.addressable_shards] == [(3,), (3,)]


def test_a_batch_that_divides_is_accepted():
    mesh = parallel.data_mesh(jax.devices()[:4])
    parallel.check_batch(8, mesh)
    parallel.check_batch(24, mesh, accumulate=3)


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "message"),
    [
        (10, 1, r"batch_size = 10: must be a multiple of 4 \(4 devices\); nearest: 8 or 12$"),
        (3, 1, r"batch_size = 3: .*nearest: 4$"),
        (0, 1, r"batch_size = 0: .*nearest: 4$"),
        (16, 3, r"multiple of 12 \(4 devices times accumulate = 3\); nearest: 12 or 24$"),
        (16, 0, r"accumulate = 0: must be 1 or more"),
    ],
)
def test_a_batch_that_does_not_divide(batch_size, accumulate, message):
    with pytest.raises(ValueError, match=message):
        parallel.check_batch(batch_size, parallel.data_mesh(jax.devices()[:4]), accumulate)


def test_one_process():
    assert parallel.process_shard() == (0, 1)
    assert parallel.is_main()
