"""Periodic evaluation inside a run: k-NN accuracy on held-out data, and what would show a collapse."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from byol_jax.augment import Recipe
from byol_jax.data import spread
from byol_jax.evaluate import Encoder, features, knn_features
from byol_jax.method import diagnostics
from byol_jax.method.network import Byol
from byol_jax.method.state import ByolState
from byol_jax.train.hooks import Evaluation

RANKME_ROWS = 2048  # RankMe takes a singular value decomposition: seconds at 2048 x 2048


def evaluation(
    method: Byol, data: Any, test_data: Any, views: Recipe | None, *, examples: int, k: int, every_steps: int, steps: int
) -> list[Evaluation]:
    """The evaluation hook of a run; none where ``every_steps`` is 0 or nothing says how an example is prepared.

    It finds "rankme" and "features_std" of the monitor set and, with labelled ``test_data``, "knn_top1" and "knn_top5".

    Raises:
      ValueError: test data is given but no way to prepare its examples.
    """
    if views is None and test_data is not None:
        raise ValueError("eval_views: needed to evaluate on test_data, since views is a function of your own")
    if not every_steps or views is None:
        return []
    monitored = spread(data, examples)

    def look(state: ByolState) -> dict[str, float]:
        encoder = Encoder.from_state(method, state, views)
        known = features(encoder, monitored)
        sample = jnp.asarray(known.embedding[:RANKME_ROWS])
        found = {"rankme": float(diagnostics.rankme(sample)), "features_std": float(diagnostics.embedding_std(sample))}
        asked = None if test_data is None else features(encoder, test_data)
        if asked is not None and (asked.label >= 0).any():
            accuracy = knn_features(known, asked, k=k)
            found |= {"knn_top1": accuracy.top1[k], "knn_top5": accuracy.top5[k]}
        return found

    return [Evaluation(look, every_steps=every_steps, steps=steps)]
