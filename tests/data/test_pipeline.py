"""Batches: the same ones whenever (seed, step) is the same, whoever asks, by either road; bad files replaced, counted and limited."""

from __future__ import annotations

import itertools
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from byol_jax import views
from byol_jax.data import BadImage, Shard, eval_batches, folder, from_arrays, order, subset, train_batches

N = 11
SMALL = views.small(8)


def images(n: int = N) -> np.ndarray:
    """Noise whose first pixel tells the example."""
    made = np.random.default_rng(0).integers(0, 256, (n, 12, 10, 3), dtype=np.uint8)
    made[:, 0, 0, 0] = np.arange(n)
    return made


ARRAYS = from_arrays(images(), np.arange(N) % 3)


class Mine:
    """A user's data set: images of several sizes; some may be bad."""

    def __init__(self, bad: tuple[int, ...] = (), error: type[Exception] = BadImage, n: int = N) -> None:
        self.bad, self.error, self.n = bad, error, n
        self.all = images(n)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> dict:
        if i in self.bad:
            raise self.error(f"picture {i} is torn")
        return {"image": self.all[i][: 12 - i % 3], "label": i}


def first(count: int, *arguments, **options) -> list[dict[str, np.ndarray]]:
    with train_batches(*arguments, **options) as batches:
        return list(itertools.islice(batches, count))


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


ROADS = {  # source, recipe, place, numbers of threads, numbers of shards (each run of the host's recipe traces it anew: few of them)
    "arrays, crops on the device": (ARRAYS, SMALL, "device", (1,), (2, 4)),
    "arrays, all on the host": (ARRAYS, views.imagenet(20), "host", (1,), (2,)),
    "user's data set": (Mine(), SMALL, "device", (1, 3), (2, 4)),
}


@pytest.mark.parametrize("road", ROADS)
def test_repeated_resumed_and_sharded(road):
    source, recipe, where, threads, counts = ROADS[road]
    options = {"batch_size": 8, "seed": 3, "augment_on": where}
    whole = first(5, source, recipe, **options)
    for number in threads:
        for a, b in zip(whole, first(5, source, recipe, **options, threads=number), strict=True):
            assert_same(a, b)
    for a, b in zip(whole[3:], first(2, source, recipe, **options, start_step=3), strict=True):
        assert_same(a, b)
    for count in counts:
        parts = [first(3, source, recipe, **options, start_step=2, shard=Shard(i, count)) for i in range(count)]
        for a, rows in zip(whole[2:], zip(*parts, strict=True), strict=True):
            assert_same(a, {key: np.concatenate([row[key] for row in rows]) for key in a})


def test_another_seed_is_another_order():
    one, other = (np.concatenate([b["label"] for b in first(3, Mine(), SMALL, batch_size=4, seed=seed)]) for seed in (3, 4))
    assert (one != other).any()


def test_arrays_for_the_device():
    batches = first(3, ARRAYS, SMALL, batch_size=N, seed=0)
    for step, batch in enumerate(batches):
        index = order.permutation(0, step, N)
        np.testing.assert_array_equal(batch["image"], ARRAYS.images[index])
        np.testing.assert_array_equal(batch["label"], ARRAYS.labels[index])
        assert (batch["image"].dtype, batch["label"].dtype) == (np.uint8, np.int32)
    assert first(1, from_arrays(images()), SMALL, batch_size=4, seed=0)[0]["label"].tolist() == [-1] * 4


@pytest.mark.parametrize("where", ["device", "host"])
def test_user_data_set_once_an_epoch(where):
    batches = first(N, Mine(), SMALL, batch_size=3, seed=1, augment_on=where)
    labels = np.concatenate([batch["label"] for batch in batches])
    for epoch in range(3):
        assert sorted(labels[epoch * N : (epoch + 1) * N]) == list(range(N))
    for key in ("view1", "view2"):
        assert (batches[0][key].dtype, batches[0][key].shape) == (np.uint8, (3, 8, 8, 3))
    # The same example is seen differently in another epoch.
    seen = {}
    for view, label in zip(np.concatenate([b["view1"] for b in batches]), labels, strict=True):
        seen.setdefault(int(label), set()).add(view.tobytes())
    assert all(len(kinds) == 3 for kinds in seen.values())


