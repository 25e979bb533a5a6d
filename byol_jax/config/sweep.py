"""A sweep: one configuration, many points that change a few of its keys, at the scale of the paper or at one that fits a desk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from byol_jax.config.check import ConfigError
from byol_jax.config.file import load
from byol_jax.config.spec import Spec

Changes = Mapping[str, Any]  # dotted key of the configuration -> value
METRICS = ("knn", "linear", "linear_10", "linear_sgd")


@dataclass(frozen=True)
class Scale:
    """Where a sweep runs: a config file (with :variant), keys changed in it for every point, the seeds, and what the page says of it."""

    config: str
    changes: Changes = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    about: str = ""


@dataclass(frozen=True)
class Point:
    """A row of the table: the number the paper gives, as it prints it, and the keys that make it.

    ``at`` gives further or other changes for one scale; None leaves the point out there.
    """

    name: str
    paper: str = ""
    changes: Changes = field(default_factory=dict)
    at: Mapping[str, Changes | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Sweep:
    """A study. ``metrics`` gives each scale the accuracy that its column shows, one of METRICS; all of them are measured."""

    title: str
    source: str
    points: tuple[Point, ...]
    scales: Mapping[str, Scale]
    metrics: Mapping[str, str]

    def at(self, scale: str) -> tuple[Point, ...]:
        """The points that are run at a scale."""
        return tuple(point for point in self.points if point.at.get(scale, {}) is not None)

    def spec(self, point: Point, scale: str, seed: int) -> Spec:
        """The whole configuration of a point. Raises ConfigError, which names the point."""
        chosen = self.scales[scale]
        try:
            return changed(chosen.config, {**chosen.changes, **point.changes, **(point.at.get(scale) or {}), "seed": seed})
        except ConfigError as error:
            raise ConfigError([f"point {point.name!r} at scale {scale}: {line}" for line in error.errors]) from error


def changed(config: str, changes: Changes) -> Spec:
    """The configuration of a file with some keys changed. Raises ConfigError."""
    return load(config, [(key, value if isinstance(value, str) else repr(value)) for key, value in changes.items()])


def check(sweep: Sweep) -> None:
    """Raises ConfigError for an unknown metric, two points of one name, or a point whose configuration is wrong: all at once."""
    errors = [f"metrics[{scale!r}] = {sweep.metrics.get(scale)!r}: must be one of {', '.join(METRICS)}" for scale in sweep.scales
              if sweep.metrics.get(scale) not in METRICS]  # fmt: skip
    names = [point.name for point in sweep.points]
    errors += [f"point {name!r}: there are {names.count(name)} of this name" for name in sorted(set(names)) if names.count(name) > 1]
    for scale in sweep.scales:
        for point in sweep.at(scale):
            try:
                sweep.spec(point, scale, 0)
            except ConfigError as error:
                errors += error.errors
    if errors:
        raise ConfigError(errors)
