"""Spec -> objects: the only place where a name in a configuration meets a constructor."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import optax

from byol_jax import compress, data, method, models
from byol_jax.augment import Recipe
from byol_jax.build import texts
from byol_jax.config import ConfigError, Spec
from byol_jax.config.check import nearest
from byol_jax.config.file import look_beside
from byol_jax.config.mix import parts as parts_of
from byol_jax.config.rules import BERTS, VITS, is_own
from byol_jax.config.spec import OptimizerSpec
from byol_jax.data.files import folder_classes

Classes = int | Mapping[str, int]


def own(key: str, name: str) -> Any:
    """The user's object ``my_pkg.mod:Name``; modules beside the current folder are found too.

    Raises:
      ConfigError: names the key, and the nearest name the module has.
    """
    module_name, _, attribute = name.partition(":")
    look_beside()
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError([f"{key} = {name!r}: cannot import {module_name}: {error}"]) from error
    if not hasattr(module, attribute):
        raise ConfigError([f"{key} = {name!r}: {module_name} has no {attribute}{nearest(attribute, dir(module))}"])
    return getattr(module, attribute)


def train_source(spec: Spec) -> Any:
    """What the encoder learns from. Raises ValueError where it is not there."""
    if not spec.data.mix:
        return _source(spec, spec.data.path, spec.data.split)
    parts = parts_of(spec.data)
    sources = [_source(dataclasses.replace(spec, data=one), one.path, one.split) for _, one in parts]
    try:
        return data.mixture(sources, [part.weight for part, _ in parts], labels=[part.labels for part, _ in parts])
    except ValueError as error:
        raise ConfigError([f"data.mix: {error}"]) from error


def labelled_source(spec: Spec) -> Any:
    """What k-NN and linear evaluation learn from."""
    return _source(spec, spec.data.path, spec.data.labelled_split or spec.data.split)


def test_source(spec: Spec) -> Any | None:
    """What evaluation tests on; None where the configuration has none."""
    if spec.data.source in ("folder", "text") and spec.data.test_path is not None:
        return _source(spec, spec.data.test_path, "test")
    return None if spec.data.test_split is None else _source(spec, spec.data.path, spec.data.test_split)


def _source(spec: Spec, path: str | None, split: str) -> Any:
    if is_own(spec.data.source):
        return _called("data.source", spec.data.source, split, **spec.data.args)
    if spec.text.preset is not None:
        return texts.source(spec, path, split)
    if spec.data.source == "tfds":
        return data.tfds(str(spec.data.name), split, data_dir=path, in_memory=spec.data.in_memory, max_bad_share=spec.data.max_bad_share)
    part = data.parse_split(split)
    makers: dict[str, Callable[[], data.Source]] = {
        "digits": lambda: data.digits(part.name, size=spec.views.size),
        "idx": lambda: data.idx(str(path), part.name),
        "npz": lambda: data.npz(str(path), part.name),
        "folder": lambda: _folder(spec, str(path)),
    }
    return data.sliced(makers[spec.data.source](), part)


def _folder(spec: Spec, path: str) -> data.Source:
    """Images of a folder; test images get the classes of the training images."""
    names = None if path == spec.data.path else folder_classes(str(spec.data.path))
    return data.folder(path, class_names=names, max_bad_share=spec.data.max_bad_share)


def _called(key: str, name: str, *args: Any, **kwargs: Any) -> Any:
    made = own(key, name)
    try:
        return made(*args, **kwargs)
    except TypeError as error:
        given = ", ".join([*map(repr, args), *(f"{k}={v!r}" for k, v in kwargs.items())])
        raise ConfigError([f"{key} = {name!r}: {name}({given}) raised TypeError: {error}"]) from error


def num_classes(source: Any) -> Classes:
    """Classes of a source, by name where it has several label sets; 0 where it has no labels."""
    return getattr(source, "label_sets", None) or data.num_classes(source)


def encoder(spec: Spec) -> nn.Module:
    """The backbone, a module ``(x, train) -> [B, D]``."""
    return compress.fake_int8(float_encoder(spec)) if spec.encoder.fake_int8 else float_encoder(spec)


def float_encoder(spec: Spec) -> nn.Module:
    """The same, computing in its dtype even where ``encoder.fake_int8`` asks for 8 bits; the variables are the same."""
    chosen = spec.encoder
    if is_own(chosen.name):
        return _called("encoder.name", chosen.name, **chosen.args)
    if chosen.name in BERTS:
        return texts.encoder(spec)
    if chosen.name in VITS:
        return getattr(models, chosen.name)(dtype=jnp.dtype(chosen.dtype), remat=chosen.remat, drop_path=chosen.drop_path)
    options: dict[str, Any] = {
        "width": chosen.width,
        "small_inputs": chosen.stem == "small",
        "zero_init_last_bn": chosen.zero_init_last_bn,
        "padding": chosen.padding,
        "shortcut": chosen.shortcut,
        "norm": chosen.norm,
        "dtype": jnp.dtype(chosen.dtype),
        "remat": chosen.remat,
        "drop_path": chosen.drop_path,
    }
    if chosen.name == "resnet":
        options |= {"block": chosen.block or "basic", "stem_channels": chosen.stem_channels}
        return models.resnet(chosen.stages or (), chosen.channels or (), **options)
    return getattr(models, chosen.name)(**options)


def crops_on_device(spec: Spec) -> bool:
    """Whether the host sends whole images: arrays in memory, of which the step cuts both crops."""
    in_memory = spec.data.source in ("digits", "idx", "npz") or spec.data.in_memory
    return in_memory and spec.data.augment_on == "device" and spec.views.function is None


def recipe(spec: Spec) -> Recipe:
    """How views are made, and how an example is prepared for the encoder."""
    return spec.views.recipe() if spec.text.preset is None else texts.recipe(spec)


def training_views(spec: Spec) -> Recipe | Callable[..., Any]:
    """The recipe, or the user's own function."""
    return recipe(spec) if spec.views.function is None else own("views.function", spec.views.function)


