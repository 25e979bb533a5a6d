"""Working directories: start or resume a run in one, take its encoder out, evaluate it, write its report.

A working directory holds config.json (the whole configuration), checkpoints/, metrics.jsonl, evaluation/ and report/; a converted one
also origin.json (where it came from).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from byol_jax import compress, evaluate, parallel
from byol_jax.augment import kind_of
from byol_jax.build import methods, objects, texts
from byol_jax.build.kept import CONFIG, ENCODER_ALONE, ORIGIN, read_spec
from byol_jax.checkpoint import Checkpoints
from byol_jax.config import ConfigError, Spec, differences, digest, to_json
from byol_jax.train import Hook, Run
from byol_jax.train import pretrain as train_method
from byol_jax.workdir import folder, write_text


def claim(workdir: str | os.PathLike[str], spec: Spec) -> None:
    """Notes the configuration in the directory; a run that has a checkpoint there must have been started with the same one.

    Raises:
      ConfigError: names each value that differs and shapes the trained state.
    """
    file = folder(workdir) / CONFIG
    there = file.is_file() and has_checkpoint(workdir)
    if there and (changed := [*differences(read_spec(workdir), spec), *texts.changed_files(workdir, spec)]):
        raise ConfigError([*changed, f"--workdir {workdir}: another configuration was trained there; go on with it, or take a new folder"])
    if parallel.is_main():
        write_text(file, to_json(spec))
        texts.keep_files(workdir, spec)


def has_config(workdir: str | os.PathLike[str]) -> bool:
    """Whether the directory says that it is of a run."""
    return bool((folder(workdir) / CONFIG).is_file())


def make(workdir: str | os.PathLike[str], spec: Spec, state: Any, *, step: int, origin: Mapping[str, Any], note: Mapping[str, Any]) -> None:
    """A run that begins with a state from elsewhere. The configuration comes last: a folder without it holds no run.

    Args:
      state: a ``ByolState``, or of an encoder alone {"online": {"params": {"encoder"}[, "batch_stats"]}}.
      origin: for origin.json: "format", "kind" and "file", where it came from, and "holds", ENCODER_ALONE or WHOLE.
      note: to travel with the checkpoint.
    """
    place = folder(workdir)
    checkpoints = Checkpoints(place / "checkpoints", keep=spec.checkpoint.keep, note=note)
    try:
        checkpoints.save(step, state, force=True)
    finally:
        checkpoints.close()
    (place / "metrics.jsonl").touch()  # a run that has logged nothing yet
    (place / ORIGIN).write_text(json.dumps(dict(origin), indent=2) + "\n", encoding="utf-8")
    claim(workdir, spec)


def has_checkpoint(workdir: str | os.PathLike[str]) -> bool:
    """Whether a state was saved in the directory."""
    kept = folder(workdir) / "checkpoints"
    return kept.is_dir() and any(child.name.isdigit() for child in kept.iterdir())


def pretrain(spec: Spec, workdir: str | os.PathLike[str], *, mesh: Mesh | None = None, hooks: Sequence[Hook] = ()) -> Run:
    """Trains as configured, going on with whatever stands in ``workdir``; ``hooks`` come after the writers.

    Raises:
      ConfigError: among others, the directory holds an encoder alone.
    """
    refuse_encoder_alone(workdir)
    source, test = objects.train_source(spec), objects.test_source(spec)
    examples = len(source)
    schedule = objects.learning_rate(spec, examples)
    own_views = spec.views.function is not None
    classes = objects.num_classes(source) if spec.method.probe else 0
    if spec.method.supervision and not classes:
        raise ConfigError([f"method.supervision = {spec.method.supervision}: the training data has no label to learn from"])
    method = methods.byol(spec, classes)
    claim(workdir, spec)
    return train_method(
        method,
        source,
        views=objects.training_views(spec),
        eval_views=objects.recipe(spec) if own_views else None,
        start_from=None if has_checkpoint(workdir) else texts.start(spec),
        batch_size=spec.batch_size,
        steps=objects.steps(spec, examples),
        optimizer=objects.optimizer(spec, schedule),
        learning_rate=schedule,
        tau=objects.tau(spec, examples),
        seed=spec.seed,
        workdir=workdir,
        augment_on=spec.data.augment_on,
        data_on_device=spec.data.on_device,
        accumulate=spec.optimizer.accumulate,
        shard_state=spec.optimizer.shard_state,
        max_bad_share=spec.data.max_bad_share,
        test_data=test,
        monitor_data=objects.labelled_source(spec) if spec.data.labelled_split or spec.data.mix else None,
        evaluate_every_epochs=spec.evaluation.every_epochs,
        monitor_examples=spec.evaluation.monitor_examples,
        knn_k=spec.evaluation.knn_k,
        held_out_examples=spec.evaluation.held_out_examples if test is not None else 0,
        log_every=spec.logging.every_steps,
        checkpoint_every=spec.checkpoint.every_steps,
        keep=spec.checkpoint.keep,
        writers=(*writers(spec), *hooks),
        note={"config": digest(spec)},
        mesh=mesh,
    )


def refuse_encoder_alone(workdir: str | os.PathLike[str]) -> None:
    """Raises ConfigError for a directory that was converted from a file without the rest of the training state."""
    file = folder(workdir) / ORIGIN
    facts = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if facts.get("holds") == ENCODER_ALONE:
        text = f"it holds an encoder alone (from {facts.get('file', 'a file')}), no target network and no optimizer: nothing to go on from"
        raise ConfigError([f"--workdir {workdir}: {text}; evaluate it, or pretrain in a new folder"])


def farewell(run: Run, workdir: str | os.PathLike[str]) -> str:
    """The last numbers of a run, and what to do next."""
    names = ("loss", "embedding_std", "probe_top1", "knn_top1", "rankme")
    numbers = ", ".join(f"{name} {run.metrics[name]:.4g}" for name in names if name in run.metrics)
    verbs = ("evaluate knn", "evaluate linear", "evaluate fewlabels", "report")
    return "\n".join([f"step {run.step}: {numbers}", "next:", *(f"  byol-jax {verb} --workdir {workdir}" for verb in verbs)])


def writers(spec: Spec) -> tuple[str, ...]:
    """Where the metrics go."""
    chosen = {"terminal": True, "jsonl": True, "tensorboard": spec.logging.tensorboard, "wandb": spec.logging.wandb}
    return tuple(name for name, wanted in chosen.items() if wanted)


def load_encoder(
    workdir: str | os.PathLike[str],
    *,
    step: int | None = None,
    spec: Spec | None = None,
    mesh: Mesh | None = None,
    floating: bool = False,
) -> evaluate.Encoder:
    """The trained encoder of a run: uint8 [B, H, W, 3], or int32 [B, L] of token ids, -> float32 [B, D].

    Args:
      workdir: of ``byol-jax pretrain``.
      step: of the checkpoint; None takes the latest.
      spec: the configuration; None reads the directory's own.
      mesh: devices to use; None takes all local ones.
      floating: an encoder of 8 bits computes in float32, with the weights of 8 bits; one trained as if with 8 bits with its own.

    Raises:
      ValueError: no run, no checkpoint, or one of another network.
    """
    spec = spec or read_spec(workdir)
    module, views = (objects.float_encoder if floating else objects.encoder)(spec), objects.recipe(spec)
    checkpoints = Checkpoints(folder(workdir) / "checkpoints", read_only=True)
    try:
        online = checkpoints.restore_raw(["online"], step)["online"]
    finally:
        checkpoints.close()
    variables = {kind: tree["encoder"] for kind, tree in online.items() if "encoder" in tree}
    if compress.is_int8(variables):
        seen = kind_of(views).seen(views)
        module, variables = (module, compress.floating(variables)) if floating else compress.loaded(module, variables, seen)
    return evaluate.Encoder(module, variables, views, mesh)


def load_sentence_encoder(
    workdir: str | os.PathLike[str], *, step: int | None = None, spec: Spec | None = None, mesh: Mesh | None = None
) -> evaluate.SentenceEncoder:
    """The trained encoder of a run of texts with its tokenizer: a list of N str -> float32 [N, D]. Arguments as of ``load_encoder``.

    Raises:
      ValueError: as ``load_encoder``, and for a run of images.
    """
    spec = spec or read_spec(workdir)
    if spec.text.preset is None:
        raise ConfigError([f"--workdir {workdir}: is a run of images; load_encoder gives its encoder"])
    return evaluate.SentenceEncoder(load_encoder(workdir, step=step, spec=spec, mesh=mesh), texts.tokenizer(spec))


def checkpoint_note(workdir: str | os.PathLike[str], step: int | None = None) -> dict[str, Any]:
    """What travels with the checkpoint that ``load_encoder`` takes: its step, the version that wrote it, the configuration's digest."""
    checkpoints = Checkpoints(folder(workdir) / "checkpoints", read_only=True)
    try:
        return checkpoints.note(step)
    finally:
        checkpoints.close()


def test_or_error(spec: Spec) -> Any:
    test = objects.test_source(spec)
    if test is None:
        key = "data.test_path" if spec.data.source == "folder" else "data.test_split"
        raise ConfigError([f"{key} = None: this evaluation needs test data; give --config.{key}=..."])
    return test


def measured_on(workdir: str | os.PathLike[str], spec: Spec, step: int | None) -> dict[str, Any]:
    """What a result says of itself: the checkpoint's step, and the data, which a flag may have changed from the run's own."""
    keys = ("source", "name", "path", "split", "labelled_split", "test_split")
    return {"step": checkpoint_note(workdir, step)["step"], "data": {key: getattr(spec.data, key) for key in keys}}


def report(workdir: str | os.PathLike[str], spec: Spec, *, step: int | None = None) -> Any:
    """Writes the report of the run; returns the page's path."""
    from byol_jax.report import write_report

    views = objects.recipe(spec) if spec.views.function is None else None  # a function's views have no recipe to draw
    encoder = load_encoder(workdir, step=step, spec=spec)
    return write_report(workdir, encoder, objects.labelled_source(spec), views, test=objects.test_source(spec))
