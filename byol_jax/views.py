"""View recipes as plain data: the one thing that ``data`` (tf.data) and ``augment`` (JAX) share.

A recipe says how the two views of an image (``Views``) or of a text (``TextViews``) are made; it holds no code that touches a pixel or a
token. Defaults for images are the paper's (Table 6, Appendix B); the order of the operations is fixed:
crop, rotation, flip, colour jitter (its four operations in random order), grayscale, blur, solarize, clip to [0, 1].
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class View:
    """Probabilities and strengths of one view. The fields stand in the order in which the operations run."""

    crop_area: tuple[float, float] = (0.08, 1.0)  # share of the image's area, sampled uniformly
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width over height, sampled log-uniformly
    rotation: float = 0.0  # radians; the angle is uniform in [-rotation, rotation]; not in the paper
    flip: float = 0.5  # probability of a left-right flip
    jitter: float = 0.8  # probability of the whole colour jitter
    brightness: float = 0.4  # additive, uniform in [-b, b]
    contrast: float = 0.4  # factor, uniform in [1 - c, 1 + c], about each channel's mean
    saturation: float = 0.2  # factor on HSV saturation, uniform in [1 - s, 1 + s]
    hue: float = 0.1  # in turns, uniform in [-h, h]
    grayscale: float = 0.2  # probability
    blur: float = 1.0  # probability; the kernel spans a tenth of the image's height
    blur_sigma: tuple[float, float] = (0.1, 2.0)  # pixels, uniform
    solarize: float = 0.0  # probability
    solarize_threshold: float = 0.5  # pixels at or above it are inverted

    def errors(self) -> list[str]:
        """What is out of range, one sentence a fault; empty for a good recipe. Never raises, so that a caller can report all at once."""
        found = []
        for name in ("flip", "jitter", "grayscale", "blur", "solarize"):
            if not 0 <= getattr(self, name) <= 1:
                found.append(f"{name}={getattr(self, name)}: a probability lies in [0, 1]")
        limits = {"rotation": math.pi, "brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.5}
        for name, limit in limits.items():
            if not 0 <= getattr(self, name) <= limit:
                found.append(f"{name}={getattr(self, name)}: lies in [0, {limit:.4g}]")
        for name, top in (("crop_area", 1.0), ("crop_ratio", math.inf), ("blur_sigma", math.inf)):
            low, high = getattr(self, name)
            if not (0 < low <= high <= top and math.isfinite(high)):
                found.append(f"{name}=({low}, {high}): wants 0 < low <= high" + (" <= 1" if top == 1 else ""))
        return found


@dataclass(frozen=True)
class Views:
    """The recipe of both views, and how an image is prepared when nothing is augmented.

    Attributes:
      size: side of a view, in pixels (views are square, 3 channels).
      view1, view2: the distributions T and T' of the paper.
      eval_crop: side of the central crop taken at evaluation, as a share of the shorter side (224/256 in the paper).
      mean, std: per-channel normalisation of [0, 1] pixels, applied last.
      content: the key of an example that holds the image.
    """

    content: ClassVar[str] = "image"
    size: int = 224
    view1: View = field(default_factory=View)
    view2: View = field(default_factory=lambda: View(blur=0.1, solarize=0.2))
    eval_crop: float = 0.875
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def errors(self) -> list[str]:
        """What is out of range in the recipe, as ``View.errors``, with the view named."""
        found = [f"view{i}.{error}" for i, view in enumerate((self.view1, self.view2), 1) for error in view.errors()]
        if self.size < 1:
            found.append(f"size={self.size}: a view has at least one pixel a side")
        if not 0 < self.eval_crop <= 1:
            found.append(f"eval_crop={self.eval_crop}: a share of the shorter side, in (0, 1]")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(s > 0 for s in self.std):
            found.append(f"mean={self.mean}, std={self.std}: three numbers each, and every std above 0")
        return found

    def plain(self) -> Views:
        """The recipe without its photometric part: what classifiers are trained on."""
        return self.both(rotation=0.0, jitter=0.0, grayscale=0.0, blur=0.0, solarize=0.0)

    def both(self, **changes: Any) -> Views:
        """The same recipe with the given ``View`` fields changed in both views."""
        view1 = dataclasses.replace(self.view1, **changes)
        view2 = dataclasses.replace(self.view2, **changes)
        return dataclasses.replace(self, view1=view1, view2=view2)


def imagenet(size: int = 224) -> Views:
    """The paper's recipe (Table 6)."""
    return Views(size=size)


