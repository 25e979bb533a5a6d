"""``evaluate transfer`` and ``evaluate transfer_finetune`` as commands, on tiny data prepared in the format of TFDS."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression

import byol_jax
from byol_jax import cli, data, evaluate
from byol_jax.data.records import several_labels
from byol_jax.evaluate import finetune
from byol_jax.evaluate.finetune import Setting
from byol_jax.evaluate.tasks import TASKS
from byol_jax.evaluate.transfer_finetune import open_parts

COUNTS = {"train": (14, 7, 3), "validation": (9, 6, 3), "test": (20, 7, 3)}  # unlike ones: accuracy within classes is not that of all
HERE = ("cifar10", "aircraft", "voc2007")
FEW = ("--penalties", "100,0.3,1")
SHORT = ("--rates", "0.1,0.5", "--decays", "0", "--steps", "3", "--batch-size", "8")


@pytest.fixture(scope="module")
def place(prepared: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cifar10 and voc/2007 as TFDS prepares them, and aircraft as folders: three noisy classes of unlike sizes."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("cifar10", "voc"):
        (folder / name).symlink_to(prepared("array_record") / name)
    rng = np.random.default_rng(0)
    for split, counts in COUNTS.items():
        for c, count in enumerate(counts):
            (folder / "aircraft" / split / "abc"[c]).mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 200, (8, 8, 3)) + rng.integers(0, 50, 3) + 12 * np.eye(3, dtype=int)[c]
                Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "aircraft" / split / "abc"[c] / f"{i}.png")
    return folder


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """A run, converted from a tiny ResNet of PyTorch's; its evaluation would crop, the transfer study must not."""
    with np.load(Path(__file__).parents[1] / "golden" / "torch_resnet_tiny.npz") as file:
        start = "basic/weights/"
        save_file({key.removeprefix(start): file[key] for key in file if key.startswith(start)}, tmp_path / "in.safetensors")
    words = ("--config.views.size=16", "--config.views.eval_crop=0.5")
    assert run("convert", "--from", "torch", str(tmp_path / "in.safetensors"), "--to", str(tmp_path / "run"), *words) == 0
    return tmp_path / "run"


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    return int(caught.value.code or 0)


def kept(workdir: Path, kind: str) -> dict:
    return json.loads((workdir / "evaluation" / f"{kind}.json").read_text())["result"]


# The metrics, written again as one would by hand.


def by_class(logits: np.ndarray, label: np.ndarray) -> float:
    right = {c: [int(np.argmax(row) == c) for row, wanted in zip(logits, label, strict=True) if wanted == c] for c in set(label.tolist())}
    return sum(sum(hits) / len(hits) for hits in right.values()) / len(right)


def eleven_points(logits: np.ndarray, target: np.ndarray) -> float:
    found = []
    for score, there in zip(logits.T, target.T, strict=True):
        ranked = [int(t) for _, t in sorted(zip(-score, there, strict=True), key=lambda pair: pair[0]) if t >= 0]
        if not sum(ranked):
            continue
        points = [(sum(ranked[:k]), sum(ranked[:k]) / k) for k in range(1, len(ranked) + 1)]  # hits, precision
        found.append(sum(max(p for hits, p in points if 10 * hits >= t * sum(ranked)) for t in range(11)) / 11)
    return sum(found) / len(found)


