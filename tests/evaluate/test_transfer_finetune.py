"""Fine-tuning on other data sets: whole tasks on tiny data in the format of TFDS, one of them with several labels an image."""

from __future__ import annotations

import importlib
from pathlib import Path

import flax.linen as nn
import numpy as np
import pytest

from byol_jax import config as cfg
from byol_jax import views
from byol_jax.build.evaluations import EVALUATIONS, Subject
from byol_jax.evaluate import Encoder, features, finetune, transfer_fine_tune
from byol_jax.evaluate.finetune import Setting, transfer_grid
from byol_jax.evaluate.metrics import eleven_point_map
from byol_jax.evaluate.tasks import TASKS
from byol_jax.evaluate.transfer_finetune import open_parts

GENTLE = views.small(8).both(crop_area=(0.8, 1.0))


class Small(nn.Module):
    """Means of the channels, and batch norm over all devices."""

    bn_momentum: float = 0.9

    @nn.compact
    def __call__(self, x, train):
        norm = nn.BatchNorm(use_running_average=not train, momentum=self.bn_momentum, axis_name="data")
        return nn.relu(nn.Dense(12)(norm(x.mean((1, 2)))))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.untrained(Small(), GENTLE, seed=1)


@pytest.fixture(scope="module")
def place(prepared) -> Path:
    return prepared("array_record")


def test_parts_are_those_of_the_linear_study(place: Path):
    for name, sizes in (("cifar10", (45, 5, 50, 30)), ("voc2007", (40, 20, 60, 30)), ("aircraft", (40, 20, 60, 30))):
        train, valid, both, test = open_parts(TASKS[name], place)
        assert tuple(map(len, (train, valid, both, test))) == sizes
        np.testing.assert_array_equal(both.targets, np.concatenate([train.targets, valid.targets]))
        np.testing.assert_array_equal(both[sizes[0]]["image"], valid[0]["image"])
        assert (both[7]["label"], both.encoded(7)[1]) == (7, 7)
    assert open_parts(TASKS["voc2007"], place)[0].targets.shape == (40, 20)
    source = open_parts(TASKS["cifar10"], place)[1]
    for i in range(len(source)):
        assert source.targets[i] == np.argmax(source[i]["image"].mean((0, 1)))  # the brightest channel is the class


def test_two_tasks_and_where_they_go_on(place: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    settings = transfer_grid((1e-5, 2.0), (0.0, 1e-3), steps=40)
    options = {"settings": settings, "batch_size": 16, "data_dir": place, "folder": tmp_path, "say": said.append}
    result = transfer_fine_tune(encoder, ("cifar10", "voc2007", "pets"), **options)
    assert result.tasks["cifar10"]["score"] > 0.9
    assert result.tasks["voc2007"]["score"] > 0.9
    assert result.tasks["voc2007"]["choice"].startswith("rate2-steps40")
    assert len(result.tasks["voc2007"]["validation"]) == 4
    assert list(result.skipped) == ["pets"]
    rows = {row[0]: row for row in result.rows()[2]}
    assert (rows["voc2007"][1], rows["voc2007"][3], rows["pets"][3]) == ("11-point mAP", "85.4", "91.7")
    assert {path.name for path in tmp_path.iterdir()} == {"cifar10", "cifar10.json", "voc2007", "voc2007.json"}

    (tmp_path / "voc2007.json").unlink()
    (tmp_path / "voc2007" / "rate1e-05-steps40.json").unlink()
    trained: list[tuple[str, int, float]] = []
    true = finetune.train

    def train(encoder, source, setting, classes, **kwargs):
        trained.append((setting.name, len(source), kwargs["bn_momentum"]))
        return true(encoder, source, setting, classes, **kwargs)

    monkeypatch.setattr(finetune, "train", train)
    assert transfer_fine_tune(encoder, ("cifar10", "voc2007", "pets"), **options).tasks == result.tasks
    assert trained == [("rate1e-05-steps40", 40, 0.9), (result.tasks["voc2007"]["choice"], 60, 0.9)]


def test_the_last_training_is_on_both_parts(place: Path, encoder: Encoder):
    setting = Setting(1.0, steps=12, weight_decay=1e-3)
    found = transfer_fine_tune(encoder, ("voc2007",), settings=(setting,), batch_size=16, data_dir=place, say=lambda text: None)
    _, _, both, test = open_parts(TASKS["voc2007"], place)
    tuned = finetune.train(encoder, both, setting, 20, batch_size=16, bn_momentum=0.9, targets=both.targets)
    expected = eleven_point_map(features(tuned, test).embedding, test.targets)
    assert found.tasks["voc2007"]["score"] == expected
    assert found.tasks["voc2007"]["sizes"] == [40, 20, 30]


def test_a_stream_is_refused_with_what_to_do(prepared):
    with pytest.raises(ValueError, match=r"cifar10: stands in TFRecord files, .*tfds build cifar10 --file_format=array_record"):
        open_parts(TASKS["cifar10"], prepared("tfrecord"))


@pytest.mark.slow
def test_as_evaluations_of_a_run(place: Path, encoder: Encoder, tmp_path: Path):
    """What ``evaluate transfer`` and ``evaluate transfer_finetune`` call, with their flags as options."""
    run = Subject(cfg.resolve({"epochs": 100}), encoder, tmp_path)
    short = {"rates": (0.1,), "decays": (0.0,), "steps": 2, "batch_size": 8}
    for kind, options in (("transfer", {}), ("transfer_finetune", short)):
        (name, result), *more = EVALUATIONS[kind](run, tasks=("aircraft",), data_dir=str(place), **options).items()
        assert (name, more, list(result.tasks)) == (kind, [], ["aircraft"])
        assert (tmp_path / "evaluation" / kind / "aircraft.json").is_file()
        assert "aircraft" in result.table()


def test_defaults_are_the_papers():
    module = importlib.import_module("byol_jax.evaluate.transfer_finetune")
    defaults = module.transfer_fine_tune.__kwdefaults__
    assert (defaults["batch_size"], len(defaults["settings"]), {s.steps for s in defaults["settings"]}) == (256, 56, {20_000})
