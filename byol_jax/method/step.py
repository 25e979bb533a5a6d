"""BYOL on one page: how a state begins, and what one step does to it.

A step, for online parameters theta and target parameters xi (paper, section 3.1):

    v, v' = two augmented views of each image
    loss  = |q(z_theta(v)) - z_xi(v')|^2 + |q(z_theta(v')) - z_xi(v)|^2      all four vectors normalised
    theta = optimizer(theta, d loss / d theta)                               no gradient reaches xi
    xi    = tau xi + (1 - tau) theta                                         with the new theta
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from byol_jax.method import target
from byol_jax.method.batch import Augment, Batch, both_views, check_rows, micro_batches, rows_of
from byol_jax.method.diagnostics import embedding_std
from byol_jax.method.network import Byol
from byol_jax.method.norms import apply_to_views, check_norms
from byol_jax.method.probe import probe_metrics
from byol_jax.method.state import ByolState

AXIS = "data"  # the mesh axis over which a batch is spread
Metrics = dict[str, jax.Array]
TrainStep = Callable[[ByolState, Batch], tuple[ByolState, Metrics]]


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

    Online and target network start from different keys: the target is not a copy (as in the official code).

    Args:
      batch: as the network sees it, {"view1", "view2"[, "label"]}; with ``augment``, as the host sends it. Only shapes are used,
        so arrays and ``jax.ShapeDtypeStruct`` do equally well.
      mesh: the devices that will train; all devices if None, as in ``make_train_step``. Born where the step leaves it, the state
        does not make the second step compile again.

    Raises:
      ValueError: if the batch holds no views, the encoder does not return [B, D], or the network keeps unknown variables.
    """
    if augment is not None:
        batch = jax.eval_shape(lambda batch: augment(jax.random.split(key, rows_of(batch)), batch), batch)
    view, _ = both_views(batch)
    network = method.network()
    check_norms(network, view, AXIS, devices=1)

    def fresh(key: jax.Array) -> ByolState:
        online_key, target_key, probe_key = jax.random.split(key, 3)
        blank = jax.tree.map(lambda x: jnp.zeros((1, *x.shape[1:]), x.dtype), view)
        online, target = ({"batch_stats": {}, **network.init(k, blank, True)} for k in (online_key, target_key))
        probe = {}
        if method.num_classes:
            embedding = network.apply(online, blank, False).embedding
            probe = method.probe().init(probe_key, embedding)["params"]
        return ByolState(jnp.zeros((), jnp.int32), online, target, tx.init({"online": online["params"], "probe": probe}), probe)

    return jax.jit(fresh, out_shardings=NamedSharding(_mesh_with_data_axis(mesh), P()))(key)


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
) -> TrainStep:
    """Builds ``step(state, batch) -> (state, metrics)``, to be wrapped in ``jax.jit(step, donate_argnums=0)``.

    What a step computes does not depend on how many devices share the batch: batch statistics are of the whole (micro-)batch, and
    every example has a random key of its own, made from ``key``, the step's number and the example's row in the batch.

    Args:
      ema: tau by step, such as ``ema_decay(0.996, steps)``.
      augment: ``(keys[b], batch) -> {"view1", "view2"[, "label"]}``, run on each device on its own rows; None if the batch has the views.
      key: what the augmentations are drawn from.
      mesh: devices, with an axis named "data"; all devices if None.
      accumulate: micro-batches a step. Gradients are averaged over them, batch statistics move with each; parameters and
        target move once (paper, Figure 3a).
      log: further schedules to report by name, such as {"learning_rate": schedule}.

    Returns:
      A pure function. Its metrics are float32 scalars: loss, those of ``method.loss`` (cosine_1, cosine_2), tau, grad_norm (online),
      embedding_std (view 1; 1 = spread out, 0 = collapsed), with a probe probe_loss, probe_top1, probe_top5 (view 1, rows with a
      label only), and those of ``log``.

    Raises:
      ValueError: here or when traced, for a batch or a network that does not fit; the message says what would.
    """
    if augment is not None and key is None:
        raise ValueError("make_train_step(augment=...) draws random numbers: pass key=jax.random.key(seed) too")
    mesh = _mesh_with_data_axis(mesh)
    devices = mesh.shape[AXIS]
    network = method.network()

    def gradients(state: ByolState, batch: Batch, keys: jax.Array | None) -> tuple[Any, Any, Any, Metrics]:
        """Inside shard_map: this device's rows in; gradients, statistics and metrics of the whole batch out."""

        def micro_step(stats: tuple[Any, Any], part: tuple[Batch, jax.Array | None]) -> tuple[tuple[Any, Any], tuple[Any, Metrics]]:
            batch, keys = part
            batch = batch if augment is None else augment(keys, batch)
            view1, view2 = both_views(batch)
            check_norms(network, view1, AXIS, devices)
            views = jax.tree.map(lambda *pair: jnp.stack(pair), view1, view2)
            online_stats, target_stats = stats
            wanted, target_stats = apply_to_views(network, {"params": state.target["params"], "batch_stats": target_stats}, views)

            def objective(trained: Any) -> tuple[jax.Array, tuple[Any, Metrics]]:
                given, new_stats = apply_to_views(network, {"params": trained["online"], "batch_stats": online_stats}, views)
                loss, metrics = method.loss(given, jax.lax.stop_gradient(wanted))
                _check_scalar(loss)
                embedding = jax.lax.stop_gradient(given.embedding[0])
                metrics = {"loss": loss, **metrics, "embedding_std": embedding_std(embedding, AXIS)}
                if method.num_classes:
                    logits = method.probe().apply({"params": trained["probe"]}, embedding)
                    metrics |= probe_metrics(logits, batch["label"], AXIS)
                    loss = loss + metrics["probe_loss"]
                return loss, (new_stats, metrics)

            grads, (online_stats, metrics) = jax.grad(objective, has_aux=True)(state.trained)
            return (online_stats, target_stats), (grads, metrics)

        parts = micro_batches((batch, keys), accumulate)
        stats, per_part = jax.lax.scan(micro_step, (state.online["batch_stats"], state.target["batch_stats"]), parts)
        grads, metrics = jax.lax.pmean(jax.tree.map(lambda x: x.mean(axis=0), per_part), AXIS)
        return grads, *stats, metrics

    # check_vma=False: with it on, gradients of replicated parameters arrive already summed over the devices, and a pmean leaves them so.
    over_devices = jax.shard_map(gradients, mesh=mesh, in_specs=(P(), P(AXIS), P(AXIS)), out_specs=P(), check_vma=False)

    def step(state: ByolState, batch: Batch) -> tuple[ByolState, Metrics]:
        rows = rows_of(batch)
        check_rows(rows, devices, accumulate)
        keys = None if augment is None else jax.random.split(jax.random.fold_in(key, state.step), rows)
        grads, online_stats, target_stats, metrics = over_devices(state, batch, keys)

        updates, opt_state = tx.update(grads, state.opt_state, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        tau = ema(state.step)
        target_params = target.update(state.target["params"], trained["online"], tau)

        metrics |= {"tau": tau, "grad_norm": optax.tree.norm(grads["online"])}
        metrics |= {name: schedule(state.step) for name, schedule in (log or {}).items()}
        new_state = ByolState(
            step=state.step + 1,
            online={"params": trained["online"], "batch_stats": online_stats},
            target={"params": target_params, "batch_stats": target_stats},
            opt_state=opt_state,
            probe=trained["probe"],
        )
        return new_state, {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}

    return step


def _mesh_with_data_axis(mesh: Mesh | None) -> Mesh:
    if mesh is None:
        return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))
    if AXIS not in mesh.axis_names:
        raise ValueError(f"the mesh has axes {mesh.axis_names}; name the one that holds the batch {AXIS!r}")
    return mesh


def _check_scalar(loss: Any) -> None:
    if jnp.shape(loss) != ():
        raise ValueError(f"the loss must be one number for the batch; it has shape {jnp.shape(loss)}: take its mean over the batch")
