"""Levels of compression of a run, each an ordinary run in a folder of its own: ``channels50``, ``sparse80``, ``int8``, ``int8qat``."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from byol_jax import compress, data, evaluate, parallel
from byol_jax.augment import kind_of
from byol_jax.build import methods, narrow, objects, runs
from byol_jax.build.kept import ENCODER_ALONE, ORIGIN, WHOLE
from byol_jax.checkpoint import Checkpoints
from byol_jax.config import ConfigError, Spec
from byol_jax.evaluate import finetune
from byol_jax.models.transformer import unstacked
from byol_jax.workdir import folder

LEVEL = re.compile(r"(channels|sparse)([1-9]\d?)|int8|int8qat")
LEVELS = ("channels50", "sparse80", "int8", "int8qat")
RECOVERIES = ("byol", "labels")
LABELS_RATE = 0.02  # peak, for 256 examples: a small one of the paper's for fine-tuning
ROWS = 64  # of a batch that calibrates


@dataclass(frozen=True)
class Settings:
    """How a level is made.

    Attributes:
      recover: "byol" trains on as the run did, from its online and target network; "labels" fine-tunes the encoder with a classifier.
      epochs: of that training; 0: none.
      rate: byol: factor on the run's learning rate.
      calibrate: training examples whose activations fix the ranges of 8 bits.
    """

    recover: str = "byol"
    epochs: float = 10
    rate: float = 0.5
    calibrate: int = 512

    def __post_init__(self) -> None:
        wrong = []
        if self.recover not in RECOVERIES:
            wrong.append(f"--recover {self.recover}: it must be one of {', '.join(RECOVERIES)}")
        if self.epochs < 0:
            wrong.append(f"--recover-epochs {self.epochs:g}: must be 0 (no training) or more")
        if self.recover == "labels" and self.epochs != int(self.epochs):
            wrong.append(f"--recover-epochs {self.epochs:g}: with --recover labels a whole number; nearest: {max(round(self.epochs), 1)}")
        if self.rate <= 0:
            wrong.append(f"--recover-rate {self.rate:g}: must be above 0; 1 is the run's own learning rate")
        if self.calibrate < 1:
            wrong.append(f"--calibrate {self.calibrate}: must be 1 or more")
        if wrong:
            raise ConfigError(wrong)


@dataclass(frozen=True)
class Origin:
    """The run that is compressed.

    Attributes:
      spec: its configuration; layers of a Transformer stand one by one.
      state: fields of the saved state by name, "online" at least, as nested dicts.
    """

    spec: Spec
    state: dict[str, Any]
    workdir: str
    step: int

    @property
    def variables(self) -> dict[str, Any]:
        """Of the online encoder."""
        return {kind: tree["encoder"] for kind, tree in self.state["online"].items() if "encoder" in tree}

    def encoder(self, spec: Spec, variables: dict[str, Any]) -> evaluate.Encoder:
        return evaluate.Encoder(objects.encoder(spec), variables, objects.recipe(spec))


def check_levels(levels: tuple[str, ...], settings: Settings) -> None:
    """Raises ConfigError for a level that there is none of, and for training that a level needs and is not to have."""
    wrong = [
        f"--levels {level}: it must be channels1 to channels99, sparse1 to sparse99 (per cent that go), int8 or int8qat"
        for level in levels
        if LEVEL.fullmatch(level) is None
    ]
    if "int8qat" in levels and not settings.epochs:
        wrong.append("--levels int8qat: quantisation-aware is a training; give --recover-epochs above 0, or take int8")
    if wrong:
        raise ConfigError(wrong)


def origin(workdir: str | os.PathLike[str], spec: Spec, step: int | None, settings: Settings) -> Origin:
    """Reads the run. Raises ConfigError for an encoder of 8 bits, and for an encoder alone that BYOL shall train."""
    checkpoints = Checkpoints(folder(workdir) / "checkpoints", read_only=True)
    try:
        there = checkpoints.fields(step)
        state = checkpoints.restore_raw([name for name in ("online", "target", "probe") if name in there], step)
        at = int(checkpoints.note(step)["step"])
    finally:
        checkpoints.close()
    if compress.is_int8(state["online"]):
        raise ConfigError([f"--workdir {workdir}: its encoder has 8 bits already; compress the run that it was made of"])
    if "target" not in state and spec.method.target == "ema" and settings.recover == "byol" and settings.epochs:
        text = "holds an encoder alone, which BYOL cannot go on from"
        raise ConfigError([f"--workdir {workdir}: {text}; take --recover labels, or --recover-epochs 0"])
    return _in_layers(Origin(spec, state, os.fspath(workdir), at))


def _in_layers(run: Origin) -> Origin:
    """The same with the layers of a stacked Transformer one by one."""
    own = run.spec.encoder.transformer
    if not own.scan:
        return run
    state = {name: _unstacked(tree) for name, tree in run.state.items()}
    spec = narrow.with_encoder(run.spec, transformer=dataclasses.replace(own, scan=False))
    return dataclasses.replace(run, spec=spec, state=state)


def _unstacked(network: dict[str, Any]) -> dict[str, Any]:
    if "encoder" not in network.get("params", {}):
        return network
    params = network["params"]
    encoder = {**params["encoder"], "stack": unstacked(params["encoder"]["stack"])}
    return {**network, "params": {**params, "encoder": encoder}}


def make(run: Origin, level: str, to: str | os.PathLike[str], settings: Settings) -> Any:
    """Makes the run of a level, or goes on with it; returns its folder.

    Raises:
      ConfigError: the folder holds one that was made otherwise, or the encoder has no such level.
    """
    place = folder(to) / level
    facts = {"format": "byol_jax", "kind": level, "file": run.workdir, "step": run.step, **dataclasses.asdict(settings)}
    if runs.has_config(place):
        _check_same(place, facts)
    kind, share = _parsed(level)
    KINDS[kind](run, place, facts, settings, share)
    return place


def _parsed(level: str) -> tuple[str, float]:
    found = LEVEL.fullmatch(level)
    if found is None:
        raise ConfigError([f"level {level}: there is no such"])
    return found[1] or level, int(found[2] or 0) / 100


def _check_same(place: Any, facts: dict[str, Any]) -> None:
    kept = json.loads((place / ORIGIN).read_text(encoding="utf-8"))
    changed = [f"{name} = {kept.get(name)} there, {value} here" for name, value in facts.items() if kept.get(name) != value]
    if changed:
        raise ConfigError([f"{place}: was made otherwise: {', '.join(changed)}; take a new --to, or delete the folder"])


def _channels(run: Origin, place: Any, facts: dict[str, Any], settings: Settings, share: float) -> None:
    module = objects.float_encoder(run.spec)
    plan = narrow.plan(module, run.variables, share)
    spec = narrow.narrower_spec(run.spec, module, plan)
    ours = [name for name in run.state if name != "target" or spec.method.teacher.workdir is None]
    state = {**run.state, **{name: narrow.cut(plan, run.state[name]) for name in ours}}  # a frozen teacher stays as it is
    _finish(dataclasses.replace(run, spec=spec, state=state), place, facts, settings)


def _sparse(run: Origin, place: Any, facts: dict[str, Any], settings: Settings, share: float) -> None:
    if settings.epochs and settings.recover == "byol":
        spec = _recovery(run.spec, settings)
        half = objects.steps(spec, len(objects.train_source(spec))) // 2
        optimizer = dataclasses.replace(spec.optimizer, sparsity=share, sparsity_steps=max(half, 1))
        return _train(run, narrow.checked(dataclasses.replace(spec, optimizer=optimizer)), place, facts)
    keep = jax.device_get(jax.jit(compress.masks, static_argnums=1)(run.variables["params"], share))
    online = run.state["online"]
    params = {**online["params"], "encoder": compress.masked(run.variables, keep)["params"]}
    state = {**run.state, "online": {**online, "params": params}}

    def hold(tuned: Any) -> Any:
        return {**tuned, "encoder": compress.masked({"params": tuned["encoder"]}, keep)["params"]}

    return _finish(dataclasses.replace(run, state=state), place, facts, settings, after=hold)


def _finish(run: Origin, place: Any, facts: dict[str, Any], settings: Settings, after: finetune.After | None = None) -> None:
    """Writes the run as it now is, at step 0, and trains it on."""
    if settings.epochs and settings.recover == "byol":
        _train(run, _recovery(run.spec, settings), place, facts)
    elif not runs.has_config(place):
        if settings.epochs:
            tuned = _on_labels(run, settings, after)
            _write_alone(run.spec, tuned, place, facts)
        elif "target" in run.state or run.spec.method.target != "ema":
            _write_whole(run, run.spec, place, facts)
        else:
            _write_alone(run.spec, run.variables, place, facts)


def _train(run: Origin, spec: Spec, place: Any, facts: dict[str, Any]) -> None:
    if not runs.has_config(place):
        _write_whole(run, spec, place, facts)
    runs.pretrain(spec, place)


def _recovery(spec: Spec, settings: Settings) -> Spec:
    """The configuration of a short run: a tenth of it is warm-up, evaluated at its ends alone."""
    chosen = spec.optimizer
    optimizer = dataclasses.replace(
        chosen,
        learning_rate=chosen.learning_rate * settings.rate,
        warmup_steps=None,
        warmup_epochs=settings.epochs / 10,
        sparsity_steps=1 if chosen.sparsity else chosen.sparsity_steps,  # zeros that the run has are kept
    )
    evaluation = dataclasses.replace(spec.evaluation, every_epochs=settings.epochs)
    return narrow.checked(dataclasses.replace(spec, epochs=settings.epochs, steps=None, optimizer=optimizer, evaluation=evaluation))


def _write_whole(run: Origin, spec: Spec, place: Any, facts: dict[str, Any]) -> None:
    """A state at step 0 with the optimizer's at its beginning."""
    examples = len(objects.train_source(spec))
    tx = objects.optimizer(spec, objects.learning_rate(spec, examples))
    state = narrow.fresh(run.state, tx, methods.byol(spec).memory_loss.start())
    runs.make(place, spec, state, step=0, origin={**facts, "holds": WHOLE}, note={"compressed": facts})


