"""Pairs with gold scores from files and from TFDS, and what becomes of lines that cannot be used."""

import json
import logging

import numpy as np
import pytest

from byol_jax import data
from byol_jax.data import Pairs, pairs, sts_tfds

ROWS = [("A man plays.", "Someone plays a guitar.", 3.25), ("一只猫", "一只狗", 1.5), ('He said "no", twice.', "No.", 0.0)]
WANTED = ([row[0] for row in ROWS], [row[1] for row in ROWS], [3.25, 1.5, 0.0])
TSV = "".join(f"{a}\t{b}\t{c}\n" for a, b, c in ROWS)
CSV = 'A man plays.,Someone plays a guitar.,3.25\n一只猫,一只狗,1.5\n"He said ""no"", twice.",No.,0\n'
JSONL = "".join(json.dumps({"sentence1": a, "sentence2": b, "score": c, "id": 7}) + "\n" for a, b, c in ROWS)


@pytest.fixture
def write(tmp_path):
    def to(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return to


def content(found):
    assert found.gold.dtype == np.float64
    return found.first, found.second, found.gold.tolist()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", TSV),
        ("a.tsv", "sentence1\tsentence2\tscore\n" + TSV),
        ("a.TSV", ("\ufeffsentence1\tsentence2\tscore\n\n" + TSV + "\n").replace("\n", "\r\n")),
        ("a.csv", CSV),
        ("a.csv", "sentence1,sentence2,score\n" + CSV + ",,\n"),
        ("a.jsonl", JSONL + "\n"),
    ],
)
def test_each_format(write, name, text):
    assert content(pairs(write(name, text))) == WANTED


def test_columns_by_name_among_others_in_any_order(write):
    lines = ["index\tscore\told\tright\tleft", *(f"{i}\t{c}\tx\t{b}\t{a}" for i, (a, b, c) in enumerate(ROWS))]
    assert content(pairs(write("a.tsv", "\n".join(lines)), columns=("left", "right", "score"))) == WANTED
    objects = "".join(json.dumps({"l": a, "r": b, "s": str(c)}) + "\n" for a, b, c in ROWS)
    assert content(pairs(write("a.jsonl", objects), columns=("l", "r", "s"))) == WANTED


def test_tsv_knows_no_quotes_and_a_csv_cell_may_span_lines(write):
    assert pairs(write("a.tsv", '"open\tshut"\t1\n')).first == ['"open']
    found = pairs(write("a.csv", '"two\nlines",b,1\nc,d,2\n'))
    assert content(found) == (["two\nlines", "c"], ["b", "d"], [1.0, 2.0])


def test_a_line_ends_at_a_line_feed_only(write):
    assert pairs(write("a.tsv", "one\u2028two\x0bthree\tb\t1\n")).first == ["one\u2028two\x0bthree"]


BAD = [
    ("a.tsv", b"only two\t1", "line 2: has 2 columns, not 3"),
    ("a.tsv", b"a\tb\tmuch", "line 2: score 'much' is no number"),
    ("a.tsv", b"a\tb\tnan", "line 2: score 'nan' is not finite"),
    ("a.tsv", b"a\t \t1", "line 2: sentence2 is empty"),
    ("a.tsv", b"a\xff\tb\t1", "line 2: is not UTF-8"),
    ("a.csv", b"a,b,1,2", "line 2: has 4 columns, not 3"),
    ("a.csv", b"a\xff,b,1", "line 2: is not UTF-8"),
    ("a.jsonl", b"{", "line 2: is no JSON "),
    ("a.jsonl", b"[1]", "line 2: is no JSON object but list"),
    ("a.jsonl", b'{"sentence1": "a", "score": 1}', "line 2: has no 'sentence2'; it has score, sentence1"),
    ("a.jsonl", b'{"sentence1": "a", "sentence2": null, "score": 1}', "line 2: 'sentence2' is null, neither text nor a number"),
    ("a.jsonl", b'{"sentence1": "a", "sentence2": "\xff", "score": 1}', "line 2: is not UTF-8"),
    ("a.jsonl", b'{"sentence1": "a", "sentence2": "\\ud83d", "score": 1}', "line 2: 'sentence2' holds half of a surrogate pair"),
]
GOOD = {"a.tsv": b"good\tgood\t1", "a.csv": b"good,good,1", "a.jsonl": b'{"sentence1": "good", "sentence2": "good", "score": 1}'}


@pytest.mark.parametrize(("name", "bad", "reason"), BAD)
def test_a_bad_line_is_named_and_left_out_only_if_few_are(write, caplog, name, bad, reason):
    few = write(name, b"\n".join([GOOD[name], bad, *[GOOD[name]] * 98]))
    with caplog.at_level(logging.WARNING, "byol_jax.data"):
        found = pairs(few)
    assert content(found) == (["good"] * 99, ["good"] * 99, [1.0] * 99)
    assert f"1 of its 100 lines cannot be used, left out: {reason}" in caplog.text
    many = write(name, b"\n".join([GOOD[name], bad, *[GOOD[name]] * 97]))
    with pytest.raises(ValueError, match=r"1 of its 99 lines cannot be used: more than max_bad_share=0\.01 allows.*") as error:
        pairs(many)
    assert reason in str(error.value)
    assert len(pairs(many, max_bad_share=0.02)) == 98