def features_of(workdir: Path, place: Path, task: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """(features of the whole square, targets) of the training, validation and test images."""
    encoder = byol_jax.load_encoder(workdir)
    encoder = evaluate.Encoder(encoder.module, encoder.variables, replace(encoder.views, eval_crop=1.0))
    parts = []
    for split in COUNTS:
        source = data.folder(place / task / split) if task == "aircraft" else data.tfds("voc/2007", split, data_dir=place)
        found = evaluate.features(encoder, source)
        target = source.labels if task == "aircraft" else several_labels(source, "labels", "labels_no_difficult")
        parts.append((found.embedding, np.asarray(target)[found.index]))
    return parts


def refitted(parts: list[tuple[np.ndarray, np.ndarray]], l2: float) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's logits of the test images after training and validation images together, and their targets."""
    x, y = (np.concatenate(both) for both in zip(*parts[:2], strict=True))
    test, target = parts[2]

    def fit(rows: np.ndarray, y: np.ndarray) -> np.ndarray:
        model = LogisticRegression(C=1 / l2, max_iter=100_000, tol=1e-10)
        return model.fit(x[rows].astype(np.float64), y).decision_function(test.astype(np.float64))

    if y.ndim == 1:
        return fit(np.arange(len(y)), y), target
    logits = np.zeros((len(test), 3))  # the other 17 classes are nowhere
    for c in range(3):
        rows = np.flatnonzero(y[:, c] >= 0)
        logits[:, c] = fit(rows, y[rows, c])
    return logits, target[:, :3]


@pytest.mark.parametrize(
    ("task", "metric", "score"), [("aircraft", "mean per class", by_class), ("voc2007", "11-point mAP", eleven_points)]
)
def test_one_task(
    task: str, metric: str, score: Callable[..., float], workdir: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate", "transfer", "--workdir", str(workdir), "--tasks", task, "--data-dir", str(place), *FEW) == 0
    out = capsys.readouterr().out
    result = kept(workdir, "transfer")
    assert (result["protocol"], list(result["tasks"]), result["skipped"]) == ("linear", [task], {})
    found = result["tasks"][task]
    assert (found["metric"], list(found["validation"])) == (metric, ["0.3", "1", "100"])
    l2 = max((float(l2) for l2 in found["validation"]), key=lambda l2: (found["validation"][f"{l2:.4g}"], l2))
    assert found["choice"] == f"l2 {l2:.3g}"
    expected = score(*refitted(features_of(workdir, place, task), l2))
    assert found["score"] == pytest.approx(expected, abs=1e-6)
    assert 0.3 < expected < 1
    assert "Transfer, linear, on 1 of 1 data sets" in out
    row = next(line for line in out.splitlines() if task in line)
    assert metric in row
    assert f"{100 * expected:.1f}" in row
    assert out.endswith(f"written to {workdir / 'evaluation' / 'transfer.json'}\n\n")


@pytest.mark.parametrize(("task", "score", "classes"), [("aircraft", by_class, 3), ("voc2007", eleven_points, 20)])
def test_fine_tuned(
    task: str, score: Callable[..., float], classes: int, workdir: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate", "transfer_finetune", "--workdir", str(workdir), "--tasks", task, "--data-dir", str(place), *SHORT) == 0
    out, result = capsys.readouterr().out, kept(workdir, "transfer_finetune")
    found = result["tasks"][task]
    assert list(found["validation"]) == ["rate0.1-steps3", "rate0.5-steps3"]
    rate = 0.1 if found["validation"]["rate0.1-steps3"] >= found["validation"]["rate0.5-steps3"] else 0.5
    assert found["choice"] == f"rate{rate}-steps3"
    _, _, both, test = open_parts(TASKS[task], place)
    options = {"batch_size": 8, "seed": 0, "bn_momentum": 0.9, "targets": both.targets}
    tuned = evaluate.features(finetune.train(byol_jax.load_encoder(workdir), both, Setting(rate, steps=3), classes, **options), test)
    assert found["score"] == pytest.approx(score(tuned.embedding, test.targets[tuned.label]), abs=1e-12)
    assert "Transfer, fine-tuned, on 1 of 1 data sets" in out
    assert f"{100 * found['score']:.1f}" in next(line for line in out.splitlines() if task in line)


@pytest.mark.parametrize(("kind", "words"), [("transfer", FEW), ("transfer_finetune", SHORT)])
def test_all_tasks_and_again(
    kind: str, words: tuple[str, ...], workdir: Path, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not there is skipped, with how to prepare it; a second command computes nothing, one with another task that task alone."""
    command = ("evaluate", kind, "--workdir", str(workdir), "--data-dir", str(place), *words)
    assert run(*command) == 0
    out, err = capsys.readouterr()
    first = kept(workdir, kind)
    assert list(first["tasks"]) == [name for name in TASKS if name in HERE]
    assert list(first["skipped"]) == [name for name in TASKS if name not in HERE]
    assert "on 3 of 12 data sets" in out
    assert out.count("not there") == 9
    for name in first["skipped"]:
        assert f"{name}: is not in {place}; skipped. {TASKS[name].prepare().replace('DATA_DIR', str(place))}\n" in err
    assert f"tfds build dtd --file_format=array_record --data_dir={place}" in err
    assert f"put the images as {place}/birdsnap/SPLIT/CLASS/*.jpg with the splits train, test" in err

    points = workdir / "evaluation" / kind
    assert {path.name for path in points.glob("*.json")} == {f"{name}.json" for name in HERE}
    before = {path: path.stat().st_mtime_ns for path in points.rglob("*.json")}
    ran: list[str] = []
    module = importlib.import_module(f"byol_jax.evaluate.{kind}")
    true = module.run_task
    monkeypatch.setattr(module, "run_task", lambda task, *args, **kwargs: ran.append(task.name) or true(task, *args, **kwargs))
    assert run(*command) == 0
    assert (ran, kept(workdir, kind)) == ([], first)
    assert {path: path.stat().st_mtime_ns for path in points.rglob("*.json")} == before
    (points / "aircraft.json").unlink()
    assert run(*command, "--tasks", "aircraft,voc2007") == 0
    assert ran == ["aircraft"]
    assert kept(workdir, kind)["tasks"] == {name: first["tasks"][name] for name in ("aircraft", "voc2007")}


@pytest.mark.parametrize("kind", ["transfer", "linear"])
def test_penalties_are_above_zero(kind: str, workdir: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--data-dir", str(place)) if kind == "transfer" else ()
    assert run("evaluate", kind, "--workdir", str(workdir), *where, "--penalties", "1,-0.5") == 2
    assert "--penalties -0.5: must be above 0, such as 0.01" in capsys.readouterr().err