def small(size: int = 32) -> Views:
    """The paper's recipe without blur, and with the whole image at evaluation: for images of about 32 pixels."""
    return Views(size=size, eval_crop=1.0).both(blur=0.0)


def gray(size: int = 28) -> Views:
    """For images without colour: crop, brightness and contrast only; no flip, since digits and letters have a side."""
    views = small(size).both(flip=0.0, saturation=0.0, hue=0.0, grayscale=0.0, solarize=0.0)
    return dataclasses.replace(views, mean=(0.5,) * 3, std=(0.5,) * 3)


def image(size: int = 224) -> Views:
    """The recipe for colour images of this size: ``small`` up to 48 pixels, ``imagenet`` above."""
    return small(size) if size <= 48 else imagenet(size)


PRESETS = {"imagenet": imagenet, "small": small, "gray": gray}


@dataclass(frozen=True)
class TextView:
    """Probabilities and strengths of one view of a text. The fields stand in the order in which the operations run."""

    span: tuple[float, float] = (1.0, 1.0)  # share of the tokens kept, uniform: one span of them, at a uniform place
    delete: float = 0.0  # probability that a token is left out
    reorder: int = 0  # places: neighbours are shuffled so that no token moves farther than this
    mask: float = 0.0  # probability that a token is hidden behind the mask token
    mask_span: int = 1  # tokens hidden together

    def errors(self) -> list[str]:
        """What is out of range, as ``View.errors``."""
        found = []
        low, high = self.span
        if not 0 < low <= high <= 1:
            found.append(f"span=({low}, {high}): wants 0 < low <= high <= 1")
        found += [f"{name}={getattr(self, name)}: lies in [0, 1)" for name in ("delete", "mask") if not 0 <= getattr(self, name) < 1]
        if self.reorder < 0:
            found.append(f"reorder={self.reorder}: 0 (as they stand) or more places")
        if self.mask_span < 1:
            found.append(f"mask_span={self.mask_span}: at least 1 token is hidden at a time")
        return found


@dataclass(frozen=True)
class SpecialTokens:
    """What a tokenizer puts around a text, and what stands for nothing and for a hidden token, as ids."""

    start: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    pad: int = 0
    mask: int | None = None


@dataclass(frozen=True)
class TextViews:
    """The recipe of both views of a text, which is a row of token ids.

    At evaluation a text is its first tokens, as many as fit.

    Attributes:
      length: tokens of a view, special ones and padding included.
      view1, view2: the two distributions. Where neither changes a token, the encoder's dropout alone tells the views apart (SimCSE).
      special: the tokenizer's.
      content: the key of an example that holds the tokens.
    """

    content: ClassVar[str] = "tokens"
    length: int = 128
    view1: TextView = field(default_factory=TextView)
    view2: TextView = field(default_factory=TextView)
    special: SpecialTokens = field(default_factory=SpecialTokens)

    @property
    def room(self) -> int:
        """Tokens of the text itself that a view holds."""
        return self.length - len(self.special.start) - len(self.special.end)

    def errors(self) -> list[str]:
        """What is out of range in the recipe, as ``View.errors``, with the view named."""
        found = [f"view{i}.{error}" for i, view in enumerate((self.view1, self.view2), 1) for error in view.errors()]
        if self.room < 1:
            found.append(f"length={self.length}: leaves no place for a token beside {self.length - self.room} special ones")
        if self.special.mask is None:
            hidden = [f"view{i}.mask={view.mask}" for i, view in enumerate((self.view1, self.view2), 1) if view.mask]
            found += [f"{text}: the tokenizer has no mask token; set it to 0" for text in hidden]
        return found

    def plain(self) -> TextViews:
        """The recipe with whole texts, nothing hidden: what classifiers are trained on."""
        return self.both(span=(1.0, 1.0), delete=0.0, reorder=0, mask=0.0)

    def both(self, **changes: Any) -> TextViews:
        """The same recipe with the given ``TextView`` fields changed in both views."""
        view1 = dataclasses.replace(self.view1, **changes)
        view2 = dataclasses.replace(self.view2, **changes)
        return dataclasses.replace(self, view1=view1, view2=view2)


def sentence(length: int = 64) -> TextViews:
    """For single sentences: all of it twice, a span of five tokens hidden now and then, beside the encoder's dropout.

    After Mirror-BERT (arXiv 2104.08027), which hides five letters in one of its two views.
    """
    return TextViews(length=length).both(mask=0.1, mask_span=5)


def document(length: int = 128) -> TextViews:
    """For longer texts: two spans of the document, drawn apart from each other."""
    return TextViews(length=length).both(span=(0.2, 0.6))


TEXT_PRESETS = {"sentence": sentence, "document": document}
