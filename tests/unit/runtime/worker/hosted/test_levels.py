"""Levels of what a function prints as JSON."""

from __future__ import annotations

import json

from kflow.runtime.worker.hosted.levels import LevelFilter


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def test_objects_below_the_level_are_left_out() -> None:
    levels = LevelFilter("WARN")
    shown = [line(level=each, n=1) for each in ("warn", "WARNING", "Error", "FATAL", "CRITICAL")]
    hidden = [line(level=each, n=1) for each in ("trace", "DEBUG", "info")]

    assert levels.passed(b"".join(hidden + shown + hidden)) == b"".join(shown)


def test_an_object_without_a_level_is_of_info() -> None:
    for each in (line(message="x"), line(level=7), line(level="loud"), line(level=None)):
        assert LevelFilter("INFO").passed(each) == each
        assert LevelFilter("WARN").passed(each) == b""


def test_text_that_is_no_object_is_always_there() -> None:
    for text in (b"printed\n", b'["level", "debug"]\n', b"{not json\n", b'a {"level": "debug"}\n', b"\n"):
        assert LevelFilter("FATAL").passed(text) == text


def test_lines_may_come_in_pieces() -> None:
    text = b"begin" + line(level="debug") + line(level="debug") + b"x\n" + line(level="error") + b"end"
    expected = b"begin" + line(level="debug") + b"x\n" + line(level="error") + b"end"
    for size in range(1, len(text)):
        levels = LevelFilter("WARN")
        pieces = [levels.passed(text[at : at + size]) for at in range(0, len(text), size)]
        assert b"".join(pieces) + levels.end() == expected, size


def test_what_has_no_end_yet_is_given_when_nothing_more_comes() -> None:
    levels = LevelFilter("INFO")
    assert levels.passed(b'{"level": "error"}') == b""
    assert levels.end() == b'{"level": "error"}'
    assert levels.passed(b"\n" + line(level="debug")) == b"\n"
    assert levels.passed(b'{"level": "debug"}') == b""
    assert levels.end() == b""
    long = b'{"level": "debug", "x": "' + b"x" * (1 << 20)
    assert levels.passed(long) == long
