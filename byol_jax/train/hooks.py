"""What may look on while a run trains: evaluations, monitors and (writers.py) writers. None of them can change the run, only end it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

_LOG = logging.getLogger("byol_jax.train")
Metrics = Mapping[str, float]


class Hook:
    """Does nothing; override what you need. ``done`` counts the updates made so far, ``step`` is the update a number belongs to.

    Every process of a run calls it, so that an evaluation may gather from all; what writes does so where ``jax.process_index()`` is 0.
    """

    def due(self, done: int) -> bool:
        """Whether ``evaluate`` wants this state. All processes must say the same."""
        return False

    def evaluate(self, done: int, state: Any) -> dict[str, float]:
        """Numbers about the state after ``done`` updates; they are logged, and saved with its checkpoint."""
        return {}

    def log(self, step: int, metrics: Metrics) -> None:
        """Gets what is logged: the training metrics of every N-th step, and what evaluations found."""

    def tick(self, done: int) -> None:
        """Called after every step, cheaply."""

    def close(self) -> None:
        """Called once at the end, also after an error."""


class Evaluation(Hook):
    """Runs ``fn(state) -> {name: number}`` every so many updates, at the start and at the end."""

    def __init__(self, fn: Callable[[Any], dict[str, float]], *, every_steps: int, steps: int) -> None:
        if every_steps < 1:
            raise ValueError(f"every_steps = {every_steps}: must be 1 or more")
        self._fn, self._every_steps, self._steps = fn, every_steps, steps

    def due(self, done: int) -> bool:
        return done % self._every_steps == 0 or done == self._steps

    def evaluate(self, done: int, state: Any) -> dict[str, float]:
        return self._fn(state)


class Stopped(Exception):
    """A hook ends the run after ``done`` updates. It is not saved again: the last checkpoint stands."""

    def __init__(self, done: int) -> None:
        super().__init__(f"stopped after {done} updates")
        self.done = done


class Judge(Hook):
    """Ends the run, by ``Stopped``, as soon as ``stops(done, value)`` says so of a number that was logged under ``metric``."""

    def __init__(self, metric: str, stops: Callable[[int, float], bool]) -> None:
        self._metric, self._stops = metric, stops

    def log(self, step: int, metrics: Metrics) -> None:
        if self._metric in metrics and self._stops(step, metrics[self._metric]):
            raise Stopped(step)


class CollapseMonitor(Hook):
    """Warns once when the embeddings of different examples become the same.

    ``embedding_std`` is 1 for spread embeddings and 0 for equal ones; a small untrained ResNet was seen at 0.07, so the limit lies
    well below. ``rankme`` counts the directions that the embeddings of the monitor set use.
    """

    def __init__(self, *, std_below: float = 0.02, rankme_below: float = 2.0, patience: int = 3) -> None:
        self._limits = {"embedding_std": std_below, "rankme": rankme_below}
        self._low = dict.fromkeys(self._limits, 0)
        self._patience, self._warned = patience, False

    def log(self, step: int, metrics: Metrics) -> None:
        for name, limit in self._limits.items():
            if name not in metrics:
                continue
            self._low[name] = self._low[name] + 1 if metrics[name] < limit else 0
            if self._low[name] >= self._patience and not self._warned:
                self._warned = True
                _LOG.warning(
                    "step %d: the embeddings are collapsing: %s = %.3g, below %g, %d times running. Every example is getting the "
                    "same embedding. Usual causes: a learning rate too high or a warm-up too short, tau too low (below 0.9), a predictor "
                    "without batch norm or with weights that do not train, weight decay too high. Lower the learning rate first",
                    *(step, name, metrics[name], limit, self._patience),
                )
