"""Accuracy under attack: a linear probe on the frozen encoder, and examples changed within a ball until it errs (arXiv 1706.06083)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from byol_jax.augment import kind_of
from byol_jax.data.order import Shard
from byol_jax.data.pipeline import eval_batches
from byol_jax.data.source import labels_of
from byol_jax.evaluate.encoder import Encoder
from byol_jax.evaluate.features import features, gather_rows
from byol_jax.evaluate.linear import Classifier, linear_classifier
from byol_jax.evaluate.result import Result, percent
from byol_jax.method.attack import Ball, Norm, ascend, usual_step

RADII = (2 / 255, 4 / 255, 8 / 255)


@dataclass(frozen=True)
class RobustResult(Result):
    """``accuracy[radius]``: the share of test examples that are classified right after the attack; at radius 0 they are as they were."""

    accuracy: dict[float, float]
    norm: str
    steps: int
    restarts: int
    train_examples: int
    test_examples: int

    def rows(self) -> tuple[str, Sequence[str], Sequence[Sequence[str]]]:
        tried = f"{self.norm}, PGD of {self.steps} steps" + f", the worst of {self.restarts} starts" * (self.restarts > 1)
        title = f"Linear probe under attack ({tried}), {self.test_examples:,} test examples"
        return title, ("radius", "top-1 %"), [(f"{radius:.4g}", percent(share)) for radius, share in self.accuracy.items()]


def robust(
    encoder: Encoder,
    train: Any,
    test: Any,
    *,
    norm: Norm = "linf",
    radii: Sequence[float] = RADII,
    steps: int = 20,
    restarts: int = 1,
    l2: float = 1.0,
    batch_size: int = 256,
    seed: int = 0,
) -> RobustResult:
    """Top-1 accuracy of a linear probe: on examples as they are, and after projected gradient ascent on its cross-entropy.

    The attack knows everything: gradients go through probe and encoder. It starts anywhere in the ball; an example counts as right if
    it is at the end of every start. The probe is a logistic regression on clean features, standardised (as ``linear``'s).

    Args:
      train, test: labelled sources.
      norm, radii: of the changes; of images in units of a pixel's range, of texts in those of the embeddings of tokens after their norm.
      steps: of the ascent, 2.5 radii / steps long. restarts: how often it starts.
      l2: the penalty of the probe's weights.

    Raises:
      ValueError: fewer than two classes, an unknown norm, a radius below 0, no step.
    """
    wanted = sorted({0.0, *(float(radius) for radius in radii)})
    if steps < 1 or restarts < 1 or wanted[0] < 0:
        raise ValueError(f"robust(steps={steps}, restarts={restarts}, radii={radii}): the first two at least 1, no radius below 0")
    label = labels_of(test)
    if label is None or (label < 0).any():
        without = len(test) if label is None else int((label < 0).sum())
        raise ValueError(f"labels: {without} of {len(test)} test examples have none; evaluation needs a labelled source")
    known = features(encoder, train, batch_size=batch_size)
    _, probe = linear_classifier(known, known, l2=l2)
    attack = _Attack(encoder, probe, norm, steps, seed)
    shard, held = Shard(jax.process_index(), jax.process_count()), []
    for batch in eval_batches(test, encoder.views, batch_size=batch_size * shard.count, shard=shard):
        rows = len(batch["label"])
        batch = {name: np.resize(column, (batch_size, *column.shape[1:])) for name, column in batch.items()}  # one shape to compile
        given = batch[encoder.views.content], batch["label"], batch["index"]
        right = [np.logical_and.reduce([attack(*given, radius, start) for start in range(restarts)]) for radius in wanted]
        held.append(np.stack(right, 1)[:rows])
    (correct,) = gather_rows(np.concatenate(held))
    accuracy = dict(zip(wanted, correct.mean(0).tolist(), strict=True))
    return RobustResult(accuracy, norm, steps, restarts, len(known), len(correct))


class _Attack:
    """Compiled once: changes are sought in a ball of radius 1, and multiplied by the radius."""

    def __init__(self, encoder: Encoder, probe: Classifier, norm: Norm, steps: int, seed: int) -> None:
        self._given, self._steps, self._key = (encoder.variables, probe), steps, jax.random.key(seed)
        kind, views, module, ball = kind_of(encoder.views), encoder.views, encoder.module, Ball(norm, 1.0)
        space, size = kind.space(views, module), usual_step(ball, max(steps, 2))

        def logits(given: Any, seen: jax.Array, change: jax.Array) -> jax.Array:
            variables, probe = given
            out: Any = module.apply(variables, space.add(seen, change), False)
            return getattr(out, "embedding", out).astype(jnp.float32) @ probe.w + probe.b

        def start(examples: jax.Array, keys: jax.Array, radius: jax.Array) -> tuple[jax.Array, jax.Array]:
            seen = kind.preprocess(examples, views)
            return seen, limit(seen, jax.vmap(ball.sample)(keys, space.zeros(seen)), radius)

        def limit(seen: jax.Array, change: jax.Array, radius: jax.Array) -> jax.Array:
            return space.limit(seen, radius * change) / jnp.maximum(radius, 1e-9)

        def climb(given: Any, seen: jax.Array, labels: jax.Array, change: jax.Array, radius: jax.Array) -> jax.Array:
            def loss(change: jax.Array) -> jax.Array:
                return optax.softmax_cross_entropy_with_integer_labels(logits(given, seen, radius * change), labels).sum()

            return ascend(loss, change, ball, steps=1, size=size, lead=1, limit=lambda change: limit(seen, change, radius))

        def right(given: Any, seen: jax.Array, labels: jax.Array, change: jax.Array, radius: jax.Array) -> jax.Array:
            return logits(given, seen, radius * change).argmax(-1) == labels

        self._start, self._climb, self._right = jax.jit(start), jax.jit(climb), jax.jit(right)
        self._keys = jax.jit(jax.vmap(lambda key, index: jax.random.fold_in(key, index), in_axes=(None, 0)))

    def __call__(self, examples: np.ndarray, labels: np.ndarray, index: np.ndarray, radius: float, start: int) -> np.ndarray:
        """bool[B]: who is right at the end."""
        keys = self._keys(jax.random.fold_in(self._key, start), jnp.asarray(index, jnp.uint32))
        rest = jnp.asarray(labels, jnp.int32), jnp.float32(radius)
        seen, change = self._start(jnp.asarray(examples), keys, rest[1])
        for _ in range(self._steps if radius else 0):
            change = self._climb(self._given, seen, rest[0], change, rest[1])
        return np.asarray(self._right(self._given, seen, rest[0], change, rest[1]))
