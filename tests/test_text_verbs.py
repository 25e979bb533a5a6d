"""A run of texts through the command line: what its verbs read, write and say. The run itself is made once."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from byol_jax import build, cli, config, data, parallel
from byol_jax.augment import kind_of
from byol_jax.bench import setup
from byol_jax.plan import cache, topology
from byol_jax.plan.compile import trace
from byol_jax.plan.inputs import look
from tests.data.words import WORDS, learned, sentences

CONFIG = """
from byol_jax import config as cfg


def get_config(variant=None):
    config = cfg.default()
    config.batch_size, config.steps = 16, 2
    config.data.update(source="text", path={corpus!r}, test_split="train[75%:]", split="train[:75%]")
    config.text.update(preset="document", tokenizer={tokenizer!r}, length=16, column="said", label_column="by", cache=None)
    config.encoder.name = "transformer"
    config.encoder.transformer.update(layers=1, hidden=16, heads=2, mlp=32, dropout=0.0, attention_dropout=0.0)
    for head in (config.method.projector, config.method.predictor):
        head.update(hidden=16, out=8)
    config.optimizer.update(name="adamw", learning_rate=1e-3, warmup_epochs=None)
    config.evaluation.update(every_epochs=0)
    return config
"""
SAID = ["river stone light", "winter", "a new wind and silver"]


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("texts")
    lines = [json.dumps({"said": text, "by": "ab"[i % 2]}) + "\n" for i, text in enumerate(sentences(64))]
    (folder / "corpus.jsonl").write_text("".join(lines))
    file = folder / "tiny.py"
    file.write_text(CONFIG.format(corpus=str(folder / "corpus.jsonl"), tokenizer=str(learned(folder).path)))
    jax.devices()  # JAX has started: a plan takes the eight devices that are there
    return str(file)


@pytest.fixture(scope="module")
def workdir(config_file: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    made = str(tmp_path_factory.mktemp("run"))
    build.pretrain(config.load(config_file, []), made)
    return made


def test_embed(workdir: str, tmp_path: Path) -> None:
    """The columns are named as in the run; classes are those of the file itself."""
    given = tmp_path / "given.jsonl"
    given.write_text("".join(json.dumps({"said": text, "by": name}) + "\n" for text, name in zip(SAID, "yxy", strict=True)))
    assert run("embed", "--workdir", workdir, "--input", str(given), "--output", str(tmp_path / "e.npz")) == 0
    encoder, words = build.load_encoder(workdir), data.Tokenizer(Path(workdir) / "tokenizer.json")
    with np.load(tmp_path / "e.npz", allow_pickle=False) as got:
        np.testing.assert_allclose(got["embedding"], encoder(words.rows(SAID, 16)), atol=1e-5)
        assert got["text"].tolist() == SAID
        assert (got["label"].tolist(), got["class_names"].tolist()) == ([1, 0, 1], ["x", "y"])


def test_embed_a_folder_of_text_files_into_parquet(workdir: str, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for i, text in enumerate(SAID):
        (tmp_path / "in" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / "ab"[i % 2] / f"{i}.txt").write_text(text)
    assert run("embed", "--workdir", workdir, "--input", str(tmp_path / "in"), "--output", str(tmp_path / "e.parquet")) == 0
    table = parquet.read_table(tmp_path / "e.parquet").to_pydict()
    assert table["text"] == [SAID[0], SAID[2], SAID[1]]
    assert table["class"] == ["a", "a", "b"]


def test_embed_a_tfds_set(workdir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def texts(*place: str, **columns: str) -> data.TextSource:
        asked.append((place, columns))
        return data.from_texts(SAID)

    monkeypatch.setattr(data, "tfds_texts", texts)
    for given in ("tfds:glue/sst2", "tfds:imdb:test[:10%]"):
        assert run("embed", "--workdir", workdir, "--input", given, "--output", str(tmp_path / f"{len(asked)}.npz")) == 0
    columns = {"text": "said", "label": "by"}
    assert asked == [(("glue/sst2", "train"), columns), (("imdb", "test[:10%]"), columns)]


def test_embed_mistakes(workdir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("embed", "--workdir", workdir, "--input", "nowhere", "--output", str(tmp_path / "e.npz")) == 2
    assert "--input nowhere: there is no such file or folder; give a file (.txt, .tsv, .csv, .jsonl)" in capsys.readouterr().err
    (tmp_path / "other.jsonl").write_text('{"text": "river"}\n')
    assert run("embed", "--workdir", workdir, "--input", str(tmp_path / "other.jsonl"), "--output", str(tmp_path / "e.npz")) == 2
    assert "said" in capsys.readouterr().err


def test_report(workdir: str) -> None:
    assert run("report", "--workdir", workdir) == 0
    page = (Path(workdir) / "report" / "index.html").read_text()
    assert re.findall(r'<h2 id="(\w+)"', page) == ["quality", "training", "views", "map", "neighbours", "config"]
    shown = re.search(r'<h2 id="views">.*?</table>', page, re.DOTALL)
    assert shown is not None
    assert set(re.sub(r"<[^>]*>", " ", shown.group().partition("<tbody>")[2]).split()) <= {*WORDS.split(), "…"}


def test_noise_is_rows_of_ids_without_padding(config_file: str) -> None:
    spec = config.load(config_file, [])
    recipe, batch = build.recipe(spec), setup.noise(spec)
    words = data.Tokenizer(str(spec.text.tokenizer))
    assert sorted(batch) == ["label", "view1", "view2"]
    for name in ("view1", "view2"):
        rows, one = batch[name], kind_of(recipe).sent(recipe)
        assert (rows.shape, rows.dtype) == ((16, *one.shape[1:]), one.dtype)
        assert (rows[:, 0].tolist(), rows[:, -1].tolist()) == ([words.special.start[0]] * 16, [words.special.end[0]] * 16)
        assert not (rows == words.special.pad).any()
        assert 0 < len(np.unique(rows)) <= words.vocab
        assert rows.max() < words.vocab
    assert not np.array_equal(batch["view1"], batch["view2"])


@pytest.mark.parametrize(("what", "flag"), [("step", "--synthetic"), ("input", None), ("eval", "--synthetic"), ("eval", None)])
def test_bench(what: str, flag: str | None, config_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ([flag] if flag else []) + ["--repeats", "1", "--json", str(tmp_path / "r.jsonl")]
    assert run("bench", what, "--config", config_file, *flags) == 0
    assert "samples/s" in capsys.readouterr().out
    line = json.loads((tmp_path / "r.jsonl").read_text())
    assert (line["what"], line["batch"]) == (what, 16)
    assert line["samples_per_s"] == pytest.approx(16 / line["median_s"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["augment"], "bench augment: text.preset = 'document': views of texts are made on the host; take bench input"),
        (["input", "--baseline"], "--baseline: the official input knows no text.preset = 'document'"),
        (["step", "--peer", "lightly"], "text.preset = 'document': --peer lightly takes None alone"),
        (["input", "--peer", "lightly"], "data.source = 'text': --peer lightly reads image files or arrays"),
        (["step", "--synthetic", "--config.text.tokenizer=nowhere.json"], "text.tokenizer = 'nowhere.json'"),
    ],
)
def test_bench_mistakes(argv: list[str], message: str, config_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    what, *flags = argv
    assert run("bench", what, "--config", config_file, *flags) == 2
    assert message in capsys.readouterr().err


def test_plan(config_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("plan", "--config", config_file, "--topology", "cpu:8", "--cache", str(tmp_path))
    assert run(*argv) == 0
    page = capsys.readouterr().out
    for words in ("16: 2 a chip", "network   transformer, float32", "  all-reduce  ", "2 steps"):
        assert words in page
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["batch"]["view1"] == [[16], "int32"]
    assert run(*argv) == 0
    assert f"from the cache: {file}" in capsys.readouterr().out


def test_a_plan_needs_no_texts_and_depends_on_the_tokenizer(config_file: str, tmp_path: Path) -> None:
    """Nothing is read of a corpus that is elsewhere; and another vocabulary is another program."""
    spec = config.load(config_file, [("data.path", "elsewhere.jsonl")])
    inputs = look(spec, examples=64, classes=2)
    state, _ = trace(spec, parallel.data_mesh(), inputs)
    words = data.Tokenizer(str(spec.text.tokenizer))
    assert words.vocab in {leaf.shape[0] for leaf in jax.tree.leaves(state.online["params"]["encoder"])}
    larger = data.train_tokenizer([*sentences(50), "xylophone quartz"], tmp_path / "tokenizer.json", vocab=500)
    assert larger.vocab != words.vocab
    other = config.load(config_file, [("data.path", "elsewhere.jsonl"), ("text.tokenizer", str(larger.path))])
    keys = [cache.key(each, topology.find("cpu:8"), inputs)["encoder"][0]["vocab"] for each in (spec, other)]
    assert keys == [words.vocab, larger.vocab]
