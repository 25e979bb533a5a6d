"""The loop. Its law, after n updates: evaluate, save, next batch, step, log. Whoever changes the order breaks resuming.

The device never waits for the host: the metrics of step n - 1 are read after step n has been dispatched.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from byol_jax.checkpoint import Checkpoints
from byol_jax.parallel import to_global
from byol_jax.train.hooks import Hook
from byol_jax.train.signals import StopWish

_LOG = logging.getLogger("byol_jax.train")
Step = Callable[[Any, Any], tuple[Any, dict[str, Any]]]


class Diverged(ValueError):
    """The loss, or a weight, is no longer a finite number."""

    exit_code = 1  # of the command line: not a mistake in the command


@dataclass(frozen=True)
class Fitted:
    """What ``fit`` leaves: the state after ``done`` updates; ``interrupted`` if a signal came before the last; the last numbers."""

    state: Any
    done: int
    interrupted: bool
    metrics: dict[str, float]


def fit(
    state: Any,
    step: Step,
    batches: Iterator[Any],
    *,
    start_step: int,
    steps: int,
    mesh: Mesh,
    batch_size: int,
    hooks: Sequence[Hook] = (),
    checkpoints: Checkpoints | None = None,
    log_every: int = 50,
) -> Fitted:
    """Makes updates ``start_step`` to ``steps - 1``.

    Args:
      state: after ``start_step`` updates, on the mesh.
      step: jitted ``(state, batch) -> (state, metrics)``; ``metrics["loss"]`` is watched. It may donate the state.
      batches: from batch ``start_step`` on; dicts of this process's rows.
      hooks: closed at the end, whatever happens.
      checkpoints: None: nothing is saved, and signals are not caught. Otherwise they are closed at the end.

    Raises:
      Diverged: the loss of a step is NaN or infinite; the last good checkpoint stands, the bad state is not saved.
      CheckpointError: a save failed; the ones before it are intact.
    """
    log = _Log(hooks, steps=steps, every=log_every, batch_size=batch_size, checkpoints=checkpoints)
    done, last = start_step, start_step >= steps
    try:
        with StopWish(enabled=checkpoints is not None) as stop:
            while True:
                interrupted = not last and stop.granted(done)
                found = {} if interrupted else _evaluate(done, state, hooks, log)
                _save(done, state, found, checkpoints, log, force=bool(last or interrupted or (found and done)))
                if last or interrupted:
                    break
                with log.waiting():
                    batch = to_global(_next(batches, done - start_step, steps - start_step), mesh)
                state, metrics = step(state, batch)
                log.dispatched(done, metrics)
                done, last = done + 1, done + 1 >= steps
            log.flush()
            if checkpoints is not None:
                checkpoints.wait()
        return Fitted(state, done, interrupted, log.latest)
    finally:
        for hook in hooks:
            hook.close()
        if checkpoints is not None:
            checkpoints.close()


def _next(batches: Iterator[Any], seen: int, wanted: int) -> Any:
    try:
        return next(batches)
    except StopIteration:
        raise ValueError(f"the data ended after {seen} batches of {wanted}; training batches must go on without end") from None


def _evaluate(done: int, state: Any, hooks: Sequence[Hook], log: _Log) -> dict[str, float]:
    due = [hook for hook in hooks if hook.due(done)]
    if not due:
        return {}
    log.flush()
    with log.paused():
        found = {name: float(value) for hook in due for name, value in hook.evaluate(done, state).items()}
    log.write(done, found)
    return found


def _save(done: int, state: Any, found: dict[str, float], checkpoints: Checkpoints | None, log: _Log, force: bool) -> None:
    """A state is only saved when the loss that led to it and all its numbers are finite."""
    if checkpoints is None or not (force or checkpoints.due(done)):
        return
    log.flush()
    with log.paused():
        if not bool(_all_finite(state)):
            raise Diverged(f"step {done - 1}: the update made a weight NaN or infinite; {log.advice()}")
        checkpoints.save(done, state, found, force=force)


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in floats])) if floats else jnp.bool_(True)


class _Log:
    """Holds the metrics of the step last dispatched, checks its loss, and measures the time between two logged steps."""

    def __init__(self, hooks: Sequence[Hook], *, steps: int, every: int, batch_size: int, checkpoints: Checkpoints | None) -> None:
        self._hooks, self._steps, self._every, self._batch_size, self._checkpoints = hooks, steps, max(every, 1), batch_size, checkpoints
        self._pending: tuple[int, dict[str, Any]] | None = None
        self._since: float | None = None  # None until the first step, which compiles, is through
        self._count, self._waited, self._idle = 0, 0.0, 0.0
        self.latest: dict[str, float] = {}

    def dispatched(self, step: int, metrics: dict[str, Any]) -> None:
        self.flush()
        self._pending = (step, metrics)

    def flush(self) -> None:
        """Reads the pending metrics, which waits for the device."""
        if self._pending is None:
            return
        step, metrics = self._pending
        self._pending = None
        for name in ("loss", *(key for key in metrics if key.startswith("probe_loss"))):
            if name in metrics and not math.isfinite(value := float(metrics[name])):
                raise Diverged(f"step {step}: the {name.replace('_', ' ')} is {value}; {self.advice()}")
        self._count += 1
        for hook in self._hooks:
            hook.tick(step + 1)
        if step % self._every == 0 or step == self._steps - 1:
            self.write(step, {**{name: float(value) for name, value in jax.device_get(metrics).items()}, **self._speed()})
        elif self._since is None:
            self._speed()

    def write(self, step: int, numbers: dict[str, float]) -> None:
        self.latest = {**self.latest, **numbers}
        for hook in self._hooks:
            hook.log(step, numbers)

    def waiting(self) -> _Stopwatch:
        return _Stopwatch(self, "_waited")

    def paused(self) -> _Stopwatch:
        return _Stopwatch(self, "_idle")

    def advice(self) -> str:
        kept = self._checkpoints.latest_step() if self._checkpoints is not None else None
        where = "no checkpoint was written yet" if kept is None else f"the checkpoint at step {kept} is kept"
        return f"{where}. Lower the learning rate, lengthen the warm-up, or compute in float32, and run again"

    def _speed(self) -> dict[str, float]:
        """Images a second and the share of time spent waiting for data, since the last call."""
        now = time.perf_counter()
        since, count, waited, idle = self._since, self._count, self._waited, self._idle
        self._since, self._count, self._waited, self._idle = now, 0, 0.0, 0.0
        if since is None or count == 0:
            return {}
        spent = max(now - since - idle, 1e-9)
        return {"examples_per_second": count * self._batch_size / spent, "data_wait": min(waited / spent, 1.0)}


class _Stopwatch:
    """Adds the time inside a ``with`` to one of the log's sums."""

    def __init__(self, log: _Log, name: str) -> None:
        self._log, self._name = log, name

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        setattr(self._log, self._name, getattr(self._log, self._name) + time.perf_counter() - self._start)
