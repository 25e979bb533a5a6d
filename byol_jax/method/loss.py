"""Losses: one view predicts the other's projection (paper, equation 2), variants of it, and the bridge to contrastive learning."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from byol_jax.method.placement import AXIS, mean_over_devices, whole_batch
from byol_jax.method.precision import at_least_float32

if TYPE_CHECKING:
    from byol_jax.method.network import Outputs

Metrics = dict[str, jax.Array]
Loss = Callable[["Outputs", "Outputs"], tuple[jax.Array, Metrics]]
Normalization = Literal["l2", "layer", "batch", "none"]
_EPSILON = 1e-5  # of the layer and batch normalisations' variance


@runtime_checkable
class MemoryLoss(Protocol):
    """A loss that carries something from step to step; it lives in ``ByolState.memory``, and so in checkpoints."""

    def start(self) -> Any:
        """The memory before the first step: a pytree of arrays."""

    def __call__(self, online: Outputs, target: Outputs, memory: Any) -> tuple[jax.Array, Metrics, Any]:
        """The scalar loss, metrics, and the memory for the next step: the same on every device."""


def remembering(loss: Loss | MemoryLoss) -> MemoryLoss:
    """A loss as one with a memory: () where it has none."""
    return loss if isinstance(loss, MemoryLoss) else _Forgetful(loss)


class _Forgetful:
    def __init__(self, loss: Loss) -> None:
        self._loss = loss

    def start(self) -> Any:
        return ()

    def __call__(self, online: Outputs, target: Outputs, memory: Any) -> tuple[jax.Array, Metrics, Any]:
        return *self._loss(online, target), memory


def normalize(x: jax.Array) -> jax.Array:
    """x / |x| over the last axis, at least in float32. A vector shorter than 1e-6 is divided by 1e-6, so zero stays zero."""
    x = at_least_float32(x)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-12))


def regression(prediction: jax.Array, projection: jax.Array) -> jax.Array:
    """|p/|p| - z/|z||^2 = 2 - 2 cos(p, z) of each example, [..., P] -> [...], between 0 and 4.

    Written as a distance and not as 2 - 2 cos, which loses its digits where the two agree.

    Raises:
      ValueError: the vectors are of different widths.
    """
    if prediction.shape[-1] != projection.shape[-1]:
        raise ValueError(
            f"the online network predicts {prediction.shape[-1]} numbers, the target offers {projection.shape[-1]}: give the predictor out="
            f"{projection.shape[-1]}"
        )
    return jnp.sum(jnp.square(normalize(prediction) - normalize(projection)), axis=-1)


def regression_loss(online: Outputs, target: Outputs) -> tuple[jax.Array, Metrics]:
    """Mean over the batch of both terms, summed (not averaged) over the two views: between 0 and 8.

    Leaves are [2, B, ...]. Term v compares the online prediction of view v with the target's projection of the other view.

    Returns:
      The scalar loss, and the mean cosines ``cosine_1`` and ``cosine_2`` of the two terms.
    """
    loss = regression(online.prediction, target.projection[::-1]).mean(axis=1).sum()
    return loss, cosines(online, target)


def cosines(online: Outputs, target: Outputs) -> Metrics:
    """The mean cosines ``cosine_1`` and ``cosine_2`` of the two terms, of the online prediction of view 1, of view 2."""
    cosine = jnp.sum(normalize(online.prediction) * normalize(target.projection[::-1]), axis=-1).mean(axis=1)
    return {"cosine_1": cosine[0], "cosine_2": cosine[1]}


def normalized_regression_loss(normalization: Normalization) -> Loss:
    """The regression loss with vectors made comparable in another way than by their length (paper Table 20).

    "l2" is ``regression_loss`` itself; "layer" takes each vector's own mean and standard deviation out of it, "batch" those of every
    coordinate over the global batch, both divided by sqrt(P) so that a squared length is about 1 as with "l2"; "none" compares raw outputs.
    """
    if normalization == "l2":
        return regression_loss
    if normalization not in ("layer", "batch", "none"):
        raise ValueError(f"normalization = {normalization!r}: choose l2, layer, batch or none")

    def loss(online: Outputs, target: Outputs) -> tuple[jax.Array, Metrics]:
        _, cosines = regression_loss(online, target)
        given, wanted = _standardize(online.prediction, normalization), _standardize(target.projection[::-1], normalization)
        return jnp.square(given - wanted).sum(axis=-1).mean(axis=1).sum(), cosines

    return loss


def _standardize(x_VxBxP: jax.Array, over: str) -> jax.Array:
    x = at_least_float32(x_VxBxP)
    if over == "none":
        return x
    mean = partial(jnp.mean, axis=-1, keepdims=True) if over == "layer" else _batch_mean
    centred = x - mean(x)
    return centred * jax.lax.rsqrt((mean(centred * centred) + _EPSILON) * x.shape[-1])


def _batch_mean(x_VxBxP: jax.Array) -> jax.Array:
    return mean_over_devices(x_VxBxP.mean(axis=1, keepdims=True))


def contrastive_loss(beta: float, temperature: float) -> Loss:
    """Equation 8 of the paper: BYOL at ``beta`` 0, SimCLR at ``beta`` 1 without target and predictor. Runs inside ``shard_map``.

    A term, for S(u, w) the cosine of the online prediction of u and the target's projection of w, is
    2 - 2 mean_i S(v_i, v'_i) + 2 beta t mean_i ln(sum_{j != i} exp(S(v_i, v_j) / t) + sum_j exp(S(v_i, v'_j) / t)),
    where j runs over the global batch (each micro-batch on its own). The two terms, one for either view, are summed. t is the temperature,
    the paper's alpha; the constant 2 makes ``beta`` 0 equal to ``regression_loss``.
    """
    if temperature <= 0:
        raise ValueError(f"temperature = {temperature}: must be above 0")

    def loss(online: Outputs, target: Outputs) -> tuple[jax.Array, Metrics]:
        attraction, metrics = regression_loss(online, target)
        crowd = _crowding(normalize(online.prediction), normalize(target.projection), temperature)
        return attraction + 2 * beta * temperature * crowd.mean(axis=1).sum(), metrics | {"crowding": crowd.mean()}

    return loss


def _crowding(given_2xBxP: jax.Array, wanted_2xBxP: jax.Array, temperature: float) -> jax.Array:
    """The logarithm in equation 8, [2, B]: how close each example is to all others of the global batch, and to its own other view."""
    rows = given_2xBxP.shape[1]
    everyone = whole_batch(wanted_2xBxP, axis=1)
    own = jax.lax.axis_index(AXIS) * rows + jnp.arange(rows)
    same = jnp.einsum("vip,vjp->vij", given_2xBxP, everyone) / temperature
    other = jnp.einsum("vip,vjp->vij", given_2xBxP, everyone[::-1]) / temperature
    same = jnp.where(own[:, None] == jnp.arange(everyone.shape[1]), -jnp.inf, same)
    return jax.nn.logsumexp(jnp.concatenate([same, other], axis=-1), axis=-1)


def similarity_loss(student: float, teacher: float) -> Loss:
    """How alike an example is to the others of the batch: the student's distribution is to be the teacher's (SEED, arXiv 2101.04731).

    For each view, p_ij = softmax_j(z_i . z_j / teacher) of the target's normalised projections, over the global batch and itself
    included, and s_ij the same of q_i . z_j / student, q the online predictions: the mean over i of -sum_j p_ij ln s_ij, less its least
    value, that of s = p (so the KL divergence), summed over the views. SEED's queue of past batches is left out: the batch is the queue.

    Args:
      student, teacher: temperatures; SEED takes 0.2 and 0.01.
    """
    if student <= 0 or teacher <= 0:
        raise ValueError(f"similarity_loss(student={student}, teacher={teacher}): temperatures must be above 0")

    def loss(online: Outputs, target: Outputs) -> tuple[jax.Array, Metrics]:
        given, wanted = normalize(online.prediction), normalize(target.projection)
        everyone = whole_batch(wanted, axis=1)
        log_student = jax.nn.log_softmax(jnp.einsum("vip,vjp->vij", given, everyone) / student)
        log_teacher = jax.nn.log_softmax(jnp.einsum("vip,vjp->vij", wanted, everyone) / teacher)
        divergence = jnp.sum(jnp.exp(log_teacher) * (log_teacher - log_student), axis=-1).mean(axis=1)
        return divergence.sum(), {**cosines(online, target), "divergence": divergence.mean()}

    return loss


def summed(first: Loss, second: Loss, weight: float, *, first_weight: float = 1.0) -> Loss:
    """first_weight x first + weight x second; metrics of both."""

    def loss(online: Outputs, target: Outputs) -> tuple[jax.Array, Metrics]:
        (a, of_first), (b, of_second) = first(online, target), second(online, target)
        return first_weight * a + weight * b, {**of_second, **of_first}

    return loss
