"""``pretrain``: a method and a data set go in, a trained, evaluated, resumable run comes out."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optax
from jax.sharding import Mesh

from byol_jax.augment import Recipe
from byol_jax.data.pipeline import index_batches, train_batches
from byol_jax.evaluate.encoder import Encoder
from byol_jax.method.network import Byol
from byol_jax.method.state import ByolState
from byol_jax.method.target import ema_decay
from byol_jax.train import resident, start
from byol_jax.train.held_out import held_out_loss
from byol_jax.train.hooks import CollapseMonitor, Hook
from byol_jax.train.loop import fit
from byol_jax.train.monitor import evaluation
from byol_jax.train.writers import make_writers
from byol_jax.workdir import folder as run_folder


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
      state: after ``step`` updates, on the mesh it was trained on.
      views: how an example is prepared for the encoder; None if the run was trained on views of the user's own.
      workdir: a path, of ``pathlib`` or, remote, of ``etils.epath``; None if there is none.
      metrics: the last number logged under each name.
    """

    state: ByolState
    method: Byol
    views: Recipe | None
    workdir: Any
    step: int
    metrics: dict[str, float] = field(default_factory=dict)

    def encoder(self, views: Recipe | None = None) -> Encoder:
        """The trained online encoder, frozen: uint8[B, H, W, 3], or int32[B, L] of token ids, -> float32[B, D]."""
        chosen = views or self.views
        if chosen is None:
            raise ValueError("encoder(): the run was trained on views of your own; say how to prepare an example: encoder(views=...)")
        return Encoder.from_state(self.method, self.state, chosen)


def pretrain(
    method: Byol,
    data: Any,
    *,
    views: Recipe | Callable[..., Any],
    batch_size: int,
    steps: int | None = None,
    epochs: float | None = None,
    optimizer: optax.GradientTransformation | None = None,
    learning_rate: float | optax.Schedule | None = None,
    tau: float | optax.Schedule = 0.996,
    seed: int = 0,
    workdir: str | os.PathLike[str] | None = None,
    augment_on: str = "device",
    data_on_device: bool = False,
    accumulate: int = 1,
    shard_state: bool = False,
    max_bad_share: float | None = None,
    test_data: Any = None,
    monitor_data: Any = None,
    eval_views: Recipe | None = None,
    evaluate_every_epochs: float | None = None,
    monitor_examples: int = 5000,
    knn_k: int = 20,
    held_out_examples: int = 0,
    log_every: int = 50,
    checkpoint_every: int = 1000,
    keep: int = 3,
    writers: Sequence[str | Hook] = ("terminal", "jsonl"),
    note: Mapping[str, Any] | None = None,
    mesh: Mesh | None = None,
    start_from: Mapping[str, Any] | None = None,
) -> Run:
    """Trains, going on with whatever stands in ``workdir``: killed and called again, the run ends as if nothing had happened.

    Args:
      views: a recipe, or your own ``fn(example, seed) -> {"view1", "view2"}`` of tensors for the network; ``eval_views`` for evaluation.
      batch_size: of the global batch, over all processes; ``steps`` or ``epochs`` * len(data) // batch_size of them are taken.
      optimizer: over {"online": params, "probe": params}; None: the paper's LARS (section 3.3), weight decay 1.5e-6, linear warm-up
        of 10 epochs or a tenth of the run if that is less, cosine to 0; ``learning_rate`` is its base rate for batch 256 (0.2), or a
        schedule. Beside an ``optimizer`` of your own ``learning_rate`` may only be a schedule, and is only logged.
      tau: the target's decay at the start, rising to 1 by a cosine; or a schedule. start_from: variables of the encoder to start from.
      workdir: for checkpoints and metrics, also gs://bucket/run; None keeps none. With it, SIGTERM and Ctrl-C save and exit with code 0.
      augment_on, max_bad_share: see ``byol_jax.data.pipeline.train_batches``; accumulate: micro-batches in a step.
      data_on_device: images in memory are uploaded once, split over the devices; the host sends indices only. Ends with the same bits.
      shard_state: between two steps each device holds a share of the weights, the target's and the optimizer's state, not all of them.
        It ends as without, but for rounding; of several processes all must then call ``Run.encoder`` together.
      test_data: if labelled, k-NN accuracy (``knn_k`` neighbours, temperature 0.07) is measured on it ``evaluate_every_epochs``
        (None: ten times a run, 0: never). Neighbours, and RankMe, come from ``monitor_examples`` spread evenly over
        ``monitor_data`` (None: ``data``; give another where that has no labels). Of ``held_out_examples`` of it the loss is measured too.
      log_every, checkpoint_every: in steps; ``keep`` checkpoints stay, and the one of the best k-NN accuracy.
      writers: "terminal", "jsonl", "tensorboard", "wandb", or hooks of your own; note: plain data to travel with each checkpoint.

    Raises ValueError for settings that do not fit each other, and its subclasses ``Diverged`` and ``CheckpointError``, see ``fit``.
    """
    mesh, steps = start.fitting_mesh(mesh, batch_size, accumulate), start.length(steps, epochs, len(data), batch_size)
    start.check_labels(data, method.num_classes)
    recipe, augment = start.augmentation(views, eval_views, augment_on)
    tx, schedules = start.optimization(optimizer, learning_rate, steps, batch_size, len(data))
    ema = tau if callable(tau) else ema_decay(tau, steps)
    held = resident.hold(data, views, augment_on, mesh) if data_on_device else None
    made_of: dict[str, Any] = {"ema": ema, "augment": augment, "seed": seed, "mesh": mesh, "accumulate": accumulate, "log": schedules}
    init_key, jitted = start.training_step(method, tx, held=held, shard_state=shard_state, **made_of)
    facts, folder = start.facts(seed, batch_size, steps, data, note), None if workdir is None else run_folder(workdir)
    when: dict[str, Any] = {"every_steps": start.evaluation_interval(evaluate_every_epochs, steps, len(data), batch_size), "steps": steps}
    known = data if monitor_data is None else monitor_data
    look = evaluation(method, known, test_data, recipe, examples=monitor_examples, k=knn_k, max_bad_share=max_bad_share, **when)
    sizes: dict[str, Any] = {"batch_size": batch_size, "seed": seed}
    read = functools.partial(train_batches, views=views, augment_on=augment_on, max_bad_share=max_bad_share, **sizes)
    look += held_out_loss(method, read, test_data, augment, examples=held_out_examples, mesh=mesh, accumulate=accumulate, **sizes, **when)
    checkpoints = start.open_checkpoints(folder, every_steps=checkpoint_every, keep=keep, known=facts)
    made = functools.partial(index_batches, data, **sizes) if held else functools.partial(read, data)
    with start.Stream(made, (checkpoints.latest_step() or 0) if checkpoints else 0) as stream:
        shapes = resident.seen(held, stream.shapes(batch_size))
        state = start.begin(method, tx, init_key, stream, shapes, augment, mesh, checkpoints, shard_state, start_from)
        observers = [CollapseMonitor(), *make_writers(writers, workdir=folder, start_step=stream.start, steps=steps, run=facts)]
        settings: dict[str, Any] = {"start_step": stream.start, "steps": steps, "mesh": mesh, "log_every": log_every}
        fitted = fit(state, jitted, stream, hooks=[*look, *observers], checkpoints=checkpoints, batch_size=batch_size, **settings)
    start.leave_if_interrupted(fitted)
    return Run(fitted.state, method, recipe, folder, fitted.done, {**start.metrics_so_far(folder), **fitted.metrics})
