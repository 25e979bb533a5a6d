"""The transfer study: its table, its protocol against scikit-learn, and whole tasks on tiny data prepared in the very format of TFDS."""

from __future__ import annotations

import json
from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.linear_model import LogisticRegression

from byol_jax import data, views
from byol_jax.data.records import several_labels
from byol_jax.evaluate import Encoder, transfer
from byol_jax.evaluate.metrics import METRICS, eleven_point_map, mean_per_class
from byol_jax.evaluate.tasks import TASKS
from byol_jax.evaluate.transfer import Part, load, open_split, run_task


class Channels(nn.Module):
    """Mean of each channel."""

    def __call__(self, x, train):
        return x.mean((1, 2))


@pytest.fixture(scope="module", params=["array_record", "tfrecord"])
def place(request, prepared) -> Path:
    return prepared(request.param)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(Channels(), {}, views.small(8))


def test_table_10_of_the_paper():
    assert len(TASKS) == 12
    sizes = {name: task.sizes for name, task in TASKS.items()}
    assert sizes["food101"] == (68175, 7575, 25250)
    assert sizes["voc2007"] == (2501, 2510, 4952)
    assert sizes["caltech101"] == (2550, 510, 6084)
    per_class = {name for name, task in TASKS.items() if task.metric == "mean per class"}
    assert per_class == {"aircraft", "pets", "caltech101", "flowers"}
    assert [name for name, task in TASKS.items() if task.metric == "11-point mAP"] == ["voc2007"]
    linear = [task.linear for task in TASKS.values()]
    assert linear == [75.3, 91.3, 78.4, 57.2, 62.2, 67.8, 60.6, 82.5, 75.5, 90.4, 94.2, 96.1]
    assert [task.fine_tuned for task in TASKS.values()] == [88.5, 97.8, 86.1, 76.3, 63.7, 91.6, 88.1, 85.4, 76.2, 91.7, 93.8, 97.0]
    for task in TASKS.values():
        train, valid, _ = task.sizes
        assert round(task.held_out * (train + valid)) == valid
        assert task.metric in METRICS


def test_every_name_is_known_to_tfds():
    known = set(tfds.list_builders(with_community_datasets=False))
    named = [task.tfds for task in TASKS.values() if task.tfds]
    assert len(named) == 10
    for name in named:
        base, _, config = name.partition("/")
        assert base in known
        assert not config or config in tfds.builder_cls(base).builder_configs


def test_choice_on_validation_then_both_parts_as_scikit_learn_does_it():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 4)).astype(np.float32)
    label = np.argmax(x @ rng.normal(size=(4, 3)) + 2 * rng.normal(size=(150, 3)), 1).astype(np.int32)
    parts = [Part(x[rows], label[rows]) for rows in (slice(0, 50), slice(50, 90), slice(90, 150))]
    penalties = (0.01, 3.0, 300.0)
    found = run_task(TASKS["pets"], *parts, penalties=penalties)

    def theirs(l2: float, fit: slice, test: slice) -> float:
        model = LogisticRegression(C=1 / l2, max_iter=10_000, tol=1e-10).fit(x[fit].astype(np.float64), label[fit])
        return mean_per_class(model.decision_function(x[test]), label[test])

    expected = {l2: theirs(l2, slice(0, 50), slice(50, 90)) for l2 in penalties}
    assert {float(l2): score for l2, score in found["validation"].items()} == pytest.approx(expected)
    assert len(set(expected.values())) > 1
    choice = max(sorted(penalties, reverse=True), key=lambda l2: expected[l2])
    assert found["choice"] == f"l2 {choice:g}"
    assert found["score"] == pytest.approx(theirs(choice, slice(0, 90), slice(90, 150)))
    assert found["sizes"] == [50, 40, 60]


def test_the_penalties_are_the_papers():
    from byol_jax.evaluate.linear import L2_PATH

    assert (len(L2_PATH), L2_PATH[0], L2_PATH[-1]) == (45, pytest.approx(1e-6), pytest.approx(1e5))
    np.testing.assert_allclose(np.diff(np.log10(L2_PATH)), 0.25)


def test_several_labels_of_an_image(place: Path):
    source = data.tfds("voc/2007", "train", data_dir=place)
    target = several_labels(source, "labels", "labels_no_difficult")
    assert (target.shape, target.dtype) == ((40, 20), np.int8)
    assert source.names("labels")[:2] == ["aeroplane", "bicycle"]
    bright = np.array([source[i]["image"].mean((0, 1)) > 110 for i in range(40)])
    np.testing.assert_array_equal(target[:, :3] != 0, bright)
    assert (target[:, :2] >= 0).all()
    assert 0 < (target[:, 2] == -1).sum() < (target[:, 2] == 1).sum()
    assert not target[:, 3:].any()
    with pytest.raises(ValueError, match="'image' is no list of classes"):
        several_labels(source, "image", "labels")
    with pytest.raises(ValueError, match="Channels is no data set of TFDS"):
        several_labels(Channels(), "labels", "labels")


