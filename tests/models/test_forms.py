"""Which form a layer takes, and what ``jax.jit`` keeps of it."""

from __future__ import annotations

import contextlib
import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from byol_jax import models, parallel
from byol_jax.models.forms import as_jax_has_it, form_of, per_platform, traced_for
from byol_jax.models.norm import batch_norm


@jax.jit
def layer(x: jax.Array) -> jax.Array:
    return per_platform(x, cpu=lambda x: x + 1, tpu=lambda x: x + 2, default=lambda x: x + 3)


def test_what_was_traced_for_one_platform_is_not_taken_for_another() -> None:
    found = [int(layer(0))]
    for platform in ("tpu", "cuda"):
        with form_of(platform):
            found.append(int(layer(0)))
    with as_jax_has_it():
        found.append(int(layer(0)))
    assert [*found, int(layer(0))] == [1, 2, 3, 2, 1]


def test_a_mesh_takes_its_own_form_alone_and_what_is_chosen_outside_wins() -> None:
    mesh = parallel.data_mesh(jax.devices()[:1])
    run = traced_for(mesh, lambda x: layer(x))
    assert "platform_index" in str(jax.make_jaxpr(layer)(0))
    assert "platform_index" not in str(jax.make_jaxpr(run)(0))
    with as_jax_has_it():
        assert int(run(0)) == 2
    assert int(run(0)) == 1


def test_norms_of_one_shape_are_traced_once() -> None:
    """A third of the time until a ResNet-50's first step was its tracing."""

    def three(x: jax.Array, wider: jax.Array, scale: jax.Array) -> list[Any]:
        return [batch_norm(given, scale, scale, None, 1e-5, True)[0] for given in (x, x + 1, wider)]

    with form_of("cpu"):
        program = jax.make_jaxpr(three)(jnp.ones((2, 3, 3, 4)), jnp.ones((2, 5, 5, 4)), jnp.ones(4))
    first, second, third = (step.params["jaxpr"] for step in program.eqns if step.params.get("name") == "_written_out")
    assert first is second
    assert first is not third


@pytest.mark.parametrize("chosen", [contextlib.nullcontext, as_jax_has_it, partial(form_of, "cpu")])
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_a_cpu_has_its_convolutions_in_the_main_program(block: Any, chosen: Any) -> None:
    """XLA brings those of other functions into no fast form: with ``convolve`` jitted, a step of ``digits`` took five times as long."""
    encoder = models.resnet((1, 1), (32, 64), block=block, small_inputs=False, bn_axis=None)
    images = jnp.ones((2, 40, 40, 3))
    variables = jax.eval_shape(lambda: encoder.init(jax.random.key(0), images, True))

    def loss(params: Any, stats: Any) -> jax.Array:
        return encoder.apply({"params": params, "batch_stats": stats}, images, True, mutable=["batch_stats"])[0].sum()

    with chosen():
        text = jax.jit(jax.grad(loss)).lower(variables["params"], variables["batch_stats"]).as_text()
    functions = re.split(r"^  func\.func ", text, flags=re.MULTILINE)
    assert [function.split("(")[0] for function in functions if "stablehlo.convolution" in function] == ["public @main"]
