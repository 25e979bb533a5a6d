"""Table 17: an augmentation removed from both views."""

from byol_jax.config.sweep import Point, Scale, Sweep
from experiments.paper.scales import PAPER


def both(**changes: object) -> dict[str, object]:
    return {f"views.{view}.{name}": value for view in ("view1", "view2") for name, value in changes.items()}


NO_COLOUR = both(jitter=0.0, grayscale=0.0)
NO_BLUR = both(blur=0.0)
NO_SOLARIZE = both(solarize=0.0)
NO_FLIP = both(flip=0.0)
NO_CROP = both(crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0))
SMALL = Scale(
    "configs/cifar10.py:small",
    {"evaluation.every_epochs": 30, "logging.every_steps": 200},
    seeds=(0,),
    about="configs/cifar10.py:small, 20,000 images of CIFAR-10, 4,687 steps of 128 images of 16 x 16 pixels, 2 CPU cores. "
    "So small an image is not blurred: the kernel, a tenth of its height, is one pixel.",
)
BLUR = {"small": None}  # is not there anyway
ONLY_SMALL = {"paper": None}

SWEEP = Sweep(
    title="Augmentations removed",
    source="Table 17 (BYOL)",
    points=(
        Point("all", "72.5"),
        Point("no colour (jitter and grayscale)", "63.4 ± 0.7", NO_COLOUR),
        Point("crop only", "59.4 ± 0.3", {**NO_COLOUR, **NO_BLUR, **NO_SOLARIZE, **NO_FLIP}),
        Point("no crop", changes=NO_CROP, at=ONLY_SMALL),
        Point("no jitter", "71.8", both(jitter=0.0)),
        Point("no grayscale", "70.3", both(grayscale=0.0)),
        Point("no flip", "71.9", NO_FLIP),
        Point("no blur", "71.2", NO_BLUR, at=BLUR),
        Point("no blur in T'", "72.4", {"views.view2.blur": 0.0}, at=BLUR),
        Point("no solarize in T'", "72.3", {"views.view2.solarize": 0.0}),
        Point("no blur and solarize in T'", "72.2", {"views.view2.blur": 0.0, "views.view2.solarize": 0.0}, at=BLUR),
        Point("symmetric blur and solarize", "72.5", both(blur=0.5, solarize=0.2), at=BLUR),
        Point("crop and flip", "60.1 ± 0.3", {**NO_COLOUR, **NO_BLUR, **NO_SOLARIZE}),
        Point("crop and colour", "70.7", {**NO_BLUR, **NO_SOLARIZE, **NO_FLIP}),
        Point("crop and blur", "61.1 ± 0.3", {**NO_COLOUR, **NO_SOLARIZE, **NO_FLIP}, at=BLUR),
    ),
    scales={"paper": PAPER, "small": SMALL},
    metrics={"paper": "linear_sgd", "small": "linear_sgd"},
)
