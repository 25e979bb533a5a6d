"""The paper's linear evaluation by SGD (section 4.1, Appendix C.1): a linear layer on a frozen encoder.

Nesterov momentum 0.9, 80 epochs, batches of 1024, no weight decay, a rate of base * batch / 256 that falls to 0 along a cosine; the base
is chosen among {0.4, 0.3, 0.2, 0.1, 0.05} on a held-out part of the training set. All rates are tried in one pass: the layers are
stacked, so the features, by far the dearer part, are computed once. The layer is then fitted again on the whole training set.

The variant of Table 7 bounds the logits, adds a penalty on them (``REGULARISED``), and trains on the augmentations of pretraining.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from byol_jax.augment import Recipe, kind_of
from byol_jax.data.order import Shard, batches
from byol_jax.data.pipeline import train_batches
from byol_jax.data.source import labels_of, subset
from byol_jax.evaluate.encoder import Encoder
from byol_jax.evaluate.features import Features, features, gather_rows
from byol_jax.evaluate.linear import Classifier, LinearResult, hold_out, judge, score, several_classes
from byol_jax.evaluate.progress import tracked
from byol_jax.method.schedules import cosine

RATES = (0.4, 0.3, 0.2, 0.1, 0.05)
MOMENTUM = optax.trace(decay=0.9, nesterov=True)


@dataclass(frozen=True)
class LogitLoss:
    """Cross-entropy of logits, which may be bounded and penalised first (paper, Table 7).

    Attributes:
      clip: alpha of ``alpha * tanh(logit / alpha)``; None leaves the logits as they are.
      penalty: beta, the weight of the mean squared (bounded) logit.
    """

    clip: float | None = None
    penalty: float = 0.0

    def __call__(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Loss of each example, [..., B], of logits [..., B, C] and labels int[..., B]."""
        if self.clip is not None:
            logits = self.clip * jnp.tanh(logits / self.clip)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels) + self.penalty * jnp.square(logits).mean(-1)


PLAIN, REGULARISED = LogitLoss(), LogitLoss(clip=20.0, penalty=1e-2)


class Layers(NamedTuple):
    """R linear layers in training, one for each rate: w [R, D, C], b [R, C] and their momentum."""

    classifier: Classifier
    momentum: Any


