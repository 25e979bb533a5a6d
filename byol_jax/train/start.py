"""What ``pretrain`` does before the first step: lengths, schedules, the data stream, a state from scratch or from a checkpoint."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from byol_jax import parallel
from byol_jax.augment import Recipe, kind_of
from byol_jax.checkpoint import Checkpoints
from byol_jax.data.order import Shard
from byol_jax.method.network import Byol
from byol_jax.method.optimizer import lars
from byol_jax.method.schedules import warmup_cosine
from byol_jax.method.state import ByolState, with_encoder
from byol_jax.method.step import init, make_train_step
from byol_jax.train.loop import Fitted
from byol_jax.train.resident import Resident, compiled
from byol_jax.views import TextViews, Views

_LOG = logging.getLogger("byol_jax.train")
PAPER_BASE_RATE, PAPER_WARMUP_EPOCHS = 0.2, 10  # section 3.3, 1000 epochs


def fitting_mesh(mesh: Mesh | None, batch_size: int, accumulate: int) -> Mesh:
    """The mesh, or one of all devices. Raises ValueError for a batch that it cannot share."""
    mesh = parallel.data_mesh() if mesh is None else mesh
    parallel.check_batch(batch_size, mesh, accumulate)
    return mesh


def check_labels(data: Any, classes: Any) -> None:
    """Raises ValueError where the labels that the data have at hand do not fit the number of classes."""
    labels = getattr(data, "__dict__", {}).get("labels")  # those that would have to be read first are not looked at
    highest = -1 if labels is None else int(np.max(labels, initial=-1))
    if isinstance(classes, int) and highest >= classes > 0:
        raise ValueError(
            f"num_classes = {classes}: the data have the label {highest}, and labels are 0 to {classes - 1}, or -1 for none; "
            f"nearest valid: num_classes = {highest + 1}, if classes count from 0"
        )


def length(steps: int | None, epochs: float | None, examples: int, batch_size: int) -> int:
    """Steps of the run: given, or whole batches in that many epochs."""
    if steps is not None and epochs is None:
        total = steps
    elif epochs is not None and steps is None:
        total = int(epochs * examples // batch_size)
    else:
        raise ValueError(f"steps = {steps}, epochs = {epochs}: give exactly one of them")
    if total < 1:
        raise ValueError(f"steps = {steps}, epochs = {epochs}: {examples} examples in batches of {batch_size} make no step")
    return total


def facts(seed: int, batch_size: int, steps: int, data: Any, note: Mapping[str, Any] | None) -> dict[str, Any]:
    """What must stay as it is when a run goes on; it travels with each checkpoint, beside the user's own note."""
    return {"seed": seed, "batch_size": batch_size, "steps": steps, "examples": len(data), **(note or {})}


