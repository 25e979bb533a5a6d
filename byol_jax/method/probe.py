"""The online linear probe: how many labels a linear layer gets right from the embedding, during training."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from byol_jax.method.placement import mean_over_devices

LabelLoss = Callable[[jax.Array, jax.Array], jax.Array]  # (logits [B, C], labels int[B]) -> [B]


def cross_entropy(smoothing: float = 0.0) -> LabelLoss:
    """The cross-entropy of logits and labels; with label smoothing (arXiv 1512.00567) the label has 1 - ``smoothing`` of the wanted
    probability, and all classes, itself too, share the rest evenly.

    Raises:
      ValueError: ``smoothing`` outside 0..1.
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"label_smoothing = {smoothing}: it must be at least 0 and below 1")
    if not smoothing:
        return optax.softmax_cross_entropy_with_integer_labels

    def smoothed(logits: jax.Array, labels: jax.Array) -> jax.Array:
        one = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return (1 - smoothing) * one - smoothing * jax.nn.log_softmax(logits).mean(-1)

    return smoothed


def in_top_k(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Whether the label is among the k highest logits: [B, C], [B] -> bool[B].

    Ties go to the highest class, as in the official code (``lax.top_k`` gives them to the lowest). NaN is never right.
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    lower_class = jnp.arange(logits.shape[-1], dtype=labels.dtype) < labels[:, None]
    behind = (logits < own) | ((logits == own) & lower_class)
    return behind.sum(axis=-1) >= jnp.where(jnp.isnan(own[:, 0]), logits.shape[-1], logits.shape[-1] - k)


def labelled_share(labels: jax.Array, axis_name: str) -> jax.Array:
    """The share of rows with a label (0 or more) in the global batch; inside ``shard_map``, of this device's int[B]."""
    return mean_over_devices((labels >= 0).mean(dtype=jnp.float32), axis_name)


def probe_metrics(logits: jax.Array, labels: jax.Array, share: jax.Array, loss: LabelLoss = cross_entropy()) -> dict[str, jax.Array]:
    """Loss (``cross_entropy``), top-1 and top-5 of logits [B, C] against labels int[B], where a label below 0 means that there is none.

    ``share`` of the rows of the global batch have one. The mean, over devices and micro-batches, of what is returned is the mean over
    the labelled rows of the global batch; without any, it is 0.
    """
    labelled = labels >= 0
    weight = labelled.astype(logits.dtype) / jnp.where(share > 0, share, 1).astype(logits.dtype)
    safe = jnp.where(labelled, labels, 0)
    return {
        "probe_loss": (weight * loss(logits, safe)).mean(),
        "probe_top1": (weight * in_top_k(logits, safe, 1).astype(logits.dtype)).mean(),
        "probe_top5": (weight * in_top_k(logits, safe, 5).astype(logits.dtype)).mean(),
    }