def test_host_recipe_differs_from_crops_by_the_photometric_part():
    plain = SMALL.both(flip=0.0, jitter=0.0, grayscale=0.0, solarize=0.0)
    on_host, on_device = (first(1, Mine(), plain, batch_size=4, seed=0, augment_on=where)[0] for where in ("host", "device"))
    assert_same(on_host, on_device)  # nothing photometric is left: both are the crops
    jittered = first(1, Mine(), SMALL.both(jitter=1.0), batch_size=4, seed=0, augment_on="host")[0]
    assert (jittered["view1"] != on_device["view1"]).any(axis=(1, 2, 3)).all()


def test_your_own_views():
    def mine(example, seed):
        return {"view1": example["image"][:4, :4], "view2": seed, "more": seed}

    batch = first(1, Mine(), mine, batch_size=5, seed=2)[0]
    index, epoch = next(order.batches(n=N, batch_size=5, seed=2))
    assert set(batch) == {"view1", "view2", "label"}
    np.testing.assert_array_equal(batch["view1"], Mine().all[index][:, :4, :4])
    np.testing.assert_array_equal(batch["view2"], order.example_seed(2, epoch, index))
    # The arrays' short cut is not taken: these views are not the device's to make.
    np.testing.assert_array_equal(first(1, ARRAYS, mine, batch_size=5, seed=2)[0]["view1"], ARRAYS.images[index][:, :4, :4])


def test_your_own_views_must_name_both():
    with pytest.raises(ValueError, match=r"your views returned \['view_1'\]; .* 'view1' and 'view2'"):
        first(1, Mine(), lambda example, seed: {"view_1": example["image"]}, batch_size=2, seed=0)


def test_batch_larger_than_the_data(caplog):
    with caplog.at_level(logging.WARNING, "byol_jax.data"):
        labels = [b["label"] for b in first(2, Mine(), SMALL, batch_size=2 * N, seed=0)]
    assert caplog.text.count("batch_size=22 is larger than the data set (11 examples)") == 1
    for batch in labels:
        assert sorted(batch) == sorted([*range(N)] * 2)


# What cannot be decoded.


def test_bad_files_are_replaced_counted_and_named_once(caplog):
    options = {"batch_size": 4, "seed": 0, "max_bad_share": 0.3}
    good = np.concatenate([b["label"] for b in first(9, Mine(), SMALL, **options)])
    with caplog.at_level(logging.WARNING, "byol_jax.data"), train_batches(Mine((3, 4, 10)), SMALL, **options) as batches:
        got = np.concatenate([b["label"] for b in itertools.islice(batches, 9)])
        assert sorted(batches.bad_files) == ["picture 10 is torn", "picture 3 is torn", "picture 4 is torn"]
    np.testing.assert_array_equal(got, np.select([np.isin(good, [3, 4]), good == 10], [5, 0], good))
    assert caplog.text.count("picture 4 is torn") == 1
    parts = [first(9, Mine((3, 4, 10)), SMALL, **options, shard=Shard(i, 2)) for i in range(2)]
    together = [np.concatenate([a["label"], b["label"]]) for a, b in zip(*parts, strict=True)]
    np.testing.assert_array_equal(got, np.concatenate(together))


def test_a_source_and_parts_of_it_say_how_many_may_be_bad(tmp_path):
    mine = Mine((3, 4))
    mine.max_bad_share = 0.1
    for source in (mine, subset(mine, range(N))):
        with pytest.raises(ValueError, match=r"more than max_bad_share=0\.1 allows"):
            list(eval_batches(source, SMALL, batch_size=4))
    mine.max_bad_share = 0.3
    assert sum(len(batch["index"]) for batch in eval_batches(subset(mine, range(N)), SMALL, batch_size=4)) == N - 2
    (tmp_path / "torn.png").write_bytes(b"torn")
    (tmp_path / "x.png").write_bytes(b"torn")
    assert folder(tmp_path, max_bad_share=0.2).take(np.arange(1)).max_bad_share == 0.2


