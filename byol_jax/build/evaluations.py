"""The kinds of evaluation of a run, by name: which data each takes, and which options."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from byol_jax import data, evaluate, parallel
from byol_jax.build import objects
from byol_jax.build.runs import load_encoder, measured_on
from byol_jax.build.subject import BYOL, Subject
from byol_jax.config import ConfigError, Spec
from byol_jax.evaluate import finetune
from byol_jax.evaluate.fewlabels import ALL
from byol_jax.evaluate.finetune import semi_supervised_grid
from byol_jax.evaluate.linear import L2_PATH, hold_out, split_share
from byol_jax.evaluate.probe import check_target
from byol_jax.evaluate.robust import RADII
from byol_jax.evaluate.sgd import PLAIN, REGULARISED, held_out_share
from byol_jax.evaluate.tasks import TASKS
from byol_jax.method.attack import Norm
from byol_jax.workdir import folder

Results = dict[str, evaluate.Result]


OF_TEXTS = ("similarity", "retrieve")
BY_GRADIENTS = ("semisup", "transfer_finetune", "robust")  # which rounding has none of: 8 bits compute in float32 there
WANTED = {
    "pairs": "a .tsv, .csv or .jsonl file with the columns sentence1, sentence2 and score, or tfds:glue/stsb",
    "corpus": "a folder with queries.jsonl, corpus.jsonl and qrels/test.tsv, as BEIR has them",
}
COUNTS = ("epochs", "batch_size", "draws", "steps", "restarts", "k")
ABOVE_0 = ("penalties", "rates")


def _knn(run: Subject) -> Results:
    return {"knn": _beside({name: evaluate.knn_features(*both) for name, both in run.sets().items()})}


def _linear(run: Subject, *, penalties: tuple[float, ...] = L2_PATH, save: str | None = None) -> Results:
    if save is not None:
        check_target(save)
    sets = run.sets()
    by_penalty = {name: evaluate.linear_classifier(*both, l2=penalties) for name, both in sets.items()}
    if save is not None and parallel.is_main():
        evaluate.save_probe(save, by_penalty[BYOL][1], getattr(run.train(), "class_names", None))
    results: Results = {name: result for name, (result, _) in by_penalty.items()}
    return {"linear": _beside(results), "linear_sgd": _beside({name: evaluate.sgd_features(*both) for name, both in sets.items()})}


def _beside(results: Results) -> evaluate.Result:
    """One result as it is; several in one table."""
    first = next(iter(results.values()))
    return first if len(results) == 1 else evaluate.compared(first.rows()[0], results)


def _similarity(run: Subject, *, pairs: str) -> Results:
    name = pairs.removeprefix("tfds:")
    found = data.sts_tfds(name) if name != pairs else data.pairs(pairs)
    return {"similarity": evaluate.similarity_rows(run.embeds([*found.first, *found.second]), found)}


def _retrieve(run: Subject, *, corpus: str, k: tuple[int, ...] = (1, 5, 10, 100)) -> Results:
    found = data.beir(corpus)
    return {"retrieve": evaluate.retrieve(run.embeds(found.documents), found, k)}


def _linear_paper(
    run: Subject,
    *,
    epochs: tuple[int, ...] = (80,),
    batch_size: int = 1024,
    held_out: float | None = None,
    regularised: bool = False,
    photometric: bool = False,
) -> Results:
    if len(epochs) > 1:
        raise ConfigError([f"--epochs {','.join(map(str, epochs))}: linear_paper trains for one number of epochs; give one"])
    options: dict[str, Any] = {"epochs": epochs[0], "batch_size": batch_size, "held_out": held_out, "photometric": photometric}
    name = "linear_paper" + "_photometric" * photometric + "_regularised" * regularised
    sources = run.train(), run.test()
    return {name: evaluate.sgd(run.encoder, *sources, loss=REGULARISED if regularised else PLAIN, seed=run.spec.seed, **options)}


def _collapse(run: Subject) -> Results:
    return {"collapse": evaluate.collapse(run.encoder, objects.train_source(run.spec))}


def _fewlabels(run: Subject, *, labels: tuple[int, ...] = (1, 10, ALL), draws: int = 3) -> Results:
    return {"fewlabels": evaluate.few_labels(run.compared_features(), labels=labels, draws=draws)}


def _semisup(
    run: Subject,
    *,
    share: tuple[float, ...] = (0.01, 0.1),
    rates: tuple[float, ...] = finetune.RATES,
    epochs: tuple[int, ...] = finetune.EPOCHS,
    batch_size: int = 1024,
    held_out: float | None = None,
    dropout: float = 0.0,
    label_smoothing: float = 0.0,
) -> Results:
    regularised = {"dropout": dropout, "label_smoothing": label_smoothing}
    if wrong := [f"{_flag(name)} {value:g}: must be at least 0 and below 1" for name, value in regularised.items() if not 0 <= value < 1]:
        raise ConfigError(wrong)
    settings = semi_supervised_grid(rates, epochs, **regularised)
    found: Results = {}
    for part in share:
        name = f"semisup_{100 * part:g}pct"
        options: dict[str, Any] = {"settings": settings, "batch_size": batch_size, "seed": run.spec.seed}
        sources = *few_labelled(run.spec, part, held_out), run.test()
        found[name] = evaluate.fine_tune(run.encoder, *sources, folder=run.workdir / "evaluation" / "finetune" / name, **options)
    return found


def few_labelled(spec: Spec, share: float, held_out: float | None = None) -> tuple[Any, Any]:
    """(training images, images to choose by) where only a share of the labels is known.

    Of ImageNet in TFDS these are SimCLR's fixed 1 % and 10 % (``imagenet2012_subset``) and, as in the paper, the last 10,009 training
    images; some of the latter (1 % and 10 %) are then in both. Of other data a share of each class, the same for every run and seed, and
    ``held_out`` of the rest to choose by.
    """
    if not 0 < share < 1:
        raise ConfigError([f"--share {share:g}: must lie between 0 and 1, such as 0.01"])
    data_spec = spec.data
    if data_spec.source == "tfds" and (data_spec.name or "").split(":")[0] == "imagenet2012":
        if share not in (0.01, 0.1):
            raise ConfigError(
                [f"--share {share:g}: ImageNet has the fixed subsets 0.01 and 0.1; nearest: {0.01 if share < 0.055 else 0.1}"]
            )
        subset_name = f"imagenet2012_subset/{100 * share:g}pct"
        place = data_spec.path
        return data.tfds(subset_name, "train", data_dir=place), data.tfds(str(data_spec.name), "train[-10009:]", data_dir=place)
    source = objects.labelled_source(spec)
    label = data.labels_of(source)
    if label is None or (label < 0).any():
        raise ConfigError(["data.labelled_split: semisup needs a label for every image of it"])
    chosen, rest = split_share(label, share)
    _, held = hold_out(label[rest], held_out or held_out_share(len(label)), 0)
    return data.subset(source, chosen), data.subset(source, rest[held])


def _transfer(
    run: Subject, *, tasks: tuple[str, ...] = tuple(TASKS), penalties: tuple[float, ...] = L2_PATH, data_dir: str | None = None
) -> Results:
    place = run.workdir / "evaluation" / "transfer"
    return {"transfer": evaluate.transfer(run.encoder, tasks, penalties=penalties, data_dir=data_dir, folder=place)}


def _transfer_finetune(
    run: Subject,
    *,
    tasks: tuple[str, ...] = tuple(TASKS),
    rates: tuple[float, ...] = finetune.TRANSFER_RATES,
    decays: tuple[float, ...] = finetune.TRANSFER_DECAYS,
    steps: int = 20_000,
    batch_size: int = 256,
    data_dir: str | None = None,
) -> Results:
    options: dict[str, Any] = {"settings": finetune.transfer_grid(rates, decays, steps), "batch_size": batch_size, "seed": run.spec.seed}
    place = run.workdir / "evaluation" / "transfer_finetune"
    return {"transfer_finetune": evaluate.transfer_fine_tune(run.encoder, tasks, data_dir=data_dir, folder=place, **options)}


def _robust(
    run: Subject,
    *,
    norm: Norm = "linf",
    radii: tuple[float, ...] = RADII,
    steps: int = 20,
    restarts: int = 1,
) -> Results:
    options: dict[str, Any] = {"norm": norm, "radii": radii, "steps": steps, "restarts": restarts, "seed": run.spec.seed}
    return {"robust": evaluate.robust(run.encoder, run.train(), run.test(), **options)}


EVALUATIONS: dict[str, Callable[..., Results]] = {
    "knn": _knn,
    "linear": _linear,
    "linear_paper": _linear_paper,
    "collapse": _collapse,
    "fewlabels": _fewlabels,
    "semisup": _semisup,
    "transfer": _transfer,
    "transfer_finetune": _transfer_finetune,
    "robust": _robust,
    "similarity": _similarity,
    "retrieve": _retrieve,
}


def evaluation(
    kind: str, workdir: str | os.PathLike[str], spec: Spec, *, step: int | None = None, **options: Any
) -> list[tuple[evaluate.Result, Any]]:
    """Evaluates the run's encoder in one way; each result is saved below ``workdir/evaluation`` and returned with its path.

    Raises:
      ConfigError: among others, an option that this kind does not have.
    """
    wrong = [_misplaced(kind, name) for name in options if name not in options_of(kind)]
    wrong += [f"{_flag(name)} {options[name]}: must be 1 or more" for name in COUNTS if np.min(options.get(name, 1)) < 1]
    least = {name: np.min(options.get(name, 1)) for name in (*ABOVE_0, "decays")}
    wrong += [f"{_flag(name)} {least[name]:g}: must be above 0, such as 0.01" for name in ABOVE_0 if not least[name] > 0]
    wrong += [] if least["decays"] >= 0 else [f"--decays {least['decays']:g}: must be 0 or more"]
    wrong += [
        f"{_flag(name)}: evaluate {kind} needs it: {WANTED[name]}" for name in WANTED if name in options_of(kind) and name not in options
    ]
    if kind in OF_TEXTS and spec.text.preset is None:
        wrong.append(f"evaluate {kind}: is of texts, and the run in {workdir} is one of images")
    if wrong:
        raise ConfigError(wrong)
    encoder = load_encoder(workdir, step=step, spec=spec, floating=kind in BY_GRADIENTS)
    found = EVALUATIONS[kind](Subject(spec, encoder, folder(workdir)), **options)
    about = measured_on(workdir, spec, step)
    return [(result, evaluate.save(workdir, name, result, about)) for name, result in found.items()]


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
