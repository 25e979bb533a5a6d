"""SIGKILL at any moment, and again: the run ends with every leaf of its state bit-identical to an undisturbed run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import quick

PROGRAM = Path(__file__).parent / "train" / "tiny_run.py"
STEPS = 23


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The children share compiled programs; a resumed run would find them in the same place on a real machine too."""
    return tmp_path_factory.mktemp("compiled")


def start(workdir: Path, cache: Path, **options: object) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": quick.FLAGS,
    }
    words = [f"{name}={value}" for name, value in options.items()]
    command = [sys.executable, str(PROGRAM), str(workdir), str(STEPS), *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)


def final(workdir: Path) -> dict[str, np.ndarray]:
    with np.load(workdir / "final.npz") as leaves:
        return dict(leaves)


def assert_same_bits(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert got.keys() == wanted.keys()
    different = [name for name in wanted if got[name].dtype != wanted[name].dtype or got[name].tobytes() != wanted[name].tobytes()]
    assert not different


def losses(workdir: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if "loss" in line]
    assert [line["step"] for line in trained] == list(range(STEPS))
    return {line["step"]: line["loss"] for line in trained}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, cache):
    workdir = tmp_path_factory.mktemp("undisturbed")
    done = start(workdir, cache)
    assert done.returncode == 0, done.stderr[-2000:]
    return workdir


def kill(workdir: Path, cache: Path, **options: object) -> None:
    killed = start(workdir, cache, **options)
    assert killed.returncode == -signal.SIGKILL, (options, killed.stderr[-2000:])


def test_a_run_killed_again_and_again_ends_bit_identical(undisturbed, cache, tmp_path):
    moments = random.Random(int.from_bytes(os.urandom(4), "little"))
    kills = [
        {"die_at": moments.randrange(6, 10)},
        {"die_in_save": 15, "die_after": moments.uniform(0.0, 0.03)},
        {"die_at": moments.randrange(16, STEPS)},
    ]
    for moment in kills:
        kill(tmp_path, cache, **moment)
    done = start(tmp_path, cache)
    assert done.returncode == 0, (kills, done.stderr[-2000:])
    assert_same_bits(final(tmp_path), final(undisturbed))
    assert losses(tmp_path) == losses(undisturbed), kills
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["20", str(STEPS)]  # nothing half-written is left


@pytest.mark.slow
def test_many_random_moments(undisturbed, cache, tmp_path):
    moments = random.Random(0)
    for attempt in range(8):
        workdir = tmp_path / str(attempt)
        step = moments.choice([5, 10, 15, 20, STEPS])
        kill(workdir, cache, die_in_save=step, die_after=moments.uniform(0.0, 0.1))
        start(workdir, cache, die_at=moments.randrange(1, STEPS))  # it may be past that step already
        done = start(workdir, cache)
        assert done.returncode == 0, done.stderr[-2000:]
        assert_same_bits(final(workdir), final(undisturbed))