def _write_alone(spec: Spec, variables: dict[str, Any], place: Any, facts: dict[str, Any]) -> None:
    online = {kind: {"encoder": tree} for kind, tree in variables.items()}
    origin = {**facts, "holds": ENCODER_ALONE}
    runs.make(place, spec, {"online": online}, step=facts["step"], origin=origin, note={"compressed": facts})


def _on_labels(run: Origin, settings: Settings, after: finetune.After | None = None) -> dict[str, Any]:
    """The encoder's variables after fine-tuning."""
    source = objects.labelled_source(run.spec)
    label = data.labels_of(source)
    if label is None or (label < 0).any():
        raise ConfigError(["data.labelled_split: --recover labels needs a label for every example of it; take --recover byol"])
    encoder = run.encoder(run.spec, run.variables)
    setting = finetune.Setting(LABELS_RATE, epochs=int(settings.epochs))
    options: dict[str, Any] = {"batch_size": run.spec.batch_size, "seed": run.spec.seed, "after": after}
    tuned = finetune.train(encoder, source, setting, data.num_classes(source), **options)
    found = jax.device_get(parallel.gather_to_host(tuned.variables))
    return {kind: tree["encoder"] for kind, tree in found.items() if "encoder" in tree}


def _int8(run: Origin, place: Any, facts: dict[str, Any], settings: Settings, share: float = 0) -> None:
    if not runs.has_config(place):
        spec = narrow.with_encoder(run.spec, fake_int8=False)
        module, views = objects.encoder(spec), objects.recipe(spec)
        stored = compress.quantized(module, run.variables, calibration(spec, views, settings.calibrate))
        _write_alone(spec, jax.device_get(stored), place, facts)


