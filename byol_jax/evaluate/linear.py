"""Linear evaluation by regularised logistic regression: the paper's transfer protocol (section 4, Appendix D).

Multinomial logistic regression on frozen features, fitted by L-BFGS; the strength of the L2 penalty is chosen on a held-out part of
the training set among 45 values from 1e-6 to 1e5, then everything is fitted again on the whole of it.

The objective is ``sum of cross-entropies + l2 / 2 * |W|^2`` with a free bias: scikit-learn's ``LogisticRegression(C=1 / l2)``. Features
are standardised first (zero mean, unit variance over the training set), so that one range of penalties suits every network. Of fewer
examples than dimensions only the space that the examples span is looked at: the penalty leaves no weight outside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from byol_jax.evaluate.encoder import Encoder
from byol_jax.evaluate.features import Features, features, labelled
from byol_jax.evaluate.metrics import macro_f1, predicted_class
from byol_jax.evaluate.result import Result, percent
from byol_jax.evaluate.scaling import basis_of, moments, spanned, standardised
from byol_jax.method.probe import LabelLoss, cross_entropy, in_top_k

SMALL = 2048
L2_PATH = tuple(float(v) for v in np.logspace(-6, 5, 45))


class Classifier(NamedTuple):
    """A linear classifier: ``x @ w + b``, w [D, C], b [C]."""

    w: jax.Array
    b: jax.Array


@dataclass(frozen=True)
class LinearResult(Result):
    """Test accuracy and macro F1 of a linear classifier, as shares.

    ``choice`` is the value picked (of the L2 penalty, or of the base learning rate) and ``held_out`` the top-1 accuracy on the
    held-out part for each value tried; empty where there was nothing to choose.
    """

    top1: float
    top5: float
    macro_f1: float
    protocol: str
    choice: float
    held_out: dict[float, float]
    train_examples: int
    test_examples: int
    classes: int

    def rows(self) -> tuple[str, Sequence[str], Sequence[Sequence[str]]]:
        title = f"Linear classifier ({self.protocol}), {self.train_examples:,} training and {self.test_examples:,} test examples"
        chosen = "l2" if self.protocol == "L-BFGS" else "base rate"
        held_out = percent(self.held_out[self.choice]) if self.held_out else "-"
        headings = (chosen, "top-1 %", "top-5 %", "macro F1 %", "held-out top-1 %")
        return title, headings, [(f"{self.choice:.3g}", *map(percent, (self.top1, self.top5, self.macro_f1)), held_out)]


def linear(encoder: Encoder, train: Any, test: Any, *, batch_size: int = 256, **options: Any) -> LinearResult:
    """Embeds both sources, then ``linear_features``, whose options it takes."""
    sets = features(encoder, train, batch_size=batch_size), features(encoder, test, batch_size=batch_size)
    return linear_features(*sets, **options)


def linear_features(train: Features, test: Features, **options: Any) -> LinearResult:
    """Accuracy of L2-regularised logistic regression on features; arguments as of ``linear_classifier``."""
    return linear_classifier(train, test, **options)[0]


def linear_classifier(
    train: Features,
    test: Features,
    *,
    l2: float | Sequence[float] = L2_PATH,
    held_out: float = 0.2,
    standardise: bool = True,
    max_iterations: int = 200,
    seed: int = 0,
) -> tuple[LinearResult, Classifier]:
    """L2-regularised logistic regression on features: its accuracy, and the classifier itself.

    Args:
      train, test: labelled features of the same dimension, two classes at least.
      l2: the penalty; of several, the best on a held-out part of the training set is used.
      held_out: share of each class held out for that choice (one example a class always stays).
      standardise: shift and scale the features as ``standardised`` does.
      max_iterations: of L-BFGS, for each penalty.
      seed: of the held-out split.

    Returns:
      the result, and a classifier of features as they were given: shift and scale are folded into its weights.
    """
    classes = several_classes(train, test)
    penalties = sorted((l2,) if isinstance(l2, int | float) else l2, reverse=True)
    if not penalties or penalties[-1] < 0:
        raise ValueError(f"l2={l2}: give one penalty or several, none below 0")
    mean, scale = moments(train) if standardise else (np.zeros(1), np.ones(1))
    if standardise:
        train, test = standardised(train, train, test)
    basis = basis_of(train)
    train, test = spanned(train, train, test)
    scores: dict[float, tuple[float, float]] = {}
    if len(penalties) > 1:
        fit_rows, held_rows = hold_out(train.label, held_out, seed)
        scores = _path(train.take(fit_rows), train.take(held_rows), penalties, classes, max_iterations)
    choice = max(penalties, key=lambda v: scores[v]) if scores else penalties[0]  # the stronger penalty among equals
    classifier = fit(train, choice, classes, max_iterations=max_iterations)
    held = {v: scores[v][0] for v in reversed(penalties)} if scores else {}
    result = LinearResult(*judge(classifier, test, classes), "L-BFGS", choice, held, len(train), len(test), classes)
    return result, _folded(classifier, mean, scale, basis)


def _folded(classifier: Classifier, mean: np.ndarray, scale: np.ndarray, basis: np.ndarray | None) -> Classifier:
    """The classifier of x where this one is of ``(x - mean) / scale @ basis``."""
    w = np.asarray(classifier.w, np.float64)
    w = (w if basis is None else basis @ w) / np.broadcast_to(scale, len(w) if basis is None else len(basis))[:, None]
    b = np.asarray(classifier.b, np.float64) - np.broadcast_to(mean, len(w)) @ w
    return Classifier(jnp.asarray(w, jnp.float32), jnp.asarray(b, jnp.float32))


def several_classes(*sets: Features) -> int:
    """Number of classes; an error if there is only one, since then any classifier is right."""
    classes = labelled(*sets)
    if len(np.unique(sets[0].label)) < 2:
        raise ValueError(f"labels: all {len(sets[0])} training examples are of one class; a linear classifier needs two or more")
    return classes


def hold_out(label: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits positions into (kept, held out), the same share of each class, rounded; every class keeps one example at least."""
    if not 0 < share < 1:
        raise ValueError(f"held_out={share}: must be a share between 0 and 1, for example 0.2")
    rng = np.random.default_rng(seed)
    held: list[np.ndarray] = []
    for c in np.unique(label):
        members = rng.permutation(np.flatnonzero(label == c))
        held.append(members[: min(round(share * len(members)), len(members) - 1)])
    held_rows = np.sort(np.concatenate(held))
    if not len(held_rows):
        raise ValueError(
            f"held_out={share}: {len(label)} examples of {len(held)} classes leave none to choose by; give one value, not several"
        )
    return np.setdiff1d(np.arange(len(label)), held_rows), held_rows


