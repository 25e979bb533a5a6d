"""Checkpoints of the official BYOL code (google-deepmind/deepmind-research, folder byol): pretraining and linear evaluation.

A file is a pickle of {"experiment_state", "step", "rng"}; its ablation checkpoints (300 epochs, other batch sizes or augmentations) are
of the same form. What a file says of its training is the step alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from byol_jax.convert import haiku
from byol_jax.convert.unpickle import load
from byol_jax.convert.weights import ConvertError, Training, Weights
from byol_jax.views import IMAGENET_MEAN, IMAGENET_STD

IMAGENET = 1_281_167  # training images
# epochs -> base learning rate, weight decay, base tau: the official presets (paper, Section 5 and Appendix B)
PRESETS = {40: (0.45, 1e-6, 0.97), 100: (0.45, 1e-6, 0.99), 300: (0.3, 1e-6, 0.99), 1000: (0.2, 1.5e-6, 0.996)}
BATCHES = (4096, 2048, 1024, 512, 256, 128, 64)  # of the paper and its Figure 3a
PREPROCESS = {"size": 224, "eval_crop": 0.875, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
PRETRAINING, LINEAR = "online_params", "backbone_params"  # the field by which each kind is known


def read(path: str | os.PathLike[str]) -> Weights:
    """A ``pretrain.pkl`` or ``linear-eval.pkl`` of the official code, any encoder and width. Nothing in the file is run.

    A pretraining checkpoint that lacks the target network or the optimizer comes back as an encoder alone.

    Raises:
      ConvertError: the file is none of these; the message names the first thing that does not fit.
      OSError: it cannot be opened.
    """
    content = load(path)
    try:
        experiment, step = _experiment(content)
        weights = _linear(experiment, step) if LINEAR in experiment else _pretraining(experiment, step)
    except ConvertError as error:
        raise ConvertError(f"{path}: {error}") from None
    return _named(weights, Path(path).name)


def _named(weights: Weights, file: str) -> Weights:
    weights.origin["file"] = file
    return weights


def _experiment(content: Any) -> tuple[dict[str, Any], int]:
    """(experiment_state, step). Raises ConvertError for a pickle of something else."""
    if not isinstance(content, dict) or not {"experiment_state", "step"} <= content.keys():
        found = f"the keys {', '.join(map(str, list(content)[:5]))}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise ConvertError(f"is no checkpoint of the official code, which holds experiment_state, step and rng; it holds {found}")
    experiment, step = content["experiment_state"], content["step"]
    if not isinstance(experiment, dict) or not {PRETRAINING, LINEAR} & experiment.keys():
        raise ConvertError(f"experiment_state has neither {PRETRAINING} nor {LINEAR}: it is of another experiment than BYOL")
    if not isinstance(step, int | np.integer) or not 0 <= step < 2**31:
        raise ConvertError(f"step = {str(step)[:40]}: it must be a whole number from 0 to {2**31 - 1}")
    return experiment, int(step)


def _modules(experiment: dict[str, Any], field: str) -> dict[str, dict[str, Any]]:
    modules = experiment.get(field)
    if not isinstance(modules, dict) or not all(isinstance(m, str) and isinstance(leaves, dict) for m, leaves in modules.items()):
        raise ConvertError(f"{field}: it must hold modules and their arrays by name")
    return modules


def _encoder(params: Any, state: Any) -> tuple[dict[str, Any], haiku.Shapes, dict[str, Any]]:
    """(configuration, shapes, our variables) of the encoder."""
    fields, shapes = haiku.encoder_of(params)
    stats = haiku.stats_shapes(shapes)
    haiku.check({module: state.get(module, {}) for module in stats}, stats, "the encoder's running averages")
    trees = {"params": haiku.params_tree(haiku.chosen(params, shapes)), "batch_stats": haiku.stats_tree(haiku.chosen(state, stats))}
    return fields, shapes, {kind: tree["encoder"] for kind, tree in trees.items()}


def _linear(experiment: dict[str, Any], step: int) -> Weights:
    """The frozen encoder and the classifier trained on it."""
    fields, shapes, variables = _encoder(_modules(experiment, LINEAR), _modules(experiment, "backbone_state"))
    classifier = _classifier(_modules(experiment, "classif_params"), "linear", shapes)
    classes = len(classifier["bias"])
    assumed = _assumed(fields, classes)
    origin = {"format": "deepmind", "kind": "linear evaluation", "step": step, "classes": classes, "assumed": assumed}
    return Weights(fields, variables, classifier, dict(PREPROCESS), origin)


def _classifier(modules: dict[str, Any], module: str, shapes: haiku.Shapes) -> dict[str, np.ndarray]:
    classes = np.shape(modules.get(module, {}).get("b", ()))[-1:] or (0,)
    wanted: haiku.Shapes = {module: {"w": (_width(shapes), *classes), "b": classes}}
    haiku.check({module: modules.get(module, {})}, wanted, "a linear classifier on this encoder")
    leaves = haiku.chosen(modules, wanted)[module]
    return {"kernel": leaves["w"], "bias": leaves["b"]}


def _pretraining(experiment: dict[str, Any], step: int) -> Weights:
    """The encoder, and all else where it is there."""
    params = _modules(experiment, PRETRAINING)
    fields, shapes, variables = _encoder(params, _modules(experiment, "online_state"))
    probe = _classifier(params, "classifier", shapes) if "classifier" in params else None
    classes = len(probe["bias"]) if probe else 0
    assumed = _assumed(fields, classes)
    origin: dict[str, Any] = {"format": "deepmind", "kind": "pretraining", "step": step, "classes": classes, "assumed": assumed}
    lacks = [field for field in ("target_params", "target_state", "opt_state") if not experiment.get(field)]
    if lacks:
        origin["lacks"] = lacks
        return Weights(fields, variables, probe, dict(PREPROCESS), origin)
    shapes |= haiku.head_shapes(params, _width(shapes))
    training = _training(experiment, shapes, step)
    recipe = _recipe(step, shapes, assumed)
    return Weights(fields, variables, training.probe, dict(PREPROCESS), origin, training, recipe)


def _training(experiment: dict[str, Any], shapes: haiku.Shapes, step: int) -> Training:
    links = experiment["opt_state"] if isinstance(experiment["opt_state"], list | tuple) else ()
    lars = next((link for link in links if isinstance(link, dict) and "mu" in link), None)
    if lars is None:
        raise ConvertError("opt_state: holds no LARS momentum ('mu')")
    everything = {**experiment, "mu": lars["mu"]}
    stats = haiku.stats_shapes(shapes)

    def tree(field: str) -> dict[str, Any]:
        wanted = stats if field.endswith("_state") else shapes
        haiku.check(_modules(everything, field), wanted, f"{field} of this network")
        make = haiku.stats_tree if field.endswith("_state") else haiku.params_tree
        return make(haiku.chosen(everything[field], wanted))

    online, target, momentum = (tree(field) for field in (PRETRAINING, "target_params", "mu"))
    probe, probe_momentum = online.pop("probe"), momentum.pop("probe")
    target.pop("probe")  # an average that the official code never uses
    return Training(
        step=step,
        online={"params": online, "batch_stats": tree("online_state")},
        target={"params": target, "batch_stats": tree("target_state")},
        momentum={"online": momentum, "probe": probe_momentum},
        probe=probe,
    )


def _width(shapes: haiku.Shapes) -> int:
    """Numbers an embedding: the outputs of the encoder's last convolution."""
    return [leaves["w"][-1] for leaves in shapes.values() if "w" in leaves][-1]


