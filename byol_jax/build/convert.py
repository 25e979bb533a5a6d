"""A foreign checkpoint -> a working directory like one of ``pretrain``: config.json, a checkpoint at its step, origin.json."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from byol_jax import method
from byol_jax.build import methods, objects, runs
from byol_jax.build.kept import ENCODER_ALONE, WHOLE
from byol_jax.config import ConfigError, Spec, default, override, resolve
from byol_jax.config.check import nearest
from byol_jax.config.file import Overrides
from byol_jax.convert import ConvertError, Training, Weights, deepmind, torch

READERS: dict[str, Callable[..., Weights]] = {"deepmind": deepmind.read, "torch": torch.read}


def convert(source: str, file: str, workdir: str | os.PathLike[str], overrides: Overrides = (), *, prefix: str | None = None) -> str:
    """Reads ``file`` and makes the run in ``workdir``; returns what was found, what was assumed, and what to do next.

    Args:
      source: a key of ``READERS``.
      overrides: (dotted key, text) of the run's configuration, for what the file does not say.
      prefix: torch: of the network to take; None finds the online one.

    Raises:
      ConvertError: the file is no such checkpoint, or the configuration given is of another network.
      ConfigError: ``workdir`` holds a run already, or a key is wrong.
    """
    if source not in READERS:
        raise ConvertError(f"--from {source}: it must be one of {', '.join(READERS)}{nearest(source, READERS)}")
    if prefix is not None and source != "torch":
        raise ConvertError(f"--prefix {prefix}: names a network in a file of --from torch; {source} has none to choose")
    refuse_run(workdir)
    weights = READERS[source](file, **({} if prefix is None else {"prefix": prefix}))
    spec = override(spec_of(weights), overrides)
    check_encoder(spec, weights)
    state = encoder_state(weights) if weights.state is None else whole_state(spec, weights.state)
    write(workdir, spec, weights, state)
    return summary(file, workdir, spec, weights)


def refuse_run(workdir: str | os.PathLike[str]) -> None:
    """Raises ConfigError for a directory that holds a run."""
    if runs.has_config(workdir) or runs.has_checkpoint(workdir):
        raise ConfigError([f"--to {workdir}: there is a run in it already; take a new folder"])


def spec_of(weights: Weights) -> Spec:
    """The configuration of a run with this encoder on ImageNet; what the checkpoint does not say is the paper's."""
    config = default().to_dict()
    config["epochs"] = 1000
    config["data"] |= {"source": "tfds", "name": "imagenet2012", "split": "train", "test_split": "validation"}
    config["encoder"] |= weights.encoder
    config["views"] |= weights.preprocess
    for key, value in weights.recipe.items():
        config[key] = _merged(config[key], value)
    return resolve(config)


def _merged(old: Any, new: Any) -> Any:
    return {**old, **{key: _merged(old[key], value) for key, value in new.items()}} if isinstance(new, dict) else new


def check_encoder(spec: Spec, weights: Weights) -> None:
    """Raises ConvertError where the configured encoder has other variables than these; names the first."""
    image = jax.ShapeDtypeStruct((1, spec.views.size, spec.views.size, 3), jnp.float32)
    expected = jax.eval_shape(lambda x: objects.encoder(spec).init(jax.random.key(0), x, False), image)
    _same_shapes(weights.variables, expected, f"encoder.name = {spec.encoder.name!r} of width {spec.encoder.width}")


def _same_shapes(tree: Any, expected: Any, what: str) -> None:
    found, wanted = (_shapes(t) for t in (tree, expected))
    for name in [*wanted, *found]:
        if found.get(name) != wanted.get(name):
            raise ConvertError(f"{name}: {found.get(name, 'missing')} in the checkpoint, {wanted.get(name, 'not there')} in {what}")


def _shapes(tree: Any) -> dict[str, list[int]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): list(leaf.shape) for path, leaf in leaves}


def encoder_state(weights: Weights) -> dict[str, Any]:
    """What stands in the checkpoint of an encoder alone: {"online": ...}, and "probe" where a classifier came with it."""
    online = {kind: {"encoder": tree} for kind, tree in weights.variables.items()}
    return {"online": online} | ({"probe": weights.classifier} if weights.classifier else {})


def whole_state(spec: Spec, training: Training) -> method.ByolState:
    """The state that ``pretrain`` goes on from: the optimizer's momentum as it was, its schedules at ``training.step``.

    Raises:
      ConvertError: the configuration is of another network; ConfigError: of another optimizer.
    """
    if spec.optimizer.name != "lars":
        raise ConfigError([f"optimizer.name = {spec.optimizer.name!r}: the checkpoint holds the momentum of 'lars'"])
    probe = training.probe if spec.method.probe else {}
    momentum = {**training.momentum, **({} if probe else {"probe": {}})}
    tx = objects.optimizer(spec, optax.constant_schedule(0.0))  # its state is the same under any schedule
    image = jax.ShapeDtypeStruct((jax.device_count(), spec.views.size, spec.views.size, 3), jnp.float32)
    fresh = partial(method.init, methods.byol(spec, len(training.probe["bias"])), tx, batch={"view1": image, "view2": image})
    like = jax.eval_shape(fresh, jax.random.key(0))
    step: Any = np.asarray(training.step, np.int32)
    opt_state = optax.tree_utils.tree_set(like.opt_state, trace=momentum, count=step)
    state = method.ByolState(step, training.online, training.target, opt_state, probe)
    _same_shapes(state, like, "the network that is configured")
    return state


def write(workdir: str | os.PathLike[str], spec: Spec, weights: Weights, state: Any) -> None:
    """Makes the run; what the checkpoint's format says of itself stands in its origin.json."""
    facts = weights.origin | {"holds": ENCODER_ALONE if weights.state is None else WHOLE}
    runs.make(workdir, spec, state, step=weights.origin.get("step", 0), origin=facts, note={"converted": weights.origin})


def summary(file: str, workdir: str | os.PathLike[str], spec: Spec, weights: Weights) -> str:
    """What was found, assumed and made, and the next commands."""
    origin, encoder = weights.origin, spec.encoder
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(weights.variables["params"]))
    lines = [f"{file}: {origin['format']}, {origin.get('kind', 'an encoder')}, step {origin.get('step', 0):,}"]
    lines.append(f"  encoder: {encoder.name}, width {encoder.width}, {parameters:,} parameters")
    if weights.classifier:
        lines.append("  classifier: {} numbers an image, {} classes".format(*weights.classifier["kernel"].shape))
    lines.append(f"  training on: {_training_on(spec, weights)}")
    lines += ["assumed, where no --config.KEY=... said otherwise, for the file does not say:"] if origin.get("assumed") else []
    lines += [f"  - {text}" for text in origin.get("assumed", [])]
    verbs = ["show", "evaluate knn", "evaluate linear", *(["pretrain"] if weights.state else [])]
    return "\n".join([*lines, f"written to {workdir}; next:", *(f"  byol-jax {verb} --workdir {workdir}" for verb in verbs)])


def _training_on(spec: Spec, weights: Weights) -> str:
    if weights.state is None:
        lacks = weights.origin.get("lacks")
        return f"no, the file holds no {', '.join(lacks)}" if lacks else "no, the file holds an encoder alone"
    where = f"from step {weights.state.step:,}"
    if spec.steps is None and spec.data.name == "imagenet2012":
        total = objects.steps(spec, deepmind.IMAGENET)
        return f"{where} of {total:,}" if weights.state.step < total else f"complete at {where[5:]}; a longer run is another schedule"
    return where
