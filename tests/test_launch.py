"""The scripts of experiments/launch: each with recorders in place of the tools that it calls, for none of the machines is here."""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from byol_jax import cli

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "experiments" / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
GPU_POD = {"NNODES": "4", "NODE_RANK": "3", "JAX_COORDINATOR_ADDRESS": "byol-slice-job-0-0.byol", "JAX_COORDINATOR_PORT": "6002"}

FAKE = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >> "$CALLS"
"""
TRAINER = (
    FAKE
    + """case $DOES in
    finish) ;;
    save) echo 'saved at step 7; run the same command to go on' ;;
    fail) exit 1 ;;
    mistake) exit 2 ;;
    crash-once) [[ $(grep -c '^byol-jax' "$CALLS") -ge 2 ]] || kill -KILL $$ ;;
    train) trap 'sleep 0.3; exit 0' TERM; touch "$CALLS.up"; while :; do sleep 0.05; done ;;
esac
"""
)
SRUN = FAKE + 'for word in "$@"; do case $word in --output=*) exec > "${word#*=}" ;; byol-jax) exec "${@: -7}" ;; esac; done\n'
GCLOUD = (
    FAKE
    + """case "$*" in
    *describe*) echo "$STATE" ;;
    *launch.pid*echo*) echo "$ALIVE" ;;
esac
"""
)


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A PATH that begins with recorders of the tools' names; ``run`` starts a script, ``calls`` are what the tools were called with."""

    class Stage:
        log = tmp_path / "calls"

        def __init__(self) -> None:
            (tmp_path / "bin").mkdir()
            tools = dict.fromkeys(("xpk", "kubectl", "scontrol", "git"), FAKE) | {"byol-jax": TRAINER, "srun": SRUN, "gcloud": GCLOUD}
            for name, text in (tools | {"squeue": FAKE + 'echo "$STATE"\n', "sleep": "#!/bin/bash\n/bin/sleep 0.05\n"}).items():
                (tmp_path / "bin" / name).write_text(text)
                (tmp_path / "bin" / name).chmod(0o755)
            self.env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "CALLS": str(self.log), "PAUSE": "0"}

        def start(self, script: str, *words: str, **variables: str) -> subprocess.Popen[str]:
            env = self.env | variables
            return subprocess.Popen([str(LAUNCH / script), *words], env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True)

        def run(self, script: str, *words: str, **variables: str) -> int:
            process = self.start(script, *words, **variables)
            process.communicate(timeout=60)
            return process.returncode

        def calls(self, tool: str) -> list[str]:
            lines = self.log.read_text().splitlines() if self.log.exists() else []
            return [line.removeprefix(f"{tool} ") for line in lines if line.startswith(f"{tool} ")]

        def wait(self) -> None:
            deadline = time.monotonic() + 30
            while not Path(f"{self.log}.up").exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)

    return Stage()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_bash_and_can_be_run(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/usr/bin/env bash\n")


def flags(verb: str) -> set[str]:
    """Those that the command line knows for a verb."""
    (verbs,) = (action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction))
    return {flag for action in verbs.choices[verb]._actions for flag in action.option_strings}


def test_every_flag_of_byol_jax_in_the_scripts_and_the_page_exists():
    pages = [path.read_text().replace("\\\n", " ") for path in (*SCRIPTS, LAUNCH / "README.md")]
    found = re.findall(r"(?:byol-jax|run\.py|^)[ \t]+(pretrain|evaluate|report|show)\b([^\n|]*)", "\n".join(pages), re.MULTILINE)
    assert {"pretrain", "report"} <= {verb for verb, _ in found}
    used = [(verb, flag) for verb, rest in found for flag in re.findall(r"(?<!\S)--[a-z][\w.-]*", rest)]
    assert used.count(("pretrain", "--workdir")) >= 4  # each of the four ways
    assert not [(verb, flag) for verb, flag in used if flag not in flags(verb) and not flag.startswith("--config.")]
    words, overrides = cli.split(["pretrain", "--config", "configs/imagenet.py:e300", "--config.encoder.dtype=bfloat16", "--workdir", "d"])
    args = cli.parser().parse_args(words)
    assert cli.cfg.load(args.config.replace("configs", str(ROOT / "configs")), overrides).encoder.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("does", "code", "attempts"), [("finish", 0, 1), ("mistake", 2, 1), ("fail", 1, 3), ("crash-once", 0, 2)], ids=lambda value: str(value)
)
def test_what_has_failed_is_tried_again_but_not_a_mistake(stage, does, code, attempts):
    assert stage.run("run.py", "pretrain", "--workdir", "d", DOES=does, TRIES="3", SAVED="42") == code
    assert stage.calls("byol-jax") == ["pretrain --workdir d"] * attempts