def test_too_many_bad_files():
    with pytest.raises(ValueError, match=r"2 of the \d+ files .*\(11 in all\).* more than max_bad_share=0\.1 allows.*picture 3 is torn"):
        first(9, Mine((3, 4)), SMALL, batch_size=4, seed=0, max_bad_share=0.1)
    with pytest.raises(ValueError, match="no decodable image can take the place"):
        first(1, Mine(tuple(range(N))), SMALL, batch_size=4, seed=0, max_bad_share=1.0)


def test_a_large_broken_set_fails_long_before_it_is_all_seen():
    batches = train_batches(Mine(tuple(range(0, 4000, 2)), n=4000), SMALL, batch_size=8, seed=0)
    with pytest.raises(ValueError, match="cannot be decoded"):
        list(itertools.islice(batches, 50))
    assert len(batches.bad_files) < 40


def test_a_file_on_disk(tmp_path: Path, caplog):
    for i in range(6):
        Image.fromarray(images()[i]).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:60])
    (tmp_path / "5.png").write_bytes(b"")
    with (
        caplog.at_level(logging.WARNING, "byol_jax.data"),
        train_batches(folder(tmp_path), SMALL, batch_size=6, seed=0, max_bad_share=0.4) as batches,
    ):
        next(batches)
        assert len(batches.bad_files) == 2
    assert f"{tmp_path}/2.png: cannot be decoded" in caplog.text
    assert f"{tmp_path}/5.png: the file is empty" in caplog.text
    parts = list(eval_batches(folder(tmp_path), SMALL, batch_size=4, max_bad_share=0.4))
    assert [part["index"].tolist() for part in parts] == [[0, 1, 3], [4]]


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (np.zeros((2, 2, 3)), r"example \d+: an example must be .*, got ndarray"),
        ({"picture": 1}, r"a dict with keys \['picture'\]"),
        ({"image": np.zeros((2, 2, 3))}, r"example \d+: the image is float64, it must be uint8"),
        ({"image": np.zeros((2, 2, 4), np.uint8)}, r"the image has shape \(2, 2, 4\)"),
        ({"image": np.zeros((2, 2), np.uint8), "label": 0.5}, "the label must be one integer"),
    ],
)
def test_examples_that_do_not_follow_the_protocol(example, message):
    class Wrong(Mine):
        def __getitem__(self, i: int):
            return example

    with pytest.raises(ValueError, match=message):
        first(1, Wrong(), SMALL, batch_size=2, seed=0)
    with pytest.raises(ValueError, match=message):
        list(eval_batches(Wrong(), SMALL, batch_size=2))


def test_other_errors_of_a_user_are_raised_as_they_are():
    with pytest.raises(ZeroDivisionError, match="picture 5 is torn"):
        first(9, Mine((5,), ZeroDivisionError), SMALL, batch_size=4, seed=0)


# Evaluation.


