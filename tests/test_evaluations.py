"""Which data an evaluation of the paper takes: SimCLR's subsets of ImageNet by name, and a fixed share of anything else; its limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import byol_jax
from byol_jax import config as cfg
from byol_jax.build.evaluations import evaluation, few_labelled


def spec(**data: Any) -> cfg.Spec:
    form = cfg.default()
    form.batch_size, form.epochs = 16, 1
    form.views.size = 8
    form.optimizer.warmup_epochs = 0
    form.data.update(**data)
    return cfg.resolve(form)


@pytest.mark.parametrize(("share", "subset"), [(0.01, "1pct"), (0.1, "10pct")])
def test_imagenet_has_fixed_subsets(share: float, subset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byol_jax.data, "tfds", lambda *args, **options: (*args, *options.values()))
    train, held = few_labelled(spec(source="tfds", name="imagenet2012:5.*.*", path="/data"), share)
    assert train == (f"imagenet2012_subset/{subset}", "train", "/data")
    assert held == ("imagenet2012:5.*.*", "train[-10009:]", "/data")


def test_a_share_of_each_class_and_images_to_choose_by(tmp_path: Path) -> None:
    label = np.repeat([0, 1, 2], [40, 20, 20])
    images = np.broadcast_to(np.arange(80, dtype=np.uint8)[:, None, None, None], (80, 8, 8, 3))
    np.savez(tmp_path / "d.npz", train_images=images, train_labels=label, test_images=images[:3], test_labels=label[:3])
    source = {"source": "npz", "path": str(tmp_path / "d.npz"), "test_split": "test"}
    train, held = few_labelled(spec(**source), 0.1, 0.25)
    which = [{int(part[i]["image"][0, 0, 0]) for i in range(len(part))} for part in (train, held)]
    assert np.bincount(byol_jax.data.labels_of(train)).tolist() == [4, 2, 2]
    assert np.bincount(byol_jax.data.labels_of(held)).tolist() == [9, 4, 4]  # a quarter of the 36, 18 and 18 that are left
    assert not which[0] & which[1]
    again = few_labelled(spec(**source), 0.1, 0.25)[0]
    assert {int(again[i]["image"][0, 0, 0]) for i in range(len(again))} == which[0]
    np.savez(tmp_path / "d.npz", train_images=images)
    with pytest.raises(cfg.ConfigError, match="needs a label for every image"):
        few_labelled(spec(**source), 0.1)


@pytest.mark.parametrize(
    ("kind", "options", "messages"),
    [
        ("semisup", {"rates": (0.0, 0.1)}, ["--rates 0: must be above 0, such as 0.01"]),
        (
            "transfer_finetune",
            {"rates": (0.1, -1.0), "decays": (0.0, -1e-4)},
            ["--rates -1: must be above 0, such as 0.01", "--decays -0.0001: must be 0 or more"],
        ),
        ("linear", {"penalties": (float("nan"), 1.0)}, ["--penalties nan: must be above 0, such as 0.01"]),
    ],
)
def test_numbers_that_are_too_small_are_told_at_once(kind: str, options: dict[str, Any], messages: list[str]) -> None:
    with pytest.raises(cfg.ConfigError) as caught:
        evaluation(kind, "nowhere", spec(), **options)
    assert list(caught.value.errors) == messages
