"""Lines, tables, colours, questions, and how numbers are written."""

from __future__ import annotations

import errno
import io

import pytest

from kflow.cli.terminal import Terminal, count, size, span
from kflow.errors import UsageError


class Tty(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_table_is_aligned_and_bears_no_trailing_spaces() -> None:
    out = io.StringIO()
    Terminal(out, io.StringIO(), environ={}).table([("name", "n"), ("a", 1), ("longer", 1000)], right=(1,))
    assert out.getvalue() == "name       n\na          1\nlonger  1000\n"


def test_colour_is_for_terminals_only() -> None:
    assert Terminal(io.StringIO(), io.StringIO(), environ={}).paint("x", "red") == "x"
    assert Terminal(Tty(), Tty(), environ={}).paint("x", "red") == "\x1b[31mx\x1b[0m"


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_color_and_dumb_terminals_are_respected(environ: dict) -> None:
    assert Terminal(Tty(), Tty(), environ=environ).paint("x", "red") == "x"


def test_the_status_line_stays_below_the_lines() -> None:
    screen = Tty()
    terminal = Terminal(screen, screen, environ={})
    terminal.status("half")
    terminal.line("one")
    terminal.status("")
    assert screen.getvalue() == "\r\x1b[Khalf\r\x1b[Kone\nhalf\r\x1b[K"


def test_without_a_terminal_there_is_no_status_line() -> None:
    err = io.StringIO()
    Terminal(io.StringIO(), err, environ={}).status("half")
    assert err.getvalue() == ""


class Gone(io.StringIO):
    """A pipe whose reader has gone."""

    def flush(self) -> None:
        raise BrokenPipeError


def test_a_reader_that_went_away_is_an_error_or_calls_back_once() -> None:
    terminal = Terminal(Gone(), io.StringIO(), environ={})
    with pytest.raises(BrokenPipeError):
        terminal.line("one")
    calls = []
    terminal.on_broken = lambda: calls.append(1)
    terminal.line("two")
    terminal.line("three")
    assert calls == [1]


class Full(io.StringIO):
    """A file on a disk that is full."""

    room = False

    def write(self, text: str) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


def test_a_disk_without_room_for_lines_does_not_end_what_goes_on() -> None:
    out, err = Full(), io.StringIO()
    terminal = Terminal(out, err, environ={})
    with pytest.raises(OSError, match="No space left"):
        terminal.line("zero")
    terminal.on_broken = lambda: None
    terminal.line("one")
    terminal.line("two")
    assert err.getvalue() == ""
    out.room = True
    terminal.line("three")
    assert out.getvalue() == "three\n"
    assert err.getvalue() == "2 lines of output could not be written: the disk was full\n"
    terminal.line("four")
    assert err.getvalue().count("\n") == 1


@pytest.mark.parametrize(("answer", "agreed"), [("y\n", True), ("YES\n", True), ("\n", False), ("n\n", False)])
def test_a_question_is_asked_and_only_yes_agrees(answer: str, agreed: bool) -> None:
    err = io.StringIO()
    assert Terminal(io.StringIO(), err, stdin=Tty(answer), environ={}).confirm("Sure?", yes=False) is agreed
    assert err.getvalue() == "Sure? [y/N] "


def test_with_yes_nothing_is_asked() -> None:
    err = io.StringIO()
    assert Terminal(io.StringIO(), err, stdin=io.StringIO(), environ={}).confirm("Sure?", yes=True)
    assert err.getvalue() == ""


def test_without_a_terminal_nobody_is_asked() -> None:
    with pytest.raises(UsageError, match="Sure\\? Say so with --yes: there is no terminal to ask at"):
        Terminal(io.StringIO(), io.StringIO(), stdin=io.StringIO(), environ={}).confirm("Sure?", yes=False)


@pytest.mark.parametrize(("number", "text"), [(0, "0 records"), (1, "1 record"), (27004, "27,004 records")])
def test_count(number: int, text: str) -> None:
    assert count(number, "record") == text


@pytest.mark.parametrize(
    ("number", "text"), [(812, "812 B"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (3 << 40, "3.0 TiB")]
)
def test_size(number: int, text: str) -> None:
    assert size(number) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0.34, "0.3 ms"),
        (12_000, "12.0 s"),
        (180_000, "3 min"),
        (7_500_000, "2 h 5 min"),
        (200_000_000, "2 d 7 h"),
    ],
)
def test_span(milliseconds: float, text: str) -> None:
    assert span(milliseconds) == text
