"""Runs with a narrower encoder: the configuration that rebuilds it, and the state that begins with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from byol_jax import compress, method
from byol_jax.build import objects
from byol_jax.config import ConfigError, Spec, resolve, to_config_dict
from byol_jax.models import ResNet, TextEncoder


def plan(module: nn.Module, variables: Mapping[str, Any], share: float) -> compress.Plan:
    """What goes of an encoder of ours. Raises ConfigError for one that cannot be made narrower."""
    try:
        if isinstance(module, ResNet):
            return compress.narrower(module, variables, share)
        if isinstance(module, TextEncoder):
            return compress.fewer_units(module, variables, share)
    except ValueError as error:
        raise ConfigError([f"--levels channels{100 * share:.0f}: {error}"]) from None
    kinds = "ResNets and text encoders of byol_jax.models are"
    raise ConfigError([f"--levels channels{100 * share:.0f}: {kinds} made narrower, not a {type(module).__name__}; take sparse or int8"])


def narrower_spec(spec: Spec, module: Any, plan: compress.Plan) -> Spec:
    """The configuration of the encoder that a plan leaves. Raises ConfigError where none says it."""
    if isinstance(module, ResNet):
        parts = {"block": module.block, "stages": tuple(module.stage_sizes), **plan.fields}
        found = with_encoder(spec, name="resnet", **parts)
    else:
        kept = {name: getattr(module, name) for name in ("layers", "hidden", "positions", "pooling", "dropout", "attention_dropout")}
        sizes = dataclasses.replace(spec.encoder.transformer, **kept, **plan.fields)
        found = with_encoder(spec, name="transformer", path=None, transformer=sizes)
    if objects.float_encoder(found) != module.clone(**plan.fields):
        raise ConfigError(
            [f"encoder.name = {spec.encoder.name!r}: its model has what encoder.name = 'transformer' cannot say; take sparse or int8"]
        )
    return found


def with_encoder(spec: Spec, **changes: Any) -> Spec:
    """The configuration with other values of the section ``encoder``, checked."""
    return checked(dataclasses.replace(spec, encoder=dataclasses.replace(spec.encoder, **changes)))


def checked(spec: Spec) -> Spec:
    return resolve(to_config_dict(spec))


def cut(plan: compress.Plan, part: Mapping[str, Any]) -> dict[str, Any]:
    """A field of the state (a network, or the linear probe) without what the encoder loses, and what reads its embedding with it."""
    if "kernel" in part:
        return {**part, "kernel": plan.rows(part["kernel"])}
    if "params" not in part:  # a probe of several label sets
        return {name: cut(plan, child) if isinstance(child, Mapping) else child for name, child in part.items()}
    made = {
        kind: {**tree, "encoder": plan.cut({kind: tree["encoder"]})[kind]} if "encoder" in tree else dict(tree)
        for kind, tree in part.items()
    }
    projector = made.get("params", {}).get("projector")
    if projector:
        first = {**projector["linear_0"], "kernel": plan.rows(projector["linear_0"]["kernel"])}
        made["params"]["projector"] = {**projector, "linear_0": first}
    return made


def fresh(state: Mapping[str, Any], tx: optax.GradientTransformation, memory: Any) -> method.ByolState:
    """A state at step 0 of these networks, with the optimizer, and what the loss remembers, at their beginning."""
    online, target = ({"batch_stats": {}, **state[name]} if name in state else {} for name in ("online", "target"))
    online, target, probe = jax.tree.map(jnp.asarray, (online, target, dict(state.get("probe", {}))))
    opt_state = tx.init({"online": online["params"], "probe": probe})
    return method.ByolState(jnp.zeros((), jnp.int32), online, target, opt_state, probe, memory)
