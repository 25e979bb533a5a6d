"""Periodic evaluation inside a run: k-NN accuracy on held-out data, and what would show a collapse."""

from __future__ import annotations

import logging
from typing import Any

import jax.numpy as jnp
import numpy as np

from byol_jax.augment import Recipe
from byol_jax.data import spread
from byol_jax.data.source import even_rows
from byol_jax.evaluate import Encoder, Features, features, knn_features
from byol_jax.method import diagnostics
from byol_jax.method.network import Byol
from byol_jax.method.state import ByolState
from byol_jax.train.hooks import Evaluation

_LOG = logging.getLogger("byol_jax.train")
RANKME_ROWS = 2048  # RankMe takes a singular value decomposition: seconds at 2048 x 2048


def evaluation(
    method: Byol,
    data: Any,
    test_data: Any,
    views: Recipe | None,
    *,
    examples: int,
    k: int,
    max_bad_share: float | None,
    every_steps: int,
    steps: int,
) -> list[Evaluation]:
    """The evaluation hook of a run; none where ``every_steps`` is 0 or nothing says how an example is prepared.

    It finds "rankme" and "features_std" of the monitor set and, where examples of that and of ``test_data`` have labels, "knn_top1" and
    "knn_top5" of those.

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
        known = features(encoder, monitored, max_bad_share=1.0)  # a sample may have too many by chance; training sees to the whole
        sample = jnp.asarray(known.embedding[even_rows(len(known), RANKME_ROWS)])
        found = {"rankme": float(diagnostics.rankme(sample)), "features_std": float(diagnostics.embedding_std(sample))}
        if test_data is None:
            return found
        voters, asked = _with_label(known), _with_label(features(encoder, test_data, max_bad_share=max_bad_share))
        if not len(voters) or not len(asked):
            if not int(state.step):
                _LOG.warning("no k-NN accuracy: no %s example has a label", "training" if len(asked) else "test")
            return found
        accuracy = knn_features(voters, asked, k=k)
        return found | {"knn_top1": accuracy.top1[k], "knn_top5": accuracy.top5[k]}

    return [Evaluation(look, every_steps=every_steps, steps=steps)]


def _with_label(found: Features) -> Features:
    return found.take(np.flatnonzero(found.label >= 0))
