"""What a long evaluation says on stderr."""

import importlib
import io

import pytest

from byol_jax.evaluate.progress import tracked

progress = importlib.import_module("byol_jax.evaluate.progress")


class Terminal(io.StringIO):
    def __init__(self, tty: bool) -> None:
        super().__init__()
        self.tty = tty

    def isatty(self) -> bool:
        return self.tty


def said(monkeypatch: pytest.MonkeyPatch, tty: bool, seconds: float) -> str:
    """The words over four steps of so many seconds each."""
    clock, out = iter(range(100)), Terminal(tty)
    monkeypatch.setattr(progress.sys, "stderr", out)
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds * next(clock))
    assert list(tracked("abcd", 4, "fit")) == list("abcd")
    return out.getvalue()


def test_a_terminal_shows_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = said(monkeypatch, True, 2.0).split("\r\x1b[2K")
    assert lines[1] == "fit: 0 of 4 steps, 0:00:08 left"
    assert lines[3] == "fit: 2 of 4 steps, 0:00:06 left"
    assert lines[-1] == "fit: 4 steps in 0:00:10\n"


def test_a_log_gets_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = said(monkeypatch, False, 40.0).splitlines()
    assert lines == ["fit: 1 of 4 steps, 0:04:00 left", "fit: 3 of 4 steps, 0:00:53 left", "fit: 4 steps in 0:03:20"]


def test_what_is_quick_is_not_talked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch, False, 1.0) == ""


def test_only_the_main_process_talks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.jax, "process_index", lambda: 1)
    assert said(monkeypatch, False, 1000.0) == ""
