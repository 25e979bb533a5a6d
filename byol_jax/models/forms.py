"""The other way to choose among the forms that a convolution, norm, ReLU or pool has for each platform: JAX's own, everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax


@contextmanager
def as_jax_has_it() -> Iterator[None]:
    """What is traced within it takes, of the forms for each platform, a TPU's, which is JAX's own, or the default.

    For a file, which has no platform yet, and for a comparison with what the forms are there to beat.
    """
    lax: Any = jax.lax
    chosen = lax.platform_dependent

    def one_form(*args: Any, default: Callable[..., Any], **forms: Callable[..., Any]) -> Any:
        return forms.get("tpu", default)(*args)

    lax.platform_dependent = one_form
    try:
        yield
    finally:
        lax.platform_dependent = chosen
