"""Fine-tuning: the whole network, from pretrained weights, on labelled images (paper, section 4.2, Appendices C.2 and D).

SGD with Nesterov momentum 0.9 on random crops and flips, no regularisation but what a setting has (weight decay, dropout before the
classifier, label smoothing; the paper's have none of the last two), a rate of
rate * batch / 256 that falls to 0 along a cosine, as in the official code's linear evaluation. The batch is spread over all devices
and batch statistics are of the whole of it. The grid, and the choice among its settings, stand in ``evaluate.grid``.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from byol_jax import parallel
from byol_jax.augment import Recipe, kind_of
from byol_jax.data.order import Shard
from byol_jax.data.pipeline import train_batches
from byol_jax.evaluate.encoder import Encoder
from byol_jax.evaluate.linear import target_losses
from byol_jax.evaluate.progress import tracked
from byol_jax.evaluate.sgd import MOMENTUM
from byol_jax.method.norms import check_norms
from byol_jax.method.optimizer import is_weight
from byol_jax.method.placement import mean_over_devices
from byol_jax.method.probe import cross_entropy
from byol_jax.method.schedules import cosine
from byol_jax.models.forms import traced_for

Step = Callable[["Tuned", Any, jax.Array, jax.Array], tuple["Tuned", jax.Array]]
After = Callable[[Any], Any]

RATES, EPOCHS = (0.01, 0.02, 0.05, 0.1, 0.005), (30, 50)  # the paper's, for few labels
TRANSFER_RATES = tuple(float(rate) for rate in np.logspace(-4, -1, 7))
TRANSFER_DECAYS = (0.0, *(float(decay) for decay in np.logspace(-6, -3, 7)))


class Classified(nn.Module):
    """An encoder with a linear classifier on top, in training with dropout between them: images -> logits [B, classes]."""

    encoder: nn.Module
    classes: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        out: Any = self.encoder(x, train)
        kept = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(getattr(out, "embedding", out))
        return nn.Dense(self.classes, name="classifier")(kept)


class Tuned(NamedTuple):
    """A network in fine-tuning: steps done, its variables {"params", "batch_stats"}, and the momentum of its params."""

    step: jax.Array
    variables: dict[str, Any]
    momentum: Any


@dataclass(frozen=True)
class Setting:
    """One way to fine-tune, a point of the grid.

    Attributes:
      rate: peak learning rate for 256 examples.
      epochs: passes over the training set; or else (exactly one of the two is given)
      steps: how many, whatever the training set.
      weight_decay: added to the gradient of weights (not of biases and norms) is this divided by ``rate``, as in the paper.
      dropout: of the embedding, before the classifier.
      label_smoothing: see ``method.probe.cross_entropy``.
    """

    rate: float
    epochs: int | None = None
    steps: int | None = None
    weight_decay: float = 0.0
    dropout: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"Setting: epochs={self.epochs} and steps={self.steps}; give exactly one of them, such as epochs=30")
        for name, length in (("epochs", self.epochs), ("steps", self.steps)):
            if length is not None and length < 1:
                raise ValueError(f"Setting: {name}={length} must be 1 or more")
        if not 0 < self.rate < math.inf:
            raise ValueError(f"Setting: rate={self.rate:g} must be above 0 and finite, such as 0.05")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"Setting: weight_decay={self.weight_decay:g} must be at least 0 and finite")

    def total(self, examples: int, batch_size: int) -> int:
        """Steps in all, one at least."""
        return self.steps if self.steps is not None else max((self.epochs or 0) * examples // batch_size, 1)

    @property
    def name(self) -> str:
        """Such as ``rate0.05-epochs30``."""
        length = f"epochs{self.epochs}" if self.steps is None else f"steps{self.steps}"
        extra = {"decay": self.weight_decay, "dropout": self.dropout, "smoothing": self.label_smoothing}
        return "-".join([f"rate{self.rate:.3g}", length, *(f"{name}{value:.3g}" for name, value in extra.items() if value)])


def semi_supervised_grid(
    rates: tuple[float, ...] = RATES, epochs: tuple[int, ...] = EPOCHS, *, dropout: float = 0.0, label_smoothing: float = 0.0
) -> tuple[Setting, ...]:
    """The paper's ten settings for few labels: every rate with every length."""
    pairs = itertools.product(rates, epochs)
    return tuple(Setting(rate, length, dropout=dropout, label_smoothing=label_smoothing) for rate, length in pairs)


