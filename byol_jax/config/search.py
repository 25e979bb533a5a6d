"""A search: one configuration, the keys that Optuna may choose, and what for: accuracy on training images that are held out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from byol_jax.config.check import ConfigError, leaves, nearest, nearest_key
from byol_jax.config.mix import parts
from byol_jax.config.spec import DataSpec, Form, Spec
from byol_jax.config.sweep import METRICS, Changes, changed
from byol_jax.config.tree import measured

FIXED = ("data.", "evaluation.", "seed")  # what is measured, or luck: never chosen by what was measured


@dataclass(frozen=True)
class Float:
    """A number from ``low`` to ``high``, both included; ``log``: its logarithm is drawn evenly."""

    low: float
    high: float
    log: bool = False

    def ends(self) -> tuple[Any, ...]:
        """The values that must be valid for the key."""
        return float(self.low), float(self.high)

    def error(self) -> str | None:
        """What is wrong with the bounds."""
        if not (_number(self.low) and _number(self.high) and self.low < self.high):
            return "low and high must be numbers, low below high"
        return "log needs low above 0" if self.log and self.low <= 0 else None

    def holds(self, value: Any) -> bool:
        """Whether the space has this value."""
        return _number(value) and self.low <= value <= self.high


@dataclass(frozen=True)
class Int:
    """A whole number from ``low`` to ``high``, both included, every ``step``-th; or ``log``, as with ``Float``."""

    low: int
    high: int
    step: int = 1
    log: bool = False

    def ends(self) -> tuple[Any, ...]:
        """The values that must be valid for the key."""
        return self.low, self.high

    def error(self) -> str | None:
        """What is wrong with the bounds."""
        if not (all(map(_whole, (self.low, self.high, self.step))) and self.low < self.high and self.step >= 1):
            return "low, high and step must be whole numbers, low below high, step 1 or more"
        if self.log and (self.low <= 0 or self.step != 1):
            return "log needs low above 0 and step = 1"
        return f"high must be low and a multiple of step = {self.step}" if (self.high - self.low) % self.step else None

    def holds(self, value: Any) -> bool:
        """Whether the space has this value."""
        return _whole(value) and self.low <= value <= self.high and (value - self.low) % self.step == 0


@dataclass(frozen=True, init=False)
class Choice:
    """One of the values given, of any kind and in no order: ``Choice(0.9, 0.99)``, ``Choice((1, 1), (2, 2))``."""

    options: tuple[Any, ...]

    def __init__(self, *options: Any) -> None:
        object.__setattr__(self, "options", options)

    def ends(self) -> tuple[Any, ...]:
        """The values that must be valid for the key."""
        return self.options

    @staticmethod
    def text(value: Any) -> str:
        """As JSON, which tells 1 from True, and in which a tuple is a list."""
        return json.dumps(value)

    def texts(self) -> list[str]:
        """Every option's."""
        return [self.text(option) for option in self.options]

    def error(self) -> str | None:
        """What is wrong with the options."""
        return None if len(set(self.texts())) == len(self.options) > 1 else "give two values or more, each once"

    def holds(self, value: Any) -> bool:
        """Whether it is one of the options."""
        return self.text(value) in self.texts()


Range = Float | Int | Choice


@dataclass(frozen=True)
class Search:
    """A study of ``trials`` runs, each with values that Optuna chooses after those of the runs before it.

    Attributes:
      config: a config file, with :variant; changes: keys changed in it for every trial. They must set the images to judge by:
        ``{"data.split": "train[:80%]", "data.test_split": "train[80%:]"}``.
      space: dotted key -> Float, Int or Choice.
      metric: what is maximised at the end of a run, one of METRICS; runs are stopped early by their k-NN accuracy whatever it is.
      startup: so many trials are drawn at random, and so many are completed before any is stopped early.
      warmup: a run is not stopped before this evaluation, counted from 0, that of the untrained network. From then on it is stopped if
        its best k-NN accuracy so far lies below the median of the completed trials at the same evaluation.
      seed: of the choice of values; the runs have that of the configuration.
      held_out: says that the configuration's test images are kept for choosing, where that cannot be told from their name.
    """

    title: str
    config: str
    space: Mapping[str, Range]
    changes: Changes = field(default_factory=dict)
    trials: int = 20
    metric: str = "knn"
    startup: int = 5
    warmup: int = 2
    seed: int = 0
    held_out: bool = False

    def spec(self, values: Changes) -> Spec:
        """The whole configuration with these values of the space. Raises ConfigError."""
        return changed(self.config, {**self.changes, **values})

    def measured(self) -> dict[str, Any]:
        """What all trials have in common that decides their results, for their rows. Raises ConfigError."""
        return {key: value for key, value in measured(self.spec({})).items() if key not in self.space}


