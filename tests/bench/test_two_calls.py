"""The peer that ours is compared with does the same: loss, gradients and running averages, so that only speed differs."""

from __future__ import annotations

from functools import partial
from typing import Any

import chex
import jax
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.sharding import AxisType

from byol_jax import method as m
from byol_jax.bench import two_calls

EMA = m.ema_decay(0.9, 10)
jitted = partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})


class Tiny(nn.Module):
    """A convolution, BN, mean: [B, H, W, 3] -> [B, 6]."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.BatchNorm(not train, momentum=0.8, axis_name="data", name="norm")(nn.Conv(6, (3, 3))(x))
        return nn.relu(x).mean(axis=(1, 2))


def noisy(keys: jax.Array, batch: dict[str, Any]) -> dict[str, Any]:
    noise = jax.vmap(lambda key: 0.1 * jax.random.normal(key, (4, 4, 3)))(keys)
    return {**batch, "view1": batch["view1"] + noise, "view2": batch["view2"] - noise}


@pytest.mark.parametrize(("devices", "classes"), [(1, 0), (4, 3)])
def test_four_passes_end_where_ours_ends(devices: int, classes: int) -> None:
    method = m.Byol(Tiny(), m.MLP(8, 4), m.MLP(8, 4), num_classes=classes)
    draw = np.random.default_rng(0)
    batch: dict[str, Any] = {name: draw.normal(size=(16, 4, 4, 3)).astype(np.float32) for name in ("view1", "view2")}
    batch["label"] = np.asarray([0, 1, 2, -1] * 4, np.int32)
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    tx = optax.sgd(1.0)  # the change of the parameters is the gradient itself
    before = m.init(method, tx, jax.random.key(1), batch, augment=noisy, mesh=mesh)
    options: dict[str, Any] = {"ema": EMA, "augment": noisy, "key": jax.random.key(2), "mesh": mesh}
    ours = before
    step, other = (jitted(make(method, tx, **options)) for make in (m.make_train_step, two_calls.make_train_step))
    for _ in range(2):
        peer, of_peer = other(ours, batch)
        ours, metrics = step(ours, batch)
        assert float(of_peer["loss"]) == pytest.approx(float(metrics["loss"]), rel=2e-6)
        chex.assert_trees_all_close(jax.device_get(peer), jax.device_get(ours), rtol=1e-5, atol=2e-6)
    moved = jax.tree.map(lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max()), ours.online, before.online)
    assert moved["params"]["encoder"]["Conv_0"]["kernel"] > 1e-2  # far above the tolerance
    assert moved["batch_stats"]["encoder"]["norm"]["mean"] > 1e-2
