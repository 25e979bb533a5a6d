"""A run in an object store (bucket.py): its folder, its metrics, its checkpoints, and the whole of it."""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
import types
from pathlib import Path

import fsspec
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from etils.epath import backend, gpath

import byol_jax
from byol_jax import build, checkpoint, config, evaluate
from byol_jax.report import history
from byol_jax.train.start import metrics_so_far
from byol_jax.train.writers import Jsonl, RemoteJsonl, TensorBoard, make_writers
from byol_jax.workdir import folder, is_remote


def beside(name):
    """Another file of this folder (pytest imports by path)."""
    spec = importlib.util.spec_from_file_location(f"tests_{name}", Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tests_cli, tests_bucket = beside("test_cli"), beside("bucket")
Bucket = tests_bucket.Bucket
RUN = "gs://bucket/runs/tiny"


@pytest.fixture(scope="module")
def google():
    server = tests_bucket.serve()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def bucket(monkeypatch, google):
    """Google's storage, empty. Returns a function that gives what is in it: {path: bytes}."""
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    monkeypatch.setattr(backend.fsspec_backend, "_get_filesystem", lambda name: Bucket() if name == "gcs" else fsspec.filesystem(name))
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", google)
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "any")
    storage = types.SimpleNamespace(Client=lambda: types.SimpleNamespace(get_bucket=lambda name: name))
    monkeypatch.setitem(sys.modules, "google.cloud", types.SimpleNamespace(storage=storage))
    monkeypatch.setitem(sys.modules, "google.cloud.storage", storage)
    Bucket.store.clear()
    Bucket.pseudo_dirs[:] = [""]
    return lambda: {path: file.getvalue() for path, file in Bucket.store.items()}


def test_local_folders_stay_pathlib(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder("runs/x") == Path("runs/x")
    assert folder(tmp_path) == tmp_path
    assert folder("~/runs") == tmp_path / "runs"
    assert {type(folder(path)) for path in ("runs/x", tmp_path, "~/runs")} == {type(Path())}
    assert [is_remote(path) for path in ("runs/x", "~/x", "/gs/x", "gs://b/x", epath.Path("gs://b/x"))] == [False, False, False, True, True]


def test_a_remote_folder(bucket):
    found = folder(RUN)
    assert (str(found), str(found / "config.json"), found.name) == (RUN, f"{RUN}/config.json", "tiny")
    assert folder(found) == found


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("ftp://host/x", "workdir = 'ftp://host/x': this scheme is unknown; give a local folder or gs://, s3://, az://, hf://"),
        (Path("gs://bucket/x"), "workdir = 'gs:/bucket/x': lost a slash, as pathlib does it to a URL; give it as text, 'gs://bucket/x'"),
        (
            "s3://bucket/x",
            "workdir = 's3://bucket/x': cannot be reached (Install s3fs to access S3). gs:// needs Google credentials; s3://",
        ),
    ],
)
def test_folders_nobody_can_reach(bucket, monkeypatch, path, message):
    def missing(name):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(backend.fsspec_backend, "_get_filesystem", missing)
    with pytest.raises(ValueError) as caught:
        folder(path)
    assert str(caught.value).startswith(message)


def test_remote_metrics_are_the_same_bytes_as_local_ones(bucket, tmp_path):
    numbers = [(0, {"loss": 1.5, "tau": 0.99}), (5, {"loss": float("nan")}), (9, {"rankme": 3.0})]
    local, remote = Jsonl(tmp_path / "metrics.jsonl", start_step=0), RemoteJsonl(folder(RUN) / "metrics.jsonl", start_step=0)
    for writer in (local, remote):
        for step, metrics in numbers:
            writer.log(step, metrics)
        writer.close()
    assert bucket() == {"/bucket/runs/tiny/metrics.jsonl": (tmp_path / "metrics.jsonl").read_bytes()}