def _assumed(fields: dict[str, Any], classes: int) -> list[str]:
    assumed = ["that it was trained on ImageNet" + ("" if classes in (0, 1000) else f", though its classifier has {classes} classes")]
    assumed += ["images of 224 px, normalised as the official code does for ImageNet"]
    if fields.get("block") == "basic" or fields["name"] in ("resnet18", "resnet34"):
        text = "that the stride of a block stands in its first convolution, as in haiku since 0.0.4 (April 2021); before, in its second"
        assumed.append(text)
    return assumed


def _recipe(step: int, shapes: haiku.Shapes, assumed: list[str]) -> dict[str, Any]:
    """The configuration it was trained with, as far as the file tells; what it does not tell is added to ``assumed``."""
    complete = {epochs * IMAGENET // batch: (epochs, batch) for epochs in PRESETS for batch in BATCHES}
    epochs, batch_size = complete.get(step, (1000, 4096))
    rate, decay, tau = PRESETS[epochs]
    if step not in complete:
        assumed.append(f"epochs = {epochs}, batch_size = {batch_size}: step {step:,} is not the end of any run of the paper")
    assumed.append(f"learning rate, weight decay and tau of the paper's {epochs} epochs, and its augmentations")
    heads = {
        head: {"hidden": shapes[f"{head}/linear"]["w"][1], "out": shapes[f"{head}/linear_1"]["w"][1]} for head in ("projector", "predictor")
    }
    return {
        "epochs": epochs,
        "batch_size": batch_size,
        "method": {**heads, "tau": tau},
        "optimizer": {"name": "lars", "learning_rate": rate, "weight_decay": decay, "warmup_epochs": 10},
    }
