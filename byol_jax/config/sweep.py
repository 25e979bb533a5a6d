"""A sweep: one configuration, many points that change a few of its keys, at the scale of the paper or at one that fits a desk."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from byol_jax.config.check import ConfigError, nearest
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
        changes = {**chosen.changes, **point.changes, **(point.at.get(scale) or {}), "seed": seed}
        try:
            return load(chosen.config, [(key, value if isinstance(value, str) else repr(value)) for key, value in changes.items()])
        except ConfigError as error:
            raise ConfigError([f"point {point.name!r} at scale {scale}: {line}" for line in error.errors]) from error


def load_sweep(name: str) -> tuple[Sweep, str, Path]:
    """The sweep in ``path/to/sweep.py[:scale]``, which defines SWEEP; its scale (the first one by default); and its folder.

    Raises ConfigError for a missing file, an unknown scale, two points of one name, or a point whose configuration is wrong: all at once.
    """
    path, _, wanted = name.partition(":") if not Path(name).is_file() else (name, "", "")
    if not Path(path).is_file():
        there = sorted(str(file) for file in Path(path).parent.parent.glob("*/sweep.py"))
        raise ConfigError([f"{name}: there is no file {path}{nearest(path, there)}"])
    sweep = _defined(path)
    if not isinstance(sweep, Sweep):
        raise ConfigError([f"{path}: defines no SWEEP = Sweep(...)"])
    scale = wanted or next(iter(sweep.scales))
    if scale not in sweep.scales:
        raise ConfigError([f"{name}: scale {scale!r} must be one of {', '.join(sweep.scales)}{nearest(scale, list(sweep.scales))}"])
    _check(sweep)
    return sweep, scale, Path(path).parent


def _defined(path: str) -> Any:
    """What the file calls SWEEP. It is the user's program: whatever it raises is an error in it."""
    if (here := str(Path.cwd())) not in sys.path and "" not in sys.path:
        sys.path.append(here)  # it may import what stands beside the configs
    try:
        return runpy.run_path(path).get("SWEEP")
    except Exception as error:
        raise ConfigError([f"{path}: {type(error).__name__}: {error}"]) from error


def _check(sweep: Sweep) -> None:
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
