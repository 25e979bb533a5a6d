"""Labels beside BYOL: one linear head for each set of labels, and how much of their gradient reaches the encoder.

A label set is a number of classes, or has a name among several: {"name": classes}. A label below 0 means that there is none, so a batch
may hold few labels, and several sets may be labelled on different rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from byol_jax.method.batch import Batch
from byol_jax.method.heads import fan_in_init
from byol_jax.method.probe import LabelLoss, labelled_share, probe_metrics

Classes = int | Mapping[str, int]
Reach = Callable[[jax.Array], jax.Array]


def let_through(weight: float) -> Reach:
    """The identity, whose gradient comes back ``weight`` times: what is before it learns so much of what is after it; 0: nothing.

    Between embedding and head it gives the encoder ``weight`` times the labels' gradient, while the head learns at its full rate.

    Raises:
      ValueError: a negative weight.
    """
    if weight < 0:
        raise ValueError(f"let_through({weight}): a weight is 0 or more")
    if not weight:
        return jax.lax.stop_gradient

    @jax.custom_gradient
    def weighted(x: jax.Array) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
        return x, lambda gradient: weight * gradient

    return weighted


class Heads(nn.Module):
    """A linear layer for each label set: [B, D] -> {name: logits [B, classes]}."""

    classes: Mapping[str, int]

    @nn.compact
    def __call__(self, embedding: jax.Array) -> dict[str, jax.Array]:
        return {name: nn.Dense(count, kernel_init=fan_in_init, name=name)(embedding) for name, count in self.classes.items()}


def check_classes(classes: Classes) -> None:
    """Raises ValueError for a name that cannot be one of a metric, and for a named set without classes."""
    for name, count in () if isinstance(classes, int) else classes.items():
        if not name.isidentifier() or count < 1:
            raise ValueError(f"num_classes[{name!r}] = {count}: a label set has a name of letters, digits and _, and 1 class or more")


def labels_of(batch: Batch, classes: Classes) -> dict[str, jax.Array]:
    """int32[B] by label set ("" for a single one without a name); -1 where there is no label.

    The labels of a named set stand in "label_NAME"; or in "label" with those of the other sets, where a set's classes are counted on from
    the sets before it (as ``byol_jax.data.mixture`` gives them).

    Raises:
      ValueError: the batch has neither.
    """
    own = {"": "label"} if isinstance(classes, int) else {name: f"label_{name}" for name in classes}
    missing = [key for key in own.values() if key not in batch]
    if not missing:
        return {name: batch[key] for name, key in own.items()}
    if isinstance(classes, int) or "label" not in batch or len(missing) < len(own):
        told = " and ".join(f"batch[{key!r}]" for key in missing)
        raise ValueError(f"a probe (num_classes = {classes}) needs {told}, -1 where there is none; the batch has {sorted(batch)}")
    found, start = {}, 0
    for name, count in classes.items():
        inside = (batch["label"] >= start) & (batch["label"] < start + count)
        found[name] = jnp.where(inside, batch["label"] - start, -1)
        start += count
    return found


def labelled_shares(batch: Batch, classes: Classes, axis_name: str) -> dict[str, jax.Array]:
    """The share of the global batch that has a label, by label set; inside ``shard_map``."""
    return {name: labelled_share(labels, axis_name) for name, labels in labels_of(batch, classes).items()}


def head_metrics(logits: Any, answers: tuple[dict[str, jax.Array], dict[str, jax.Array]], loss: LabelLoss) -> dict[str, jax.Array]:
    """From (labels, their shares): ``probe_metrics`` of each label set; those of a named one end in its name, such as probe_loss_NAME."""
    labels, shares = answers
    by_set = logits if isinstance(logits, dict) else {"": logits}
    found = {name: probe_metrics(by_set[name], labels[name], shares[name], loss) for name in labels}
    return {_named(key, name): value for name, metrics in found.items() for key, value in metrics.items()}


def loss_names(classes: Classes) -> list[str]:
    """The metrics that are the heads' losses."""
    return [_named("probe_loss", name) for name in ([""] if isinstance(classes, int) else classes)]


def _named(metric: str, label_set: str) -> str:
    return f"{metric}_{label_set}" if label_set else metric
