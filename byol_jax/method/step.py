"""BYOL on one page: how a state begins, and what one step does to it.

A step, for online parameters theta and target parameters xi (paper, section 3.1):

    v, v' = two augmented views of each image
    loss  = |q(z_theta(v)) - z_xi(v')|^2 + |q(z_theta(v')) - z_xi(v)|^2      all four vectors normalised
    theta = optimizer(theta, d loss / d theta)                               no gradient reaches xi
    xi    = tau xi + (1 - tau) theta                                         with the new theta
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from byol_jax.method.batch import Augment, Batch, both_views, check_rows, mean_over_parts, micro_batches, no_augment, rows_of
from byol_jax.method.diagnostics import embedding_std
from byol_jax.method.network import Byol, Outputs
from byol_jax.method.norms import apply_to_views, check_norms, stacks_views
from byol_jax.method.passes import Pass
from byol_jax.method.placement import AXIS, born_replicated, data_mesh, mean_over_devices
from byol_jax.method.state import ByolState
from byol_jax.method.supervision import head_metrics, labelled_shares, labels_of, loss_names

Metrics = dict[str, jax.Array]
TrainStep = Callable[[ByolState, Batch], tuple[ByolState, Metrics]]
ApplyToViews = Callable[..., Any]


def init(
    method: Byol,
    tx: optax.GradientTransformation,
    key: jax.Array,
    batch: Batch,
    *,
    augment: Augment | None = None,
    mesh: Mesh | None = None,
) -> ByolState:
    """A fresh state at step 0, a copy on every device.

    Online and target network start from different keys: the target is not a copy (as in the official code). Where ``method.target`` is
    "stop_gradient" or "online" there is none.

    Args:
      batch: as the network sees it, {"view1", "view2"[, "label"]}; with ``augment``, as the host sends it. Only shapes are used,
        so arrays and ``jax.ShapeDtypeStruct`` do equally well.
      mesh: the devices that will train; all devices if None, as in ``make_train_step``.

    Raises:
      ValueError: if the batch holds no views, the encoder does not return [B, D], or the network keeps unknown variables.
    """
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows_of(batch)))
    view, _ = both_views(jax.eval_shape(augment or no_augment, keys, batch))
    network = method.network()
    check_norms(network, view, AXIS, devices=1)

    def fresh(key: jax.Array, given: dict[str, Any]) -> ByolState:
        online_key, target_key, probe_key = jax.random.split(key, 3)
        blank = jax.tree.map(lambda x: jnp.zeros((1, *x.shape[1:]), x.dtype), view)

        def begin(key: jax.Array) -> dict[str, Any]:
            return {"batch_stats": {}, **network.init({"params": key, "dropout": key}, blank, True)}

        online, target = begin(online_key), method.follower.begin(lambda: begin(target_key), given)
        probe = {}
        if method.num_classes:
            outputs: Any = network.apply(online, blank, False)
            probe = method.probe().init(probe_key, outputs.embedding)["params"]
        opt_state, memory = tx.init({"online": online["params"], "probe": probe}), method.memory_loss.start()
        return ByolState(jnp.zeros((), jnp.int32), online, target, opt_state, probe, memory)

    return born_replicated(fresh, (key, method.follower.given()), data_mesh(mesh))


def make_train_step(
    method: Byol,
    tx: optax.GradientTransformation,
    *,
    ema: optax.Schedule,
    augment: Augment | None = None,
    key: jax.Array | None = None,
    mesh: Mesh | None = None,
    accumulate: int = 1,
    log: Mapping[str, optax.Schedule] | None = None,
    stack_views: bool | None = None,
) -> TrainStep:
    """Builds ``step(state, batch) -> (state, metrics)``, to be wrapped in ``jax.jit(step, donate_argnums=0)``.

    What a step computes does not depend on how many devices share the batch: batch statistics are of the whole (micro-)batch, and
    every example has a random key of its own, made from ``key``, the step's number and the example's row in the batch. (One exception:
    a network with ``nn.Dropout`` draws its noise on each device from the key of that device's first row.)

    Args:
      ema: tau by step, such as ``ema_decay(0.996, steps)``.
      augment: ``(keys[b], batch) -> {"view1", "view2"}``, run on each device on its own rows; None if the batch has the views.
      key: what the augmentations are drawn from.
      mesh: devices, with an axis named "data"; all devices if None.
      accumulate: micro-batches a step. Gradients are averaged over them, batch statistics move with each; parameters and
        target move once (paper Table 16).
      log: further schedules to report by name, such as {"learning_rate": schedule}.
      stack_views: both views in one pass of each network, or one after the other; the result is the same. None: as ``stacks_views`` has it.

    Returns:
      A pure function. Its metrics are float32 scalars: loss (BYOL's), those of ``method.loss`` (cosine_1, cosine_2), tau (if any),
      grad_norm, embedding_std (view 1; 1 = spread out, 0 = collapsed), with a probe probe_loss, probe_top1, probe_top5 (view 1, rows with a
      label only; of named label sets probe_loss_NAME and so on), and those of ``log``.

    Raises:
      ValueError: here or when traced, for a batch or a network that does not fit; the message says what would.
    """
    if augment is None:
        augment, key = no_augment, jax.random.key(0)
    if key is None:
        raise ValueError("make_train_step(augment=...) draws random numbers: pass key=jax.random.key(seed) too")
    mesh = data_mesh(mesh)
    over_devices = _over_devices(partial(jax.grad, has_aux=True), method, augment, mesh, accumulate, stack_views)

    def step(state: ByolState, batch: Batch) -> tuple[ByolState, Metrics]:
        rows = rows_of(batch)
        check_rows(rows, mesh.shape[AXIS], accumulate)
        keys = jax.random.split(jax.random.fold_in(key, state.step), rows)
        networks = dataclasses.replace(state, opt_state=())  # the optimizer's may be sharded: it stays outside
        grads, (online_stats, target_stats, memory), metrics = over_devices(networks, batch, keys)

        updates, opt_state = tx.update(grads, state.opt_state, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        metrics |= {"grad_norm": optax.tree.norm(grads["online"])}
        follower, moved = method.follower.move(state.target, target_stats, trained["online"], partial(ema, state.step))
        metrics |= moved | {name: schedule(state.step) for name, schedule in (log or {}).items()}
        new_state = ByolState(
            step=state.step + 1,
            online={"params": trained["online"], "batch_stats": online_stats},
            target=follower,
            opt_state=opt_state,
            probe=trained["probe"],
            memory=memory,
        )
        return new_state, {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}

    return step


def make_metrics(
    method: Byol,
    *,
    augment: Augment | None = None,
    key: jax.Array | None = None,
    mesh: Mesh | None = None,
    accumulate: int = 1,
    stack_views: bool | None = None,
) -> Callable[[ByolState, Batch], Metrics]:
    """Builds ``metrics(state, batch)``: what a training step says of a batch (loss and the others), without its update.

    The networks run as in training, with the statistics of each micro-batch and with dropout: the loss of held-out examples may be set
    beside that of training. Every call draws the same random numbers. Arguments as of ``make_train_step``.
    """
    if augment is None:
        augment = no_augment
    key = jax.random.key(0) if key is None else key
    mesh = data_mesh(mesh)
    over_devices = _over_devices(lambda objective: objective, method, augment, mesh, accumulate, stack_views)

    def metrics(state: ByolState, batch: Batch) -> Metrics:
        rows = rows_of(batch)
        check_rows(rows, mesh.shape[AXIS], accumulate)
        _, _, found = over_devices(dataclasses.replace(state, opt_state=()), batch, jax.random.split(key, rows))
        return found

    return metrics


def _over_devices(
    measure: Callable[..., Any], method: Byol, augment: Augment, mesh: Mesh, accumulate: int, stack_views: bool | None
) -> Callable[[ByolState, Batch, jax.Array], tuple[Any, Any, Metrics]]:
    """``(state, batch, keys[B]) -> (found, carried, metrics)`` of the whole batch; ``found`` is what ``measure(objective)`` gives first."""
    platform = mesh.devices.flat[0].platform
    stacked = stacks_views(method.network(), platform) if stack_views is None else stack_views
    # XLA computes convolutions in a loop's body some 30 times slower on a CPU.
    unroll = accumulate if platform == "cpu" else 1
    apply = partial(apply_to_views, stacked=stacked)

    def per_device(state: ByolState, batch: Batch, keys: jax.Array) -> tuple[Any, Any, Metrics]:
        shares = labelled_shares(batch, method.num_classes, AXIS) if method.num_classes else None

        def micro_step(carried: Any, part: tuple[Batch, jax.Array]) -> tuple[Any, tuple[Any, Metrics]]:
            objective, target_stats = _prepared(method, augment, apply, mesh.shape[AXIS], state, carried, shares, *part)
            found, ((online_stats, memory), metrics) = measure(objective)(state.trained)
            return (online_stats, target_stats, memory), (found, metrics)

        carried, out = mean_over_parts(micro_step, _carried(state), micro_batches((batch, keys), accumulate), accumulate, unroll)
        found, metrics = mean_over_devices(out)
        return found, carried, metrics

    # check_vma=False: with it on, gradients of replicated parameters arrive already summed over the devices, and a pmean leaves them so.
    return jax.shard_map(per_device, mesh=mesh, in_specs=(P(), P(AXIS), P(AXIS)), out_specs=P(), check_vma=False)


def _carried(state: ByolState) -> tuple[Any, Any, Any]:
    """What each micro-batch takes over from the one before: batch statistics (online, target), and the loss's memory."""
    return state.online["batch_stats"], state.target.get("batch_stats", {}), state.memory


def _prepared(
    method: Byol,
    augment: Augment,
    apply: ApplyToViews,
    devices: int,
    state: ByolState,
    carried: tuple[Any, Any, Any],
    shares: Any,
    batch: Batch,
    keys: jax.Array,
) -> tuple[Callable[[dict[str, Any]], tuple[jax.Array, Any]], Any]:
    """(the objective of one device's rows, as a function of what is trained; the target's new batch statistics)."""
    network = method.network()
    stats, target_stats, memory = carried
    view1, view2 = both_views(augment(keys, batch))
    check_norms(network, view1, AXIS, devices)
    views = jax.tree.map(lambda *pair: jnp.stack(pair), view1, view2)

    noise1, noise2 = jax.random.split(jax.random.fold_in(keys[0], 1))
    seen, target_stats = method.follower.look(network, apply, state.target, target_stats, views, noise1)

    def compare(params: Any, stats: Any, views: Any) -> tuple[jax.Array, tuple[Outputs, Any, Any, Metrics]]:
        given, stats = apply(network, {"params": params, "batch_stats": stats}, views, noise2)
        loss, metrics, kept = method.memory_loss(given, method.follower.wanted(given, seen), memory)
        if jnp.shape(loss) != ():
            raise ValueError(f"the loss must be one number for the batch; it has shape {jnp.shape(loss)}: take its mean over the batch")
        return loss, (given, stats, kept, metrics)

    passes = method.passes(lambda views: compare(state.trained["online"], stats, views)[0], views, keys)
    answers = (labels_of(batch, method.num_classes), shares) if method.num_classes else None
    return partial(_objective, method, compare, passes, stats, answers), target_stats


def _objective(
    method: Byol, compare: Callable[..., Any], passes: tuple[Pass, ...], stats: Any, answers: Any, trained: dict[str, Any]
) -> tuple[jax.Array, Any]:
    """What is minimised over ``trained``: BYOL's loss, and the probe's, which learns from ``answers`` and goes as far as ``method.reach``.

    Returns:
      The loss, and ((batch statistics, memory), metrics); memory and embedding are those of the first pass.
    """
    found = []
    for one in passes:
        part, (given, moved, memory, metrics) = compare(trained["online"], stats, one.views)
        stats = moved if one.keeps_statistics else stats
        found.append((one.weight * part, given, memory, {**metrics, "loss": part}))
    loss = sum(part for part, *_ in found)
    _, given, memory, metrics = found[0]
    named = {f"{one.name}_{key}": value for one, (*_, seen) in zip(passes[1:], found[1:], strict=True) for key, value in seen.items()}

    embedding = given.embedding[0]
    metrics = {**metrics, **named, "loss": loss, "embedding_std": embedding_std(jax.lax.stop_gradient(embedding), AXIS)}
    if answers is not None:
        logits = method.probe().apply({"params": trained["probe"]}, method.reach(embedding))
        metrics |= head_metrics(logits, answers, method.label_loss)
        loss = sum((metrics[name] for name in loss_names(method.num_classes)), loss)
    return loss, ((stats, memory), metrics)