def steps(spec: Spec, examples: int) -> int:
    """Steps of the whole run on a data set of this many examples: full batches only, as in the official code.

    Raises:
      ConfigError: not a single step, or fewer than its sparsity takes.
    """
    epochs = spec.epochs or 0
    total = spec.steps or int(epochs * examples) // spec.batch_size
    if total < 1:
        text = f"epochs = {epochs} of {examples} examples make no batch of batch_size = {spec.batch_size}"
        raise ConfigError([f"{text}; take batch_size <= {int(epochs * examples)}, or set steps"])
    sparsity, needed = spec.optimizer.sparsity, spec.optimizer.sparsity_steps
    if sparsity and needed > total:
        text = f"optimizer.sparsity_steps = {needed}: optimizer.sparsity = {sparsity} must be reached within the run of {total} steps"
        raise ConfigError([f"{text}; nearest: {total}, better half of it, so that what is left can learn on"])
    return total


def warmup_steps(spec: Spec, examples: int) -> int:
    """Steps of the warm-up. Raises ConfigError where it is not shorter than the run."""
    chosen, total = spec.optimizer, steps(spec, examples)
    if chosen.warmup_steps is not None:
        warmup, key = chosen.warmup_steps, f"optimizer.warmup_steps = {chosen.warmup_steps}"
    else:
        warmup = int((chosen.warmup_epochs or 0) * examples) // spec.batch_size
        key = f"optimizer.warmup_epochs = {chosen.warmup_epochs} ({warmup} steps)"
    if warmup >= total:
        raise ConfigError([f"{key}: the warm-up must be shorter than the run of {total} steps"])
    return warmup


def learning_rate(spec: Spec, examples: int) -> optax.Schedule:
    """Warm-up, then a cosine to 0 at the last step."""
    lengths = {"steps": steps(spec, examples), "warmup_steps": warmup_steps(spec, examples)}
    return method.warmup_cosine(spec.optimizer.learning_rate, batch_size=spec.batch_size, **lengths)


def optimizer(spec: Spec, schedule: optax.Schedule) -> optax.GradientTransformation:
    """LARS, AdamW or SGD at this rate, multiplied for the parts that have a factor of their own; it may keep weights at 0."""
    chosen, tx = spec.optimizer, _optimizer(spec.optimizer, schedule)
    factors = {name: factor for name in ("projector", "predictor", "probe") if (factor := getattr(chosen, f"{name}_rate")) != 1}
    tx = method.multiply_rates(tx, factors) if factors else tx
    return compress.sparse(tx, chosen.sparsity, chosen.sparsity_steps) if chosen.sparsity else tx


def _optimizer(chosen: OptimizerSpec, schedule: optax.Schedule) -> optax.GradientTransformation:
    if chosen.name == "lars":
        options = {"momentum": chosen.momentum, "trust_coefficient": chosen.trust_coefficient}
        return method.lars(schedule, weight_decay=chosen.weight_decay, **options)
    if chosen.name == "adamw":
        return method.adamw(schedule, weight_decay=chosen.weight_decay)
    return method.sgd(schedule, weight_decay=chosen.weight_decay, momentum=chosen.momentum)


def tau(spec: Spec, examples: int) -> optax.Schedule:
    """The target's decay by step."""
    if spec.method.tau_schedule == "constant":
        return method.constant_decay(spec.method.tau)
    return method.ema_decay(spec.method.tau, steps(spec, examples))
