"""Words for people: nothing harmful is sent, and nothing stops the work."""

import io
import os
import pty
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmsync.cli import terminal
from tests.workdir import Workdir


@given(st.text(st.characters(codec=None)))
def test_no_text_controls_the_terminal(text: str) -> None:
    shown = terminal.printable(text)
    assert not any(ord(letter) < 0x20 or 0x7F <= ord(letter) < 0xA0 for letter in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")
    shown.encode("utf-8")


def test_plain_text_stays_as_it_is() -> None:
    assert terminal.printable("Müller^Jörg 山田 \\ 'x'") == "Müller^Jörg 山田 \\ 'x'"


def test_a_closed_standard_error_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = terminal.Messages(verb="toy", as_json=False, quiet=False, verbose=False)
    closed = io.StringIO()
    closed.close()
    for stream in (closed, None):
        monkeypatch.setattr(sys, "stderr", stream)
        voice.error("gone")
    assert not terminal.is_terminal(closed)


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colour_can_be_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert terminal.has_colour(Terminal())
    assert not terminal.has_colour(io.StringIO())
    monkeypatch.setenv(name, value)
    assert not terminal.has_colour(Terminal())


def test_a_hidden_bar_imports_nothing_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    with terminal.Progress(shown=False) as bar:
        bar.total(10, True)
        bar.advance(1, 1000)


def test_the_bar_says_at_least_while_the_total_is_provisional(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    drawn = Terminal()
    monkeypatch.setattr(sys, "stderr", drawn)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    bar = terminal.Progress(shown=True)
    bar.total(None, True)
    bar.advance(1, 500_000)
    bar.total(10, True)
    bar.refresh()
    bar.total(2_000, False)
    bar.advance(1, 500_000)
    bar.refresh()
    terminal.Messages(verb="toy", as_json=False, quiet=False, verbose=False).say("in between")
    bar.close()
    bar.close()
    text = drawn.getvalue()
    assert "1 of at least 10 instances" in text
    assert "2 of 2,000 instances" in text
    assert "MB/s" in text
    assert "dcmsync toy: in between" in text


def test_records_on_the_same_terminal_are_not_written_into_the_bar(toy: Workdir) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*toy.program, "toy", "bar"], stdin=theirs, stdout=theirs, stderr=theirs,
        env={**toy.environment(), "TERM": "xterm", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(theirs)
    assert process.wait(10) == 0
    drawn = b""
    try:
        while octets := os.read(ours, 65536):
            drawn += octets
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    assert b"of 1 instances" in drawn
    assert b"\r\x1b[2Ka record\r\n" in drawn
    assert b"dcmsync toy: a word\r\n" in drawn
