"""All that a run carries from one step to the next."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

if TYPE_CHECKING:
    from byol_jax.method.network import Byol


@struct.dataclass
class ByolState:
    """A pytree.

    Attributes:
      step: number of steps done, int32[].
      online: variables of the online network, {"params", "batch_stats"}; batch_stats is {} for a network without BN.
      target: the same of the target network. Its params follow the online ones, its batch_stats are its own. {} where the method has none.
      opt_state: of one optimizer over {"online": params, "probe": probe}.
      probe: params of the online linear probe; {} if there is none.
      memory: what a loss carries from step to step; () for one that carries nothing.
    """

    step: jax.Array
    online: dict[str, Any]
    target: dict[str, Any]
    opt_state: optax.OptState
    probe: dict[str, Any]
    memory: Any = ()

    @property
    def trained(self) -> dict[str, Any]:
        """What the optimizer moves."""
        return {"online": self.online["params"], "probe": self.probe}


def with_encoder(method: Byol, state: ByolState, variables: Mapping[str, Any]) -> ByolState:
    """The state with these variables of the encoder, {"params"[, "batch_stats"]}, in the online network and in a target that follows it.

    A target that brings its own variables along, such as a ``Teacher``, keeps them.

    Raises:
      ValueError: names the arrays that the encoder has and the variables lack, the other way round, or of another shape.
    """
    target = state.target if method.follower.given() else _starting(state.target, variables)
    return dataclasses.replace(state, online=_starting(state.online, variables), target=target)


def _starting(network: dict[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(network)
    for kind, tree in network.items():
        if "encoder" in tree:
            _check_same(tree["encoder"], variables.get(kind, {}), kind)
            made[kind] = {**tree, "encoder": jax.tree.map(_placed_as, tree["encoder"], variables[kind])}
    return made


def _placed_as(leaf: jax.Array, value: Any) -> jax.Array:
    # a copy: each network's buffers are donated to the step, so that no two leaves may share one
    return jax.device_put(jnp.array(value, leaf.dtype, copy=True), leaf.sharding)


def _check_same(ours: Any, given: Any, kind: str) -> None:
    shapes = [
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)} for tree in (ours, given)
    ]
    wrong = [name for name in {**shapes[0], **shapes[1]} if shapes[0].get(name) != shapes[1].get(name)]
    if wrong:
        told = ", ".join(f"{name} {shapes[0].get(name, 'none')} here, {shapes[1].get(name, 'none')} there" for name in wrong[:3])
        raise ValueError(f"start_from: {len(wrong)} arrays of {kind} do not fit the encoder: {told}" + (", ..." if len(wrong) > 3 else ""))
