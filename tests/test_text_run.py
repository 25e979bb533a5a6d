"""A run of texts through the command line: tokenizer, training, resume, every evaluation of texts, and the words for mistakes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from byol_jax import build, cli, evaluate
from byol_jax import config as cfg
from byol_jax.build import texts
from byol_jax.build.subject import Subject
from byol_jax.checkpoint import Checkpoints
from byol_jax.evaluate import Encoder, SentenceEncoder
from byol_jax.train import Hook
from tests.data.words import learned, sentences

TINY = """
from byol_jax import config as cfg


def get_config(variant=None):
    config = cfg.default()
    config.batch_size = 16
    config.steps = 4
    config.data.update(source="text", path="DATA/train.jsonl", test_path="DATA/test.jsonl")
    config.text.update(preset="document", tokenizer="DATA/tokenizer.json", length=16, cache=None)
    config.encoder.name = "transformer"
    config.encoder.transformer.update(layers=1, hidden=16, heads=2, mlp=32, positions=16)
    for head in (config.method.projector, config.method.predictor):
        head.update(hidden=16, out=8)
    config.optimizer.update(name="adamw", learning_rate=0.2, warmup_epochs=None)
    config.checkpoint.every_steps = 2
    config.evaluation.update(every_epochs=1, knn_k=5, held_out_examples=20)
    config.logging.every_steps = 1
    return config
"""


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences of three classes, each with a word of its own; a tokenizer; a configuration, and a finished run of it."""
    place = tmp_path_factory.mktemp("texts")
    for split, count, seed in (("train", 40, 0), ("test", 20, 1)):
        rows = [{"text": f"class{i % 3} {text}", "label": "abc"[i % 3]} for i, text in enumerate(sentences(count, longest=12, seed=seed))]
        (place / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "tiny.py").write_text(TINY.replace("DATA", str(place)))
    assert run("data", "tokenizer", "--config", f"{place}/tiny.py", "--vocab", "300") == 0
    assert run("pretrain", "--config", f"{place}/tiny.py", "--workdir", f"{place}/run") == 0
    return place


def state_of(workdir: Path) -> Any:
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    try:
        return checkpoints.restore_raw(["online", "target", "opt_state"], None)
    finally:
        checkpoints.close()


def test_the_run_learns_measures_and_keeps_its_tokenizer(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    found = {name: [line[name] for line in lines if name in line] for name in ("loss", "held_out_loss", "knn_top1", "rankme", "probe_top1")}
    assert {name: len(values) for name, values in found.items()} == {
        "loss": 4,
        "held_out_loss": 3,
        "knn_top1": 3,
        "rankme": 3,
        "probe_top1": 4,
    }
    assert all(0 < value < 8 for value in found["held_out_loss"])
    assert found["held_out_loss"][-1] < found["held_out_loss"][0]
    assert (folder / "run" / "tokenizer.json").read_text() == (folder / "tokenizer.json").read_text()


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_a_run_keeps_is_written_whole_and_only_where_it_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, run = tmp_path / "model" / "config.json", tmp_path / "run"
    model.parent.mkdir()
    model.write_text('{"layers": 1}')
    spec = cfg.resolve(
        {
            "steps": 1,
            "data": {"source": "text", "path": str(tmp_path)},
            "text": {"preset": "sentence", "tokenizer": str(learned(tmp_path).path)},
            "encoder": {"name": "huggingface", "path": str(model.parent)},
        }
    )
    build.claim(run, spec)
    kept = [run / "config.json", run / "tokenizer.json", run / "encoder" / "config.json"]
    for file in kept:
        os.utime(file, (7, 7))
    build.claim(run, spec)
    assert [file.stat().st_mtime for file in kept] == [7, 7, 7]
    model.write_text('{"layers": 2}')
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            build.claim(run, spec)
    assert kept[2].read_text() == '{"layers": 1}'
    build.claim(run, spec)
    assert kept[2].read_text() == '{"layers": 2}'
    assert sorted(file for file in run.rglob("*") if file.is_file()) == sorted(kept)


def test_stopped_and_begun_again_it_ends_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    spec = cfg.load(f"{folder}/tiny.py", [("evaluation.every_epochs", "0")])  # which trains nothing, and takes long to compile
    with pytest.raises(KeyboardInterrupt):
        build.pretrain(spec, tmp_path / "run", hooks=[Stop(after=2)])
    build.pretrain(spec, tmp_path / "run")
    whole, resumed = state_of(folder / "run"), state_of(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)


class Stop(Hook):
    """Ends the run, as a kill would, right after an update."""

    def __init__(self, after: int) -> None:
        self._after = after

    def tick(self, done: int) -> None:
        if done > self._after:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("kind", "names"), [("knn", ["knn"]), ("linear", ["linear", "linear_sgd"]), ("fewlabels", ["fewlabels"])])