def split_share(label: np.ndarray, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Positions of (a share of each class, rounded, one example at least; all others), sorted. A larger share contains a smaller one."""
    rng = np.random.default_rng(seed)
    chosen: list[np.ndarray] = []
    for c in np.unique(label):
        members = rng.permutation(np.flatnonzero(label == c))
        chosen.append(members[: max(round(share * len(members)), 1)])
    rows = np.sort(np.concatenate(chosen))
    return rows, np.setdiff1d(np.arange(len(label)), rows)


def fit(
    train: Features, l2: float, classes: int, *, start: Classifier | None = None, max_iterations: int = 200, tolerance: float = 1e-7
) -> Classifier:
    """Minimises the objective from zeros or from another classifier.

    Stops when no component of the gradient of (objective / N) exceeds the tolerance, or after ``max_iterations``.
    """
    return fit_arrays(train.embedding, train.label, l2, classes, start=start, max_iterations=max_iterations, tolerance=tolerance)


def fit_arrays(
    embedding: np.ndarray,
    target: np.ndarray,
    l2: float,
    classes: int,
    *,
    start: Classifier | None = None,
    max_iterations: int = 200,
    tolerance: float = 1e-7,
) -> Classifier:
    """``fit`` for features [N, D] and targets int[N], or [N, C] where an example has several labels.

    With several labels each class is told from the rest by a logistic regression of its own; 1 is yes, 0 no, -1 is not counted.
    """
    n = len(target)
    if start is None:
        start = Classifier(jnp.zeros((embedding.shape[1], classes), jnp.float32), jnp.zeros(classes, jnp.float32))
    more = max(SMALL - n, 0)  # rows of no weight: a small set of any size shares one compilation, by far its dearest part
    x, y = np.pad(embedding, ((0, more), (0, 0))), np.pad(target, ((0, more), (0, 0))[: target.ndim])
    weight = np.pad(np.full(n, 1 / n, np.float32), (0, more))
    penalty = jnp.float32(l2 / n)
    limits = jnp.int32(max_iterations), jnp.float32(tolerance)
    return _minimise(start, jnp.asarray(x), jnp.asarray(y), jnp.asarray(weight), penalty, *limits)


def score(classifier: Classifier, test: Features) -> tuple[float, float, float]:
    """(top-1, top-5, mean cross-entropy) on a set. Among equal logits the higher class ranks first, as in the official code."""
    sums = np.zeros(3, np.float64)
    for start in range(0, len(test), 8192):
        rows = slice(start, start + 8192)
        sums += np.asarray(_score(classifier, jnp.asarray(test.embedding[rows]), jnp.asarray(test.label[rows])))
    top1, top5, loss = (float(v) for v in sums / len(test))
    return top1, top5, loss


def judge(classifier: Classifier, test: Features, classes: int) -> tuple[float, float, float]:
    """(top-1, top-5, macro F1) on a set; ties as for ``score``."""
    top1, top5, _ = score(classifier, test)
    parts = [predicted_class(logits_of(classifier, test.embedding[i : i + 8192])) for i in range(0, len(test), 8192)]
    return top1, top5, macro_f1(np.concatenate(parts), test.label, classes)


def score_logits(logits: Features) -> tuple[float, float, float]:
    """``score`` of a classifier's output: its logits [N, C] in place of embeddings."""
    sums = np.zeros(3, np.float64)
    for start in range(0, len(logits), 8192):
        rows = slice(start, start + 8192)
        sums += np.asarray(_counts(jnp.asarray(logits.embedding[rows]), jnp.asarray(logits.label[rows])))
    top1, top5, loss = (float(v) for v in sums / len(logits))
    return top1, top5, loss


def _path(
    train: Features, held: Features, penalties: Sequence[float], classes: int, max_iterations: int
) -> dict[float, tuple[float, float]]:
    """(top-1, minus the loss) on the held-out part by penalty, strongest first, each fit starting where the last one ended."""
    scores, classifier = {}, None
    for penalty in penalties:
        classifier = fit(train, penalty, classes, start=classifier, max_iterations=max_iterations, tolerance=1e-5)  # enough to choose by
        top1, _, loss = score(classifier, held)
        scores[penalty] = (top1, -loss)
    return scores


@jax.jit
def _minimise(
    start: Classifier, x: jax.Array, y: jax.Array, weight: jax.Array, penalty: jax.Array, max_iterations: jax.Array, tolerance: jax.Array
) -> Classifier:
    def objective(c: Classifier) -> jax.Array:
        return weight @ target_losses(_logits(c, x), y) + penalty / 2 * jnp.square(c.w).sum()

    solver = optax.lbfgs(memory_size=10)
    value_and_grad = optax.value_and_grad_from_state(objective)

    def unfinished(carry: tuple[Classifier, Any]) -> jax.Array:
        _, state = carry
        count, grad = optax.tree.get(state, "count"), optax.tree.get(state, "grad")
        steepest = jnp.maximum(jnp.abs(grad.w).max(), jnp.abs(grad.b).max())
        return (count == 0) | ((count < max_iterations) & (steepest > tolerance))

    def advance(carry: tuple[Classifier, Any]) -> tuple[Classifier, Any]:
        c, state = carry
        value, grad = value_and_grad(c, state=state)
        updates, state = solver.update(grad, state, c, value=value, grad=grad, value_fn=objective)
        return optax.apply_updates(c, updates), state

    return lax.while_loop(unfinished, advance, (start, solver.init(start)))[0]


@jax.jit
def _score(c: Classifier, x: jax.Array, y: jax.Array) -> jax.Array:
    return _counts(_logits(c, x), y)


@jax.jit
def _counts(logits: jax.Array, y: jax.Array) -> jax.Array:
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return jnp.stack([in_top_k(logits, y, 1).astype(jnp.float32).sum(), in_top_k(logits, y, 5).astype(jnp.float32).sum(), losses.sum()])


def target_losses(logits: jax.Array, y: jax.Array, of_one: LabelLoss = cross_entropy()) -> jax.Array:
    """Loss of each example [B]: ``of_one`` label int[B]; of several [B, C] (see ``fit_arrays``) summed over the classes that count."""
    if y.ndim == 1:
        return of_one(logits, y)
    losses = optax.sigmoid_binary_cross_entropy(logits, (y == 1).astype(logits.dtype))
    return jnp.where(y >= 0, losses, jnp.zeros_like(losses)).sum(-1)


def logits_of(classifier: Classifier, embedding: np.ndarray) -> np.ndarray:
    """Logits [N, C] of features [N, D]."""
    parts = [np.asarray(_jit_logits(classifier, jnp.asarray(embedding[i : i + 8192]))) for i in range(0, len(embedding), 8192)]
    return np.concatenate(parts)


def _logits(c: Classifier, x: jax.Array) -> jax.Array:
    return jnp.matmul(x, c.w, precision="highest") + c.b


_jit_logits = jax.jit(_logits)