@pytest.mark.parametrize(("script", "words", "code"), [("run.py", ("pretrain",), 0), ("gke_xpk.sh", ("inside",), 42)])
def test_sigterm_reaches_the_run_and_its_end_is_awaited(stage, script, words, code):
    process = stage.start(script, *words, DOES="train", WORKDIR="gs://b/run")
    stage.wait()
    for _ in range(2):  # a scheduler may say it twice
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    process.communicate(timeout=30)
    assert process.returncode == code
    assert len(stage.calls("byol-jax")) == 1


def test_a_box_is_started_in_the_background_and_stopped(stage, tmp_path):
    run = {"DOES": "train", "WORKDIR": str(tmp_path / "run")}
    assert stage.run("box_8gpu.sh", "start", **run) == 0
    stage.wait()
    assert stage.calls("byol-jax") == [
        f"pretrain --config configs/imagenet.py:e300 --config.encoder.dtype=bfloat16 --workdir {tmp_path / 'run'}"
    ]
    pid = int((tmp_path / "run" / "launch.pid").read_text())
    assert stage.run("box_8gpu.sh", "stop", **run) == 0
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("does", "state", "code", "requeued"),
    [
        ("save", "RUNNING", 0, ["requeue 4711"]),  # the time limit came near
        ("save", "COMPLETING", 0, []),  # cancelled, or preempted, which SLURM requeues itself
        ("finish", "RUNNING", 0, []),
        ("fail", "RUNNING", 1, []),
    ],
)
def test_a_slurm_job_goes_back_into_the_queue_only_where_the_run_goes_on(stage, does, state, code, requeued):
    variables = {"SLURM_JOB_ID": "4711", "SLURM_CPUS_PER_TASK": "12", "WORKDIR": "/shared/run"}
    assert stage.run("slurm.sbatch", DOES=does, STATE=state, **variables) == code
    assert stage.calls("scontrol") == requeued
    wanted = "pretrain --config configs/imagenet.py:e300 --config.encoder.dtype=bfloat16 --workdir /shared/run"
    assert stage.calls("byol-jax") == [wanted]
    assert stage.calls("srun") == [f"--kill-on-bad-exit=1 --cpus-per-task=12 --output=byol-4711-0.log byol-jax {wanted}"]


def test_xpk_is_told_to_restart_and_gpu_pods_are_told_of_each_other(stage):
    place = {"CLUSTER": "c", "PROJECT": "p", "ZONE": "z", "IMAGE": "i", "DATA": "/data", "WORKDIR": "gs://b/run"}
    assert stage.run("gke_xpk.sh", "start", **place) == 0
    (said,) = stage.calls("xpk")
    assert said.startswith(
        "workload create --cluster=c --project=p --zone=z --workload=byol-e300 --docker-image=i --tpu-type=v5litepod-256"
    )
    assert "--max-restarts=50 --restart-on-exit-codes=1 " in said
    assert said.endswith("--command=exec bash experiments/launch/gke_xpk.sh inside")
    show = '#!/usr/bin/env bash\necho "byol-jax $BYOL_COORDINATOR $BYOL_PROCESS_COUNT $BYOL_PROCESS_INDEX" >> "$CALLS"\n'
    (stage.log.parent / "bin" / "byol-jax").write_text(show)
    assert stage.run("gke_xpk.sh", "inside", WORKDIR="gs://b/run", **GPU_POD) == 0
    assert stage.calls("byol-jax") == ["byol-slice-job-0-0.byol:6002 4 3"]


def test_a_tpu_slice_that_was_taken_away_is_asked_for_again(stage):
    """Its state is SUSPENDED, then ACTIVE; there the run has ended."""
    states = stage.log.parent / "states"
    states.write_text("SUSPENDED\nACTIVE\nACTIVE\n")
    take_first = f'echo "$(head -n 1 {states})"; sed -i 1d {states}'
    (stage.log.parent / "bin" / "gcloud").write_text(GCLOUD.replace('echo "$STATE"', take_first))
    assert stage.run("tpu_vm.sh", "keep", PROJECT="p", ZONE="z", WORKDIR="gs://b/run", ALIVE="ended") == 0
    said = [line.removeprefix("compute tpus ") for line in stage.calls("gcloud")]
    steps = ["queued-resources describe", "queued-resources delete byol --force --quiet", "queued-resources create byol --node-id=byol"]
    steps += [
        "queued-resources describe",
        "tpu-vm scp",
        "tpu-vm ssh",
        "tpu-vm ssh",
        "queued-resources describe",
        "tpu-vm ssh",
        "tpu-vm ssh",
    ]
    assert [line.startswith(step) for line, step in zip(said, steps, strict=True)] == [True] * len(steps), said
    assert said[2].endswith("--accelerator-type=v5litepod-256 --runtime-version=v2-alpha-tpuv5-lite --spot --zone=z --project=p")
    started = said[6]
    assert "--worker=all" in started
    assert "run.py         pretrain --config 'configs/imagenet.py:e300' --config.encoder.dtype=bfloat16 --workdir 'gs://b/run'" in started
