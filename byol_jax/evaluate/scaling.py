"""Features brought to one scale, and to as few columns as their examples need, before a linear classifier is fitted."""

from __future__ import annotations

import dataclasses

import numpy as np

from byol_jax.evaluate.features import Features

SPANNED = 128  # columns are a multiple of it


def standardised(reference: Features, *sets: Features) -> tuple[Features, ...]:
    """Each set shifted and scaled by the reference's mean and standard deviation; constant dimensions are left unscaled.

    Dimensions that are ``weighted`` share one scale, the root of their mean variance.
    """
    mean, scale = moments(reference)
    return tuple(dataclasses.replace(part, embedding=((part.embedding - mean) / scale).astype(np.float32)) for part in sets)


def moments(reference: Features) -> tuple[np.ndarray, np.ndarray]:
    """(mean, scale) by which ``standardised`` shifts and divides, float64[D]; the scale of ``weighted`` features is one number."""
    mean, std = reference.embedding.mean(0, dtype=np.float64), reference.embedding.std(0, dtype=np.float64)
    if reference.weighted:
        std = np.sqrt(np.mean(np.square(std)))
    return mean, np.where(std > 1e-6, std, 1.0)


def basis_of(reference: Features) -> np.ndarray | None:
    """float32 [D, columns], the axes of the space that the reference's N examples span; None where N is not far below D."""
    n, dimensions = reference.embedding.shape
    columns = -(-n // SPANNED) * SPANNED
    if 2 * columns > dimensions:
        return None
    basis = np.linalg.qr(reference.embedding.T.astype(np.float64))[0]
    return np.pad(basis, ((0, 0), (0, columns - n))).astype(np.float32)


def spanned(reference: Features, *sets: Features) -> tuple[Features, ...]:
    """Each set in coordinates of the space that the reference's N examples span; as they are where N is not far below D.

    Products with anything in that space stay, so a classifier with a penalty ends in the same logits, in N and not D columns. Some of
    these are zero, so that numbers of examples near each other share one compilation.
    """
    basis = basis_of(reference)
    return sets if basis is None else tuple(dataclasses.replace(part, embedding=part.embedding @ basis) for part in sets)