def test_validation_images_are_drawn_from_training_images(place: Path, encoder: Encoder):
    train, valid, test = load(TASKS["cifar10"], encoder, place)
    assert (len(train), len(valid), len(test)) == (45, 5, 30)  # a tenth, as in the paper
    together = np.concatenate([train.embedding, valid.embedding])
    assert len(np.unique(together, axis=0)) == 50
    again = load(TASKS["cifar10"], encoder, place)[1]
    np.testing.assert_array_equal(again.embedding, valid.embedding)


def test_tasks_run_are_kept_and_are_skipped_where_absent(place: Path, encoder: Encoder, tmp_path: Path):
    said: list[str] = []
    tasks = ("cifar10", "voc2007", "aircraft", "pets", "birdsnap")
    options = {"data_dir": place, "folder": tmp_path, "penalties": (0.1, 10.0, 1e4), "say": said.append}
    result = transfer(encoder, tasks, **options)
    assert list(result.tasks) == ["cifar10", "voc2007", "aircraft"]
    assert result.tasks["cifar10"]["score"] == 1.0
    assert result.tasks["aircraft"]["score"] == 1.0
    assert result.tasks["aircraft"]["sizes"] == [40, 20, 30]
    assert result.tasks["voc2007"]["metric"] == "11-point mAP"
    assert result.tasks["voc2007"]["score"] > 0.95
    assert set(result.skipped) == {"pets", "birdsnap"}
    assert f"tfds build oxford_iiit_pet --file_format=array_record --data_dir={place}" in said[3]
    assert f"put the images as {place}/birdsnap/SPLIT/CLASS/*.jpg with the splits train, test" in said[4]
    rows = {row[0]: row for row in result.rows()[2]}
    assert rows["cifar10"][1:4] == ("top-1", "100.0", "91.3")
    assert rows["cifar10"][5] == "45/5/30 (not the paper's)"
    assert rows["pets"][2] == "not there"
    kept = json.loads((tmp_path / "voc2007.json").read_text())["scores"]
    assert kept == result.tasks["voc2007"]

    said.clear()
    (tmp_path / "aircraft.json").unlink()
    assert transfer(encoder, tasks[:3], **options).tasks == result.tasks
    assert said == ["aircraft: embedding its images"]  # the others were not run again


def test_map_of_a_task_is_that_of_its_logits(place: Path, encoder: Encoder):
    parts = load(TASKS["voc2007"], encoder, place)
    found = run_task(TASKS["voc2007"], *parts, penalties=(1.0,))
    both = [np.concatenate([getattr(part, name) for part in parts[:2]]) for name in ("embedding", "target")]
    logits = np.zeros((30, 20))
    for c in range(3):
        rows = both[1][:, c] >= 0
        model = LogisticRegression(C=1.0, max_iter=10_000, tol=1e-10).fit(both[0][rows].astype(np.float64), both[1][rows, c])
        logits[:, c] = model.decision_function(parts[2].embedding)
    assert found["score"] == pytest.approx(eleven_point_map(logits, parts[2].target), abs=1e-6)


def test_errors(encoder: Encoder, tmp_path: Path):
    with pytest.raises(ValueError, match=r"--tasks cifr10: is not one of food101, .*did you mean 'cifar10'"):
        transfer(encoder, ("cifr10",), data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"none of the data sets is there; prepare one:\s+tfds build dtd"):
        transfer(encoder, ("dtd",), data_dir=tmp_path, say=lambda text: None)


@pytest.mark.parametrize("name", ["aircraft", "birdsnap"])
def test_classes_of_folders_are_those_of_the_training_images(tmp_path: Path, name: str):
    task, has = TASKS[name], {"train": "abc", "validation": "bc", "test": "ac"}
    for split in (*task.splits, task.test):
        for c in has[split]:
            (tmp_path / name / split / c).mkdir(parents=True)
            (tmp_path / name / split / c / "1.png").write_bytes(b"not opened here")
    found = {split: open_split(task, tmp_path, split).labels.tolist() for split in (*task.splits, task.test)}
    assert found == {split: ["abc".index(c) for c in has[split]] for split in found}
    (tmp_path / name / "train" / "c" / "1.png").unlink()
    with pytest.raises(ValueError, match=f"folder: class 'c' in {tmp_path / name / 'test'} must be one of a, b"):
        open_split(task, tmp_path, "test")


def test_the_whole_square_is_seen(tmp_path: Path):
    """``eval_crop`` of the run is not applied: the paper resizes the shorter side to the network's size."""
    for split in ("train", "validation", "test"):
        for c in "ab":
            (tmp_path / "aircraft" / split / c).mkdir(parents=True)
            image = np.full((16, 16, 3), 100, np.uint8)
            image[0] = 250  # only the uppermost line tells
            Image.fromarray(image).save(tmp_path / "aircraft" / split / c / "1.png")
    cropped = Encoder(Channels(), {}, views.Views(size=16, eval_crop=0.5))
    seen = {}

    class Seen(nn.Module):
        def __call__(self, x, train):
            return x.max((1, 2))

    for share in (0.5, 1.0):
        looking = Encoder(Seen(), {}, views.Views(size=8, eval_crop=share))
        seen[share] = load(TASKS["aircraft"], looking, tmp_path)[0].embedding
    assert jnp.abs(seen[0.5] - seen[1.0]).max() > 0.5
    assert transfer(cropped, ("aircraft",), data_dir=tmp_path, say=lambda text: None).tasks["aircraft"]["sizes"] == [2, 2, 2]
