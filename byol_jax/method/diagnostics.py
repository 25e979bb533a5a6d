"""Numbers that show a collapse, or how well embeddings fill their space. Pure functions of embeddings."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from byol_jax.method.loss import normalize
from byol_jax.method.placement import mean_over_devices


def embedding_std(z: jax.Array, axis_name: str | None = None) -> jax.Array:
    """sqrt(D) times the standard deviation over N of the l2-normalised embeddings [N, D], mean over D (SimSiam section 4.1).

    1 where they spread over the whole sphere, 0 where all are the same: collapse.

    Args:
      z: embeddings [N, D].
      axis_name: inside ``shard_map``, the mesh axis over which the N rows are spread.
    """
    z = normalize(z)
    center = z.mean(axis=0)
    center = center if axis_name is None else mean_over_devices(center, axis_name)
    variance = jnp.square(z - center).mean(axis=0)
    variance = variance if axis_name is None else mean_over_devices(variance, axis_name)
    return jnp.sqrt(variance).mean() * z.shape[-1] ** 0.5


def rankme(z: jax.Array) -> jax.Array:
    """Effective rank of embeddings [N, D]: exp of the entropy of their singular values (RankMe, arXiv 2210.02885).

    p_k = sigma_k / sum(sigma) + 1e-7; between 1 and min(N, D). Not centred, as defined there. Compare runs of one method only.
    """
    sigma = jnp.linalg.svd(z.astype(jnp.float32), compute_uv=False)
    p = sigma / jnp.maximum(sigma.sum(), 1e-30) + 1e-7
    return jnp.exp(-jnp.sum(p * jnp.log(p)))


def uniformity(z: jax.Array, t: float = 2.0) -> jax.Array:
    """log mean exp(-t |z_i - z_j|^2) over pairs i < j of l2-normalised embeddings [N, D] (arXiv 2005.10242). Lower is more uniform."""
    z = normalize(z)
    squared = jnp.maximum(2 - 2 * jnp.matmul(z, z.T, precision="highest"), 0)
    upper = jnp.triu(jnp.ones_like(squared, dtype=bool), k=1)
    pairs = z.shape[0] * (z.shape[0] - 1) / 2
    return jax.nn.logsumexp(-t * squared, where=upper) - jnp.log(pairs)


def alignment(z1: jax.Array, z2: jax.Array) -> jax.Array:
    """Mean squared distance of l2-normalised embeddings [N, D] of two views of the same images (arXiv 2005.10242), 0 to 4."""
    return jnp.square(normalize(z1) - normalize(z2)).sum(axis=-1).mean()
