"""Two processes over gloo on one machine: they train as one would, checkpoint, stop together, and resume."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from byol_jax import data
from tests import quick
from tests.data.words import sentences
from tests.test_text_run import TINY

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "tests" / "train" / "tiny_run.py"
STEPS = 12


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


def launch(workdir: Path, cache: Path, count: int, devices: int, **options: object) -> list[subprocess.Popen[str]]:
    """Starts ``count`` processes of ``devices`` CPU devices each."""
    words = [f"{name}={value}" for name, value in {"devices": devices, **options}.items()]
    return start([str(PROGRAM), str(workdir), str(STEPS), *words], cache, count)


def start(words: list[str], cache: Path, count: int, **variables: str) -> list[subprocess.Popen[str]]:
    """Python with the given words and variables of the environment, ``count`` times."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    started = []
    for index in range(count):
        env = {**os.environ, "XLA_FLAGS": quick.FLAGS, "PYTHONPATH": str(ROOT)}
        env |= {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", **variables}
        if count > 1:
            env |= {"BYOL_COORDINATOR": f"127.0.0.1:{port}", "BYOL_PROCESS_COUNT": str(count), "BYOL_PROCESS_INDEX": str(index)}
        started.append(subprocess.Popen([sys.executable, *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    return started


def finish(processes: list[subprocess.Popen[str]]) -> list[str]:
    """What each printed; all must end with code 0."""
    results = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(err[-3000:] for _, err in results)
    return [out for out, _ in results]


def final(workdir: Path) -> dict[str, np.ndarray]:
    with np.load(workdir / "final.npz") as leaves:
        return dict(leaves)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, cache):
    """The same run in one process, on as many devices."""
    workdir = tmp_path_factory.mktemp("alone")
    finish(launch(workdir, cache, count=1, devices=2))
    return final(workdir)


def assert_same(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert got.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_allclose(got[name], wanted[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_two_processes_stop_together_resume_and_end_as_one(alone, cache, tmp_path):
    """SIGTERM reaches one process only; both save the same step and leave with code 0. Started again, they end as one process does."""
    first = launch(tmp_path, cache, count=2, devices=1, sleep=0.4)
    deadline = time.monotonic() + 200
    while not (tmp_path / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    first[1].send_signal(signal.SIGTERM)
    printed = finish(first)
    said = re.search(r"^saved at step (\d+); run the same command to go on$", printed[0], re.MULTILINE)
    assert said, printed
    assert "saved" not in printed[1]  # one voice
    saved = int(said[1])
    assert 0 < saved < STEPS
    assert (tmp_path / "checkpoints" / str(saved)).is_dir()
    assert not (tmp_path / "final.npz").exists()
    finish(launch(tmp_path, cache, count=2, devices=1))
    assert_same(final(tmp_path), alone)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line for line in lines if "loss" not in line] == [{"step": 5, "processes": 2.0}]  # a hook of one's own, which asks them all
    assert len(lines) == STEPS + 1


def test_two_processes_that_each_hold_half_of_the_images_end_as_one_that_is_fed(alone, cache, tmp_path):
    finish(launch(tmp_path, cache, count=2, devices=1, resident=1))
    assert_same(final(tmp_path), alone)


def test_leaving_while_asking_whether_another_failed_is_clean(cache):
    """Asked without a pause, one is always at it. The fault this guards against: FATAL: exception not rethrown, exit code -6."""
    program = "from byol_jax import parallel; parallel._LOOK_EVERY = 0.0; parallel.initialize()"
    finish(start(["-c", program], cache, count=2))


def test_one_that_waits_at_its_exit_is_told_that_the_other_failed(cache):
    program = """if True:
        import jax, time
        from byol_jax import parallel
        parallel.initialize()
        if jax.process_index() == 1:
            time.sleep(2)
            raise ValueError("late")
    """
    processes = start(["-c", program], cache, count=2)
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert re.search(r"^byol_jax: process 1 \(.*\) failed: ValueError: late\nprocess 0 of 2 stops too$", said[0], re.MULTILINE), said[0]


@pytest.mark.slow
def test_two_processes_that_hold_the_images_are_killed_and_end_bit_identical_to_two_that_are_fed(cache, tmp_path):
    fed, resident = tmp_path / "fed", tmp_path / "resident"
    finish(launch(fed, cache, count=2, devices=1))
    for process in launch(resident, cache, count=2, devices=1, resident=1, die_at=8):
        process.communicate(timeout=240)
    finish(launch(resident, cache, count=2, devices=1, resident=1))
    got, wanted = final(resident), final(fed)
    assert not [name for name in wanted if got[name].tobytes() != wanted[name].tobytes()]


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_in_one(alone, cache, tmp_path):
    for process in launch(tmp_path, cache, count=2, devices=1, die_at=8, sleep=0.5):
        process.communicate(timeout=240)
    assert (tmp_path / "checkpoints" / "5").is_dir()
    finish(launch(tmp_path, cache, count=1, devices=4))
    assert_same(final(tmp_path), alone)


@pytest.mark.slow
@pytest.mark.parametrize("shard", [0, 1])
def test_a_checkpoint_of_two_processes_with_two_devices_each_is_taken_up_by_four_and_by_one(cache, tmp_path, shard):
    """With ``shard`` each device holds a share of the state, in four processes of one device each too; the one process holds it whole.

    Over twelve steps this network makes 1e-4 of the roundings of another number of devices (1 against 2, no restart): so two are made.
    """
    undisturbed, saved = tmp_path / "undisturbed", tmp_path / "saved"
    finish(launch(undisturbed, cache, count=2, devices=2, shard=shard))
    for process in launch(saved, cache, count=2, devices=2, die_at=11, sleep=0.5, shard=shard):
        process.communicate(timeout=240)
        assert process.returncode != 0
    assert (saved / "checkpoints" / "10").is_dir()
    for count in (4, 1):
        workdir = tmp_path / str(count)
        shutil.copytree(saved, workdir)
        finish(launch(workdir, cache, count=count, devices=1, shard=shard * (count > 1)))
        assert_same(final(workdir), final(undisturbed))


@pytest.mark.slow
def test_one_of_two_is_killed_the_other_ends_and_started_again_they_end_bit_identical(cache, tmp_path):
    """A killed process says nothing to anybody: the other learns of it in a collective, or by its heartbeat, 88 s later."""
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    finish(launch(undisturbed, cache, count=2, devices=1))
    processes = launch(disturbed, cache, count=2, devices=1, kill_data=8, on=1)
    processes[1].communicate(timeout=240)
    assert processes[1].returncode == -signal.SIGKILL
    said = processes[0].communicate(timeout=240)[1]  # JAX gives up a silent process after 100 s
    assert processes[0].returncode != 0
    assert re.search("Connection (closed|reset) by peer|The following tasks are unhealthy", said), said[-3000:]
    finish(launch(disturbed, cache, count=2, devices=1))
    got, wanted = final(disturbed), final(undisturbed)
    assert not [name for name in wanted if got[name].tobytes() != wanted[name].tobytes()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment", [{"die_at": 3}, {"die_at": 8}, {"die_in_save": 5, "die_after": 0.01}, {"die_in_save": 10, "die_after": 0.03}]
)
def test_both_killed_and_started_again_end_bit_identical(cache, tmp_path, moment):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    finish(launch(undisturbed, cache, count=2, devices=1))
    for process in launch(disturbed, cache, count=2, devices=1, **moment):
        process.communicate(timeout=240)
        assert process.returncode != 0
    finish(launch(disturbed, cache, count=2, devices=1))
    got, wanted = final(disturbed), final(undisturbed)
    assert got.keys() == wanted.keys()
    assert not [name for name in wanted if got[name].tobytes() != wanted[name].tobytes()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failure", "told"),
    [
        ({"fail_data": 8, "on": 0}, "ValueError: 7 of 9 files cannot be decoded"),
        ({"fail_data": 8, "on": 1}, "ValueError: 7 of 9 files cannot be decoded"),
        ({"fail_save": 10, "on": 0}, "SaveError: checkpoint at step 10: cannot be written"),
        ({"fail_save": 10, "on": 1}, "SaveError: checkpoint at step 10: cannot be written"),
    ],
)
def test_when_one_fails_both_end_within_seconds(cache, tmp_path, failure, told):
    """Without our doing it takes JAX 300 s (the failing one waits at its exit), or 100 s (its heart beats no more)."""
    processes = launch(tmp_path, cache, count=2, devices=1, **failure)
    assert any(told in line for line in processes[failure["on"]].stderr)  # reads on until it has failed
    began = time.monotonic()
    codes = [process.wait(timeout=60) for process in processes]
    assert time.monotonic() - began < 15  # 3.5 s measured
    assert codes == [1, 1]
    said = [process.communicate()[1] for process in processes][1 - failure["on"]]
    assert f"byol_jax: process {failure['on']} (" in said
    assert f") failed: {told}" in said
    assert f"process {1 - failure['on']} of 2 stops too" in said
    assert "Traceback" not in said
    assert (tmp_path / "checkpoints" / "5").is_dir()


@pytest.mark.slow
def test_two_processes_train_on_texts_as_one_does(cache, tmp_path):
    """Through the command line, each on its half of every batch, on two devices in all."""
    texts = sentences(40, longest=12, seed=0)
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    data.train_tokenizer(texts, tmp_path / "tokenizer.json", vocab=300)
    config = tmp_path / "tiny.py"
    config.write_text(TINY.replace("DATA", str(tmp_path)))
    losses = {}
    for count in (1, 2):
        workdir = tmp_path / f"run{count}"
        words = ["-m", "byol_jax", "pretrain", "--config", str(config), "--workdir", str(workdir)]
        finish(start(words, cache, count, JAX_NUM_CPU_DEVICES=str(2 // count)))
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        losses[count] = {name: [line[name] for line in lines if name in line] for name in ("loss", "held_out_loss")}
    assert len(losses[1]["loss"]) == 4
    assert losses[1]["held_out_loss"]
    for name, wanted in losses[1].items():
        np.testing.assert_allclose(losses[2][name], wanted, rtol=1e-4, err_msg=name)
