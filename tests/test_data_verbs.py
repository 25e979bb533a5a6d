"""``data convert`` and ``data verify`` from the command line: what they print trains the same run."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from byol_jax import build, cli, data
from byol_jax import config as cfg
from byol_jax.build import objects

DRAW = np.random.default_rng(0)
CONFIG = """
from byol_jax import config as cfg


def get_config(variant=None):
    config = cfg.default()
    config.update(batch_size=16, steps=4)
    config.data.update(DATA)
    config.views.update(preset="gray", size=8)
    config.encoder.update(name="resnet", block="basic", stages=(1,), channels=(8,), stem="small")
    for head in (config.method.projector, config.method.predictor):
        head.update(hidden=16, out=8)
    config.optimizer.update(name="adamw", learning_rate=1e-3, warmup_epochs=None)
    config.evaluation.update(every_epochs=1, knn_k=5)
    config.logging.every_steps = 1
    return config
"""


def config(folder: Path, **changes: Any) -> str:
    path = folder / "tiny.py"
    path.write_text(CONFIG.replace("DATA", ", ".join(f"{key}={value!r}" for key, value in changes.items())))
    return str(path)


@pytest.fixture
def arrays(tmp_path: Path) -> str:
    parts = {"unlabelled": 40, "train": 44, "test": 20}
    images = {f"{name}_images": DRAW.integers(0, 256, (n, 8, 8), np.uint8) for name, n in parts.items()}
    labels = {f"{name}_labels": np.arange(parts[name]) % 2 for name in ("train", "test")}
    np.savez(tmp_path / "images.npz", **images, **labels)
    options = {"split": "unlabelled", "labelled_split": "train", "test_split": "test"}
    return config(tmp_path, source="npz", path=str(tmp_path / "images.npz"), **options)


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    for part, n in (("train", 12), ("test", 6)):
        for i in range(n):
            path = tmp_path / part / ("ant", "bee")[i % 2] / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(DRAW.integers(0, 256, (9, 9, 3), np.uint8)).save(path)
    return config(tmp_path, source="folder", path=str(tmp_path / "train"), test_path=str(tmp_path / "test"))


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    return int(caught.value.code or 0)


def losses(workdir: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def spoken(line: str) -> list[tuple[str, str]]:
    """The overrides in the last line that ``data convert`` prints."""
    pairs = (word.removeprefix("--config.").partition("=") for word in shlex.split(line.removeprefix("train from it: ")))
    return [(key, value) for key, _, value in pairs]


@pytest.mark.slow
def test_a_run_on_converted_arrays_is_the_same_run(arrays: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "convert", "--config", arrays, "--output", str(tmp_path / "tiny_records")) == 0
    flags = shlex.split(capsys.readouterr().out.splitlines()[-1].removeprefix("train from it: "))
    assert run("pretrain", "--config", arrays, "--workdir", str(tmp_path / "before")) == 0
    assert run("pretrain", "--config", arrays, *flags, "--workdir", str(tmp_path / "after")) == 0
    assert losses(tmp_path / "after") == losses(tmp_path / "before")
    assert len(losses(tmp_path / "after")) == 4


def test_arrays_converted_and_verified(arrays: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "shared/tiny_records"
    assert run("data", "convert", "--config", arrays, "--output", str(output), "--shards", "3") == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        f"unlabelled: 40 examples in 3 shards in {output}/1.0.0",
        f"train: 44 examples in 3 shards in {output}/1.0.0",
        f"test: 20 examples in 3 shards in {output}/1.0.0",
        f"train from it: --config.data.source=tfds --config.data.path={output.parent} --config.data.name=tiny_records "
        "--config.data.in_memory=true",
    ]
    assert "convert unlabelled" in told.err
    before, after = cfg.load(arrays), cfg.load(arrays, spoken(told.out.splitlines()[-1]))
    assert objects.crops_on_device(after) == objects.crops_on_device(before)
    for source in (build.train_source, build.labelled_source, build.test_source):
        old, new = source(before), source(after)
        np.testing.assert_array_equal(new.images, old.images)
        assert (new.labels is None) == (old.labels is None)
        assert old.labels is None or new.labels.tolist() == old.labels.tolist()
    assert run("data", "convert", "--config", arrays, "--output", str(output), "--shards", "3", "--split", "test") == 0
    assert capsys.readouterr().out.startswith(f"test: 20 examples in 3 shards in {output}/1.0.0; all of it was there\n")
    assert run("data", "verify", str(output)) == 0
    assert "unlabelled: 40 examples in 3 shards, as written\n" in capsys.readouterr().out
    damaged = output / "1.0.0/tiny_records-train.array_record-00001-of-00003"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert run("data", "verify", str(output)) == 2
    err = capsys.readouterr().err
    assert "1 of 9 shards are not as they were written" in err
    assert f"  - {damaged.name}: bytes {damaged.stat().st_size}, noted {damaged.stat().st_size + 1}" in err


def test_a_folder_and_its_test_images(pictures: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train/bee/1.jpg").write_bytes(b"")
    output = tmp_path / "shared/picture_records"
    assert run("data", "convert", "--config", pictures, "--output", str(output), "--config.data.max_bad_share=0.1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"train: 12 examples, 1 of them unreadable and empty in 1 shard in {output}/1.0.0"
    before, after = cfg.load(pictures), cfg.load(pictures, spoken(lines[-1]))
    for source in (build.train_source, build.test_source):
        old, new = source(before), source(after)
        assert new.class_names == old.class_names == ["ant", "bee"]
        assert np.array_equal(data.labels_of(new), data.labels_of(old))
        assert [new.encoded(i)[0] for i in range(len(new)) if i != 6] == [old.encoded(i)[0] for i in range(len(old)) if i != 6]


class Striped:
    """A data set of the user's own, which takes an argument."""

    def __init__(self, split: str, width: int) -> None:
        self.split, self.width = split, width

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": np.full((3, self.width, 3), 50 * index, np.uint8), "label": index}


def test_a_source_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(tmp_path, source=f"{__name__}:Striped", args={"width": 4})
    assert run("data", "convert", "--config", path, "--output", str(tmp_path / "shared/stripes")) == 0
    got = build.train_source(cfg.load(path, spoken(capsys.readouterr().out.splitlines()[-1])))
    assert [int(got[i]["image"][2, 3, 0]) for i in range(5)] == [0, 50, 100, 150, 200]
    assert got.labels.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--split", "tset"], "--split tset: the configuration names unlabelled, train, test (did you mean 'test'?)"),
        (["--config.data.split=train[:80%]"], "data.split = 'train[:80%]': whole splits are converted; set data.split=train."),
        (["--output", "gs://bucket/tiny"], "gs://bucket/tiny: shards are written to a local folder, or one that is mounted"),
        (["--shards", "0"], "40 examples in 0 shards; both must be at least 1"),
        (["--config.data.path=lost.npz"], "lost.npz"),
    ],
)
def test_mistakes(arrays: str, tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "convert", "--config", arrays, "--output", str(tmp_path / "shared/tiny"), *flags) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "shared").exists()


def test_mistakes_of_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "verify", str(tmp_path)) == 2
    assert "holds no SPLIT.manifest.json" in capsys.readouterr().err
    assert run("data", "verify", str(tmp_path), "--config.seed=3") == 2
    assert "--config.seed: data verify takes no configuration" in capsys.readouterr().err
    assert run("data") == 2
    assert "the following arguments are required: ACTION" in capsys.readouterr().err