def test_classifiers_stand_beside_their_baselines(folder: Path, capsys: pytest.CaptureFixture[str], kind: str, names: list[str]) -> None:
    probe = folder / "probe.npz"
    linear = ["--penalties", "0.01,1,100", "--save", str(probe)]
    options = {"fewlabels": ["--labels", "1,all", "--draws", "1"], "linear": linear}.get(kind, [])
    assert run("evaluate", kind, "--workdir", f"{folder}/run", *options) == 0
    out = capsys.readouterr().out
    for name in names:
        rows = json.loads((folder / "run" / "evaluation" / f"{name}.json").read_text())["rows"]
        assert {row[0] for row in rows} == {"BYOL", "untrained", "TF-IDF"}
    assert "macro F1 %" in out or kind == "fewlabels"
    if kind == "linear":  # the classifier that is kept is BYOL's; of the other rows, the class is a word of the text
        assert f"classifier written to {probe}" in out
        subject = Subject(build.read_spec(folder / "run"), build.load_encoder(folder / "run"), folder / "run")
        kept, (_, test) = evaluate.load_probe(probe), subject.features()
        right = float((kept.probabilities(test.embedding).argmax(1) == test.label).mean())
        result = json.loads((folder / "run" / "evaluation" / "linear.json").read_text())["result"]
        assert kept.class_names == subject.train().class_names
        assert right == pytest.approx(result["BYOL"]["top1"])
        assert [float(penalty) for penalty in result["BYOL"]["held_out"]] == [0.01, 1, 100]
        assert next(row for row in rows if row[0] == "TF-IDF")[2] == "100.0"


def test_similarity(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("river stone", "river stone", 5), ("river stone", "market letter", 0), ("paper engine", "paper engine window", 4)]
    (tmp_path / "pairs.tsv").write_text("sentence1\tsentence2\tscore\n" + "".join("\t".join(map(str, row)) + "\n" for row in rows))
    assert run("evaluate", "similarity", "--workdir", f"{folder}/run", "--pairs", str(tmp_path / "pairs.tsv")) == 0
    assert "BYOL" in (out := capsys.readouterr().out)
    result = json.loads((folder / "run" / "evaluation" / "similarity.json").read_text())["result"]
    assert result["TF-IDF"]["spearman"] == 1
    assert "100.00" in out


def test_retrieve(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "silver river"}\n')
    documents = ["silver river", "market letter", "paper"]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"_id": f"d{i}", "text": text}) + "\n" for i, text in enumerate(documents)))
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td0\t1\n")
    assert run("evaluate", "retrieve", "--workdir", f"{folder}/run", "--corpus", str(tmp_path), "--k", "1,2") == 0
    result = json.loads((folder / "run" / "evaluation" / "retrieve.json").read_text())["result"]
    assert result["mrr_10"] == dict.fromkeys(
        ("BYOL", "BYOL, whitened", "untrained", "untrained, whitened", "TF-IDF"), 1.0
    )  # the same words have the same embedding


def test_collapse(folder: Path) -> None:
    assert run("evaluate", "collapse", "--workdir", f"{folder}/run") == 0