def test_remote_metrics_drop_what_will_be_written_again_and_half_a_line(bucket):
    path = folder(RUN) / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"step": 0, "loss": 4.0}\n{"step": 5, "loss": 3.0}\nnot json\n{"step": 10, "loss": 2.0}\n{"step": 4, "lo')
    writer = RemoteJsonl(path, start_step=10)
    writer.log(10, {"loss": 2.5})
    writer.close()
    assert path.read_text() == '{"step": 0, "loss": 4.0}\n{"step": 5, "loss": 3.0}\n{"step": 10, "loss": 2.5}\n'


def test_remote_metrics_are_written_now_and_then_and_outlive_a_failure(bucket, monkeypatch, caplog):
    clock = iter([100.0, 130.0, 161.0, 161.0, 170.0, 230.0, 230.0])
    monkeypatch.setattr("byol_jax.train.writers.time.monotonic", lambda: next(clock))
    path = folder(RUN) / "metrics.jsonl"
    writer = RemoteJsonl(path, start_step=0)  # at 100 s
    writer.log(0, {"loss": 3.0})
    assert not path.exists()  # 130 s
    with monkeypatch.context() as broken, caplog.at_level(logging.WARNING):
        broken.setattr(Bucket, "_open", lambda *_, **__: (_ for _ in ()).throw(OSError("503 slow down")))
        writer.log(1, {"loss": 2.0})  # 161 s: due
    assert [record.getMessage() for record in caplog.records] == [f"{path}: not written this time: 503 slow down"]
    writer.log(2, {"loss": 1.0})  # 170 s
    assert not path.exists()
    writer.log(3, {"loss": 0.5})  # 230 s: due
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1, 2, 3]


def test_a_bucket_without_googles_library(bucket, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.cloud.storage", None)
    with pytest.raises(ValueError, match=rf"workdir = '{RUN}': needs a package \(.*\); for gs://: pip install 'byol-jax\[gcs\]'"):
        folder(RUN)


def test_other_writers(bucket, monkeypatch):
    made = make_writers(["jsonl"], workdir=folder(RUN), start_step=0, steps=5)
    assert [type(hook) for hook in made] == [RemoteJsonl]
    with pytest.raises(
        ValueError, match=r"writers: 'tensorboard' cannot write to az://b/x/tensorboard; only to a local folder, gs:// or s3://"
    ):
        TensorBoard(epath.Path("az://b/x/tensorboard"), start_step=0)
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ValueError, match=r"writers: 'tensorboard' needs the package boto3 to write to s3://b/x"):
        TensorBoard(epath.Path("s3://b/x"), start_step=0)


