"""What the pictures show: which images, their views, their place on the map, their neighbours."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from byol_jax.augment.image import image_views
from byol_jax.data.source import BadImage, labels_of, subset
from byol_jax.evaluate.features import Features, features
from byol_jax.evaluate.knn import nearest
from byol_jax.report import plots
from byol_jax.views import Views


def one_of_each_class(source: Any, count: int, seed: int) -> np.ndarray:
    """``count`` positions, classes taking turns; random ones if there are no labels."""
    label = labels_of(source)
    order = np.random.default_rng(seed).permutation(len(source))
    if label is None:
        return order[:count]
    turn = np.zeros(len(source), np.int64)  # how many of its class come before each example
    for c in np.unique(label):
        members = order[label[order] == c]
        turn[members] = np.arange(len(members))
    return np.array(sorted(order, key=lambda i: (turn[i], label[i]))[:count])


def squares(source: Any, positions: np.ndarray, size: int) -> np.ndarray:
    """The images at these positions, uint8 [N, S, S, 3]: central squares of one size, so that they can stand in one array.

    Arrays in memory come as they are. An image that cannot be read is left white.
    """
    if hasattr(source, "images"):
        return np.asarray(source.images[positions])
    out = np.full((len(positions), size, size, 3), 255, np.uint8)
    for row, position in enumerate(positions):
        try:
            image = np.asarray(source[int(position)]["image"])
        except BadImage:
            continue
        image = np.repeat(image.reshape(*image.shape[:2], -1), 3, -1)[..., :3] if image.ndim == 2 or image.shape[-1] == 1 else image
        side = min(image.shape[:2])
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        square = Image.fromarray(image[top : top + side, left : left + side])
        out[row] = np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))
    return out


def view_grid(source: Any, views: Views, *, rows: int = 8, draws: int = 2, seed: int = 0) -> Figure:
    """Random views of some images, just as training makes them on the device."""
    positions = one_of_each_class(source, rows, seed)
    images = squares(source, positions, round(views.size / 0.875))
    make = jax.jit(image_views(views))
    pairs = []
    for draw in range(draws):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), draw), len(images))
        made = make(keys, {"image": jnp.asarray(images)})
        pairs.append((_shown(made["view1"], views), _shown(made["view2"], views)))
    return plots.view_pairs(images, pairs)


def embedding_map(found: Features, names: list[str] | None, *, seed: int = 0) -> Figure | None:
    """t-SNE of l2-normalised embeddings; None for fewer than ten examples."""
    from sklearn.manifold import TSNE  # a second to import, and only the report needs it

    if len(found) < 10:
        return None
    length = np.linalg.norm(found.embedding, axis=1, keepdims=True)
    unit = found.embedding / np.maximum(length, 1e-12)
    if np.ptp(unit, axis=0).max() < 1e-6:  # collapsed: one point, of which t-SNE would make a ball
        return plots.embedding_map(np.zeros((len(found), 2)), found.label, names)
    perplexity = min(30.0, (len(found) - 1) / 3)
    method = "exact" if len(unit) <= 500 else "barnes_hut"  # the latter's threads cost more than they save on few points
    tsne = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed, method=method)
    points = tsne.fit_transform(unit)
    return plots.embedding_map(points, found.label, names)


def neighbour_rows(
    encoder: Any, queries: Any, bank: Any, found: Features, names: list[str] | None, *, rows: int = 8, k: int = 8, seed: int = 0
) -> Figure | None:
    """Nearest neighbours in ``bank`` (whose features are ``found``) of some examples of ``queries``; of itself, if they are one source."""
    positions = one_of_each_class(queries, rows, seed)
    asked = features(encoder, subset(queries, positions), batch_size=len(positions))
    positions = positions[asked.index]  # without those that could not be decoded
    own = 1 if queries is bank else 0
    if len(found) <= own:
        return None
    cosine, index = (part[:, own:] for part in nearest(asked.embedding, found.embedding, k=k + own))
    size = encoder.views.size
    query_images = squares(queries, positions, size)
    images = squares(bank, found.index[index.ravel()], size)
    images = images.reshape(*index.shape, *images.shape[1:])
    label = found.label[index]
    known = bool((asked.label >= 0).any() and (found.label >= 0).any())
    same = label == asked.label[:, None] if known else None
    return plots.neighbours(query_images, images, cosine, same, (_names(asked.label, names), [_names(row, names) for row in label]))


def _shown(view: Any, views: Views) -> np.ndarray:
    """A normalised view as an image again."""
    return np.clip(np.asarray(view) * np.array(views.std, np.float32) + np.array(views.mean, np.float32), 0, 1)


def _names(label: np.ndarray, names: list[str] | None) -> list[str]:
    return ["" if c < 0 else names[c] if names else str(c) for c in label]
