"""The service desk of experiments/faq_search: what its data are made of, whom it answers, and when it says "no match"."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from experiments.faq_search import desk, prepare

KNOWN = [{"question": "ab", "answer": "one"}, {"question": "cd", "answer": "two"}, {"question": "ef", "answer": "three"}]


def letters(texts: Sequence[str]) -> np.ndarray:
    """Counts of letters: the cosine of two texts can be told by hand."""
    return np.array([[text.count(letter) for letter in "abcdefgh"] for text in texts], np.float32)


def test_the_nearest_questions_and_their_cosines() -> None:
    places, cosine = desk.Desk(letters, KNOWN).best(["a", "ccd"], 2)
    assert places[:, 0].tolist() == [0, 1]
    np.testing.assert_allclose(cosine[:, 0], [1 / np.sqrt(2), 3 / np.sqrt(10)], atol=1e-5)
    alone, _ = desk.Desk(letters, KNOWN).best(["ccd"], 1)
    assert alone.tolist() == [[1]]


def test_what_is_measured() -> None:
    calibrate = [{"text": "ab", "id": 0}, {"text": "agh", "id": -1}]  # cosines 1 and 1 / sqrt(3)
    test = [{"text": "abb", "id": 0}, {"text": "cdd", "id": 2}, {"text": "egh", "id": -1}, {"text": "aab", "id": -1}]
    more = [{"question": letter, "answer": ""} for letter in "gh"]
    found = desk.judge(desk.Desk(letters, [*KNOWN, *more]), calibrate, test)
    assert (found.first, found.five) == (0.5, 1.0)
    assert found.threshold.threshold == pytest.approx((1 + 1 / np.sqrt(3)) / 2, abs=1e-4)
    assert (found.threshold.answered_right, found.threshold.told_none) == (0.5, 0.5)


def test_the_data_keep_unknown_questions_out_of_the_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        line
        for i in range(10)
        for line in (f"S:x{i}", f"P:question {i}", f"VG1:machine {i}", f"VIN:again {i}", f"VUC:or {i}", f"R:reply {i}")
    ]
    (tmp_path / "aia.txt").write_text("\n".join(lines))
    prepare.main([str(tmp_path / "aia.txt"), str(tmp_path / "out")])
    assert "8 known questions, 20 rewordings of 10 (4 have no answer here)" in capsys.readouterr().out
    known = desk.rows(tmp_path / "out" / "faq.jsonl")
    asked = [*desk.rows(tmp_path / "out" / "calibrate.jsonl"), *desk.rows(tmp_path / "out" / "test.jsonl")]
    for one in asked:
        number = one["text"].split()[1]
        there = [i for i, entry in enumerate(known) if entry == {"question": f"question {number}", "answer": f"reply {number}"}]
        assert there == ([one["id"]] if one["id"] >= 0 else [])
    trained = (tmp_path / "out" / "train.txt").read_text()
    assert "machine" not in trained
    assert not any(f"{one['text']}\n" in trained for one in asked)


def test_another_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("nothing of the kind")
    with pytest.raises(SystemExit, match="is not AIA-BDE"):
        prepare.main([str(tmp_path / "x.txt"), str(tmp_path)])


@pytest.mark.parametrize(("question", "said"), [("aab", "0.949  ab\n       one"), ("agh", "no match (nearest 0.408, wanted 0.700: ab)")])
def test_it_replies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], question: str, said: str) -> None:
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "faq.jsonl").write_text("".join(json.dumps(one) + "\n" for one in KNOWN))
    with pytest.raises(SystemExit, match="no threshold yet"):
        desk.main([str(tmp_path), str(tmp_path), "--ask", question])
    (tmp_path / "evaluation" / desk.KEPT).write_text('{"BYOL, whitened": {"threshold": 0.7}}')
    (tmp_path / "train.txt").write_text("ab\ncd\n")
    monkeypatch.setattr(desk, "Whitened", lambda embed, corpus: {("ab", "cd"): embed}[tuple(corpus)])
    monkeypatch.setattr(desk.byol, "load_sentence_encoder", lambda workdir: letters, raising=False)
    desk.main([str(tmp_path), str(tmp_path), "--ask", question])
    assert said in capsys.readouterr().out
