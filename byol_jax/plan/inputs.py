"""What a step is fed, and how long the run is: from the configuration, and from the data only where that does not say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from byol_jax import data
from byol_jax.augment import kind_of
from byol_jax.build import objects
from byol_jax.config import ConfigError, Spec
from byol_jax.data import parse_split
from byol_jax.data.prepared import prepared_length
from byol_jax.train import resident


@dataclass(frozen=True)
class Inputs:
    """What is fed.

    Attributes:
      examples: of an epoch. classes: of the online probe; 0: there is none.
      batch: name -> (shape of one row, dtype), as the host sends it.
      held: how many images lie on the devices, and the shape of one; None: the host sends them.
    """

    examples: int
    classes: objects.Classes
    batch: dict[str, tuple[tuple[int, ...], Any]]
    held: tuple[int, tuple[int, ...]] | None = None


def look(spec: Spec, examples: int | None = None, classes: int | None = None) -> Inputs:
    """What the plan must know. The data is touched only if something is missing, and never downloaded.

    Args:
      examples, classes: as the user says; None: as the data says.

    Raises:
      ConfigError: something is missing, and the data is not here; names the flags that would do instead.
      ValueError: the data cannot lie on the devices, where it should.
    """
    missing = [flag for flag, given in (("--examples N", examples), ("--classes N", _classes_wanted(spec, classes))) if given is None]
    sent = None if spec.data.on_device or objects.crops_on_device(spec) else _sent(spec)
    source: Any = _source(spec, missing, shapes=sent is None) if missing or sent is None else None
    return Inputs(
        examples=len(source) if examples is None else examples,
        classes=objects.num_classes(source) if _classes_wanted(spec, classes) is None else _classes_wanted(spec, classes) or 0,
        batch={"index": ((), np.dtype(np.int32))} if spec.data.on_device else sent or _one_row(spec, source),
        held=_held(spec, source) if spec.data.on_device else None,
    )


def _held(spec: Spec, source: Any) -> tuple[int, tuple[int, ...]]:
    resident.check(source, objects.training_views(spec), spec.data.augment_on)
    images = source.stored.images
    return len(images), images.shape[1:]


def _classes_wanted(spec: Spec, given: int | None) -> int | None:
    return given if spec.method.probe else 0


def _sent(spec: Spec) -> dict[str, tuple[tuple[int, ...], Any]] | None:
    """What tf.data sends; None where only the data, or the user's own function, knows it."""
    if spec.views.function is not None or spec.data.source not in ("tfds", "folder", "text"):
        return None
    recipe = objects.recipe(spec)
    one = kind_of(recipe).sent(recipe)
    view = one.shape[1:], np.dtype(one.dtype)
    return {"view1": view, "view2": view, "label": ((), np.dtype(np.int32))}


def _source(spec: Spec, missing: list[str], shapes: bool) -> Any:
    """The training data, if it is on this machine."""
    instead = "the shape of a batch comes from it: plan where it is" if shapes else f"give {' and '.join(missing)} instead"
    name = str(spec.data.name)
    if spec.data.source == "tfds" and prepared_length(name, parse_split(spec.data.split).name, spec.data.path) is None:
        raise ConfigError([f"data.name = {name!r}: not prepared on this machine; {instead}"])
    try:
        return objects.train_source(spec)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError([f"the data is not here ({error}); {instead}"]) from error


def _one_row(spec: Spec, source: Any) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shapes from the real pipeline's first row."""
    batches = data.train_batches(source, objects.training_views(spec), batch_size=1, seed=spec.seed, augment_on=spec.data.augment_on)
    try:
        return {name: (value.shape[1:], value.dtype) for name, value in next(batches).items()}
    finally:
        batches.close()
