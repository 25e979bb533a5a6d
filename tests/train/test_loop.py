"""The loop's law and its exits, on steps small enough to compute by hand."""

from __future__ import annotations

import itertools
import math
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import parallel
from byol_jax.checkpoint import CheckpointError, Checkpoints
from byol_jax.train import Diverged, Evaluation, Hook, Judge, Stopped, fit

MESH = parallel.data_mesh(jax.devices()[:2])


def batches(start: int = 0):
    return ({"x": np.full((4,), n, np.float32)} for n in itertools.count(start))


@jax.jit
def step(state, batch):
    """Adds the batch's number; the loss is the state."""
    return {"sum": state["sum"] + batch["x"].mean()}, {"loss": state["sum"], "tau": jnp.float32(0.5)}


def begin(value: float = 0.0):
    return parallel.replicate({"sum": np.float32(value)}, MESH)


class Diary(Hook):
    """Writes down all that happens, in order."""

    def __init__(self, every: int = 2) -> None:
        self.events: list[tuple[str, int]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self._every = every

    def due(self, done: int) -> bool:
        return done % self._every == 0

    def evaluate(self, done: int, state: object) -> dict[str, float]:
        self.events.append(("evaluate", done))
        return {"found": float(state["sum"])}

    def log(self, step: int, metrics) -> None:
        self.logged.append((step, dict(metrics)))

    def tick(self, done: int) -> None:
        self.events.append(("tick", done))

    def close(self) -> None:
        self.events.append(("close", -1))


def run(state, *, steps, start=0, step=step, hooks=(), checkpoints=None, log_every=1, source=None):
    settings = {"start_step": start, "steps": steps, "mesh": MESH, "batch_size": 4, "log_every": log_every}
    return fit(state, step, source or batches(start), hooks=hooks, checkpoints=checkpoints, **settings)


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path, every_steps=3, keep=10)


def test_order_evaluate_save_batch_step_log(checkpoints):
    diary = Diary()
    order = diary.events
    save, checkpoints.save = checkpoints.save, lambda at, *a, **k: order.append(("save", at)) or save(at, *a, **k)

    def source():
        for n, batch in enumerate(batches()):
            order.append(("batch", n))
            yield batch

    fitted = run(begin(), steps=4, hooks=[diary], checkpoints=checkpoints, source=source())
    # The start is not saved: the seed makes it again. The metrics of step n - 1 (tick n) are read after step n was dispatched,
    # hence after batch n; or where the state is needed.
    assert order == [
        *(("evaluate", 0), ("batch", 0), ("batch", 1), ("tick", 1), ("tick", 2)),
        *(("evaluate", 2), ("save", 2), ("batch", 2), ("tick", 3), ("save", 3), ("batch", 3), ("tick", 4)),
        *(("evaluate", 4), ("save", 4), ("close", -1)),
    ]
    assert float(fitted.state["sum"]) == 0 + 1 + 2 + 3
    assert (fitted.done, fitted.interrupted) == (4, False)


def test_what_is_logged():
    diary = Diary(every=100)
    fitted = run(begin(), steps=6, hooks=[diary], log_every=2)
    losses = {n: numbers["loss"] for n, numbers in diary.logged if "loss" in numbers}
    assert losses == {0: 0.0, 2: 1.0, 4: 6.0, 5: 10.0}  # every second step and the last; the sum before the update
    assert diary.logged[0] == (0, {"found": 0.0})
    assert fitted.metrics["loss"] == 10.0
    assert fitted.metrics["tau"] == 0.5
    timed = [numbers for _, numbers in diary.logged if "examples_per_second" in numbers]
    assert len(timed) == 3  # not the first: it compiles
    assert all(numbers["examples_per_second"] > 0 and 0 <= numbers["data_wait"] <= 1 for numbers in timed)


def test_waiting_for_data_is_measured():
    import time

    def slow():
        for batch in batches():
            time.sleep(0.03)
            yield batch

    diary = Diary(every=100)
    run(begin(), steps=6, hooks=[diary], log_every=5, source=slow())
    assert diary.logged[-1][1]["data_wait"] > 0.5


def test_going_on_from_the_middle_gives_the_same_end(checkpoints, tmp_path):
    whole = run(begin(), steps=7)
    run(begin(), steps=5, checkpoints=checkpoints)
    again = Checkpoints(tmp_path, every_steps=3)
    state = again.restore(begin())
    rest = run(state, start=5, steps=7, checkpoints=again)
    assert float(rest.state["sum"]) == float(whole.state["sum"]) == 21.0