@pytest.mark.parametrize("source", [ARRAYS, Mine()], ids=["arrays", "user's"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_evaluation_keeps_order_and_the_rest(source, count):
    parts = [list(eval_batches(source, SMALL, batch_size=8, shard=Shard(i, count))) for i in range(count)]
    assert {len(part) for part in parts} == {2}
    index = np.concatenate([row["index"] for rows in zip(*parts, strict=True) for row in rows])
    labels = np.concatenate([row["label"] for rows in zip(*parts, strict=True) for row in rows])
    np.testing.assert_array_equal(index, np.arange(N))
    np.testing.assert_array_equal(labels, ARRAYS.labels if source is ARRAYS else np.arange(N))
    side = (12, 10) if source is ARRAYS else (8, 8)
    for part in itertools.chain(*parts):
        assert part["image"].shape == (len(part["index"]), *side, 3)
        assert [value.dtype for value in part.values()] == [np.uint8, np.int32, np.int64]


def test_a_shard_without_any_row_gives_empty_batches_of_the_same_form(tmp_path):
    for i in range(3):
        Image.fromarray(np.full((9, 9, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
    for source in (folder(tmp_path), from_arrays(np.zeros((3, 8, 8, 3), np.uint8))):
        (full,), (empty,) = (list(eval_batches(source, SMALL, batch_size=8, shard=Shard(i, 2))) for i in range(2))
        assert {key: (value.shape, value.dtype) for key, value in empty.items()} == {
            key: ((0, *value.shape[1:]), value.dtype) for key, value in full.items()
        }


def test_evaluation_of_images_of_the_right_size_is_the_identity():
    class Square(Mine):
        def __getitem__(self, i: int) -> dict:
            return {"image": self.all[i, :8, :8]}

    (batch,) = eval_batches(Square(), SMALL, batch_size=16)
    np.testing.assert_array_equal(batch["image"], images()[:, :8, :8])
    assert (batch["label"] == -1).all()


# Arguments, and the life of an iterator.


@pytest.mark.parametrize(
    ("source", "changes", "message"),
    [
        (ARRAYS, {"augment_on": "hots"}, r"augment_on='hots' is not one of .*did you mean 'host'"),
        (ARRAYS, {"max_bad_share": 1.5}, r"max_bad_share=1\.5: must lie in \[0, 1\]"),
        (ARRAYS, {"batch_size": 3, "shard": Shard(0, 2)}, "batch_size=3 is not divisible by the 2 processes; nearest valid: 2 or 4"),
        (Mine(n=0), {}, "Mine is empty"),
        (iter([1]), {}, "has no __len__ and __getitem__"),
    ],
)
def test_wrong_arguments_fail_at_once(source, changes, message):
    with pytest.raises(ValueError, match=message):
        train_batches(source, SMALL, **{"batch_size": 4, "seed": 0, **changes})


def workers() -> int:
    return sum(thread.name == "byol_jax.data" and thread.is_alive() for thread in threading.enumerate())


@pytest.mark.parametrize("source", [ARRAYS, Mine()], ids=["arrays", "user's"])
def test_closing_and_dropping_end_the_work(source):
    before = workers()
    batches = train_batches(source, SMALL, batch_size=4, seed=0)
    next(batches)
    batches.close()
    batches.close()
    assert list(batches) == []
    assert workers() == before
    dropped = train_batches(source, SMALL, batch_size=4, seed=0)
    next(dropped)
    del dropped
    deadline = time.monotonic() + 20
    while workers() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers() == before


def test_closing_from_another_thread_ends_a_waiting_reader():
    class Slow(Mine):
        def __getitem__(self, i: int) -> dict:
            time.sleep(0.3)
            return super().__getitem__(i)

    batches = train_batches(Slow(), SMALL, batch_size=11, seed=0, threads=1)
    timer = threading.Timer(0.2, batches.close)
    timer.start()
    assert list(batches) == []
    timer.join()


def test_leaving_python_with_a_running_iterator_is_clean():
    code = (
        "import numpy as np; from byol_jax import views; from byol_jax.data import from_arrays, train_batches\n"
        "source = from_arrays(np.zeros((64, 32, 32, 3), np.uint8))\n"
        "batches = train_batches(source, views.small(32).both(jitter=0.0), batch_size=16, seed=0, augment_on='host')\n"
        "next(batches)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "interpreter" not in done.stderr
    assert "Traceback" not in done.stderr


def test_arrays_need_no_tensorflow_and_data_no_jax():
    code = (
        "import sys; from byol_jax import data, views\n"
        "next(data.train_batches(data.digits(), views.gray(16), batch_size=8, seed=0))\n"
        "list(data.eval_batches(data.digits('test'), views.gray(16), batch_size=100))\n"
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'tensorflow_datasets', 'jax')))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
