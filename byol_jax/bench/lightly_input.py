"""lightly's input: its BYOL transform on the host, over the same images, in torch's DataLoader. Needs torch and lightly."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch
from lightly.transforms.byol_transform import BYOLTransform, BYOLView1Transform, BYOLView2Transform
from PIL import Image
from torch.utils.data import DataLoader, RandomSampler
from torchvision.datasets.folder import default_loader

from byol_jax.bench.result import cores
from byol_jax.data import ArraySource, FolderSource
from byol_jax.views import View, Views

ENDLESS = 2**40  # draws with replacement, so that no epoch ends while it is measured


class Images:
    """A source as torch reads it: two views float32[3, S, S] of image i."""

    def __init__(self, source: FolderSource | ArraySource, transform: BYOLTransform) -> None:
        self.source, self.transform = source, transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        if isinstance(self.source, FolderSource):
            return self.transform(default_loader(self.source.describe(index)))
        return self.transform(Image.fromarray(self.source[index]["image"]))


def whole(views: Views) -> BYOLTransform:
    """lightly's transform with this recipe's probabilities and strengths, normalised."""
    return BYOLTransform(_view(BYOLView1Transform, views, views.view1), _view(BYOLView2Transform, views, views.view2))


def crops(views: Views) -> BYOLTransform:
    """Its crops alone, which is what our host does where augmentation runs on the device."""
    none: dict[str, Any] = {"flip": 0.0, "jitter": 0.0, "grayscale": 0.0, "blur": 0.0, "solarize": 0.0, "rotation": 0.0}
    bare = views.both(**none)
    return BYOLTransform(*(_view(make, bare, bare.view1, normalize=None) for make in (BYOLView1Transform, BYOLView2Transform)))


def _view(make: Callable[..., Any], views: Views, view: View, **changes: Any) -> Any:
    options: dict[str, Any] = {
        "input_size": views.size,
        "min_scale": view.crop_area[0],
        "hf_prob": view.flip,
        "rr_prob": 1.0 if view.rotation else 0.0,
        "rr_degrees": math.degrees(view.rotation),
        "cj_prob": view.jitter,
        "cj_bright": view.brightness,
        "cj_contrast": view.contrast,
        "cj_sat": view.saturation,
        "cj_hue": view.hue,
        "random_gray_scale": view.grayscale,
        "gaussian_blur": view.blur,
        "sigmas": view.blur_sigma,
        "solarization_prob": view.solarize,
        "normalize": {"mean": list(views.mean), "std": list(views.std)},
    }
    return make(**{**options, **changes})


def batches(
    source: FolderSource | ArraySource, transform: BYOLTransform, batch_size: int
) -> contextlib.AbstractContextManager[Iterator[Any]]:
    """Endless batches of two views, float32[batch_size, 3, S, S]; closing them ends the workers."""
    # Workers come from a process of their own: this one has threads of JAX and TensorFlow, which a fork does not survive.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    data = Images(source, transform)
    sampler = RandomSampler(data, replacement=True, num_samples=ENDLESS)
    loader = DataLoader(data, batch_size, sampler=sampler, num_workers=cores(), multiprocessing_context=context)

    def each() -> Generator[Any, None, None]:
        yield from loader

    return contextlib.closing(each())