def test_a_finished_run_makes_no_step():
    diary = Diary()
    fitted = run(begin(9.0), start=4, steps=4, hooks=[diary], source=iter(()))
    assert (float(fitted.state["sum"]), fitted.done) == (9.0, 4)
    assert diary.events == [("evaluate", 4), ("close", -1)]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_stops_the_run(checkpoints, tmp_path, bad):
    def source():
        for n, batch in enumerate(batches()):
            yield {"x": batch["x"] * np.float32(bad)} if n == 4 else batch

    diary = Diary(every=100)
    with pytest.raises(Diverged, match=rf"step 5: the loss is {bad}; the checkpoint at step 3 is kept\. Lower the learning rate"):
        run(begin(), steps=20, hooks=[diary], checkpoints=checkpoints, source=source())
    assert diary.events[-1] == ("close", -1)
    after = Checkpoints(tmp_path, read_only=True)
    assert after.steps() == [3]
    assert float(after.restore(begin())["sum"]) == 3.0
    after.close()


def test_so_does_the_loss_of_one_probe_of_several():
    def of_two(state, batch):
        state, metrics = step(state, batch)
        return state, {**metrics, "probe_loss_birds": jnp.float32(1), "probe_loss_cars": metrics["tau"] / (2 - state["sum"] / 3)}

    with pytest.raises(Diverged, match="step 3: the probe loss cars is inf"):
        run(begin(), steps=9, step=of_two)


def test_a_bad_state_is_not_saved_even_while_its_loss_is_finite(checkpoints, tmp_path):
    def source():
        for n, batch in enumerate(batches()):
            yield {"x": np.full((4,), np.nan, np.float32)} if n == 5 else batch

    with pytest.raises(Diverged, match=r"step 5: the update made a weight NaN or infinite; the checkpoint at step 3 is kept"):
        run(begin(), steps=20, checkpoints=checkpoints, source=source())
    after = Checkpoints(tmp_path, read_only=True)
    assert after.steps() == [3]
    after.close()


def test_without_checkpoints_a_bad_loss_says_so():
    with pytest.raises(Diverged, match="step 0: the loss is nan; no checkpoint was written yet"):
        run(begin(math.nan), steps=3)


class Send(Hook):
    """Sends this process a signal after some steps."""

    def __init__(self, number: int, *, at: int) -> None:
        self._number, self._at = number, at

    def tick(self, done: int) -> None:
        if done == self._at:
            os.kill(os.getpid(), self._number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves(checkpoints, tmp_path, number):
    before = signal.getsignal(number)
    fitted = run(begin(), steps=1000, hooks=[Send(number, at=4)], checkpoints=checkpoints)
    assert fitted.interrupted
    assert fitted.done == 5  # step 4 had been dispatched when the metrics of step 3 were read
    after = Checkpoints(tmp_path, read_only=True)
    assert after.latest_step() == 5
    assert float(after.restore(begin())["sum"]) == 10.0
    after.close()
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_does_not_wait(checkpoints):
    class Twice(Hook):
        def tick(self, done: int) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(begin(), steps=1000, hooks=[Twice()], checkpoints=checkpoints)


def test_without_checkpoints_ctrl_c_is_the_users():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what it runs in the background without one
    try:
        with pytest.raises(KeyboardInterrupt):
            run(begin(), steps=1000, hooks=[Send(signal.SIGINT, at=2)])
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_failed_save_ends_the_run(checkpoints, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(
        CheckpointError, match=r"step 3: cannot be written .* the disk is full .*; free some space; there is no earlier one"
    ):
        run(begin(), steps=10, checkpoints=checkpoints)


def test_data_that_ends_early_is_an_error():
    with pytest.raises(ValueError, match="the data ended after 2 batches of 5"):
        run(begin(), steps=5, source=itertools.islice(batches(), 2))


def test_evaluation_runs_at_both_ends_and_in_between():
    seen = []
    hook = Evaluation(lambda state: seen.append(float(state["sum"])) or {}, every_steps=2, steps=5)
    run(begin(), steps=5, hooks=[hook])
    assert seen == [0.0, 1.0, 6.0, 10.0]
    with pytest.raises(ValueError, match="every_steps = 0"):
        Evaluation(lambda state: {}, every_steps=0, steps=5)


def test_a_judge_ends_the_run_and_the_last_checkpoint_stands(checkpoints, tmp_path):
    diary, asked = Diary(), []
    judge = Judge("found", lambda done, value: asked.append((done, value)) or done == 4)
    with pytest.raises(Stopped) as stopped:
        run(begin(), steps=9, hooks=[diary, judge], checkpoints=checkpoints)
    assert stopped.value.done == 4
    assert asked == [(0, 0.0), (2, 1.0), (4, 6.0)]  # sums of 0, 1, 2, 3
    assert diary.logged[-1] == (4, {"found": 6.0})  # the writers before it have the number
    assert diary.events[-1] == ("close", -1)
    assert Checkpoints(tmp_path, read_only=True).latest_step() == 3
