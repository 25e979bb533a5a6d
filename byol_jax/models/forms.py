"""The choice among the forms that a convolution, norm, ReLU or pool has for each platform.

Forms are jitted where they can be, so that layers of one shape are traced once. The choice among them must not be: its index is then an
operand of the way back, and a TPU's compiler decides too late (57.8 GB moved for 25.5, ResNet-18, v5e, 64 images a chip). Nor may a plain
convolution: XLA for CPUs makes only those of the main program fast.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

import jax
from jax.sharding import Mesh

_chosen = jax.make_user_context(default_value=None)  # a part of the key under which ``jax.jit`` keeps what it traced


def per_platform(*args: Any, default: Callable[..., Any], **forms: Callable[..., Any]) -> Any:
    """``jax.lax.platform_dependent``, but within ``form_of`` that platform's form on every platform."""
    if _chosen.value is None:
        return jax.lax.platform_dependent(*args, default=default, **forms)
    return forms.get(_chosen.value, default)(*args)


def form_of(platform: str | None) -> AbstractContextManager[None]:
    """What is traced within it takes the forms of "cpu", "cuda" or "tpu", wherever it runs; None: of the platform it runs on."""
    return _chosen(platform)


def traced_for(mesh: Mesh, run: Callable[..., Any]) -> Callable[..., Any]:
    """``run`` in the forms of the mesh's devices alone, unless ``form_of`` says otherwise where it is traced.

    Without it all forms are traced, and those of other platforms are thrown away after: of a ResNet-50's step that took 18 s instead of 6
    (2 CPU cores). On a GPU it is left so: its operations are counted in the cheapest form (``plan.products``), not in its own.
    """
    platform = mesh.devices.flat[0].platform
    chosen = None if platform == "gpu" else platform

    @wraps(run)
    def in_form(*args: Any, **kwargs: Any) -> Any:
        with form_of(_chosen.value or chosen):
            return run(*args, **kwargs)

    return in_form


def as_jax_has_it() -> AbstractContextManager[None]:
    """What is traced within it takes JAX's own forms, which are a TPU's.

    For a file, which has no platform yet, and for a comparison with what the forms are there to beat.
    """
    return form_of("tpu")
