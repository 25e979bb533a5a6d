"""Optuna's part of a search: what the next trial takes, and whether it is worth going on with.

Optuna keeps nothing between two trials. Its study is made anew of the trials measured before, and its random numbers come from (seed,
number of the trial), so that a search that was stopped goes on to the very trials it would have made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from byol_jax.config import ConfigError
from byol_jax.config.search import Choice, Float, Range, Search

Row = Mapping[str, Any]  # a line of results.jsonl
STATES = {"complete": "COMPLETE", "pruned": "PRUNED", "diverged": "PRUNED", "failed": "FAIL"}  # ours -> Optuna's


class Suggestion:
    """A trial as Optuna sees it: ``values``, dotted key -> value."""

    def __init__(self, trial: Any, values: dict[str, Any]) -> None:
        self._trial, self.values = trial, values
        self._reported: set[int] = set()

    def stops(self, evaluation: int, accuracy: float) -> bool:
        """Whether a trial of this k-NN accuracy at this evaluation (0: of the untrained network) ends there, by the median rule."""
        if evaluation not in self._reported:  # a run that goes on evaluates once more where it stopped
            self._reported.add(evaluation)
            self._trial.report(accuracy, evaluation)
        return bool(self._trial.should_prune())


def suggest(study: Search, rows: Sequence[Row], number: int) -> Suggestion:
    """Trial ``number``, after those in ``rows``: the same rows give the same values.

    Raises:
      ConfigError: Optuna is not installed.
    """
    optuna = optuna_or_error()
    seed = int(np.random.SeedSequence([study.seed, number]).generate_state(1)[0])
    made = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(n_startup_trials=study.startup, seed=seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=study.startup, n_warmup_steps=study.warmup),
    )
    ranges = {key: _distribution(optuna, space) for key, space in study.space.items()}
    made.add_trials([_past(optuna, study, row, ranges) for row in rows])
    trial = made.ask(ranges)
    return Suggestion(trial, {key: _value(space, trial.params[key]) for key, space in study.space.items()})


def optuna_or_error() -> Any:
    """The package, quiet. Raises ConfigError where it is missing."""
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(["SEARCH: a search needs optuna, which is not installed: pip install 'byol-jax[search]'"]) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(optuna: Any, space: Range) -> Any:
    if isinstance(space, Choice):
        return optuna.distributions.CategoricalDistribution(space.texts())
    if isinstance(space, Float):
        return optuna.distributions.FloatDistribution(space.low, space.high, log=space.log)
    return optuna.distributions.IntDistribution(space.low, space.high, log=space.log, step=space.step)


def _value(space: Range, param: Any) -> Any:
    return space.options[space.texts().index(param)] if isinstance(space, Choice) else param


def _param(space: Range, value: Any) -> Any:
    return space.text(value) if isinstance(space, Choice) else value


def _past(optuna: Any, study: Search, row: Row, ranges: Mapping[str, Any]) -> Any:
    """A diverged trial counts as one that was stopped at once: the worst there is, which Optuna would not learn from a failed one."""
    return optuna.trial.create_trial(
        state=getattr(optuna.trial.TrialState, STATES[row["state"]]),
        value=row["value"] if row["state"] == "complete" else None,
        params={key: _param(space, row["values"][key]) for key, space in study.space.items()},
        distributions=dict(ranges),
        intermediate_values={} if row["state"] == "diverged" else dict(row["knn"]),
    )