def transfer_grid(
    rates: Sequence[float] = TRANSFER_RATES, decays: Sequence[float] = TRANSFER_DECAYS, steps: int = 20_000
) -> tuple[Setting, ...]:
    """The paper's 56 settings for another data set: 7 rates from 1e-4 to 1e-1 with no weight decay and 7 from 1e-6 to 1e-3."""
    return tuple(Setting(rate, steps=steps, weight_decay=decay) for rate, decay in itertools.product(rates, decays))


def transfer_bn_momentum(examples: int, batch_size: int) -> float:
    """How much the running averages keep at each step of transfer: max(1 - 10 / s, 0.9), s being the steps of an epoch."""
    return max(1 - 10 * batch_size / examples, 0.9)


def begin(encoder: Encoder, classes: int, *, seed: int, mesh: Mesh, bn_momentum: float | None = None) -> tuple[Classified, Tuned]:
    """The network and its state before the first step: the encoder's weights, and a classifier as in the linear evaluation.

    ``bn_momentum`` replaces that of an encoder which has such a field (our ResNets have).
    """
    module = encoder.module
    if bn_momentum is not None and hasattr(module, "bn_momentum"):
        module = module.clone(bn_momentum=bn_momentum)
    network = Classified(module, classes)
    seen = kind_of(encoder.views).seen(encoder.views)
    check_norms(network, seen, parallel.AXIS, mesh.size)
    shapes = jax.eval_shape(functools.partial(network.init, train=False), jax.random.key(0), seen)
    dim = shapes["params"]["classifier"]["kernel"].shape[0]
    kernel = jax.random.truncated_normal(jax.random.key(seed), -2.0, 2.0, (dim, classes), jnp.float32) * dim**-0.5
    head = {"kernel": np.asarray(kernel), "bias": np.zeros(classes, np.float32)}
    pretrained = {kind: {"encoder": jax.device_get(tree)} for kind, tree in encoder.variables.items()}
    variables = {"batch_stats": {}, **pretrained, "params": {**pretrained.get("params", {}), "classifier": head}}
    state = Tuned(jnp.zeros((), jnp.int32), variables, MOMENTUM.init(variables["params"]))
    return network, parallel.replicate(jax.device_get(state), mesh)


def make_step(
    network: Classified, recipe: Recipe, key: jax.Array, mesh: Mesh, label_smoothing: float = 0.0, after: After | None = None
) -> Step:
    """Builds ``step(state, batch, rate, decay) -> (state, mean loss)``, compiled; every setting of a grid can share it.

    Args:
      recipe: how examples are augmented (its view 1). Row r of step t is drawn from ``key``, t and r alone.
      label_smoothing: of labels int[B].
      after: what is done to the params after each update, such as holding some of them at 0; None: nothing.

    A batch's "label" is int[B], or [B, C] of 1, 0 and -1 (not counted) where an image has several.
    """
    make, of_one = kind_of(recipe).views(recipe, "device"), cross_entropy(label_smoothing)

    def gradients(variables: Any, batch: Any, keys: jax.Array) -> tuple[Any, Any, jax.Array]:
        x = make(keys, batch)["view1"]

        def objective(params: Any) -> tuple[jax.Array, Any]:
            noise = {"dropout": jax.random.fold_in(keys[0], 1)}
            logits, changed = network.apply({**variables, "params": params}, x, True, mutable=["batch_stats"], rngs=noise)
            value = target_losses(logits, batch["label"], of_one).mean()
            return value, (changed.get("batch_stats", {}), value)

        grads, (stats, value) = jax.grad(objective, has_aux=True)(variables["params"])
        grads, value = mean_over_devices((grads, value))
        return grads, stats, value

    # check_vma=False as in method/step.py: with it the gradients would be summed over the devices before the mean.
    specs: dict[str, Any] = {"in_specs": (P(), P(parallel.AXIS), P(parallel.AXIS)), "out_specs": P()}
    over_devices = jax.shard_map(gradients, mesh=mesh, check_vma=False, **specs)

    def step(state: Tuned, batch: Any, rate: jax.Array, decay: jax.Array) -> tuple[Tuned, jax.Array]:
        keys = jax.random.split(jax.random.fold_in(key, state.step), len(batch["label"]))
        grads, stats, value = over_devices(state.variables, batch, keys)
        params = state.variables["params"]
        grads = jax.tree.map(lambda g, p, weight: g + decay * p if weight else g, grads, params, is_weight(params))
        updates, momentum = MOMENTUM.update(grads, state.momentum)
        params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
        params = params if after is None else after(params)
        return Tuned(state.step + 1, {"params": params, "batch_stats": stats}, momentum), value

    return jax.jit(traced_for(mesh, step), donate_argnums=0)


