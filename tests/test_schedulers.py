"""What the variables of schedulers are taken for: those that their documentation and JAX name, and no scheduler here."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from byol_jax import parallel

ROOT = Path(__file__).parents[1]
SLURM = {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "16", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODELIST": "n[01-02]"}
SLURM_STEP = {**SLURM, "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "n[01-02]", "SLURM_STEP_NUM_NODES": "2"}
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443", "HOSTNAME": "byol-slice-job-0-3-x7k2p"}
GPU_POD = {"NNODES": "4", "NODE_RANK": "3", "JAX_COORDINATOR_ADDRESS": "byol-slice-job-0-0.byol", "JAX_COORDINATOR_PORT": "6002"}
DISTRIBUTED = {
    "srun, 16 tasks": {**SLURM_STEP, "SLURM_STEP_NUM_TASKS": "16"},
    "mpirun of Open MPI 4": {"OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_RANK": "3", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1"},
    "mpirun of Open MPI 5": {"OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_RANK": "3"},
    "GKE, a TPU slice of several hosts": {**KUBERNETES, "TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "h0,h1", "JOB_COMPLETION_INDEX": "1"},
    "GKE, hosts by address": {**KUBERNETES, "TPU_WORKER_ID": "0", "TPU_PROCESS_ADDRESSES": "h0:8476,h1:8476"},
    "two slices of one host": {**KUBERNETES, "TPU_WORKER_HOSTNAMES": "h0", "MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1"},
}
ALONE = {
    "a plain machine": {},
    "an sbatch script, outside srun": SLURM,
    "srun, one task": {**SLURM_STEP, "SLURM_STEP_NUM_TASKS": "1"},
    "a job array": {**SLURM, "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16"},
    "mpirun -n 1": {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
    "an indexed Job of CPU or GPU pods: they may be independent": {**KUBERNETES, "JOB_COMPLETION_INDEX": "3"},
    "GPU pods of xpk, which run byol-jax without `inside`": {**KUBERNETES, **GPU_POD, "JOB_COMPLETION_INDEX": "3"},
    "the name of a single TPU host": {**KUBERNETES, "TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "localhost"},
    "one slice of multislice": {"MEGASCALE_NUM_SLICES": "1"},
}
PREFIXES = ("SLURM", "OMPI", "PMI", "TPU", "MEGASCALE", "KUBERNETES", "JOB_", "BYOL_", "JAX_COORD", "NNODES", "NODE_RANK")


@pytest.fixture
def calls(monkeypatch):
    """jax.distributed.initialize, which only counts here, on a machine without any scheduler and without a TPU."""
    for name in [name for name in os.environ if name.startswith(PREFIXES)]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(parallel, "_on_a_tpu_machine", lambda: False)
    seen = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **kwargs: seen.append((args, kwargs)))
    return seen


@pytest.mark.parametrize(
    ("environment", "joined"),
    [*((env, [((), {})]) for env in DISTRIBUTED.values()), *((env, []) for env in ALONE.values())],
    ids=[*DISTRIBUTED, *ALONE],
)
def test_what_a_scheduler_s_variables_are_taken_for(calls, monkeypatch, environment, joined):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    parallel.initialize()
    assert calls == joined


@pytest.mark.parametrize(("platforms", "joined"), [(None, 1), ("", 1), ("tpu,cpu", 1), ("cpu", 0), ("cuda", 0)])
def test_a_tpu_vm_shows_in_its_devices_and_may_still_be_used_for_its_cpu(calls, monkeypatch, platforms, joined):
    monkeypatch.setattr(parallel, "_on_a_tpu_machine", lambda: True)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    if platforms is not None:
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
    parallel.initialize()
    assert len(calls) == joined


def test_where_jax_finds_no_way_the_error_says_what_to_set(calls, monkeypatch):
    def initialize():
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    for name, value in DISTRIBUTED["mpirun of Open MPI 5"].items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"one process of several.*coordinator_address.*BYOL_COORDINATOR, .*BYOL_DISTRIBUTED=0"):
        parallel.initialize()


def joined(environments: list[dict[str, str]]) -> list[str]:
    """What real processes under these variables say of themselves: "index count devices"."""
    program = "import jax; from byol_jax import parallel as p; p.initialize(); print(*p.process_shard(), jax.device_count())"
    plain = {name: value for name, value in os.environ.items() if not name.startswith(PREFIXES)}
    plain |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen([sys.executable, "-c", program], env=plain | one, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for one in environments
    ]
    said = [process.communicate(timeout=120) for process in started]
    assert all(process.returncode == 0 for process in started), "\n".join(err[-2000:] for _, err in said)
    return [out.strip() for out, _ in said]


def free_port() -> int:
    """One of those that JAX derives from a job's number."""
    for port in range(61440, 65536):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise AssertionError("no free port")


@pytest.mark.slow
def test_two_processes_find_each_other_by_slurm_s_variables_alone():
    port = {"JAX_COORDINATOR_PORT": str(free_port())}
    step = {**SLURM_STEP, **port, "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}
    assert joined([step | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)]) == ["0 2 2", "1 2 2"]


@pytest.mark.slow
def test_two_processes_find_each_other_by_open_mpi_s_variables_alone():
    shared = {"JAX_COORDINATOR_PORT": str(free_port()), "OMPI_MCA_orte_hnp_uri": "4096.0;tcp://127.0.0.1:1", "OMPI_COMM_WORLD_SIZE": "2"}
    ranks = [shared | {"OMPI_COMM_WORLD_RANK": str(i), "OMPI_COMM_WORLD_LOCAL_RANK": str(i)} for i in range(2)]
    assert joined(ranks) == ["0 2 2", "1 2 2"]