def test_the_encoder_embeds_texts_whatever_stands_beside_them(folder: Path) -> None:
    sentence = build.load_sentence_encoder(folder / "run")
    texts = ["river stone", "market", "a very long text of many words " * 10, ""]
    together = sentence(texts)
    assert together.shape == (4, 16)
    for text, row in zip(texts, together, strict=True):
        np.testing.assert_allclose(sentence([text])[0], row, atol=1e-5)  # whatever the padding
    assert isinstance(sentence, SentenceEncoder)
    with pytest.raises(ValueError, match="give a list of one str or more"):
        sentence("river stone")
    with pytest.raises(ValueError, match=r"tokens: got float64 \(2, 2\)"):
        sentence.encoder(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="rows of 17 ids, but the run's texts have 16"):
        sentence.encoder(np.ones((2, 17), np.int32))


def test_the_run_outlives_its_tokenizer_file_but_takes_no_other(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.json"
    assert run("data", "tokenizer", "--config", f"{folder}/tiny.py", "--output", str(other), "--kind", "bpe") == 0
    flag = f"--config.text.tokenizer={other}"
    assert run("pretrain", "--config", f"{folder}/tiny.py", "--workdir", f"{folder}/run", flag) == 2
    assert "is not the tokenizer that the run was begun with" in capsys.readouterr().err
    spec = build.read_spec(folder / "run")
    assert spec.text.tokenizer == str(folder / "run" / "tokenizer.json")


def test_exported_a_new_run_starts_from_it_and_outlives_the_folder(folder: Path, tmp_path: Path) -> None:
    model, workdir = tmp_path / "model", tmp_path / "run"
    assert run("export", "--workdir", f"{folder}/run", "--to", "huggingface", "--output", str(model)) == 0
    changes = [
        "encoder.name=huggingface",
        f"encoder.path={model}",
        "text.tokenizer=None",
        "steps=1",
        "encoder.transformer.positions=512",
        "evaluation.every_epochs=0",
    ]
    changes += [f"encoder.transformer.{name}=None" for name in ("layers", "hidden", "heads", "mlp")]
    flags = [f"--config.{change}" for change in changes]
    assert run("pretrain", "--config", f"{folder}/tiny.py", "--workdir", str(workdir), *flags) == 0
    first, texts = build.load_sentence_encoder(folder / "run"), ["river stone", "market letter paper"]
    spec = build.read_spec(workdir)
    (name, before), *_ = Subject(spec, build.load_encoder(workdir), workdir).before().items()
    assert name == "before BYOL"
    np.testing.assert_allclose(SentenceEncoder(before, first.tokenizer)(texts), first(texts), atol=1e-5)
    after = build.load_sentence_encoder(workdir)(texts)
    assert np.abs(after - first(texts)).max() > 1e-4
    shutil.rmtree(model)
    np.testing.assert_array_equal(build.load_sentence_encoder(workdir)(texts), after)
    assert run("pretrain", "--workdir", str(workdir)) == 0  # goes on from its own checkpoint
    assert not Subject(build.read_spec(workdir), build.load_encoder(workdir), workdir).before()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["similarity"], "--pairs: evaluate similarity needs it"),
        (["retrieve"], "--corpus: evaluate retrieve needs it"),
        (["knn", "--pairs", "x"], "--pairs: evaluate knn has no options; it belongs to similarity"),
        (["similarity", "--pairs", "none.tsv"], "none.tsv does not exist"),
    ],
)
def test_mistakes_in_evaluations(folder: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str) -> None:
    assert run("evaluate", *argv, "--workdir", f"{folder}/run") == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["text.preset=None"], "text.preset = None: data.source = 'text' needs 'sentence' or 'document'"),
        (["text.preset=documents"], "text.preset = 'documents': it must be one of 'sentence', 'document' (did you mean 'document'?)"),
        (["text.tokenizer=None"], "text.tokenizer = None: texts need a tokenizer.json; `byol-jax data tokenizer"),
        (["text.tokenizer=none.json"], "text.tokenizer = 'none.json': tokenizer: none.json does not exist"),
        (["text.length=17"], "text.length = 17: it must be at most encoder.transformer.positions = 16"),
        (["text.length=2"], "text.length=2: leaves no place for a token beside 2 special ones"),
        (["text.view1.delete=1.0"], "text.view1.delete=1.0: lies in [0, 1)"),
        (["encoder.name=resnet50"], "encoder.name = 'resnet50': an encoder of texts is one of bert_tiny"),
        (["encoder.name=bert_tiny"], "encoder.transformer.layers = 1 with encoder.name = 'bert_tiny': that is fixed by the name"),
        (["encoder.transformer.heads=3"], "encoder.transformer.hidden = 16: it must be divisible by encoder.transformer.heads = 3"),
        (["encoder.path=x"], "encoder.path = 'x': only encoder.name = 'huggingface' reads one, not 'transformer'"),
        (["data.on_device=true"], "data.on_device = True: texts are held on the host as token ids"),
        (["data.source=digits", "data.path=None", "data.test_path=None"], "data.source = 'digits': texts come from 'text' or 'tfds'"),
    ],
)
def test_mistakes_in_a_configuration(folder: Path, capsys: pytest.CaptureFixture[str], changes: list[str], message: str) -> None:
    assert run("show", "--config", f"{folder}/tiny.py", *(f"--config.{change}" for change in changes)) == 2
    assert message in capsys.readouterr().err