def sgd_features(
    train: Features,
    test: Features,
    *,
    base_rates: Sequence[float] = RATES,
    epochs: int = 80,
    batch_size: int = 1024,
    held_out: float = 0.1,
    loss: LogitLoss = PLAIN,
    seed: int = 0,
) -> LinearResult:
    """The protocol on cached features (no augmentation).

    Args:
      train, test: labelled features of the same dimension, two classes at least.
      base_rates: of these the best on the held-out part is used; nothing is held out for a single one.
      epochs: passes over the training set.
      batch_size: cut to the training set.
      held_out: share of each class held out.
      loss: ``REGULARISED`` for the paper's variant.
      seed: of the initial layer, the order of examples, and the held-out split.
    """
    classes = several_classes(train, test)

    def train_layers(rows: np.ndarray, rates: Sequence[float]) -> Classifier:
        part = train.take(rows)
        size = min(batch_size, len(part))
        order = (index for index, _ in batches(n=len(part), batch_size=size, seed=seed))
        pairs = ((part.embedding[index], part.label[index]) for index in order)
        return _train(pairs, rates, classes, steps=epochs * len(part) // size, batch_size=size, seed=seed, loss=loss)

    return _protocol(train_layers, train.label, train.take, test, base_rates, held_out, classes, seed, _named("SGD", loss))


def sgd(
    encoder: Encoder,
    train: Any,
    test: Any,
    *,
    base_rates: Sequence[float] = RATES,
    epochs: int = 80,
    batch_size: int = 1024,
    held_out: float | None = None,
    augment: bool = True,
    photometric: bool = False,
    loss: LogitLoss = PLAIN,
    seed: int = 0,
) -> LinearResult:
    """The protocol from images: each epoch sees new random crops and flips, as in the paper.

    The encoder runs over the training set ``2 * epochs`` times (once if ``augment`` is off: then the features are cached). With several
    processes each encodes its rows of a batch. Arguments as for ``sgd_features``, and:

    Args:
      held_out: None is ``held_out_share``.
      photometric: train on the whole recipe of view 1, not on its crops and flips alone.
      loss: ``REGULARISED`` for the paper's variant.
    """
    held_out = held_out_share(len(train)) if held_out is None else held_out
    test_features = features(encoder, test)
    if not augment:
        kept: dict[str, Any] = {"base_rates": base_rates, "epochs": epochs, "batch_size": batch_size, "held_out": held_out, "seed": seed}
        return sgd_features(features(encoder, train), test_features, loss=loss, **kept)
    label = labels_of(train)
    label = np.full(len(train), -1, np.int32) if label is None else label
    classes = several_classes(Features(np.zeros((len(label), test_features.embedding.shape[1]), np.float32), label), test_features)

    recipe = encoder.views if photometric else encoder.views.plain()

    def train_layers(rows: np.ndarray, rates: Sequence[float]) -> Classifier:
        part = train if len(rows) == len(train) else subset(train, rows)
        size = _divisible(min(batch_size, len(part)))
        pairs = _augmented(encoder, part, size, seed, recipe)
        return _train(pairs, rates, classes, steps=epochs * len(part) // size, batch_size=size, seed=seed, loss=loss)

    def take(rows: np.ndarray) -> Features:
        return features(encoder, subset(train, rows))

    protocol = "SGD, pretraining augmentations" if photometric else "SGD, crops and flips"
    return _protocol(train_layers, label, take, test_features, base_rates, held_out, classes, seed, _named(protocol, loss))


def held_out_share(examples: int) -> float:
    """What is held out to choose by: 1 % of a training set of ImageNet's kind (the paper's 10,009 images), 10 % of a small one."""
    return 0.01 if examples >= 100_000 else 0.1


def init_layers(key: jax.Array, dim: int, classes: int, rates: int) -> Layers:
    """The same random layer for every rate: w of variance 1 / D cut at two deviations, b zero (the official code's)."""
    w = jax.random.truncated_normal(key, -2.0, 2.0, (dim, classes), jnp.float32) * dim**-0.5
    classifier = Classifier(jnp.tile(w, (rates, 1, 1)), jnp.zeros((rates, classes), jnp.float32))
    return Layers(classifier, MOMENTUM.init(classifier))


@functools.partial(jax.jit, donate_argnums=0, static_argnames="loss")
def sgd_step(layers: Layers, x: jax.Array, y: jax.Array, rate: jax.Array, *, loss: LogitLoss = PLAIN) -> tuple[Layers, jax.Array]:
    """One step of every layer.

    Args:
      layers: R of them. x: features [B, D]. y: labels int[B].
      rate: this step's learning rates [R].
      loss: of the logits.

    Returns:
      (new layers, mean loss of each layer before the step [R]).
    """

    def total(c: Classifier) -> tuple[jax.Array, jax.Array]:
        logits_RxBxC = jnp.einsum("bd,rdc->rbc", x, c.w, precision="highest") + c.b[:, None]
        labels = jnp.broadcast_to(y, logits_RxBxC.shape[:2])
        losses = loss(logits_RxBxC, labels).mean(-1)
        return losses.sum(), losses  # the layers share nothing: the gradient of the sum is each one's own

    grads, losses = jax.grad(total, has_aux=True)(layers.classifier)
    updates, momentum = MOMENTUM.update(grads, layers.momentum)
    scaled = Classifier(-rate[:, None, None] * updates.w, -rate[:, None] * updates.b)
    return Layers(optax.apply_updates(layers.classifier, scaled), momentum), losses


def _train(
    pairs: Iterator[tuple[Any, Any]],
    base_rates: Sequence[float],
    classes: int,
    *,
    steps: int,
    batch_size: int,
    seed: int,
    loss: LogitLoss,
) -> Classifier:
    """Layers trained for the given steps, [R, ...]."""
    if steps < 1:
        raise ValueError("epochs: linear evaluation needs at least one")
    schedule, base = cosine(1.0, batch_size=batch_size, steps=steps), jnp.asarray(base_rates, jnp.float32)
    layers = None
    what = f"linear layer, {len(base_rates)} rates at once" if len(base_rates) > 1 else f"linear layer, rate {base_rates[0]:g}"
    for step, (x, y) in enumerate(tracked(itertools.islice(pairs, steps), steps, what)):
        layers = layers or init_layers(jax.random.key(seed), x.shape[1], classes, len(base_rates))
        layers, _ = sgd_step(layers, jnp.asarray(x), jnp.asarray(y), base * schedule(step), loss=loss)
    assert layers is not None  # steps >= 1 and the batches are endless
    return layers.classifier


def _protocol(
    train_layers: Any,
    label: np.ndarray,
    take: Any,
    test: Features,
    rates: Sequence[float],
    share: float,
    classes: int,
    seed: int,
    protocol: str,
) -> LinearResult:
    """Choose the rate on a held-out part, fit on everything, score on the test set."""
    if not rates or min(rates) <= 0:
        raise ValueError(f"base_rates={tuple(rates)}: give at least one, all above 0 (the paper's are {RATES})")
    held: dict[float, tuple[float, float]] = {}
    if len(rates) > 1:
        fit_rows, held_rows = hold_out(label, share, seed)
        stacked, held_set = train_layers(fit_rows, rates), take(held_rows)
        for rate, w, b in zip(rates, stacked.w, stacked.b, strict=True):
            top1, _, cross_entropy = score(Classifier(w, b), held_set)
            held[rate] = (top1, -cross_entropy)
    choice = max(rates, key=lambda rate: held[rate]) if held else rates[0]
    final = train_layers(np.arange(len(label)), [choice])
    found = judge(Classifier(final.w[0], final.b[0]), test, classes)
    return LinearResult(*found, protocol, choice, {r: held[r][0] for r in held}, len(label), len(test), classes)


def _named(protocol: str, loss: LogitLoss) -> str:
    return protocol if loss == PLAIN else f"{protocol}, regularised"


def _augmented(encoder: Encoder, source: Any, batch_size: int, seed: int, recipe: Recipe) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless (embeddings [B, D], labels [B]) of augmented images (the recipe's view 1); the same on every process."""
    shard = Shard(jax.process_index(), jax.process_count())
    make = jax.jit(lambda keys, batch: kind_of(recipe).views(recipe, "device")(keys, batch)["view1"])
    rows = np.asarray(shard.rows(batch_size))
    with contextlib.closing(train_batches(source, recipe, batch_size=batch_size, seed=seed, shard=shard)) as stream:
        for step, batch in enumerate(stream):
            keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), step), batch_size)[rows]
            x, y = gather_rows(np.asarray(encoder.views_of(make(keys, batch))), batch["label"])
            yield x, y


def _divisible(batch_size: int) -> int:
    """The largest batch no larger than this that the processes can share evenly."""
    return max(batch_size // jax.process_count(), 1) * jax.process_count()