def evaluation_interval(every_epochs: float | None, steps: int, examples: int, batch_size: int) -> int:
    """Steps between two evaluations; 0: never."""
    if every_epochs is None:
        return -(-steps // 10)
    if every_epochs < 0:
        raise ValueError(f"evaluate_every_epochs = {every_epochs}: must be 0 (never) or more")
    return max(round(every_epochs * examples / batch_size), 1) if every_epochs else 0


def augmentation(views: Any, eval_views: Recipe | None, augment_on: str) -> tuple[Recipe | None, Callable[..., Any]]:
    """(how evaluation prepares an example, what the step does to a host batch)."""
    if isinstance(views, Views | TextViews):
        return eval_views or views, kind_of(views).views(views, augment_on)
    if not callable(views):
        raise ValueError(
            f"views: {type(views).__name__} is neither a recipe (Views, TextViews) nor a function (example, seed) -> {{'view1', 'view2'}}"
        )
    return eval_views, _as_given


def _as_given(keys: jax.Array, batch: Any) -> Any:
    del keys
    return batch


def optimization(
    optimizer: optax.GradientTransformation | None, learning_rate: float | optax.Schedule | None, steps: int, batch_size: int, examples: int
) -> tuple[optax.GradientTransformation, dict[str, optax.Schedule]]:
    """(the optimizer, schedules to log)."""
    if optimizer is not None:
        if learning_rate is not None and not callable(learning_rate):
            raise ValueError(f"learning_rate = {learning_rate}: your own optimizer has its rate inside; give a schedule to log, or nothing")
        return optimizer, {} if learning_rate is None else {"learning_rate": learning_rate}
    if not callable(learning_rate):
        base = PAPER_BASE_RATE if learning_rate is None else learning_rate
        warmup = min(PAPER_WARMUP_EPOCHS * examples // batch_size, steps // 10)
        learning_rate = warmup_cosine(base, batch_size=batch_size, steps=steps, warmup_steps=warmup)
    return lars(learning_rate), {"learning_rate": learning_rate}


def open_checkpoints(workdir: Any, *, every_steps: int, keep: int, known: Mapping[str, Any]) -> Checkpoints | None:
    """The run's checkpoints; warns if those there were made with other facts (seed, batch size ...)."""
    if workdir is None:
        return None
    checkpoints = Checkpoints(workdir / "checkpoints", every_steps=every_steps, keep=keep, note=known)
    if checkpoints.latest_step() is not None:
        before = checkpoints.note()
        changed = [f"{name} = {value} (it was {before[name]})" for name, value in known.items() if before.get(name, value) != value]
        if changed:
            _LOG.warning("%s: going on with another %s; the result is that of neither run alone", workdir, ", ".join(changed))
    return checkpoints


class Stream:
    """Training batches of this process from step ``start`` on; one can be looked at in advance, and the start moved."""

    def __init__(self, make: Callable[..., Any], start: int) -> None:
        self._make = functools.partial(make, shard=Shard(*parallel.process_shard()))
        self._batches = self._make(start_step=start)
        self._first: list[Any] = []
        self.start = start

    def shapes(self, batch_size: int) -> Any:
        """Shapes and dtypes of a global batch."""
        if not self._first:
            self._first.append(next(self._batches))
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype), self._first[0])

    def restart(self, start: int) -> None:
        if start != self.start:
            self.close()
            self._batches, self._first, self.start = self._make(start_step=start), [], start

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self._first.pop() if self._first else next(self._batches)

    def close(self) -> None:
        self._batches.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def training_step(
    method: Byol,
    tx: optax.GradientTransformation,
    *,
    ema: optax.Schedule,
    augment: Callable[..., Any],
    seed: int,
    mesh: Mesh,
    accumulate: int,
    log: Mapping[str, optax.Schedule],
    held: Resident | None = None,
    shard_state: bool = False,
) -> tuple[jax.Array, Any]:
    """(the key that a fresh state is made from, the jitted step that a run takes: ``(state, batch) -> (state, metrics)``).

    ``held``: the data, where it lives on the devices; a batch is then as ``resident.compiled`` says, and so is ``shard_state``.
    """
    init_key, step_key = jax.random.split(jax.random.key(seed))
    step = make_train_step(method, tx, ema=ema, augment=augment, key=step_key, mesh=mesh, accumulate=accumulate, log=log)
    return init_key, compiled(step, held, mesh, shard_state)


def layout(state: Any, mesh: Mesh, shard_state: bool) -> Any:
    """Where each leaf of a state lies between two steps: whole on every device, or a share on each."""
    return parallel.spread(state, mesh) if shard_state else jax.tree.map(lambda _: parallel.replicated(mesh), state)


def laid_out(fresh: ByolState, mesh: Mesh, shard_state: bool) -> ByolState:
    """A state that is whole on every device, as ``layout`` says."""
    return jax.jit(lambda state: state, out_shardings=layout(fresh, mesh, True))(fresh) if shard_state else fresh


def placed(shapes: Any, shardings: Any) -> Any:
    """The same shapes and dtypes, said to lie on devices; ``shardings``: a tree of them, one a leaf."""
    return jax.tree.map(lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shapes, shardings)


def begin(
    method: Byol,
    tx: optax.GradientTransformation,
    key: jax.Array,
    stream: Stream,
    batch: Any,
    augment: Callable[..., Any],
    mesh: Mesh,
    checkpoints: Checkpoints | None,
    shard_state: bool = False,
    start_from: Mapping[str, Any] | None = None,
) -> ByolState:
    """The latest checkpoint, or a fresh state for batches of these shapes, laid out as ``layout`` says; the stream is set to its step."""
    make = functools.partial(init, method, tx, batch=batch, augment=augment, mesh=mesh)
    if checkpoints is None or checkpoints.latest_step() is None:
        fresh = make(key)
        return laid_out(fresh if start_from is None else with_encoder(method, fresh, start_from), mesh, shard_state)
    shapes = jax.eval_shape(make, key)
    state = checkpoints.restore(placed(shapes, layout(shapes, mesh, shard_state)))
    stream.restart(int(state.step))
    return state


def metrics_so_far(workdir: Any) -> dict[str, float]:
    """The last number under each name in metrics.jsonl, so that a run that was already complete still has its numbers."""
    path = workdir / "metrics.jsonl" if workdir is not None else None
    lines = path.read_text().splitlines() if path is not None and path.exists() else []
    merged: dict[str, float] = {}
    for line in lines:
        with contextlib.suppress(ValueError):  # half a line, left by a kill
            merged |= json.loads(line)
    merged.pop("step", None)
    return merged


def leave_if_interrupted(fitted: Fitted) -> None:
    """After a signal: says what to do next, and exits with code 0."""
    if fitted.interrupted:
        if parallel.is_main():
            print(f"saved at step {fitted.done}; run the same command to go on", flush=True)
        raise SystemExit(0)