def test_the_first_five_bad_lines_are_named(write):
    with pytest.raises(ValueError, match="7 of its 8 lines") as error:
        pairs(write("a.tsv", "a\tb\t1\n" + "x\n" * 7))
    assert str(error.value).endswith("line 5: has 1 columns, not 3; line 6: has 1 columns, not 3; ...")


def test_a_quote_that_never_closes_counts_all_lines_it_swallows(write):
    text = "a,b,1\n" * 50 + '"open,b,1\n' + "a,b,1\n" * 49
    with pytest.raises(ValueError, match=r"50 of its 100 lines cannot be used.*line 51: is no CSV"):
        pairs(write("a.csv", text))


@pytest.mark.parametrize("broken", ['"a"x,b,1\n', '"two\n"lines",b,1\n'])
def test_no_row_is_made_of_what_follows_wrong_quotes(write, caplog, broken):
    path = write("a.csv", "a,b,1\n" * 98 + broken + 'quoted,text,2\n"')
    with pytest.raises(ValueError, match=r"lines cannot be used.*line 99: is no CSV \(.*\); which rows follow is not known"):
        pairs(path)
    with caplog.at_level(logging.WARNING, "byol_jax.data"):
        assert content(pairs(path, max_bad_share=0.1)) == (["a"] * 98, ["b"] * 98, [1.0] * 98)
    lines = path.read_text().count("\n") + 1
    assert f"{lines - 98} of its {lines} lines cannot be used, left out: line 99: is no CSV" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "sentence_1\tsentence2\tscore\n", "names no column 'sentence1'; did you mean 'sentence_1'.*it holds 'sentence_1, sen"),
        ("a.tsv", "a\tb\tc\td\n", "names no column 'sentence1'"),
        ("a.tsv", b"\xff\xfea\x00\n", "its first line is not UTF-8"),
        ("a.tsv", "", "holds no pair"),
        ("a.jsonl", "\n", "holds no pair"),
        ("a.tsv", "sentence1\tsentence2\tscore\n", "holds no pair"),
        ("a.txt", "a\tb\t1\n", r"its suffix must be one of \.tsv, \.csv, \.jsonl"),
    ],
)
def test_files_that_are_no_pairs(write, name, text, message):
    with pytest.raises(ValueError, match=message):
        pairs(write(name, text))


def test_wrong_arguments(write):
    path = write("pairs.tsv", TSV)
    with pytest.raises(ValueError, match=r"does not exist; did you mean 'pairs\.tsv'"):
        pairs(path.with_name("pair.tsv"))
    with pytest.raises(ValueError, match="give three names"):
        pairs(path, columns=("a", "b"))
    with pytest.raises(ValueError, match="max_bad_share=2: is a share between 0 and 1"):
        pairs(path, max_bad_share=2.0)
    with pytest.raises(ValueError, match="2 and 1 texts with scores of shape"):
        Pairs(["a", "b"], ["c"], np.zeros(2))


@pytest.fixture(scope="module", params=["array_record", "tfrecord"])
def stsb(request, tmp_path_factory):
    """A few pairs under the name, version and features of the true data set; the test split's scores are hidden."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp(request.param)

    def examples(hidden):
        for i, (a, b, c) in enumerate(ROWS * 4):
            yield f"{i:04}", {"sentence1": f"{i} {a}", "sentence2": b, "label": -1.0 if hidden else c, "idx": i}

    builder = tfds.builder("glue/stsb", data_dir=folder, file_format=request.param)
    builder._split_generators = lambda manager: {"validation": examples(False), "test": examples(True)}
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=3))
    return folder


def test_sts_of_tfds(stsb):
    found = sts_tfds(data_dir=stsb)
    order = [int(text.split()[0]) for text in found.first]
    assert sorted(order) == list(range(12))
    assert found.first == [f"{i} {ROWS[i % 3][0]}" for i in order]
    assert found.second == [ROWS[i % 3][1] for i in order]
    assert found.gold.tolist() == [ROWS[i % 3][2] for i in order]
    assert content(sts_tfds(data_dir=stsb)) == content(found)
    part = sts_tfds(split="validation[2:5]", data_dir=stsb)
    assert part.first == found.first[2:5]
    assert sts_tfds(columns=("sentence2", "sentence1", "label"), data_dir=stsb).first == found.second


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "glue/stbs"}, "BuilderConfig stbs not found"),
        ({"split": "valid"}, r"no split 'valid': it has \['test', 'validation'\]; did you mean 'validation'"),
        ({"split": "test"}, r"glue/stsb test has no gold scores \(all are -1\).*validation"),
        ({"columns": ("sentence1", "sentence2", "score")}, "no feature 'score'.*'label'"),
    ],
)
def test_wrong_names_of_tfds(stsb, options, message):
    with pytest.raises(ValueError, match=message):
        data.sts_tfds(data_dir=stsb, **options)
