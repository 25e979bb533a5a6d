"""Transformer encoders of text, as BERT and RoBERTa have them: token ids in, one vector a text out.

Hidden states are those of Hugging Face's PyTorch models of the same weights (``byol_jax.convert.huggingface`` reads and writes them).
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from byol_jax.models.norm import at_least_float32
from byol_jax.models.transformer import LayerNorm, Stack, check_shape

POOLINGS = ("mean", "cls", "attention")
# BERT's own code: a normal of 0.02, cut off at 0.04, and not widened to make up for it.
bert_init = nn.initializers.truncated_normal(0.02)


class TextEncoder(nn.Module):
    """Token ids int32[B, L] -> embeddings float32[B, hidden]. Padding is seen by nobody: more of it changes nothing.

    Attributes:
      vocab: number of tokens.
      layers, hidden, heads, mlp: of the Transformer. head_width: of each head; None: hidden / heads.
      positions: rows of the table of positions.
      types: rows of the table of segments. Every token is of segment 0; the others are kept for the sake of other programs.
      pad: the id that marks padding.
      first_position: 0: the positions of a row are 0, 1, 2, ... (BERT). Above: real tokens have first_position, first_position + 1, ...
        and padding the one before (RoBERTa, where it is pad + 1).
      pooling: "mean" of the real tokens; "cls", the first token; "attention", a mean weighted by a learned query.
      dropout: of embeddings and of what each branch adds; attention_dropout: of the attention's weights. They need the "dropout" rng, and
        only in training.
      activation: "gelu" (exact), "gelu_new" (by tanh) or "relu".
      epsilon: of the layer norms.
      dtype: of the computation (bfloat16 halves the traffic); parameters, softmax and statistics stay float32.
      remat, scan: as of ``transformer.Stack``: less memory for more operations; one compiled layer for all.
      drop_path: of its last layer, see ``transformer.Stack``.
    """

    vocab: int
    layers: int = 12
    hidden: int = 768
    heads: int = 12
    mlp: int = 3072
    positions: int = 512
    types: int = 2
    pad: int = 0
    first_position: int = 0
    pooling: Literal["mean", "cls", "attention"] = "mean"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation: str = "gelu"
    epsilon: float = 1e-12
    dtype: Any = jnp.float32
    remat: bool = False
    scan: bool = False
    drop_path: float = 0.0
    head_width: int | None = None

    def setup(self) -> None:
        check_shape("TextEncoder", self.hidden, self.heads if self.head_width is None else 1, self.activation)
        if self.pooling not in POOLINGS:
            raise ValueError(f"TextEncoder(pooling={self.pooling!r}): choose {', '.join(POOLINGS)}")
        table = partial(nn.Embed, features=self.hidden, embedding_init=bert_init)
        self.word, self.position, self.type = table(self.vocab), table(self.positions), table(self.types)
        self.norm = LayerNorm(self.epsilon)
        self.drop = nn.Dropout(self.dropout)
        block = {"heads": self.heads, "mlp": self.mlp, "norm_first": False, "activation": self.activation, "epsilon": self.epsilon}
        block |= {"dropout": self.dropout, "attention_dropout": self.attention_dropout, "kernel_init": bert_init, "dtype": self.dtype}
        block |= {"head_width": self.head_width}
        self.stack = Stack(self.layers, block, self.remat, self.scan, self.drop_path)
        if self.pooling == "attention":
            self.query = self.param("query", bert_init, (self.hidden,))

    def __call__(self, x: jax.Array | tuple[jax.Array, jax.Array], train: bool) -> jax.Array:
        """x: tokens int32[B, L]; or (tokens, float32[B, L, hidden] that is added to their embeddings after the layer norm).

        A row of padding alone gives zeros for "mean" and "attention". Raises ValueError if L > positions.
        """
        tokens, change = x if isinstance(x, tuple) else (x, None)
        states, real = self.hidden_states(tokens, train, change), tokens != self.pad
        if self.pooling == "cls":
            return states[:, 0]
        weights = real.astype(states.dtype)
        if self.pooling == "attention":
            scores = jnp.where(real, states @ self.query / self.hidden**0.5, -jnp.inf)
            # The maximum leaves numbers that exp can hold; a row of padding alone has none.
            highest = jnp.max(scores, axis=1, keepdims=True, initial=jnp.finfo(states.dtype).min)
            weights = jnp.exp(scores - jax.lax.stop_gradient(highest))
        total = jnp.sum(weights, axis=1, keepdims=True)
        return jnp.einsum("bl,bld->bd", weights, states) / jnp.where(total > 0, total, 1)

    def hidden_states(self, tokens: jax.Array, train: bool, change: jax.Array | None = None) -> jax.Array:
        """What the last layer makes of every token: int32[B, L] -> float32[B, L, hidden], padding included."""
        self._check(tokens)
        real = tokens != self.pad
        x = self.word(tokens) + self.position(self._places(real)) + self.type(jnp.zeros((1, 1), jnp.int32))
        x = self.norm(x) if change is None else self.norm(x) + change
        x = self.drop(x.astype(self.dtype), deterministic=not train)
        return at_least_float32(self.stack(x, real[:, None, None, :], train))

    def _places(self, real: jax.Array) -> jax.Array:
        if not self.first_position:
            return jnp.arange(real.shape[1])
        return self.first_position - 1 + jnp.where(real, jnp.cumsum(real, axis=1, dtype=jnp.int32), 0)

    def _check(self, tokens: jax.Array) -> None:
        if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise ValueError(f"a text encoder takes token ids, int32[B, L]; it was given {tokens.dtype}{list(tokens.shape)}")
        length, most = tokens.shape[1], self.positions - self.first_position
        if length > most:
            rule = f"positions = {self.positions}" + (f" less first_position = {self.first_position}" if self.first_position else "")
            raise ValueError(
                f"rows of {length} tokens: this encoder has places for {most} ({rule}); cut texts to {most} tokens, "
                f"or build it with positions >= {length + self.first_position}"
            )


def bert_tiny(vocab: int, **options: Any) -> TextEncoder:
    """2 layers, 128 features. This and the next three are the small BERTs of arXiv 1908.08962."""
    return TextEncoder(vocab, **{"layers": 2, "hidden": 128, "heads": 2, "mlp": 512, **options})


def bert_mini(vocab: int, **options: Any) -> TextEncoder:
    """4 layers, 256 features."""
    return TextEncoder(vocab, **{"layers": 4, "hidden": 256, "heads": 4, "mlp": 1024, **options})


def bert_small(vocab: int, **options: Any) -> TextEncoder:
    """4 layers, 512 features."""
    return TextEncoder(vocab, **{"layers": 4, "hidden": 512, "heads": 8, "mlp": 2048, **options})


def bert_medium(vocab: int, **options: Any) -> TextEncoder:
    """8 layers, 512 features."""
    return TextEncoder(vocab, **{"layers": 8, "hidden": 512, "heads": 8, "mlp": 2048, **options})


def bert_base(vocab: int, **options: Any) -> TextEncoder:
    """12 layers, 768 features (arXiv 1810.04805)."""
    return TextEncoder(vocab, **{"layers": 12, "hidden": 768, "heads": 12, "mlp": 3072, **options})


def minilm(vocab: int, **options: Any) -> TextEncoder:
    """6 layers, 384 features (arXiv 2002.10957)."""
    return TextEncoder(vocab, **{"layers": 6, "hidden": 384, "heads": 12, "mlp": 1536, **options})
