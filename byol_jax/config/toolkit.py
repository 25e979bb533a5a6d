"""What may be put around the method, each part off by default: an adversary, distrust of false pairs, a teacher."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from byol_jax.config.check import above, at_least, between, ruled

if TYPE_CHECKING:
    from byol_jax.config.spec import Form


@dataclass(frozen=True)
class AdversarySpec:
    """The online network sees views changed by at most ``radius`` to raise the loss most; 0: as they are.

    Of images the radius is in units of a pixel's range (8/255), of texts in those of the embeddings after their layer norm.
    """

    radius: float = ruled(0.0, at_least(0))
    norm: Literal["linf", "l2"] = "linf"
    steps: int = ruled(1, at_least(1))
    step_size: float | None = ruled(None, above(0))  # None: 1.25 radii for one step, 2.5 radii / steps for several
    weight: float = ruled(1.0, between(0, 1))  # of the changed views; below 1 the rest is of the clean ones, in a pass of their own
    separate_statistics: bool = False  # running averages of batch statistics are of clean views alone
    random_start: bool = True


@dataclass(frozen=True)
class DenoiseSpec:
    """The ``share`` of pairs whose target projections agree least is not trusted; 0: all are."""

    share: float = ruled(0.0, between(0, 0.9))
    softness: float = ruled(0.0, at_least(0))  # 0: they are dropped; above: they weigh sigmoid((cosine - threshold) / softness)
    warmup_steps: int = ruled(0, at_least(0))  # before the first is
    decay: float = ruled(0.99, between(0, 0.9999))  # of the threshold's moving average, by micro-batch
    bounded: float = ruled(0.0, at_least(0))  # q: a term d of the loss becomes (1 - exp(-q d)) / q; 0: d


@dataclass(frozen=True)
class TeacherSpec:
    """The encoder of the run in ``workdir``, frozen, takes the target's place; None: there is none."""

    workdir: str | None = None
    step: int | None = ruled(None, at_least(0))  # of its checkpoint; None: the latest
    match: Literal["projection", "embedding"] = "projection"  # what of it is predicted
    feature: float = ruled(1.0, at_least(0))  # weight of the regression of its vectors
    similarity: float = ruled(0.0, at_least(0))  # weight of the divergence of similarities within the batch (SEED)
    student_temperature: float = ruled(0.2, above(0))
    teacher_temperature: float = ruled(0.01, above(0))


def combinations(form: Form) -> Iterator[tuple[tuple[str, ...], str]]:
    """Broken rules of these keys, see ``rules.combinations``."""
    method = form.method
    adversary, denoise, teacher = method.adversary, method.denoise, method.teacher
    plain = method.loss == "regression" and method.normalization == "l2" and not method.beta
    if adversary.radius and not adversary.weight:
        yield ("method.adversary.weight",), "method.adversary.weight = 0: must be above 0; without adversary, set its radius to 0"
    if adversary.radius and adversary.separate_statistics and adversary.weight == 1:
        text = "must be False where method.adversary.weight = 1 leaves no pass over clean views"
        yield ("method.adversary.separate_statistics", "method.adversary.weight"), f"method.adversary.separate_statistics = True: {text}"
    for key, value in (("denoise.share", denoise.share), ("denoise.bounded", denoise.bounded), ("teacher.similarity", teacher.similarity)):
        if value and not plain:
            text = "needs method.loss = 'regression', normalization = 'l2' and beta = 0"
            yield (f"method.{key}", "method.loss", "method.normalization", "method.beta"), f"method.{key} = {value}: {text}"
    for name in ("supervision", "label_smoothing"):
        if (value := getattr(method, name)) and not method.probe:
            text = f"method.{name} = {value}: it is of the probe, and needs method.probe = True"
            yield (f"method.{name}", "method.probe"), text
    if teacher.workdir is None:
        if teacher.similarity:
            yield ("method.teacher.similarity",), f"method.teacher.similarity = {teacher.similarity}: needs method.teacher.workdir"
        return
    if not teacher.feature and not teacher.similarity:
        text = "one of the two must be above 0: nothing else is learned from the teacher"
        yield ("method.teacher.feature", "method.teacher.similarity"), f"method.teacher.feature = 0 and similarity = 0: {text}"
    if method.target != "ema":
        text = f"the teacher is the target; leave method.target = 'ema', it is {method.target!r}"
        yield ("method.target", "method.teacher.workdir"), f"method.teacher.workdir = {teacher.workdir!r}: {text}"
    if denoise.share and teacher.similarity:
        text = f"it is of whole batches, of which method.denoise.share = {denoise.share} would drop pairs; set one of them to 0"
        yield ("method.teacher.similarity", "method.denoise.share"), f"method.teacher.similarity = {teacher.similarity}: {text}"
