"""Queries, documents and relevance, in BEIR's format and from three files."""

import json
import logging

import pytest

from byol_jax.data import Retrieval, beir, retrieval

QUERIES = [
    {"_id": "q1", "text": "capital of France", "metadata": {}},
    {"_id": "q2", "text": "北京在哪里"},
    {"_id": "q3", "text": "unanswered"},
]
CORPUS = [
    {"_id": "d1", "title": "Paris", "text": "is the capital of France."},
    {"_id": 2, "title": "", "text": "Beijing is in the north."},
    {"_id": "d3", "text": "France."},
]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td3\t1\nq1\t2\t0\nq2\t2\t1\nq3\td1\t0\n"
WANTED = Retrieval(
    ["q1", "q2"],
    ["capital of France", "北京在哪里"],
    ["d1", "2", "d3"],
    ["Paris is the capital of France.", "Beijing is in the north.", "France."],
    {"q1": {"d1": 2.0, "d3": 1.0}, "q2": {"2": 1.0}},
    left_out=1,
)


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "qrels").mkdir()
    (tmp_path / "queries.jsonl").write_text(jsonl(QUERIES))
    (tmp_path / "corpus.jsonl").write_text(jsonl(CORPUS))
    (tmp_path / "qrels" / "test.tsv").write_text(QRELS)
    return tmp_path


def test_beir(folder, caplog):
    with caplog.at_level(logging.INFO, "byol_jax.data"):
        assert beir(folder) == WANTED
    assert "test.tsv: 1 of 3 queries have no relevant document; left out" in caplog.text
    with pytest.raises(ValueError, match=r"qrels/dev\.tsv does not exist"):
        beir(folder, "dev")
    with pytest.raises(ValueError, match=r"folder: .*nowhere does not exist"):
        beir(folder / "nowhere")


@pytest.mark.parametrize("qrels", [QRELS, QRELS.split("\n", 1)[1]])
def test_three_tsv_files(folder, qrels):
    (folder / "q.tsv").write_text("_id\ttext\n" + "".join(f"{row['_id']}\t{row['text']}\n" for row in QUERIES))
    (folder / "d.tsv").write_text("title\t_id\ttext\n" + "".join(f"{r.get('title', '')}\t{r['_id']}\t{r['text']}\n" for r in CORPUS))
    (folder / "r.tsv").write_text(qrels)
    assert retrieval(folder / "q.tsv", folder / "d.tsv", folder / "r.tsv") == WANTED
    (folder / "plain.tsv").write_text("text\t_id\nonly text\td1\n")
    found = retrieval(folder / "queries.jsonl", folder / "plain.tsv", folder / "r.tsv", max_bad_share=0.7)
    assert (found.documents, found.relevance) == (["only text"], {"q1": {"d1": 2.0}})


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("qrels/test.tsv", "q1\td9\t1", "line 7: there is no document 'd9'; the first is 'd1'"),
        ("qrels/test.tsv", "q9\td1\t1", "line 7: there is no query 'q9'; the first is 'q1'"),
        ("qrels/test.tsv", "q1\td1\thigh", "line 7: score 'high' is no number"),
        ("qrels/test.tsv", "q1 d1 1", "line 7: has 1 columns, not 3"),
        ("qrels/test.tsv", "\td1\t1", "line 7: query-id is empty"),
        ("queries.jsonl", '{"_id": "q1", "text": "x"}', "line 4: _id 'q1' comes a second time"),
        ("queries.jsonl", '{"_id": "q4", "text": " "}', "line 4: text is empty"),
        ("queries.jsonl", '{"_id": "q4", "texts": "x"}', "line 4: has no 'text'; it has _id, texts"),
        ("corpus.jsonl", '{"_id": "d4", "title": "", "text": ""}', "line 4: text is empty"),
        ("corpus.jsonl", '{"_id": "", "text": "x"}', "line 4: _id is empty"),
    ],
)
def test_bad_lines(folder, caplog, file, line, message):
    with (folder / file).open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(ValueError, match=r"lines cannot be used: more than max_bad_share=0\.01 allows") as error:
        beir(folder)
    assert message in str(error.value)
    assert beir(folder, max_bad_share=0.3) == WANTED
    assert message in caplog.text


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t0\n", "gives none of the 3 queries a relevant document"),
        ("qrels/test.tsv", "query\tcorpus-id\tscore\nq1\td1\t0\n", "names no column 'query-id'; did you mean 'query'"),
        ("queries.jsonl", "", "holds no query"),
        ("corpus.jsonl", "\n", "holds no document"),
    ],
)
def test_files_with_nothing_to_judge(folder, file, text, message):
    (folder / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        beir(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((["q"], ["a", "b"], ["d"], ["c"], {"q": {"d": 1.0}}), "2 texts with 1 different query ids of 1"),
        ((["q"], ["a"], ["d", "d"], ["c", "c"], {"q": {"d": 1.0}}), "2 texts with 1 different document ids of 2"),
        ((["q"], ["a"], ["d"], ["c"], {}), "query 'q' has no relevant document"),
        ((["q"], ["a"], ["d"], ["c"], {"q": {"e": 1.0}}), "document 'e' of relevance 1 is not there"),
        ((["q"], ["a"], ["d"], ["c"], {"q": {"d": 0.0}}), "document 'd' of relevance 0 is not there, or not above 0"),
    ],
)
def test_what_does_not_fit_together(fields, message):
    with pytest.raises(ValueError, match=message):
        Retrieval(*fields)