def check(search: Search) -> None:
    """Raises ConfigError with everything that is wrong: keys, bounds, numbers, and images that are not held out."""
    lowest = {"trials": 1, "startup": 0, "warmup": 0, "seed": 0}
    errors = [f"{name} = {value!r}: must be a whole number, {low} or more" for name, low in lowest.items()
              if not _whole(value := getattr(search, name)) or value < low]  # fmt: skip
    if search.metric not in METRICS:
        errors.append(f"metric = {search.metric!r}: must be one of {', '.join(METRICS)}{nearest(search.metric, METRICS)}")
    if not search.space:
        errors.append("space = {}: name at least one key to choose, such as 'optimizer.learning_rate': Float(1e-3, 1e-1, log=True)")
    try:
        base = search.spec({})
    except ConfigError as error:
        raise ConfigError([*errors, *error.errors]) from error
    errors += [line for key, space in search.space.items() for line in _space_errors(search, key, space)]
    if not base.evaluation.every_epochs and base.evaluation.every_epochs is not None:
        errors.append("evaluation.every_epochs = 0: a search needs the k-NN accuracy during a run; None measures it ten times")
    errors += [] if search.held_out else not_held_out(base.data)
    if errors:
        raise ConfigError(errors)


def _space_errors(search: Search, key: str, space: Any) -> list[str]:
    where = f"space[{key!r}]"
    if key not in dict(leaves(Form)):
        return [f"{where}: there is no such key{nearest_key(key, Form)}"]
    if key.startswith(FIXED):
        return [f"{where}: is not for a search to choose ({', '.join(FIXED)}): it decides what is measured; set it in changes"]
    if key in search.changes:
        return [f"{where}: stands in changes too; keep one of the two"]
    if not isinstance(space, Float | Int | Choice):
        return [f"{where} = {space!r}: must be Float(low, high), Int(low, high) or Choice(value, value, ...)"]
    if (wrong := space.error()) is not None:
        return [f"{where} = {space}: {wrong}"]
    found = []
    for value in space.ends():
        try:
            search.spec({key: value})
        except ConfigError as error:
            found += [f"{where} = {space}: {line}" for line in error.errors]
    return found


def not_held_out(data: DataSpec) -> list[str]:
    """Why the images that a run is judged by are not surely training images kept apart from those it learns from; nothing if they are."""
    from byol_jax.data.slices import apart, parse

    key, train = "data.test_split" if data.test_path is None else "data.test_path", "labelled_split" if data.labelled_split else "split"
    told = f"{key} = {(data.test_path or data.test_split)!r}"
    name = getattr(data, train).partition("[")[0]
    wanted = f'{{"data.{train}": "{name}[:80%]", "data.test_split": "{name}[80%:]"}}'
    advice = f"a search chooses by these images, so they must be training images, held out: changes={wanted}"
    unsure = f"{told}: {advice}; if they are that already, say held_out=True"
    if data.test_path is not None or data.test_split is None:
        return [unsure]
    try:
        held, learnt = parse(data.test_split), {part: parse(part) for part in _learnt(data)}
    except ValueError:  # a sum of splits, as TFDS has them
        return [unsure]
    if str(held) == held.name or held.name not in [part.name for part in learnt.values()]:
        return [unsure]
    one_folder = data.source == "folder"  # whose splits are all the same images
    shared = [text for text, part in learnt.items() if not apart(held, dataclasses.replace(part, name=held.name) if one_folder else part)]
    return [f"{told} may share images with {text!r}: {advice}" for text in shared]


def _learnt(data: DataSpec) -> list[str]:
    """The splits that a run, or what judges it, learns from."""
    return [*(one.split for _, one in parts(data)), *(part for part in (data.split, data.labelled_split) if part)]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