def test_a_part_of_a_file_is_held_out(folder: Path) -> None:
    spec = cfg.load(f"{folder}/tiny.py", [("data.test_path", "None"), ("data.split", "train[:75%]"), ("data.test_split", "train[75%:]")])
    train, test = build.train_source(spec), build.test_source(spec)
    assert (len(train), len(test)) == (30, 10)
    assert not set(train.texts) & set(test.texts)


@pytest.mark.parametrize(
    ("train", "test", "labels"),
    [("1 2 3 other", "1 2 3", [0, 1, 2]), ("b c", "c b", [1, 0]), ("1 3", "3 1", [3, 1]), (" ", "b c", [0, 1])],
)
def test_test_texts_have_the_classes_of_the_training_texts(tmp_path: Path, train: str, test: str, labels: list[int]) -> None:
    spec = _labelled(tmp_path, train, test)
    assert texts.raw(spec, spec.data.test_path, "test").labels.tolist() == labels


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("b c", "c d", "PLACE/test.csv: class 'd' is not one of ['b', 'c']"),
        ("1 2", "1 other", "PLACE/test.csv: class 'other' is a name, and those of PLACE/train.csv are numbers"),
    ],
)
def test_test_texts_of_other_classes_are_told(tmp_path: Path, train: str, test: str, message: str) -> None:
    spec = _labelled(tmp_path, train, test)
    with pytest.raises(ValueError) as error:
        texts.raw(spec, spec.data.test_path, "test")
    assert message.replace("PLACE", str(tmp_path)) in str(error.value)


def _labelled(place: Path, train: str, test: str) -> cfg.Spec:
    """A configuration of two files, with these labels."""
    for split, labels in (("train", train), ("test", test)):
        (place / f"{split}.csv").write_text("text,label\n" + "".join(f"text,{label}\n" for label in labels.split(" ")))
    (place / "tiny.py").write_text(TINY.replace("DATA", str(place)).replace(".jsonl", ".csv"))
    return cfg.load(f"{place}/tiny.py")


def test_an_encoder_of_images_takes_no_sentences(folder: Path) -> None:
    from byol_jax import models, views

    images = Encoder.untrained(models.resnet(stage_sizes=(1,), channels=(8,)), views.small(8))
    with pytest.raises(ValueError, match="ResNet is an encoder of images"):
        SentenceEncoder(images, build.load_sentence_encoder(folder / "run").tokenizer)
