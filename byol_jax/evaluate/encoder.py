"""The frozen encoder: images or token ids in, embeddings out. What every evaluation, and every user of a run, holds in the hand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from byol_jax import parallel
from byol_jax.augment import Recipe, kind_of
from byol_jax.views import Views

Forward = Callable[[Any, jax.Array], jax.Array]


class Encoder:
    """A network with its weights, in evaluation mode: ``encoder(images) -> embeddings``; of texts ``encoder(tokens)``.

    Weights are placed once on this process's devices and the batch is split over them; processes work independently. Batches are
    padded to a few fixed sizes, so a data set is encoded with one or two compilations whatever its length.

    Args:
      module: the backbone, ``(x, train) -> [B, D]``, or a whole network whose output has an ``embedding``.
      variables: the module's variables, ``{"params": ...}`` and, with batch norm, ``{"batch_stats": ...}``; if they are split
        over several processes, all must build the encoder together.
      views: how an image is prepared (central crop, size, normalisation), or a text (length).
      mesh: devices to use, those of this process; None takes all local devices.
    """

    def __init__(self, module: nn.Module, variables: Any, views: Recipe, mesh: Mesh | None = None) -> None:
        self.module, self.views = module, views
        self.mesh = _local_mesh(mesh)
        self.variables = jax.device_put(parallel.gather_to_host(variables), NamedSharding(self.mesh, PartitionSpec()))

    @classmethod
    def from_state(cls, method: Any, state: Any, views: Recipe, mesh: Mesh | None = None) -> Encoder:
        """The online encoder of a ``ByolState``: what BYOL keeps at the end (paper, section 3.1)."""
        variables = {kind: tree["encoder"] for kind, tree in state.online.items() if "encoder" in tree}
        return cls(method.encoder, variables, views, mesh)

    @classmethod
    def untrained(cls, module: nn.Module, views: Recipe, *, seed: int = 0, mesh: Mesh | None = None) -> Encoder:
        """The same network with fresh random weights and running statistics: the baseline that costs nothing."""
        seen = kind_of(views).seen(views)
        variables = jax.jit(functools.partial(module.init, train=False))(jax.random.key(seed), jnp.zeros(seen.shape, seen.dtype))
        return cls(module, variables, views, mesh)

    @property
    def image_views(self) -> Views:
        """``views``, of an encoder of images. ValueError for one of texts."""
        if not isinstance(self.views, Views):
            raise ValueError(f"encoder: {type(self.module).__name__} reads texts; this is for encoders of images")
        return self.views

    def __call__(self, examples: np.ndarray, *, pad_to: int | None = None) -> np.ndarray:
        """Embeds images or texts.

        Args:
          examples: images, uint8 [B, H, W, 3], any H and W, cropped, resized and normalised as ``views`` says; or texts, int32 [B, L] of
            token ids with special tokens and padding.
          pad_to: compile for this many rows (give the size of a full batch when the last one may be smaller);
            None rounds B up to a power of two.

        Returns:
          float32 [B, D].
        """
        return np.asarray(self._run(True, kind_of(self.views).accept(examples, self.views), pad_to))

    def views_of(self, views: np.ndarray | jax.Array, *, pad_to: int | None = None) -> jax.Array:
        """Embeds views as the network takes them: normalised float32 [B, S, S, 3], or int32 [B, L], -> float32 [B, D].

        Takes and returns arrays on the device, so that augmentations made there need not leave it.
        """
        seen = kind_of(self.views).seen(self.views)
        if views.dtype != seen.dtype or views.ndim != len(seen.shape) or (views.ndim == 4 and views.shape[-1] != 3):
            wanted = ", ".join(["B", *map(str, seen.shape[1:])])
            raise ValueError(f"views: got {views.dtype} {views.shape}; expected {seen.dtype} [{wanted}], as the network takes them")
        return self._run(False, views, pad_to)

    def _run(self, raw: bool, examples: np.ndarray | jax.Array, pad_to: int | None) -> jax.Array:
        rows = len(examples)
        padded = _padded_rows(rows, pad_to, self.mesh.size)
        if padded > rows:
            concatenate = np.concatenate if isinstance(examples, np.ndarray) else jnp.concatenate
            examples = concatenate([examples, np.zeros((padded - rows, *examples.shape[1:]), examples.dtype)])
        placed = jax.device_put(examples, NamedSharding(self.mesh, PartitionSpec("data")))
        out = _forward(self.module, self.views, raw)(self.variables, placed)
        return out[:rows]


def _padded_rows(rows: int, pad_to: int | None, devices: int) -> int:
    wanted = max(rows, pad_to) if pad_to else 1 << max(rows - 1, 0).bit_length()
    return -(-wanted // devices) * devices


def _local_mesh(mesh: Mesh | None) -> Mesh:
    """The part of the mesh that belongs to this process: features are computed apart and gathered once, at the end."""
    devices = jax.local_devices() if mesh is None else [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def _forward(module: nn.Module, views: Recipe, raw: bool) -> Forward:
    """One compiled function for all encoders of equal module and views, so that evaluating a run every few epochs compiles once."""
    try:
        return _cached_forward(module, views, raw)
    except TypeError:  # a module with an unhashable field (a list, say) is compiled for itself
        return _make_forward(module, views, raw)


def _make_forward(module: nn.Module, views: Recipe, raw: bool) -> Forward:
    def forward(variables: Any, examples: jax.Array) -> jax.Array:
        x = kind_of(views).preprocess(examples, views) if raw else examples
        out = module.apply(variables, x, False)
        out = getattr(out, "embedding", out)
        if not isinstance(out, jax.Array) or out.ndim != 2:
            raise ValueError(f"{type(module).__name__} returned {jax.tree.map(jnp.shape, out)}; an encoder returns one array [B, D]")
        return out.astype(jnp.float32)

    return jax.jit(forward)


_cached_forward = functools.lru_cache(maxsize=16)(_make_forward)
