"""Texts from files: what each format gives, and what is left out, counted and named."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from byol_jax.data import from_texts, text_files
from byol_jax.data import texts as module


def test_each_line_of_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("one\r\n\n  zwei  \n三\n".encode() + b"\xff\xfe broken\n" + b"last")
    with caplog.at_level(logging.WARNING):
        source = text_files(file, max_bad_share=0.2)
    assert source.texts == ["one", "zwei", "三", "last"]
    assert source.labels is None
    assert source[2] == {"text": "三", "label": -1}
    assert f"4 texts; left out or cut: 1 empty ({file}:2), 1 not UTF-8 ({file}:5)" in caplog.text


def test_a_byte_order_mark_is_no_letter(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\ntwo")
    assert text_files(tmp_path / "a.txt").texts == ["one", "two"]


def test_too_much_damage(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\n\xff\n")
    with pytest.raises(ValueError, match=r"1 of 2 texts are damaged, more than max_bad_share=0.01 allows: 1 not UTF-8 \(.*a.txt:2\)"):
        text_files(tmp_path / "a.txt")


def test_a_binary_file_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.txt").write_text("good")
    (tmp_path / "b.txt").write_bytes(b"\x00\x01\x02")
    with caplog.at_level(logging.WARNING):
        assert text_files(tmp_path, max_bad_share=0.5).texts == ["good"]
    assert f"1 binary ({tmp_path / 'b.txt'})" in caplog.text


def test_what_is_too_long_is_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 4)
    (tmp_path / "a.txt").write_text("12345\n1234")
    with caplog.at_level(logging.WARNING):
        assert text_files(tmp_path / "a.txt").texts == ["1234", "1234"]
    assert "1 longer than 4 characters" in caplog.text


def test_a_folder_of_files_is_a_text_a_file(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("two\nlines")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "notes.md").write_text("no text")
    assert text_files(tmp_path).texts == ["first", "two\nlines"]


def test_subfolders_are_classes(tmp_path: Path) -> None:
    for name, texts in {"spam": ["buy"], "ham": ["hello", "bye"]}.items():
        (tmp_path / name).mkdir()
        for i, text in enumerate(texts):
            (tmp_path / name / f"{i}.txt").write_text(text)
    (tmp_path / "ham" / ".kept").mkdir()
    (tmp_path / "ham" / ".kept" / "0.txt").write_text("hidden")
    (tmp_path / "spam" / "0.txt").rename(tmp_path / "spam" / "0.TXT")
    source = text_files(tmp_path)
    assert (source.texts, source.class_names) == (["hello", "bye", "buy"], ["ham", "spam"])
    np.testing.assert_array_equal(source.labels, [0, 0, 1])


@pytest.mark.parametrize(
    ("name", "rows", "first"),
    [("a.csv", 'id,body,kind\n1,"x, y\nz",b\n2,w,a', "x, y\nz"), ("a.tsv", 'id\tbody\tkind\n1\t"x, y"\tb\n2\tw\ta', '"x, y"')],
)
def test_columns_of_a_table(tmp_path: Path, name: str, rows: str, first: str) -> None:
    (tmp_path / name).write_text(rows)
    source = text_files(tmp_path / name, text="body", label="kind")
    assert (source.texts, source.class_names) == ([first, "w"], ["a", "b"])
    np.testing.assert_array_equal(source.labels, [1, 0])


def test_a_long_cell_of_a_csv_is_one_text(tmp_path: Path) -> None:
    long, before = "words, " * 30_000 + "\nno example,no class\nend", csv.field_size_limit()
    (tmp_path / "a.csv").write_text(f'text,label\none,a\n"{long}",b\n')
    source = text_files(tmp_path / "a.csv", max_bad_share=1)
    assert (source.texts, source.class_names, source.labels.tolist()) == (["one", long], ["a", "b"], [0, 1])
    assert csv.field_size_limit() == before == 131_072, "the limit is the whole process's"


def test_json_lines(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 3}, {"text": "b", "label": 0}, {"text": "c", "label": None}, {"text": "d"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    source = text_files(tmp_path / "a.jsonl")
    np.testing.assert_array_equal(source.labels, [3, 0, -1, -1])
    assert source.class_names is None


def test_a_row_without_its_text_is_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": null}\nnot json\n{"text": "b"}')
    with caplog.at_level(logging.WARNING):
        assert text_files(tmp_path / "a.jsonl", max_bad_share=0.5).texts == ["a", "b"]
    assert "2 of its 4 lines cannot be used, left out: line 2: 'text' is null" in caplog.text


def test_a_missing_column_is_told_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("txt,label\nhello,1\n")
    with pytest.raises(ValueError, match=r"names no column 'text'; did you mean 'txt'\?; it holds 'txt, label'"):
        text_files(tmp_path / "a.csv")


def test_test_texts_take_the_classes_of_the_training_texts(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\nhello,spam\n")
    np.testing.assert_array_equal(text_files(tmp_path / "a.csv", class_names=["ham", "spam"]).labels, [1])
    with pytest.raises(ValueError, match=r"a\.csv: class 'spam' is not one of \['ham', 'spal'\]; did you mean 'spal'\?"):
        text_files(tmp_path / "a.csv", class_names=["ham", "spal"])


def test_a_text_without_a_label_leaves_the_others_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\none,2\ntwo,\nten,10\n")
    source = text_files(tmp_path / "a.csv")
    assert (source.labels.tolist(), source.class_names) == ([2, -1, 10], None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "none.txt", "does not exist"),
        (lambda path: path, "holds no text; suffixes looked for: .txt"),
        (lambda path: (path / "empty.txt").write_text("\n\n") and path / "empty.txt", r"holds no text; left out: 2 empty"),
    ],
)
def test_nothing_there(tmp_path: Path, make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        text_files(make(tmp_path))


@pytest.mark.parametrize("label", [0.5, 2**31, float("nan"), float("inf"), -2])
def test_what_is_no_class_number_is_a_name(label: float) -> None:
    source = from_texts(["a", "b", "c"], [1, label, 1.0])
    assert sorted(source.class_names) == sorted({"1", "1.0", str(label)})


def test_from_memory() -> None:
    source = from_texts(["a", "b", "c"], ["x", "y", "x"])
    assert source.class_names == ["x", "y"]
    np.testing.assert_array_equal(source.labels, [0, 1, 0])
    assert source.take([2, 0]).texts == ["c", "a"]
    for texts, labels, message in (
        ([], None, "at least one"),
        (["a", " "], None, "text 1 is ' '"),
        (["a"], [1, 2], "2 labels for 1 texts"),
    ):
        with pytest.raises(ValueError, match=message):
            from_texts(texts, labels)
