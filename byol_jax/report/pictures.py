"""What the pictures show: views of images, their neighbours, and the map of the embeddings."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from byol_jax.augment.image import image_views
from byol_jax.data.source import BadImage
from byol_jax.evaluate.features import Features
from byol_jax.report import plots
from byol_jax.report.examples import class_names, neighbours_of_some, one_of_each_class
from byol_jax.views import Views


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
    some = neighbours_of_some(encoder, queries, bank, found, rows=rows, k=k, seed=seed)
    if some is None:
        return None
    size = encoder.views.size
    query_images = squares(queries, some.query, size)
    images = squares(bank, some.found.ravel(), size)
    images = images.reshape(*some.found.shape, *images.shape[1:])
    captions = class_names(some.query_label, names), [class_names(row, names) for row in some.label]
    return plots.neighbours(query_images, images, some.cosine, some.same, captions, digits=some.digits)


def _shown(view: Any, views: Views) -> np.ndarray:
    """A normalised view as an image again."""
    return np.clip(np.asarray(view) * np.array(views.std, np.float32) + np.array(views.mean, np.float32), 0, 1)
