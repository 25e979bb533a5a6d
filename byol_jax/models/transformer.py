"""The Transformer that text and images share: blocks of self-attention and a two-layer MLP, each added to what enters it.

BERT normalises after each addition (``norm_first=False``, arXiv 1810.04805), ViT before each branch (``True``, arXiv 2010.11929).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from byol_jax.models.drop_path import depth_rates, drop_path
from byol_jax.models.norm import at_least_float32

# By the names of Hugging Face.
ACTIVATIONS: dict[str, Any] = {"gelu": partial(nn.gelu, approximate=False), "gelu_new": partial(nn.gelu, approximate=True), "relu": nn.relu}


class LayerNorm(nn.LayerNorm):
    """Over the last axis, at least in float32; returns the dtype it was given.

    The variance is of centred values: the mean square less the squared mean loses digits where a mean is large.
    """

    use_fast_variance: bool = False

    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        return super().__call__(at_least_float32(x), mask=mask).astype(x.dtype)


class Block(nn.Module):
    """One layer: [B, L, D] -> [B, L, D], in ``dtype``; parameters, softmax and the statistics of the norms are float32.

    Attributes:
      heads: of the attention. head_width: of each; None: D / heads.
      mlp: units between the two layers of the MLP.
      norm_first: a LayerNorm before each branch (ViT), or after each addition (BERT).
      activation: of the MLP: "gelu" (exact), "gelu_new" (by tanh) or "relu".
      epsilon: of the norms.
      dropout: of what a branch adds; attention_dropout: of the attention's weights. Both need the "dropout" rng, and only if ``train``.
      kernel_init: of all matrices; biases start at zero.
    """

    heads: int
    mlp: int
    norm_first: bool
    activation: str = "gelu"
    epsilon: float = 1e-6
    dropout: float = 0.0
    attention_dropout: float = 0.0
    kernel_init: Any = nn.initializers.xavier_uniform()
    dtype: Any = jnp.float32
    train: bool = False
    head_width: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None, drop: Any = None) -> jax.Array:
        """``mask``: bool, broadcastable to [B, heads, L, L]: which tokens (last axis) a token sees; all of them if None.

        ``drop``: how often each of the two branches is dropped for an example; None: never.
        """
        x = self._added("attention", lambda y: self._attention(y, mask), x, drop)
        return self._added("mlp", self._mlp, x, drop)

    def _added(self, name: str, branch: Any, x: jax.Array, drop: Any) -> jax.Array:
        norm = LayerNorm(self.epsilon, name=f"{name}_norm")
        y = branch(norm(x) if self.norm_first else x)
        x = x + drop_path(self, nn.Dropout(self.dropout, deterministic=not self.train)(y), drop)
        return x if self.norm_first else norm(x)

    def _attention(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        attention = nn.MultiHeadDotProductAttention(
            self.heads,
            qkv_features=None if self.head_width is None else self.heads * self.head_width,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            dropout_rate=self.attention_dropout,
            deterministic=not self.train,
            attention_fn=attend,
            name="attention",
        )
        return attention(x, mask=mask)

    def _mlp(self, x: jax.Array) -> jax.Array:
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=self.kernel_init)
        inner = ACTIVATIONS[self.activation](dense(self.mlp, name="mlp_0")(x))
        return dense(x.shape[-1], name="mlp_1")(inner)


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    dropout_rng: Any,
    dropout_rate: float,
    deterministic: bool,
) -> jax.Array:
    """Of [B, L, heads, width] each: weighted sums of the values, in their dtype, by a softmax that is taken in float32.

    ``nn.dot_product_attention`` keeps the weights in float32 after such a softmax, so that the product with the values is one of float32
    too, and takes no float16 or bfloat16 under strict type promotion.
    """
    weights = nn.dot_product_attention_weights(query, key, mask=mask, deterministic=True, force_fp32_for_softmax=True)
    if dropout_rate > 0 and not deterministic:
        keep = jax.random.bernoulli(dropout_rng, 1 - dropout_rate, weights.shape)
        weights = jnp.where(keep, weights / (1 - dropout_rate), 0)
    return jnp.einsum("...hqk,...khd->...qhd", weights.astype(value.dtype), value)


class Stack(nn.Module):
    """Layers one after the other: [B, L, D] -> [B, L, D].

    Attributes:
      block: the options of every ``Block``.
      remat: keep of a layer only what enters it, and compute the rest again on the way back.
      scan: one compiled layer, run ``layers`` times. Compile time then does not grow with them; parameters are "blocks", stacked along
        a first axis, where they are "block_0", "block_1", ... otherwise (``stacked`` and ``unstacked`` turn one into the other).
      drop_path: how often the last layer's branches are dropped in training, those before linearly less (stochastic depth).
    """

    layers: int
    block: Mapping[str, Any]
    remat: bool = False
    scan: bool = False
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None, train: bool) -> jax.Array:
        # As in the ResNets: nothing is kept for a way back in evaluation, and the draws of initialisers must not depend on it.
        again = self.remat and train and not self.is_initializing()
        kind: Any = nn.remat(Block, prevent_cse=not self.scan) if again else Block
        drops = jnp.asarray(depth_rates(self.drop_path, self.layers), jnp.float32) if self.drop_path and train else None
        if not self.scan:
            for i in range(self.layers):
                x = kind(**self.block, train=train, name=f"block_{i}")(x, mask, None if drops is None else drops[i])
            return x

        def layer(block: Block, x: jax.Array, mask: jax.Array | None, drop: jax.Array | None) -> tuple[jax.Array, None]:
            return block(x, mask, drop), None

        rngs: Any = {"params": True, "dropout": True}
        run: Any = nn.scan(layer, variable_axes={"params": 0}, split_rngs=rngs, in_axes=(nn.broadcast, 0), length=self.layers)
        return run(kind(**self.block, train=train, name="blocks"), x, mask, drops)[0]


def stacked(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a ``Stack`` as ``scan=True`` has them; those that are so already are returned as they are."""
    if "blocks" in params:
        return dict(params)
    return {"blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[f"block_{i}"] for i in range(len(params))))}


def unstacked(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a ``Stack`` as ``scan=False`` has them."""
    if "blocks" not in params:
        return dict(params)
    layers = len(jax.tree.leaves(params["blocks"])[0])
    return {f"block_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], params["blocks"]) for i in range(layers)}


def check_shape(owner: str, hidden: int, heads: int, activation: str = "gelu") -> None:
    """Raises ValueError for heads that do not divide the width, and for an unknown activation."""
    if heads < 1 or hidden % heads:
        fits = [n for n in range(1, hidden + 1) if hidden % n == 0]
        nearest = min(fits, key=lambda n: (abs(n - heads), n))
        raise ValueError(
            f"{owner}(hidden={hidden}, heads={heads}): hidden must be divisible by heads; the nearest number that fits: {nearest}"
        )
    if activation not in ACTIVATIONS:
        raise ValueError(f"{owner}(activation={activation!r}): choose {', '.join(ACTIVATIONS)}")