def train(
    encoder: Encoder,
    source: Any,
    setting: Setting,
    classes: int,
    *,
    batch_size: int,
    seed: int = 0,
    bn_momentum: float | None = None,
    targets: np.ndarray | None = None,
    mesh: Mesh | None = None,
    after: After | None = None,
) -> Encoder:
    """Fine-tunes; returns the network with its classifier, whose "embeddings" are logits [B, classes].

    Args:
      source: images, all labelled below ``classes``.
      batch_size: of all devices together; cut to the training set, and to what the devices can share.
      seed: of the classifier, the order of images, and their augmentations.
      targets: what a label stands for, [labels, ...], where it is not the class itself.
      after: as of ``make_step``.
    """
    mesh = mesh or parallel.data_mesh()
    size = fitting_batch(batch_size, len(source), mesh)
    recipe, total = encoder.views.plain(), setting.total(len(source), size)
    network, state = begin(encoder, classes, seed=seed, mesh=mesh, bn_momentum=bn_momentum)
    network = network.clone(dropout=setting.dropout)
    step = _shared_step(network, recipe, seed, mesh, setting.label_smoothing, after)
    schedule, decay = cosine(setting.rate, batch_size=size, steps=total), jnp.float32(setting.weight_decay / setting.rate)
    shard = Shard(jax.process_index(), jax.process_count())
    with contextlib.closing(train_batches(source, recipe, batch_size=size, seed=seed, shard=shard)) as stream:
        before = None
        for number, batch in enumerate(tracked(itertools.islice(stream, total), total, f"fine-tuning, {setting.name}")):
            batch = batch if targets is None else {**batch, "label": targets[batch["label"]]}
            state, loss = step(state, parallel.to_global(batch, mesh), schedule(number), decay)
            jax.block_until_ready(before)  # two on their way, as in pretraining: no heap of batches; see bench.timing.lap
            before = loss
    return Encoder(network, state.variables, encoder.views)


def fitting_batch(batch_size: int, examples: int, mesh: Mesh) -> int:
    """The largest batch up to this size, and to the training set's, that the devices can share; one row each at least."""
    return max(min(batch_size, examples) // mesh.size, 1) * mesh.size


def _shared_step(network: Classified, recipe: Recipe, seed: int, mesh: Mesh, label_smoothing: float, after: After | None) -> Step:
    try:
        return _cached_step(network, recipe, seed, mesh, label_smoothing, after)
    except TypeError:  # a module with an unhashable field (a list, say) is compiled anew for every setting
        return make_step(network, recipe, jax.random.key(seed), mesh, label_smoothing, after)


@functools.lru_cache(maxsize=4)
def _cached_step(network: Classified, recipe: Recipe, seed: int, mesh: Mesh, label_smoothing: float, after: After | None) -> Step:
    return make_step(network, recipe, jax.random.key(seed), mesh, label_smoothing, after)
