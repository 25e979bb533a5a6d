"""Mixtures: which row stands where by hand, label sets, the roads of images, files and texts, resuming and hosts, and the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byol_jax import build, data, parallel
from byol_jax import config as cfg
from byol_jax import views as recipes
from byol_jax.cli import main
from byol_jax.config.search import not_held_out
from byol_jax.data import Shard, index_batches, mixture, train_batches
from byol_jax.train.resident import Resident


def numbered(start: int, count: int, labels: Any = None, names: list[str] | None = None) -> data.ArraySource:
    """Images of 2 x 2 pixels, each of one colour: its number."""
    images = np.repeat(np.arange(start, start + count, dtype=np.uint8), 12).reshape(count, 2, 2, 3)
    return data.from_arrays(images, labels, class_names=names)


def colours(source: Any) -> list[int]:
    return [int(source[i]["image"][0, 0, 0]) for i in range(len(source))]


# Rows.


def test_shares_and_rows_by_hand() -> None:
    mixed = mixture([numbered(0, 6), numbered(10, 2, [1, 0])], [3, 2])
    assert (len(mixed), mixed.counts, mixed.weights) == (10, (6, 4), (0.6, 0.4))
    assert colours(mixed) == [0, 1, 2, 3, 4, 5, 10, 10, 11, 11]
    assert [mixed[i]["label"] for i in range(10)] == [-1] * 6 + [1, 1, 0, 0]
    np.testing.assert_array_equal(mixed.labels, [-1] * 6 + [1, 1, 0, 0])
    part, row = mixed.locate(np.array([[5, 6], [9, 0]]))
    np.testing.assert_array_equal(part, [[0, 1], [1, 0]])
    np.testing.assert_array_equal(row, [[5, 0], [1, 0]])
    with pytest.raises(IndexError, match=r"index 10 is outside it; valid: 0\.\.9"):
        mixed[10]


def test_as_many_may_be_bad_as_in_the_part_that_allows_most() -> None:
    lenient = data.subset(numbered(0, 3), [0, 1, 2])
    lenient.max_bad_share = 0.2
    assert [mixture(parts).max_bad_share for parts in ([numbered(0, 3), lenient], [numbered(0, 3)])] == [0.2, 0.01]


def test_weights_as_the_lengths_are_put_the_parts_in_a_row() -> None:
    assert colours(mixture([numbered(0, 3), numbered(10, 2)])) == [0, 1, 2, 10, 11]


@given(parts=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 20)), min_size=1, max_size=5))
def test_every_row_comes_as_often_as_the_others_of_its_part_or_once_more(parts: list[tuple[int, int]]) -> None:
    mixed = mixture([numbered(0, length) for length, _ in parts], [weight for _, weight in parts])
    part, row = mixed.locate(np.arange(len(mixed)))
    total = sum(weight for _, weight in parts)
    for k, (length, weight) in enumerate(parts):
        times = np.bincount(row[part == k], minlength=length)
        assert len(times) == length
        assert times.min() >= 1
        assert times.max() - times.min() <= 1
        assert abs(times.sum() - len(mixed) * weight / total) < 1
    # No shorter one would do: some part has each row exactly once, but for rounding.
    assert any(mixed.counts[k] - 1 < length + weight / total for k, (length, weight) in enumerate(parts))


# Labels.


def test_label_sets_are_told_apart_by_counting_on() -> None:
    sources = [numbered(0, 2, [0, 2], ["a", "b", "c"]), numbered(2, 2, [1, -1], ["x", "y"]), numbered(4, 2, [0, 1])]
    mixed = mixture(sources, labels=["letters", "ends", False])
    assert mixed.label_sets == {"letters": 3, "ends": 2}
    np.testing.assert_array_equal(mixed.labels, [0, 2, 4, -1, -1, -1])
    assert [mixed[i]["label"] for i in range(6)] == [0, 2, 4, -1, -1, -1]
    assert mixed.class_names == ["letters: a", "letters: b", "letters: c", "ends: x", "ends: y"]


def test_parts_of_the_same_classes_share_them() -> None:
    mixed = mixture([numbered(0, 2, [0, 1], ["a", "b"]), numbered(2, 1, [1], ["a", "b"]), numbered(3, 1)])
    assert (mixed.class_names, mixed.label_sets, data.num_classes(mixed)) == (["a", "b"], {}, 2)
    np.testing.assert_array_equal(mixed.labels, [0, 1, 1, -1])
    assert mixture([numbered(0, 2), numbered(2, 2, [0, 1])], labels=[True, False]).labels is None


class Streamed(data.ArraySource):
    """As a source that is read from front to back."""

    def in_order(self) -> None: ...


LABELLED = numbered(0, 2, [0, 1], ["a", "b"])


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        ([], {}, "no parts"),
        ([LABELLED], {"weights": [1, 2]}, "1 parts, 2 weights and 1 labels"),
        ([LABELLED], {"weights": [0]}, "weight 0 of part 0; it must be a number above 0"),
        ([LABELLED], {"weights": [float("nan")]}, "weight nan of part 0"),
        ([LABELLED, numbered(2, 1, [0], ["x", "y"])], {}, r"parts 0 and 1 have other classes \(a, b and x, y\): give each a label set"),
        ([LABELLED, LABELLED], {"labels": ["one", True]}, "part 0 names its label set and part 1 does not"),
        ([LABELLED], {"labels": ["a b"]}, "label set 'a b': is no name"),
        ([numbered(0, 2)], {"labels": ["one"]}, "label set 'one': has no labels"),
        ([LABELLED, Streamed(LABELLED.images)], {}, "part 1 .* cannot be read at any row; prepare it as array_record"),
        ([mixture([LABELLED])], {}, "cannot be read at any row; list its parts"),
        ([LABELLED, data.TokenSource(np.arange(2), np.array([0, 2]))], {}, "part 1 is of 'tokens', part 0 of 'image'"),
    ],
)
def test_what_does_not_mix(sources: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixture(sources, **options)


# The roads to a batch.


def batches(source: Any, count: int, **options: Any) -> list[tuple[list[int], list[int]]]:
    with train_batches(source, recipes.gray(2), batch_size=4, seed=3, **options) as stream:
        return [(batch["image"][:, 0, 0, 0].tolist(), batch["label"].tolist()) for batch, _ in zip(stream, range(count), strict=False)]


def test_images_in_memory_are_stored_once_and_come_by_the_common_order() -> None:
    mixed = mixture([numbered(0, 6), numbered(10, 2, [1, 0])], [3, 2])
    assert isinstance(mixed, data.InMemory)
    assert len(mixed.stored) == 8
    plain = data.from_arrays(np.stack([mixed[i]["image"] for i in range(10)]), mixed.labels)
    wanted = batches(plain, 5)
    assert batches(mixed, 5) == wanted
    assert batches(mixed, 2, start_step=3) == wanted[3:]
    halves = [batches(mixed, 1, shard=Shard(k, 2))[0] for k in range(2)]
    assert tuple(halves[0][i] + halves[1][i] for i in range(2)) == wanted[0]
    assert colours(data.spread(mixed, 5)) == [0, 2, 4, 10, 11]
    assert isinstance(data.spread(mixed, 5), data.ArraySource)


def test_data_on_the_device_holds_each_image_once() -> None:
    mixed = mixture([numbered(0, 6), numbered(10, 2, [1, 0])], [3, 2])
    held = Resident(mixed, parallel.data_mesh())
    assert held.rows["image"].shape == (8, 12)
    with index_batches(mixed, batch_size=8, seed=3) as stream:
        rows = held.fetch(held.rows, parallel.to_global(next(stream), parallel.data_mesh())["index"])
    with train_batches(mixed, recipes.gray(2), batch_size=8, seed=3) as stream:
        sent = next(stream)
    np.testing.assert_array_equal(rows["image"], sent["image"])
    np.testing.assert_array_equal(rows["label"], sent["label"])


def test_files_are_handed_out_undecoded(tmp_path: Path) -> None:
    from PIL import Image

    for name, level in (("few/cat/1.png", 10), ("few/dog/2.png", 20), ("all/3.png", 30)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (level, level, level)).save(tmp_path / name)
    mixed = mixture([data.folder(tmp_path / "all"), data.folder(tmp_path / "few")], [1, 2])
    assert mixed.encoded(1) == ((tmp_path / "few/cat/1.png").read_bytes(), 0)
    assert mixed.describe(2) == str(tmp_path / "few/dog/2.png")
    with train_batches(mixed, recipes.gray(8), batch_size=3, seed=0) as stream:
        batch = next(stream)
    assert sorted(batch["label"].tolist()) == [-1, 0, 1]
    both = mixture([data.folder(tmp_path / "all"), numbered(0, 1, [0])])
    assert (type(both), both[1]["label"]) == (data.Mixture, 0)


def test_texts_keep_their_words() -> None:
    def texts(words: list[str], labels: Any) -> data.TokenSource:
        return data.TokenSource(np.arange(len(words)), np.arange(len(words) + 1), labels, None, words)

    mixed = mixture([texts(["a", "b"], None), texts(["c"], np.array([1], np.int32))], [1, 1])
    assert (mixed.content, mixed.texts) == ("tokens", ["a", "b", "c", "c"])
    assert mixed[3]["tokens"].tolist() == [0]
    np.testing.assert_array_equal(mixed.labels, [-1, -1, 1, 1])
    with train_batches(mixed, recipes.TextViews(length=4), batch_size=4, seed=0) as stream:
        assert sorted(next(stream)["label"].tolist()) == [-1, -1, 1, 1]


# The configuration.

MIX = ({"weight": 3, "labels": False}, {"weight": 1, "split": "train[:5%]"})


def digits(**keys: Any) -> cfg.ConfigDict:
    config = cfg.config_file("configs/digits.py")
    config.data.update(**keys)
    return config


def test_a_mix_goes_through_json_and_makes_a_mixture() -> None:
    spec = cfg.resolve(digits(mix=MIX))
    assert cfg.from_json(cfg.to_json(spec)) == spec
    assert cfg.digest(spec) != cfg.digest(cfg.resolve(digits()))
    mixed = build.train_source(spec)
    assert isinstance(mixed, data.Mixture)
    assert mixed.counts == (1439, 479)
    assert (data.labels_of(mixed) >= 0).sum() == 479
    assert len(mixed.stored) == 1438 + 72
    assert len(build.labelled_source(spec)) == 1438
    assert build.num_classes(mixed) == 10


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"wieght": 1}, "data.mix[0].wieght = 1: there is no such key (did you mean 'data.mix[0].weight'?)"),
        ({"weight": 0}, "data.mix[0].weight = 0: it must be above 0"),
        ({"split": "train[5%"}, "data.mix[0]: data.split: split 'train[5%': a part of a split is written as"),
        ({"source": "idx"}, "data.mix[0]: data.path = None: data.source = 'idx' needs the folder"),
    ],
)
def test_a_wrong_part_is_named(part: dict[str, Any], message: str) -> None:
    with pytest.raises(cfg.ConfigError) as caught:
        cfg.resolve(digits(mix=(part,)))
    assert len(caught.value.errors) == 1
    assert caught.value.errors[0].startswith(message)


def test_a_search_holds_out_what_no_part_learns_from() -> None:
    held = {"split": "train[:80%]", "test_split": "train[80%:]"}
    assert not_held_out(cfg.resolve(digits(**held, mix=MIX)).data) == []
    (found,) = not_held_out(cfg.resolve(digits(**held, mix=({"split": "train[:90%]"},))).data)
    assert found.startswith("data.test_split = 'train[80%:]' may share images with 'train[:90%]'")


def test_a_mix_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["show", "--config", "configs/digits.py", f"--config.data.mix={MIX}"])
    assert "1,918 examples, 10 classes; 145,908 bytes" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["show", "--config", "configs/digits.py", "--config.data.mix=({'labels': 'a'}, {'labels': True})"])
    assert "data.mix: mixture: part 0 names its label set and part 1 does not" in capsys.readouterr().err
