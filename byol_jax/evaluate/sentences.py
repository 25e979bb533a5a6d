"""The frozen encoder of texts together with its tokenizer: what a user of a text run holds in the hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from byol_jax.data.tokens import Tokenizer, padded
from byol_jax.evaluate.encoder import Encoder
from byol_jax.views import TextViews


class SentenceEncoder:
    """``encoder(texts) -> embeddings``: each text is cut to the length the run was trained with.

    Args:
      encoder: of tokens.
      tokenizer: the one that the run was trained with.

    Attributes:
      views: the encoder's recipe: how long a text may be, and its special tokens.
    """

    def __init__(self, encoder: Encoder, tokenizer: Tokenizer) -> None:
        if not isinstance(encoder.views, TextViews):
            raise ValueError(f"SentenceEncoder: {type(encoder.module).__name__} is an encoder of images; it takes them itself")
        self.encoder, self.tokenizer, self.views = encoder, tokenizer, encoder.views

    def __call__(self, texts: Sequence[str], *, batch_size: int = 256) -> np.ndarray:
        """float32 [N, D] of N texts, in their order; an empty text is embedded as nothing between two special tokens.

        Raises:
          ValueError: no list of str, or an empty one.
        """
        if isinstance(texts, str) or not len(texts) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"texts: got {type(texts).__name__} {str(texts)[:60]!r}; give a list of one str or more")
        ids = self.tokenizer.ids(texts)
        # Texts of like length together: a batch is as wide as its longest.
        order = np.argsort([len(one) for one in ids], kind="stable")
        parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        found = np.concatenate([self.encoder(padded([ids[i] for i in part], self.views), pad_to=batch_size) for part in parts])
        out = np.empty_like(found)
        out[order] = found
        return out
