"""Table 17: an augmentation removed from both views."""

from byol_jax.config.sweep import Point, Sweep
from experiments.paper.scales import METRICS, SCALES


def both(**changes: object) -> dict[str, object]:
    return {f"views.{view}.{name}": value for view in ("view1", "view2") for name, value in changes.items()}


NO_JITTER = both(jitter=0.0)
NO_COLOUR = {**NO_JITTER, **both(grayscale=0.0)}
NO_BLUR = both(blur=0.0)
NO_SOLARIZE = both(solarize=0.0)
NO_ROTATION = {"small": both(rotation=0.0)}
ABSENT = {"small": None}  # digits have no colour and a side; their recipe neither blurs nor flips nor solarizes
ONLY_SMALL = {"paper": None}

SWEEP = Sweep(
    title="Augmentations removed",
    source="Table 17 (BYOL)",
    points=(
        Point("all", "72.5"),
        Point("no flip", "71.9", both(flip=0.0), at=ABSENT),
        Point("no blur", "71.2", NO_BLUR, at=ABSENT),
        Point("no colour (jitter and grayscale)", "63.4 ± 0.7", NO_COLOUR, at=ABSENT),
        Point("no jitter", "71.8", NO_JITTER),
        Point("no grayscale", "70.3", both(grayscale=0.0), at=ABSENT),
        Point("no blur in T'", "72.4", {"views.view2.blur": 0.0}, at=ABSENT),
        Point("no solarize in T'", "72.3", {"views.view2.solarize": 0.0}, at=ABSENT),
        Point("no blur and solarize in T'", "72.2", {"views.view2.blur": 0.0, "views.view2.solarize": 0.0}, at=ABSENT),
        Point("symmetric blur and solarize", "72.5", {**both(blur=0.5), **both(solarize=0.2)}, at=ABSENT),
        Point("crop only", "59.4 ± 0.3", {**NO_COLOUR, **NO_BLUR, **NO_SOLARIZE, **both(flip=0.0)}, at=NO_ROTATION),
        Point("crop and flip", "60.1 ± 0.3", {**NO_COLOUR, **NO_BLUR, **NO_SOLARIZE}, at=ABSENT),
        Point("crop and colour", "70.7", {**NO_BLUR, **NO_SOLARIZE, **both(flip=0.0)}, at=ABSENT),
        Point("crop and blur", "61.1 ± 0.3", {**NO_COLOUR, **NO_SOLARIZE, **both(flip=0.0)}, at=ABSENT),
        Point("no rotation", changes=both(rotation=0.0), at=ONLY_SMALL),
        Point("no crop", changes=both(crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0)), at=ONLY_SMALL),
        Point(
            "nothing: two equal views",
            changes={**both(crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0), rotation=0.0), **NO_JITTER},
            at=ONLY_SMALL,
        ),
    ),
    scales=SCALES,
    metrics=METRICS,
)
