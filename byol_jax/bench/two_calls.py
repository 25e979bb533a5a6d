"""The step as the official recipe runs it, to compare ours with: each view passes each network by itself, one after the other.

Same modules, loss, gradients, optimizer and target as ``byol_jax.method.step``; what differs is that the views are not stacked. It ends
in the same numbers (a test), so that only time and memory differ.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from byol_jax.method import Byol, ByolState, Outputs, target
from byol_jax.method.batch import Augment, Batch, both_views, labels_of, rows_of
from byol_jax.method.placement import AXIS
from byol_jax.method.probe import labelled_share, probe_metrics
from byol_jax.method.step import Metrics, TrainStep


def make_train_step(
    method: Byol, tx: optax.GradientTransformation, *, ema: optax.Schedule, augment: Augment, key: jax.Array, mesh: Mesh
) -> TrainStep:
    """``step(state, batch) -> (state, metrics)`` of four forward passes for a method with a target network; metrics hold the loss alone."""
    over_devices = jax.shard_map(
        partial(_gradients, method, augment), mesh=mesh, in_specs=(P(), P(AXIS), P(AXIS)), out_specs=P(), check_vma=False
    )

    def step(state: ByolState, batch: Batch) -> tuple[ByolState, Metrics]:
        keys = jax.random.split(jax.random.fold_in(key, state.step), rows_of(batch))
        grads, online_stats, target_stats, loss = over_devices(state.replace(opt_state=()), batch, keys)  # type: ignore[attr-defined]
        updates, opt_state = tx.update(grads, state.opt_state, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        params = target.update(state.target["params"], trained["online"], ema(state.step))
        new_state = ByolState(
            step=state.step + 1,
            online={"params": trained["online"], "batch_stats": online_stats},
            target={"params": params, "batch_stats": target_stats},
            opt_state=opt_state,
            probe=trained["probe"],
        )
        return new_state, {"loss": loss}

    return step


def _gradients(method: Byol, augment: Augment, state: ByolState, batch: Batch, keys: jax.Array) -> tuple[Any, Any, Any, jax.Array]:
    views = both_views(augment(keys, batch))
    noise_target, noise_online = jax.random.split(jax.random.fold_in(keys[0], 1))
    wanted, target_stats = _passes(method, state.target, views, noise_target)

    def objective(trained: Any) -> tuple[jax.Array, tuple[Any, jax.Array]]:
        variables = {"params": trained["online"], "batch_stats": state.online["batch_stats"]}
        given, stats = _passes(method, variables, views, noise_online)
        loss, _ = method.loss(given, jax.lax.stop_gradient(wanted))
        total = loss
        if method.num_classes:
            logits: Any = method.probe().apply({"params": trained["probe"]}, jax.lax.stop_gradient(given.embedding[0]))
            labels = labels_of(batch)
            total = loss + probe_metrics(logits, labels, labelled_share(labels, AXIS))["probe_loss"]
        return total, (stats, loss)

    grads, (online_stats, loss) = jax.grad(objective, has_aux=True)(state.trained)
    grads, loss = jax.lax.pmean((grads, loss), AXIS)
    return grads, online_stats, target_stats, loss


def _passes(method: Byol, variables: Any, views: tuple[Any, Any], noise: jax.Array) -> tuple[Outputs, Any]:
    """View 1, then view 2, with the batch statistics that view 1 left; the outputs [2, B, ...] that the loss takes."""
    network, stats, made = method.network(), variables["batch_stats"], []
    for view, key in zip(views, jax.random.split(noise), strict=True):
        outputs, changed = network.apply(
            {"params": variables["params"], "batch_stats": stats}, view, True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        stats = changed.get("batch_stats", stats)
        made.append(outputs)
    return jax.tree.map(lambda *pair: jnp.stack(pair), *made), stats
