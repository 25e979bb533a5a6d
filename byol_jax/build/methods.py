"""Spec -> the method: networks, loss, target, and what the online network sees."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from byol_jax import compress, method
from byol_jax.augment import kind_of
from byol_jax.build import objects, texts
from byol_jax.build.kept import read_spec
from byol_jax.checkpoint import Checkpoints
from byol_jax.config import ConfigError, Spec
from byol_jax.config.spec import HeadSpec, MethodSpec
from byol_jax.method.passes import Passes, clean
from byol_jax.workdir import folder


def byol(spec: Spec, classes: objects.Classes = 0) -> method.Byol:
    """The method; with ``method.probe`` and classes above 0, a linear probe learns along, and teaches the encoder by ``supervision``.

    Raises:
      ConfigError: among others, a teacher that is not there, or that reads other examples than the student.
    """
    encoder, wanted = objects.encoder(spec), spec.method
    made = method.Byol(
        encoder=encoder,
        projector=_head(wanted.projector, spec.encoder.dtype),
        predictor=_head(wanted.predictor, spec.encoder.dtype),
        loss=_loss(wanted, spec.optimizer.accumulate),
        num_classes=classes if wanted.probe else 0,
        target=wanted.target,
        passes=_passes(spec, encoder),
        reach=method.let_through(wanted.supervision),
        label_loss=method.cross_entropy(wanted.label_smoothing),
    )
    if wanted.teacher.workdir is None:
        return made
    found = teacher(spec)
    bridge = dataclasses.replace(wanted.predictor, out=_width(found, spec))
    return dataclasses.replace(made, target=found, predictor=_head(bridge, spec.encoder.dtype))


def _head(chosen: HeadSpec, dtype: str) -> nn.Module:
    return method.MLP(**asdict(chosen), dtype=jnp.dtype(dtype)) if chosen.layers else method.NoHead()


def _loss(chosen: MethodSpec, micro_batches: int) -> method.Loss | method.MemoryLoss:
    if chosen.loss != "regression":
        return objects.own("method.loss", chosen.loss)
    if chosen.beta:
        return method.contrastive_loss(chosen.beta, chosen.temperature)
    denoise, learned = chosen.denoise, chosen.teacher
    shape = {"shape": method.bounded(denoise.bounded)} if denoise.bounded else {}
    if denoise.share:
        warmup = denoise.warmup_steps * micro_batches
        return method.Denoised(denoise.share, denoise.softness, warmup, denoise.decay, **shape)
    feature = method.of_pairs(**shape) if shape else method.normalized_regression_loss(chosen.normalization)
    if not learned.similarity:
        return feature
    alike = method.similarity_loss(learned.student_temperature, learned.teacher_temperature)
    return method.summed(feature, alike, learned.similarity, first_weight=learned.feature)


def _passes(spec: Spec, encoder: nn.Module) -> Passes:
    chosen = spec.method.adversary
    if not chosen.radius:
        return clean
    recipe = objects.recipe(spec)
    if spec.text.preset is not None and not hasattr(encoder, "hidden"):
        raise ConfigError(
            [f"method.adversary.radius = {chosen.radius}: {type(encoder).__name__} has no hidden, the size of its embeddings"]
        )
    options = {name: getattr(chosen, name) for name in ("steps", "step_size", "weight", "separate_statistics", "random_start")}
    return method.Adversary(kind_of(recipe).space(recipe, encoder), method.Ball(chosen.norm, chosen.radius), **options)


def teacher(spec: Spec) -> method.Teacher:
    """The encoder of another run, with its projector where that is what the student predicts.

    Raises:
      ConfigError: the run lacks what is asked of it, or its examples are prepared in another way than the student's.
    """
    chosen = spec.method.teacher
    place = str(chosen.workdir)
    theirs = read_spec(place)
    _check_same_examples(spec, theirs)
    checkpoints = Checkpoints(folder(place) / "checkpoints", read_only=True)
    try:
        online = checkpoints.restore_raw(["online"], chosen.step)["online"]
    finally:
        checkpoints.close()
    parts = ["encoder"] if chosen.match == "embedding" else ["encoder", "projector"]
    if missing := [part for part in parts if part not in online["params"]]:
        raise ConfigError([f"method.teacher.match = {chosen.match!r}: the run in {place} has no {missing[0]}; take 'embedding'"])
    head = method.NoHead() if chosen.match == "embedding" else _head(theirs.method.projector, theirs.encoder.dtype)
    variables = {kind: {part: tree[part] for part in parts if part in tree} for kind, tree in online.items()}
    return method.Teacher(method.Network(objects.encoder(theirs), head, method.NoHead()), compress.floating(variables))


def _check_same_examples(spec: Spec, theirs: Spec) -> None:
    if (spec.text.preset is None) != (theirs.text.preset is None):
        raise ConfigError([f"method.teacher.workdir = {spec.method.teacher.workdir!r}: one of teacher and student reads images, one texts"])
    if spec.text.preset is not None:
        same = texts.tokenizer(spec).json == texts.tokenizer(theirs).json
        faults = (
            [] if same else [f"text.tokenizer = {spec.text.tokenizer!r}: the teacher reads another's ids, take {theirs.text.tokenizer!r}"]
        )
    else:
        ours, other = spec.views, theirs.views
        pairs = [(name, getattr(ours, name), getattr(other, name)) for name in ("mean", "std")]
        faults = [
            f"views.{name} = {mine}: the teacher's is {its}, and it sees the student's views" for name, mine, its in pairs if mine != its
        ]
    if faults:
        raise ConfigError(faults)


def _width(found: method.Teacher, spec: Spec) -> int:
    """How many numbers the student has to predict."""
    recipe = objects.recipe(spec)
    seen: Any = jax.eval_shape(lambda x: found.network.apply(found.variables, x, False), kind_of(recipe).seen(recipe))
    return int(seen.projection.shape[-1])
