"""Blocks that are computed again on the way back: the same network, the same numbers, less to keep."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from byol_jax import method as m
from byol_jax import models, parallel

IMAGES = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
BLOCKS = {"basic": {"stage_sizes": (2, 2), "channels": (8, 16)}, "bottleneck": {"stage_sizes": (2,), "channels": (64,)}}


def pair(block: str = "basic", **options: Any) -> tuple[models.ResNet, models.ResNet]:
    kept = models.resnet(**BLOCKS[block], block=block, **options)
    return kept, kept.clone(remat=True)


def born(model: nn.Module) -> Any:
    """Its variables; compiled without optimisation, since initialisers are many and run once."""
    init = jax.jit(lambda key: model.init(key, IMAGES, True))
    return init(jax.random.key(0))


def objective(model: nn.Module, params: Any, stats: Any, x: jax.Array) -> tuple[jax.Array, Any]:
    y, changed = model.apply({"params": params, "batch_stats": stats}, x, True, mutable=["batch_stats"])
    return jnp.square(y).mean(), changed.get("batch_stats", {})


def residuals(model: nn.Module, variables: Any) -> list[tuple[int, ...]]:
    """Shapes of what the way forward leaves for the way back."""

    def forward(variables: Any, x: jax.Array) -> Any:
        stats = variables.get("batch_stats", {})
        return jax.tree.leaves(jax.vjp(lambda p: objective(model, p, stats, x), variables["params"], has_aux=True)[1])

    return [leaf.shape for leaf in jax.eval_shape(forward, variables, IMAGES)]


@pytest.mark.parametrize(("block", "norm"), [("basic", "batch"), ("bottleneck", "group")])
def test_the_same_parameters_gradients_and_running_averages(block: str, norm: str) -> None:
    kept, again = pair(block, norm=norm, bn_axis=None)
    variables = born(kept)
    jax.tree.map(np.testing.assert_array_equal, born(again), variables)  # equal trees too
    found = []
    for model in (kept, again):
        gradient = jax.jit(jax.grad(partial(objective, model), has_aux=True))
        found.append(gradient(variables["params"], variables.get("batch_stats", {}), IMAGES))
    (grads, stats), (same_grads, same_stats) = found
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * float(jnp.abs(b).max())), same_grads, grads)
    jax.tree.map(np.testing.assert_array_equal, same_stats, stats)


def test_only_what_enters_a_block_is_kept() -> None:
    """Maps of [4, 8, 8, 8] before and in the first stage, [4, 4, 4, 16] in the second, whose first block is entered at the old size."""
    kept, again = pair(bn_axis=None)
    variables = born(kept)
    sizes = [[int(np.prod(shape)) for shape in residuals(model, variables)] for model in (kept, again)]
    maps = [sorted(size for size in found if size >= 4 * 4 * 4 * 16) for found in sizes]
    assert sum(maps[1]) < sum(maps[0]) / 2
    late = 4 * 4 * 4 * 16
    assert maps[1].count(late) <= 3  # what enters the last block, and the end; without: also what is in the blocks
    assert maps[0].count(late) > 6


def test_each_block_is_computed_again_in_training_and_none_in_evaluation() -> None:
    kept, again = pair(bn_axis=None)
    variables = born(kept)

    def marks(model: nn.Module, train: bool) -> int:
        run = partial(model.apply, train=train, mutable=["batch_stats"])
        return sum(equation.primitive.name in ("checkpoint", "remat", "remat2") for equation in jax.make_jaxpr(run)(variables, IMAGES).eqns)

    assert [marks(again, True), marks(again, False), marks(kept, True)] == [4, 0, 0]


@pytest.mark.parametrize("stacked", [True, False])
def test_a_training_step_ends_the_same(stacked: bool) -> None:
    """Under vmap and the derivative by the old running averages, with statistics over two devices."""
    mesh = parallel.data_mesh(jax.devices()[:2])
    views = {"view1": IMAGES, "view2": IMAGES[::-1].copy()}
    ends = []
    for encoder in (models.resnet((1,), (8,)), models.resnet((1,), (8,), remat=True)):
        method = m.Byol(encoder, m.MLP(hidden=8, out=8), m.MLP(hidden=8, out=8))
        state = m.init(method, optax.sgd(0.1), jax.random.key(0), views, mesh=mesh)
        step = jax.jit(m.make_train_step(method, optax.sgd(0.1), ema=m.constant_decay(0.9), mesh=mesh, stack_views=stacked))
        ends.append(step(state, parallel.to_global(views, mesh)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * max(1, float(jnp.abs(b).max()))), *ends)
