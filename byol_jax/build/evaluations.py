"""The kinds of evaluation of a run, by name: which data each takes, and which options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from byol_jax import evaluate
from byol_jax.build import objects
from byol_jax.build.runs import load_encoder, test_or_error
from byol_jax.config import ConfigError, Spec
from byol_jax.evaluate.sgd import PLAIN, REGULARISED

Results = dict[str, evaluate.Result]
COUNTS = ("epochs", "batch_size")


def _knn(spec: Spec, encoder: evaluate.Encoder) -> Results:
    return {"knn": evaluate.knn(encoder, objects.labelled_source(spec), test_or_error(spec))}


def _linear(spec: Spec, encoder: evaluate.Encoder) -> Results:
    train, test = (evaluate.features(encoder, source) for source in (objects.labelled_source(spec), test_or_error(spec)))
    return {"linear": evaluate.linear_features(train, test), "linear_sgd": evaluate.sgd_features(train, test)}


def _linear_paper(
    spec: Spec,
    encoder: evaluate.Encoder,
    *,
    epochs: int = 80,
    batch_size: int = 1024,
    held_out: float | None = None,
    regularised: bool = False,
    photometric: bool = False,
) -> Results:
    options: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "held_out": held_out, "photometric": photometric}
    name = "linear_paper" + "_photometric" * photometric + "_regularised" * regularised
    sources = objects.labelled_source(spec), test_or_error(spec)
    return {name: evaluate.sgd(encoder, *sources, loss=REGULARISED if regularised else PLAIN, seed=spec.seed, **options)}


def _collapse(spec: Spec, encoder: evaluate.Encoder) -> Results:
    return {"collapse": evaluate.collapse(encoder, objects.train_source(spec))}


def _fewlabels(spec: Spec, encoder: evaluate.Encoder) -> Results:
    sources = objects.labelled_source(spec), test_or_error(spec)
    views = spec.views.recipe()
    untrained = evaluate.Encoder.untrained(objects.encoder(spec), views, seed=spec.seed)

    def both(embed: Callable[[Any], evaluate.Features]) -> tuple[evaluate.Features, evaluate.Features]:
        return embed(sources[0]), embed(sources[1])

    sets = {
        "BYOL": both(lambda source: evaluate.features(encoder, source)),
        "untrained": both(lambda source: evaluate.features(untrained, source)),
        "pixels": both(lambda source: evaluate.pixels(source, views)),
    }
    return {"fewlabels": evaluate.few_labels(sets)}


EVALUATIONS: dict[str, Callable[..., Results]] = {
    "knn": _knn,
    "linear": _linear,
    "linear_paper": _linear_paper,
    "collapse": _collapse,
    "fewlabels": _fewlabels,
}


def evaluation(
    kind: str, workdir: str | Path, spec: Spec, *, step: int | None = None, **options: Any
) -> list[tuple[evaluate.Result, Path]]:
    """Evaluates the run's encoder in one way; each result is saved below ``workdir/evaluation`` and returned with its path.

    Raises:
      ConfigError: among others, an option that this kind does not have.
    """
    wrong = [_misplaced(kind, name) for name in options if name not in options_of(kind)]
    wrong += [f"{_flag(name)} {options[name]}: must be 1 or more" for name in COUNTS if options.get(name, 1) < 1]
    if wrong:
        raise ConfigError(wrong)
    found = EVALUATIONS[kind](spec, load_encoder(workdir, step=step, spec=spec), **options)
    return [(result, evaluate.save(workdir, name, result)) for name, result in found.items()]


def options_of(kind: str) -> tuple[str, ...]:
    """The names of an evaluation's options."""
    parameters = inspect.signature(EVALUATIONS[kind]).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def _misplaced(kind: str, option: str) -> str:
    has = ", ".join(_flag(name) for name in options_of(kind)) or "no options"
    kinds = ", ".join(other for other in EVALUATIONS if option in options_of(other))
    return f"{_flag(option)}: evaluate {kind} has {has}; it belongs to {kinds}"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
