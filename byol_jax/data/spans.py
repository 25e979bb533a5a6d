"""The view recipe of texts in TensorFlow: spans, deletions, local reordering and masks of a row of token ids.

All randomness of an example comes from one draw of uniform numbers, seeded by the example's own seed, as in ``vision``.
"""

from __future__ import annotations

from typing import Any

from byol_jax.data.vision import tf
from byol_jax.views import TextView, TextViews

Tensor = Any


def decoded(data: Tensor, size: Tensor) -> Tensor:
    """int32[n] of the bytes of a row of ids."""
    del size
    return tf.io.decode_raw(data, tf.int32)


def two_views(tokens: Tensor, seed: Tensor, views: TextViews) -> dict[str, Tensor]:
    """Both views of a text, int32[n] with n >= 1, each int32[length]."""
    both = tf.random.stateless_uniform([2, 2 + 3 * views.room + _longest(views)], seed, alg="philox")
    made = (view_of(tokens, both[i], view, views) for i, view in enumerate((views.view1, views.view2)))
    return dict(zip(("view1", "view2"), made, strict=True))


def _longest(views: TextViews) -> int:
    return max(views.view1.mask_span, views.view2.mask_span) - 1


def view_of(tokens: Tensor, u: Tensor, view: TextView, views: TextViews) -> Tensor:
    """One view. ``u``: uniform numbers for the span's length and place, then ``room`` for each of deletion, order and masks."""
    room = views.room
    kept, count = span(tokens, u[0], u[1], view.span, room)
    removal, order, hidden = u[2 : 2 + room], u[2 + room : 2 + 2 * room], u[2 + 2 * room :]
    if view.delete or view.reorder:
        kept, count = rearranged(kept, count, removal, order, view)
    if view.mask:
        kept = tf.where(masked(hidden, room, view) & (tf.range(room) < count), views.special.mask, kept)
    return framed(kept, count, views)


def span(tokens: Tensor, length: Tensor, place: Tensor, share: tuple[float, float], room: int) -> tuple[Tensor, Tensor]:
    """(int32[room], count): a span of a share of the tokens, rounded, one at least and as many as there is room for; zeros after it."""
    n = tf.shape(tokens)[0]
    wanted = (share[0] + length * (share[1] - share[0])) * tf.cast(n, tf.float32)
    count = tf.clip_by_value(tf.cast(tf.round(wanted), tf.int32), 1, tf.minimum(n, room))
    start = tf.minimum(tf.cast(place * tf.cast(n - count + 1, tf.float32), tf.int32), n - count)
    kept = tf.pad(tokens[start : start + count], [[0, room - count]])
    return tf.ensure_shape(kept, [room]), count


def rearranged(tokens: Tensor, count: Tensor, removal: Tensor, order: Tensor, view: TextView) -> tuple[Tensor, Tensor]:
    """Without the tokens to delete (the first stays if all would go), the others sorted by their place plus up to ``reorder`` places.

    A token passes another only if less than ``reorder + 1`` places lie between them (Lample et al. 2018, arXiv 1711.00043).
    """
    place = tf.range(tf.shape(tokens)[0])
    real = place < count
    stays = real & (removal >= view.delete)
    stays = stays | (~tf.reduce_any(stays) & (place == 0))
    rank = tf.cumsum(tf.cast(stays, tf.int32), exclusive=True)  # places are counted among those that stay
    key = tf.cast(rank, tf.float32) + (order * (view.reorder + 1) if view.reorder else 0.0)
    sorted_by = tf.argsort(tf.where(stays, key, tf.fill(tf.shape(key), float("inf"))), stable=True)
    left = tf.reduce_sum(tf.cast(stays, tf.int32))
    return tf.where(place < left, tf.gather(tokens, sorted_by), 0), left


def masked(u: Tensor, room: int, view: TextView) -> Tensor:
    """bool[room]: where spans of ``mask_span`` tokens lie that begin anywhere, also before the first token.

    Each place begins one with the probability that leaves every token hidden with probability ``mask``.
    """
    begins = 1 - (1 - view.mask) ** (1 / view.mask_span)
    starts = tf.cast(u[: room + view.mask_span - 1] < begins, tf.int32)
    so_far = tf.cumsum(tf.pad(starts, [[1, 0]]))
    return so_far[view.mask_span :] > so_far[:room]


def framed(tokens: Tensor, count: Tensor, views: TextViews) -> Tensor:
    """int32[length]: the first ``count`` tokens between the special ones, then padding."""
    special = views.special
    start, end = (tf.constant(ids, tf.int32, [len(ids)]) for ids in (special.start, special.end))
    whole = tf.concat([start, tokens[:count], end], 0)
    return tf.ensure_shape(tf.pad(whole, [[0, views.length - tf.shape(whole)[0]]], constant_values=special.pad), [views.length])


def prepared(tokens: Tensor, views: TextViews) -> Tensor:
    """int32[length]: the first tokens of a text, as evaluation reads it."""
    count = tf.minimum(tf.shape(tokens)[0], views.room)
    return framed(tokens[: views.room], count, views)