def test_configuration_evaluations_and_the_reports_reading(bucket, tmp_path):
    """What is written to a bucket is, byte for byte, what is written to a folder, and is read back from it."""
    settings = config.default()
    settings.update(steps=3)
    settings.data.update(source="digits")
    settings.views.update(preset="gray", size=16)
    tiny_spec = config.resolve(settings)
    result = evaluate.KnnResult(
        top1={1: 0.5}, top5={1: 0.75}, macro_f1={1: 0.25}, temperature=0.07, train_examples=44, test_examples=20, classes=2
    )
    for workdir in (RUN, tmp_path / "tiny"):
        build.claim(workdir, tiny_spec)
        path = evaluate.save(workdir, "knn", result)
        assert str(path) == f"{workdir}/evaluation/knn.json"
        assert build.read_spec(workdir) == tiny_spec
        with pytest.raises(ValueError, match="there is no run in it"):
            build.read_spec(folder(workdir) / "other")
        (folder(workdir) / "metrics.jsonl").write_text('{"step": 0, "loss": 4.0}\n{"step": 1, "loss": 3.0, "tau": 0.5}\n{"st')
        curves = history.read_metrics(folder(workdir))
        assert {name: (curve.steps.tolist(), curve.values.tolist()) for name, curve in curves.items()} == {
            "loss": ([0, 1], [4.0, 3.0]),
            "tau": ([1], [0.5]),
        }
        assert metrics_so_far(folder(workdir)) == {"loss": 3.0, "tau": 0.5}
        assert [table["name"] for table in history.read_evaluations(folder(workdir))] == ["knn"]
        assert json.loads(history.read_config(folder(workdir)))["batch_size"] == tiny_spec.batch_size
    here = {f"/bucket/runs/tiny/{path.relative_to(tmp_path / 'tiny')}": path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert bucket() == here


def test_checkpoints_in_a_bucket(bucket, monkeypatch, tmp_path):
    """Saved, found again, restored bit for bit, the old ones deleted; nothing lands in the working directory."""
    monkeypatch.chdir(tmp_path)
    states = {step: {"w": jnp.arange(6, dtype=jnp.float32).reshape(2, 3) / (1 + step), "step": jnp.int32(step)} for step in (1, 2, 3)}
    saving = checkpoint.Checkpoints(folder(RUN) / "checkpoints", every_steps=1, keep=2, keep_best=False, note={"seed": 7})
    assert str(saving.directory) == f"{RUN}/checkpoints"
    for step, state in states.items():
        assert saving.save(step, state, {"knn_top1": step / 10})
    saving.close()
    reading = checkpoint.Checkpoints(f"{RUN}/checkpoints", read_only=True)
    assert reading.steps() == [2, 3]
    for step in (2, 3):
        restored = reading.restore(states[step], step)
        assert {name: np.asarray(x).tobytes() for name, x in restored.items()} == {
            n: np.asarray(x).tobytes() for n, x in states[step].items()
        }
    assert reading.restore_raw(["w"])["w"].tolist() == np.asarray(states[3]["w"]).tolist()
    assert (reading.note()["seed"], reading.note()["step"], reading.metrics()) == (7, 3, {"knn_top1": 0.3})
    reading.close()
    assert {path.split("/")[5] for path in bucket()} == {"2", "3"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_in_a_bucket_ends_as_one_in_a_folder(bucket, tmp_path, monkeypatch):
    """Pretrained till a save fails, gone on with, evaluated, reported."""
    digits = byol_jax.data.digits("train", size=8)
    splits = {"unlabelled": slice(40), "train": slice(40, 84), "test": slice(84, 104)}
    np.savez(
        tmp_path / "images.npz",
        **{f"{name}_{kind}": getattr(digits, kind)[rows] for name, rows in splits.items() for kind in ("images", "labels")},
    )
    file = tmp_path / "tiny.py"
    file.write_text(tests_cli.TINY.replace("DATA", str(tmp_path / "images.npz")))
    save = checkpoint.Checkpoints.save

    def save_until_the_disk_is_full(self, step, *args, **kwargs):
        if step == 3:
            raise checkpoint.SaveError("the disk is full")
        return save(self, step, *args, **kwargs)

    for workdir in (RUN, str(tmp_path / "tiny")):
        with monkeypatch.context() as full:
            full.setattr(checkpoint.Checkpoints, "save", save_until_the_disk_is_full)
            assert tests_cli.run("pretrain", "--config", str(file), "--workdir", workdir) == 1
        assert tests_cli.run("pretrain", "--config", str(file), "--workdir", workdir) == 0
        assert tests_cli.run("evaluate", "knn", "--workdir", workdir) == 0
        assert tests_cli.run("report", "--workdir", workdir) == 0
    there = {path.removeprefix("/bucket/runs/tiny/"): data for path, data in bucket().items()}
    here = {str(path.relative_to(tmp_path / "tiny")): path.read_bytes() for path in (tmp_path / "tiny").rglob("*") if path.is_file()}
    steps = [{path.split("/")[1] for path in files if path.startswith("checkpoints/")} for files in (there, here)]
    assert steps[0] == steps[1] == {"2", "3"}
    there, here = ({path: data for path, data in files.items() if not path.startswith("checkpoints/")} for files in (there, here))
    assert there.keys() == here.keys()
    assert {"config.json", "metrics.jsonl", "evaluation/knn.json", "report/index.html", "report/training.png"} <= there.keys()
    timed = {"metrics.jsonl", "report/index.html", "report/training.png"}  # examples a second differ
    assert not [path for path in there if path not in timed and there[path] != here[path]]
    losses = [
        [(line["step"], line["loss"]) for line in map(json.loads, files["metrics.jsonl"].splitlines()) if "loss" in line]
        for files in (there, here)
    ]
    assert losses[0] == losses[1]
    assert [step for step, _ in losses[0]] == [0, 1, 2]
    assert b"<title>tiny" in there["report/index.html"]
