"""Leaving Python with an iterator at work: no thread of tf.data is inside a source, or calls one, when the interpreter goes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Writes < when an example is asked for, > when it is handed over, | when the interpreter has begun to go.
PROGRAM = """
import os, time
import numpy as np
from byol_jax import data, views

class Source:
    asked = 0
    def __len__(self):
        return 64
    def __getitem__(self, index):
        os.write(1, b"<")
        Source.asked += 1
        time.sleep(0.5)
        os.write(1, b">")
        if Source.asked > {bad}:
            raise ValueError("out of paper")
        return {{"image": np.zeros((16, 16, 3), np.uint8), "label": 0}}

class Last:
    def __del__(self, write=os.write, sleep=time.sleep):
        write(1, b"|")
        sleep(1)

last = Last()
batches = data.train_batches(Source(), views.gray(8), batch_size=8, seed=0, threads=2)
while not Source.asked:
    time.sleep(0.01)
{end}
"""


@pytest.mark.parametrize(
    ("bad", "end", "code"),
    [(64, "", 0), (64, "del batches", 0), (2, "next(batches)", 1)],
    ids=["at work", "dropped", "source failed"],
)
def test_every_example_asked_for_is_handed_over_before_the_interpreter_goes(bad: int, end: str, code: int) -> None:
    command = [sys.executable, "-c", PROGRAM.format(bad=bad, end=end)]
    done = subprocess.run(command, env={**os.environ, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr[-2000:]
    assert ("out of paper" in done.stderr) == (end == "next(batches)")
    before, bar, after = done.stdout.partition("|")
    assert (bar, after) == ("|", "")
    assert before.count("<") == before.count(">") > 0
