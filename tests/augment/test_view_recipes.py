"""The recipes as data: the paper's numbers, and every fault reported at once."""

from __future__ import annotations

import dataclasses
import math

import pytest

from byol_jax import views
from byol_jax.views import View


def test_the_papers_recipe():
    """Table 6, and the official code's bounds."""
    first, second = views.imagenet().view1, views.imagenet().view2
    shared = {"crop_area": (0.08, 1.0), "crop_ratio": (3 / 4, 4 / 3), "rotation": 0.0, "flip": 0.5}
    shared |= {"jitter": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}
    shared |= {"grayscale": 0.2, "blur_sigma": (0.1, 2.0), "solarize_threshold": 0.5}
    assert dataclasses.asdict(first) == {**shared, "blur": 1.0, "solarize": 0.0}
    assert dataclasses.asdict(second) == {**shared, "blur": 0.1, "solarize": 0.2}
    assert (views.imagenet().size, views.imagenet().eval_crop) == (224, 224 / 256)


@pytest.mark.parametrize("preset", views.PRESETS.values(), ids=views.PRESETS.keys())
def test_presets_are_in_range(preset):
    assert preset().errors() == []
    assert preset(20).size == 20


def test_presets_leave_out_what_they_say():
    for view in (views.small().view1, views.small().view2):
        assert view.blur == 0
    for view in (views.gray().view1, views.gray().view2):
        assert (view.flip, view.blur, view.saturation, view.hue, view.grayscale, view.solarize) == (0,) * 6
    assert views.image(48) == views.small(48)
    assert views.image(49) == views.imagenet(49)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flip": -0.1}, "flip=-0.1: a probability lies in [0, 1]"),
        ({"blur": 1.01}, "blur=1.01: a probability lies in [0, 1]"),
        ({"hue": 0.6}, "hue=0.6: lies in [0, 0.5]"),
        ({"contrast": math.nan}, "contrast=nan: lies in [0, 1]"),
        ({"crop_area": (0.5, 0.2)}, "crop_area=(0.5, 0.2): wants 0 < low <= high <= 1"),
        ({"crop_area": (0.0, 1.0)}, "crop_area=(0.0, 1.0): wants 0 < low <= high <= 1"),
        ({"crop_ratio": (1.0, math.inf)}, "crop_ratio=(1.0, inf): wants 0 < low <= high"),
        ({"blur_sigma": (0.0, 1.0)}, "blur_sigma=(0.0, 1.0): wants 0 < low <= high"),
    ],
)
def test_a_fault_is_named_with_its_rule(changes, message):
    assert View(**changes).errors() == [message]


def test_all_faults_come_at_once():
    bad = dataclasses.replace(views.small().both(flip=2.0, hue=1.0), size=0, eval_crop=0.0, std=(1.0, 0.0, 1.0))
    names = [error.split("=")[0] for error in bad.errors()]
    assert names == ["view1.flip", "view1.hue", "view2.flip", "view2.hue", "size", "eval_crop", "mean"]
