"""What a reader of foreign checkpoints returns, whatever the file's format was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from byol_jax import models

NAMED = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet200")
Tree = dict[str, Any]  # nested dicts whose leaves are arrays


class ConvertError(ValueError):
    """A file is not a checkpoint that can be converted; the message says what was found in it."""


@dataclass(frozen=True)
class Training:
    """What training on needs beside the online encoder; every tree bears our names.

    Attributes:
      step: of the schedules, for the next update.
      online, target: {"params", "batch_stats"} of encoder, projector and predictor.
      momentum: of LARS, over {"online": params, "probe": params}.
      probe: {"kernel", "bias"} of the online linear probe.
    """

    step: int
    online: Tree
    target: Tree
    momentum: Tree
    probe: Tree


@dataclass(frozen=True)
class Weights:
    """A checkpoint, read.

    Attributes:
      encoder: the ``encoder`` section of a configuration, as far as it rebuilds the module.
      variables: {"params", "batch_stats"} of the encoder.
      classifier: {"kernel" [D, classes], "bias" [classes]}, if one came with it.
      preprocess: the ``views`` section: size, eval_crop, mean, std.
      origin: where it came from, as JSON: "format", "kind", "step" and what else the reader found. A list "assumed" holds sentences
        about what the file does not say.
      state: None for an encoder alone.
      recipe: further sections of the configuration it was trained with.
    """

    encoder: dict[str, Any]
    variables: Tree
    classifier: Tree | None
    preprocess: dict[str, Any]
    origin: dict[str, Any]
    state: Training | None = None
    recipe: dict[str, Any] = field(default_factory=dict)


def encoder_fields(stages: Sequence[int], channels: Sequence[int], *, block: str, width: int, stem_channels: int) -> dict[str, Any]:
    """The ``encoder`` section for a ResNet of this build: by name where the paper has one, else by its parts.

    Args:
      channels, stem_channels: before ``width``.
    """
    for name in NAMED:
        known = getattr(models, name)()
        if (known.stage_sizes, known.channels, known.block, known.stem_channels) == (tuple(stages), tuple(channels), block, stem_channels):
            return {"name": name, "width": width, "stem": "imagenet"}
    parts = {"block": block, "stages": tuple(stages), "channels": tuple(channels), "stem_channels": stem_channels}
    return {"name": "resnet", "width": width, "stem": "imagenet", **parts}