def _int8qat(run: Origin, place: Any, facts: dict[str, Any], settings: Settings, share: float = 0) -> None:
    """Trains in a folder beside it, as if with 8 bits, and makes 8 bits of what comes out."""
    if runs.has_config(place):
        return
    fake = dataclasses.replace(run, spec=narrow.with_encoder(run.spec, fake_int8=True))
    if settings.recover == "labels":
        trained = _on_labels(fake, settings)
    else:
        beside = place.with_name(f"{place.name}_training")
        _finish(fake, beside, facts, settings)
        trained = origin(beside, fake.spec, None, settings).variables
    online = {kind: {"encoder": tree} for kind, tree in trained.items()}
    _int8(dataclasses.replace(run, state={"online": online}), place, facts, settings)


KINDS: dict[str, Callable[..., None]] = {"channels": _channels, "sparse": _sparse, "int8": _int8, "int8qat": _int8qat}


def calibration(spec: Spec, views: Any, examples: int) -> Iterator[jax.Array]:
    """What the encoder sees of training examples at even distances, in batches of one size."""
    source = data.spread(objects.train_source(spec), examples)
    rows = min(ROWS, len(source))
    with data.eval_batches(source, views, batch_size=rows, max_bad_share=spec.data.max_bad_share) as batches:
        for batch in batches:
            if len(batch["label"]) == rows:
                yield kind_of(views).preprocess(jnp.asarray(batch[views.content]), views)
