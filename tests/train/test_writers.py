"""Writers: what they leave behind, also after a kill and a resumption."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
from rich.console import Console

from byol_jax.train import Hook
from byol_jax.train.writers import Jsonl, TensorBoard, Terminal, make_writers

METRICS = {"loss": 3.5, "tau": 0.996, "learning_rate": 0.2, "cosine_1": 0.1, "examples_per_second": 1234.5, "data_wait": 0.031}


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_jsonl_holds_one_object_a_line(tmp_path):
    writer = Jsonl(tmp_path / "new" / "metrics.jsonl", start_step=0)
    writer.log(0, METRICS)
    writer.log(50, {"loss": float("nan"), "rankme": 3.0})
    writer.close()
    assert lines(tmp_path / "new" / "metrics.jsonl") == [{"step": 0, **METRICS}, {"step": 50, "loss": None, "rankme": 3.0}]


def test_jsonl_is_written_at_once(tmp_path):
    writer = Jsonl(tmp_path / "metrics.jsonl", start_step=0)
    writer.log(0, {"loss": 1.0})
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 0, "loss": 1.0}]
    writer.close()


def test_a_resumed_jsonl_drops_what_will_be_written_again_and_half_a_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "loss": 4.0}\n{"step": 5, "loss": 3.0}\nnot json\n{"step": 10, "loss": 2.0}\n{"step": 4, "lo')
    writer = Jsonl(path, start_step=10)
    writer.log(10, {"loss": 2.5})
    writer.close()
    assert lines(path) == [{"step": 0, "loss": 4.0}, {"step": 5, "loss": 3.0}, {"step": 10, "loss": 2.5}]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_plain_lines_where_there_is_no_terminal():
    out = io.StringIO()
    writer = Terminal(start_step=0, steps=200, console=Console(file=out, width=40))
    writer.log(0, {"held_out_loss": 3.25, "knn_top1": 0.875, "rankme": 12.34})
    writer.tick(1)
    writer.log(50, METRICS)
    writer.close()
    first, second = out.getvalue().splitlines()
    assert first == "step 0/200  held-out loss 3.250  k-NN 87.50%  RankMe 12.3"
    assert second.startswith("step 50/200  loss 3.500  tau 0.9960  lr 0.2  1,234 examples/s  data 3%  ETA 0:00:0")


def test_a_bar_on_a_terminal():
    out = io.StringIO()
    writer = Terminal(start_step=20, steps=200, console=Console(file=out, width=150, force_terminal=True, highlight=False))
    writer.tick(51)
    writer.log(50, METRICS)
    writer.log(50, {"knn_top1": 0.875})
    writer.close()
    shown = out.getvalue()
    assert "51/200" in shown
    assert "loss 3.500  tau 0.9960  lr 0.2  1,234 examples/s" in shown
    assert "ETA" in shown
    assert "k-NN 87.50%" in shown


def test_tensorboard_events(tmp_path):
    writer = TensorBoard(tmp_path, start_step=0)
    writer.log(7, {"loss": 3.5})
    writer.close()
    (events,) = tmp_path.iterdir()
    assert events.name.startswith("events.out.tfevents")
    assert b"loss" in events.read_bytes()


def test_wandb_offline(tmp_path):
    """In a process of its own: wandb starts a service, and patches what it finds. Twice: the second time is a resumption."""
    code = """
import sys
from pathlib import Path
from byol_jax.train.writers import WandB
for step in (0, 5):
    writer = WandB(Path(sys.argv[1]), run={"seed": 3})
    writer.log(step, {"loss": 3.5, "tau": 0.99})
    writer.close()
"""
    env = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    kept = (tmp_path / "run" / "wandb_id").read_text()
    written = list((tmp_path / "run" / "wandb").glob(f"offline-run-*{kept}/run-{kept}.wandb"))
    assert written
    assert all(b"loss" in path.read_bytes() for path in written)


def test_writers_by_name(tmp_path):
    own = Hook()
    made = make_writers(["terminal", "jsonl", own], workdir=tmp_path, start_step=0, steps=5)
    assert [type(hook).__name__ for hook in made] == ["Terminal", "Jsonl", "Hook"]
    assert made[2] is own
    for hook in made:
        hook.close()
    assert [type(hook).__name__ for hook in make_writers(["terminal", "jsonl"], workdir=None, start_step=0, steps=5)] == ["Terminal"]
    with pytest.raises(
        ValueError, match=r"writers: 'jsnol' is unknown; did you mean 'jsonl'\? choose from terminal, jsonl, tensorboard, wandb"
    ):
        make_writers(["jsnol"], workdir=tmp_path, start_step=0, steps=5)


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_writer_whose_package_is_missing(tmp_path, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"writers: '{name}' needs the package {module}: pip install 'byol-jax\[{name}\]'"):
        make_writers([name], workdir=tmp_path, start_step=0, steps=5)
