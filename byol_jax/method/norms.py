"""Batch statistics of two views: one network applied to both, at once or one after the other, with the same end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from byol_jax.method.network import Network, Outputs

Run = Callable[[Any, Any, jax.Array | None], tuple[Any, Outputs]]  # (batch_stats, view, dropout's key) -> (new batch_stats, outputs)


def apply_to_views(
    network: Network, variables: dict[str, Any], views: Any, noise: jax.Array | None = None, *, stacked: bool = True
) -> tuple[Outputs, Any]:
    """The network in training mode on both views, each normalised by its own batch statistics.

    Args:
      variables: {"params", "batch_stats"}.
      views: a pytree of [2, B, ...] arrays, view first.
      noise: the key of ``nn.Dropout``, needed if the network has any; each view gets a draw of its own.
      stacked: one vmapped pass, which moves a third fewer bytes than two; else two passes.

    Returns:
      Outputs with leaves [2, B, ...], and the new batch_stats.
    """

    def run(stats: Any, view: Any, key: jax.Array | None) -> tuple[Any, Outputs]:
        seen = {**variables, "batch_stats": stats}
        outputs, changed = network.apply(seen, view, True, mutable=["batch_stats"], rngs=None if key is None else {"dropout": key})
        return changed["batch_stats"] if stats else {}, outputs

    keys = None if noise is None else jax.random.split(noise)
    return (_at_once if stacked else _in_turn)(run, variables["batch_stats"], views, keys)


def stacks_views(network: Network, platform: str) -> bool:
    """Whether one pass of both views is the better one there: on a CPU two take a tenth less time (configs/digits.py,
    configs/cifar10.py:small; a busy 2-core machine, processor time), elsewhere not, unless the encoder's ``unstacked_on`` says so.
    """
    return platform != "cpu" and platform not in getattr(network.encoder, "unstacked_on", ())


def _in_turn(run: Run, old: Any, views: Any, keys: jax.Array | None) -> tuple[Outputs, Any]:
    """View 1, then view 2 with the running averages that view 1 left."""
    made, stats = [], old
    for i in range(2):
        stats, outputs = run(stats, jax.tree.map(lambda x, i=i: x[i], views), None if keys is None else keys[i])
        made.append(outputs)
    return jax.tree.map(lambda *pair: jnp.stack(pair), *made), stats


def _at_once(run: Run, old: Any, views: Any, keys: jax.Array | None) -> tuple[Outputs, Any]:
    """The new running averages s_1 and s_2 of either view come from the same old s_0.

    Two passes in a row would have ended at s_2 + m (s_1 - s_0), where m is the momentum: how much of s_0 is kept. That is the derivative
    of the new average by the old one, so the network is asked for it. Nothing else in it depends on s_0, and the compiler folds it to a
    constant.
    """

    def one_view(view: Any, key: jax.Array | None) -> tuple[Outputs, Any, Any]:
        def of_stats(stats: Any) -> tuple[Any, Outputs]:
            return run(stats, view, key)

        new, momentum, outputs = jax.jvp(of_stats, (old,), (jax.tree.map(jnp.ones_like, old),), has_aux=True)
        return outputs, new, momentum

    outputs, new, momentum = jax.vmap(one_view)(views, keys)
    return outputs, jax.tree.map(lambda s0, s, m: s[1] + m[0] * (s[0] - s0), old, new, momentum)


def check_norms(network: nn.Module, view: Any, axis: str, devices: int) -> None:
    """Raises ValueError where a norm would keep another network's statistics, or only those of its own device.

    Args:
      view: one view, a pytree of [B, ...] arrays; only shapes and dtypes are used.
      axis: the mesh axis that holds the batch.
      devices: how many devices it has.
    """
    owners: set[tuple[str, ...]] = set()

    def visit(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if isinstance(context.module, nn.BatchNorm):
            owners.add(context.module.path)
            _check_axis(context.module, axis, devices)
        return call(*args, **kwargs)

    with nn.intercept_methods(visit):
        variables = jax.eval_shape(partial(network.init, train=True), dict.fromkeys(("params", "dropout"), jax.random.key(0)), view)
    _check_collections(variables)
    for path, _ in jax.tree_util.tree_leaves_with_path(variables.get("batch_stats", {})):
        owner = tuple(key.key for key in path[:-1])
        if owner not in owners:
            raise ValueError(
                f"batch_stats of {'/'.join(owner)} are not kept by a flax.linen.BatchNorm; the running averages of two views "
                "can only be joined for it: use BatchNorm, a subclass of it, or a norm without running averages (LayerNorm, GroupNorm)"
            )


def _check_axis(norm: nn.BatchNorm, axis: str, devices: int) -> None:
    names = norm.axis_name if isinstance(norm.axis_name, tuple) else (norm.axis_name,)
    where = "/".join(norm.path)
    if norm.axis_name is not None and axis not in names:
        raise ValueError(
            f"BatchNorm {where} has axis_name={norm.axis_name!r}, but the batch is spread over {axis!r}: set axis_name={axis!r}"
        )
    if norm.axis_name is None and devices > 1:
        raise ValueError(
            f"BatchNorm {where} has no axis_name, so each of {devices} devices would normalise by its own rows only: "
            f"give it axis_name={axis!r} (in a ResNet or MLP of byol_jax: bn_axis={axis!r})"
        )


def _check_collections(variables: Any) -> None:
    unknown = sorted(set(variables) - {"params", "batch_stats"})
    if unknown:
        raise ValueError(f"the network keeps variables in {unknown}; a training step knows 'params' and 'batch_stats' only")
