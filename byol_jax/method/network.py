"""The network f -> g -> q of BYOL, and the method as a value: which modules, which loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import optax
from flax import linen as nn

from byol_jax.method.heads import MLP, fan_in_init
from byol_jax.method.loss import Loss, MemoryLoss, regression_loss, remembering
from byol_jax.method.passes import Passes, clean
from byol_jax.method.probe import LabelLoss
from byol_jax.method.supervision import Classes, Heads, Reach, check_classes
from byol_jax.method.target import TARGETS, Target


class Outputs(NamedTuple):
    """What a network makes of a batch. In a training step every leaf is [2, B, ...], view first."""

    embedding: Any  # y = f(x): [B, D], what is kept after training
    projection: Any  # z = g(y): [B, P], what the target offers
    prediction: Any  # q(z): [B, P], what the online network says of the target's projection


class Network(nn.Module):
    """Encoder, projector and predictor in a row.

    The online and the target network are both of this kind. The target's predictor is never used, but costs little,
    and keeping it makes the two sets of variables congruent: the target is an average of the online network, leaf by leaf.
    """

    encoder: nn.Module
    projector: nn.Module
    predictor: nn.Module

    def __call__(self, x: Any, train: bool) -> Outputs:
        """x: a view, a pytree of [B, ...] arrays. Raises ValueError if the encoder does not return [B, D]."""
        embedding = self.encoder(x, train)
        _check_embedding(self.encoder, embedding, rows=jax.tree.leaves(x)[0].shape[0])
        projection = self.projector(embedding, train)
        return Outputs(embedding, projection, self.predictor(projection, train))


@dataclass(frozen=True)
class Byol:
    """Bootstrap Your Own Latent, as a value.

    Attributes:
      encoder: any ``nn.Module`` called as ``encoder(x, train)`` and returning [B, D].
      projector, predictor: modules of the same signature; the paper's 4096-256 heads by default.
      loss: ``fn(online, target) -> (scalar, metrics)`` on ``Outputs`` whose leaves are [2, B, ...], view first;
        no gradient flows into ``target``, unless that is "online". One that carries something from step to step is a ``MemoryLoss``.
      num_classes: above 0, a linear probe learns the labels from the embedding during training, of view 1; {name: classes} are several
        label sets, one probe each. They tell how good the embedding is.
      reach: what stands between embedding and probe. As it is no gradient comes back, and the labels teach the encoder nothing;
        ``let_through(weight)`` trains it with BYOL and with labels together.
      label_loss: of the probe, (logits [B, C], labels int[B]) -> [B]; ``cross_entropy(0.1)`` smooths the labels.
      target: whose projections are predicted: "ema", the target network (BYOL); "stop_gradient", the online network's own, as constants;
        "online", the same with their gradient, as SimCLR does (paper Table 19); or a ``Teacher``. With the two middle ones there is no
        target network.
      passes: what the online network sees in a step: the views as they are, or as an ``Adversary`` makes them.
    """

    encoder: nn.Module
    projector: nn.Module = field(default_factory=MLP)
    predictor: nn.Module = field(default_factory=MLP)
    loss: Loss | MemoryLoss = regression_loss
    num_classes: Classes = 0
    target: str | Target = "ema"
    passes: Passes = clean
    reach: Reach = jax.lax.stop_gradient
    label_loss: LabelLoss = optax.softmax_cross_entropy_with_integer_labels

    def __post_init__(self) -> None:
        check_classes(self.num_classes)
        if isinstance(self.target, str) and self.target not in TARGETS:
            raise ValueError(f"Byol(target={self.target!r}): choose {', '.join(TARGETS)}, or a Teacher")

    @property
    def follower(self) -> Target:
        """The target, by its name or as it was given."""
        return TARGETS[self.target] if isinstance(self.target, str) else self.target

    @property
    def memory_loss(self) -> MemoryLoss:
        """The loss, with a memory that is () where it needs none."""
        return remembering(self.loss)

    def network(self) -> Network:
        # copies: one module given twice (a head as projector and predictor) would share its weights
        return Network(self.encoder.clone(), self.projector.clone(), self.predictor.clone())

    def probe(self) -> nn.Module:
        classes = self.num_classes
        return nn.Dense(classes, kernel_init=fan_in_init) if isinstance(classes, int) else Heads(classes)


def _check_embedding(encoder: nn.Module, embedding: Any, rows: int) -> None:
    shape = getattr(embedding, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != rows:
        got = f"shape {shape}" if shape is not None else f"a {type(embedding).__name__}"
        hint = " (pool its map, for example with x.mean((1, 2)))" if shape is not None and len(shape) == 4 else ""
        raise ValueError(
            f"encoder {type(encoder).__name__} must return one vector an example, [B, D]; for {rows} examples it returned {got}{hint}"
        )
