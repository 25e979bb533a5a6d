"""The scripts that make the corpora of experiments/text_*: small stand-ins in the packages' own forms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from byol_jax.data import pairs, text_files
from experiments.text_brown import prepare as brown
from experiments.text_lee import prepare as lee
from experiments.text_spam import prepare as spam


def test_tags_are_taken_off_and_paragraphs_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brown, "WORDS", 6)
    tagged = "\n\n\t``/`` No/at ''/'' ,/, he/pps said/vbd ./.\n\n\n\tTwo/cd (/( or/cc 1/2/cd )/) ./.\n\n\n\tEnd/nn ./.\n"
    assert list(brown.passages(tagged)) == ['"No", he said.', "Two (or 1/2). End."]


def test_brown_keeps_passages_of_a_text_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "package"
    source.mkdir()
    for i in range(500):
        (source / f"c{'abcdefghjklmnpr'[i % 15]}{i // 15:02}").write_text(f"\n\tText/nn {i}/cd ./.\n")
    brown.main([str(source), str(tmp_path / "out")])
    assert "400 passages for train, 100 passages for test" in capsys.readouterr().out
    train = text_files(tmp_path / "out" / "train.jsonl")
    assert train.class_names == sorted(brown.GENRES.values())
    (source / "ca00").unlink()
    with pytest.raises(SystemExit, match="has 499 texts"):
        brown.main([str(source), str(tmp_path / "out")])


def test_lee_makes_every_pair_once(tmp_path: Path) -> None:
    (tmp_path / "lee_background.cor").write_text("\n".join(f"news {i}" for i in range(300)))
    (tmp_path / "lee.cor").write_bytes("\n".join(f"paper {i} costs £{i}" for i in range(50)).encode("latin-1"))
    (tmp_path / "similarities0-1.txt").write_text("\n".join("\t".join(str(abs(i - j) / 50) for j in range(50)) for i in range(50)))
    lee.main([str(tmp_path), str(tmp_path / "out")])
    found = pairs(tmp_path / "out" / "pairs.tsv")
    assert len(found) == 50 * 49 // 2
    assert (found.first[0], found.second[0], found.gold[0]) == ("paper 0 costs £0", "paper 1 costs £1", 0.02)
    assert len(text_files(tmp_path / "out" / "train.txt")) == 300


MAIL = """From: a@b.c
Subject: =?utf-8?q?caf=C3=A9?= now
X-Spam-Status: Yes
Content-Type: {kind}

{body}
"""


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("text/plain", "buy\n  it", "café now buy it"),
        ("text/html", "<style>p {}</style><p>buy &amp; <b>sell</b></p>", "café now buy & sell"),
    ],
)
def test_a_mail_is_its_subject_and_words(kind: str, body: str, words: str) -> None:
    assert spam.words_of(MAIL.format(kind=kind, body=body)) == words


def test_the_same_mail_is_taken_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for group in spam.GROUPS:
        (tmp_path / group).mkdir()
        for i in range(4):
            body = "again" if i == 3 else f"mail {i} of {group}"
            (tmp_path / group / f"{i}.json").write_text(json.dumps({"text": MAIL.format(kind="text/plain", body=body)}))
    spam.main([str(tmp_path), str(tmp_path / "out")])
    assert "11 mails to train on, 5 to test; 6 of them all are spam" in capsys.readouterr().out
    train = text_files(tmp_path / "out" / "train.jsonl")
    assert train.class_names == ["ham", "spam"]
