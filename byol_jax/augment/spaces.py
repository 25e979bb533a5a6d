"""Where a view may be changed a little: pixels of an image, embeddings of a text's tokens."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Pixels:
    """Changes of normalised images [..., H, W, 3], in units of a pixel's whole range: 8/255 is eight gray levels.

    Attributes:
      mean, std: that images were normalised with, of pixels in [0, 1].
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def zeros(self, view: jax.Array) -> jax.Array:
        return jnp.zeros_like(view)

    def limit(self, view: jax.Array, change: jax.Array) -> jax.Array:
        mean, std = jnp.asarray(self.mean, view.dtype), jnp.asarray(self.std, view.dtype)
        return (jnp.clip(view + change / std, -mean / std, (1 - mean) / std) - view) * std

    def add(self, view: jax.Array, change: jax.Array) -> jax.Array:
        return view + change / jnp.asarray(self.std, view.dtype)


@dataclass(frozen=True)
class Embeddings:
    """Changes of the embeddings of tokens int32[..., L], after their layer norm (Miyato et al. 2017), whose numbers are about 1 in size.

    Attributes:
      hidden: numbers of a token.
    """

    hidden: int

    def zeros(self, tokens: jax.Array) -> jax.Array:
        return jnp.zeros((*tokens.shape, self.hidden), jnp.float32)

    def limit(self, tokens: jax.Array, change: jax.Array) -> jax.Array:
        return change

    def add(self, tokens: jax.Array, change: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What ``models.TextEncoder`` takes in place of tokens alone."""
        return tokens, change
