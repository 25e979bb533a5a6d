"""The twelve data sets of the paper's transfer study (Tables 3 and 10, Appendix D), as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Metric = Literal["top-1", "mean per class", "11-point mAP"]


@dataclass(frozen=True)
class Task:
    """One data set.

    Attributes:
      name: ours.
      sizes: training, validation and test images in the paper.
      metric: what is reported, and what the penalty is chosen by.
      linear, fine_tuned: BYOL's ResNet-50 in the paper (Table 3), per cent.
      tfds: name and config in TFDS; None where TFDS has none, then it stands as folders ``DATA_DIR/<name>/<split>/<class>/*.jpg``.
      splits: where training (and validation) images come from. With one, the validation images are drawn from it at random, the same for
        every run, in the paper's proportion; the paper does not publish its own draw.
      test: the split of the test images.
      note: how to get what cannot be prepared by ``tfds build`` alone.
      labels: the feature that holds the label; of several labels an image, a list of class numbers.
      certain: of several labels: the feature that lists those that are not difficult to see. The others count neither way.
    """

    name: str
    sizes: tuple[int, int, int]
    metric: Metric
    linear: float
    fine_tuned: float
    tfds: str | None = None
    splits: tuple[str, ...] = ("train",)
    test: str = "test"
    note: str = ""
    labels: str = "label"
    certain: str | None = None

    @property
    def held_out(self) -> float:
        """Share of the training images to choose by, where there is no split of them."""
        train, valid, _ = self.sizes
        return valid / (train + valid)

    def prepare(self) -> str:
        """What to do to have the data set."""
        if self.tfds is None:
            splits = ", ".join((*self.splits, self.test))
            return f"{self.note}; put the images as DATA_DIR/{self.name}/SPLIT/CLASS/*.jpg with the splits {splits}"
        return f"tfds build {self.tfds} --file_format=array_record --data_dir=DATA_DIR" + (f" ({self.note})" if self.note else "")


_THREE = ("train", "validation")
_TASKS = (
    Task("food101", (68175, 7575, 25250), "top-1", 75.3, 88.5, "food101", test="validation"),
    Task("cifar10", (45000, 5000, 10000), "top-1", 91.3, 97.8, "cifar10"),
    Task("cifar100", (44933, 5067, 10000), "top-1", 78.4, 86.1, "cifar100"),
    Task(
        "birdsnap", (42405, 4981, 2443), "top-1", 57.2, 76.3, note="TFDS has no Birdsnap: its authors publish a list of links to the images"
    ),
    Task("sun397", (15880, 3970, 19850), "top-1", 62.2, 63.7, "sun397/standard-part1-120k", note="the first of its ten standard splits"),
    Task("cars", (6494, 1650, 8041), "top-1", 67.8, 91.6, "cars196", note="its source has moved at times: see the TFDS page of cars196"),
    Task(
        "aircraft", (3334, 3333, 3333), "mean per class", 60.6, 88.1, splits=_THREE, note="TFDS has no FGVC-Aircraft: take its 100 variants"
    ),
    Task("voc2007", (2501, 2510, 4952), "11-point mAP", 82.5, 85.4, "voc/2007", _THREE, labels="labels", certain="labels_no_difficult"),
    Task("dtd", (1880, 1880, 1880), "top-1", 75.5, 76.2, "dtd", _THREE, note="the first of its ten splits"),
    Task("pets", (2940, 740, 3669), "mean per class", 90.4, 91.7, "oxford_iiit_pet"),
    Task("caltech101", (2550, 510, 6084), "mean per class", 94.2, 93.8, "caltech101", note="TFDS has 3,059 and 6,085 images"),
    Task("flowers", (1020, 1020, 6149), "mean per class", 96.1, 97.0, "oxford_flowers102", _THREE),
)
TASKS = {task.name: task for task in _TASKS}
