"""Filter patterns of CloudWatch Logs: what matches, and what is none."""

from __future__ import annotations

import json

import pytest

from kflow.monitoring.errors import InvalidParameter
from kflow.monitoring.filterpatterns import compiled

EVENT = json.dumps(
    {
        "level": "ERROR",
        "ms": 12.5,
        "user": {"id": "ann-1", "tags": ["a", "b"]},
        "ok": False,
        "none": None,
        "count": "7",
        "a b": 1,
    }
)
LINE = '127.0.0.1 frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534'


@pytest.mark.parametrize(
    ("pattern", "text", "is_match"),
    [
        ("", "anything", True),
        ("ERROR", "an ERROR came", True),
        ("ERROR", "an error came", False),
        ("ERROR 500", "500 then ERROR", True),
        ("ERROR 500", "ERROR", False),
        ('"status 500"', "status 500", True),
        ('"status 500"', "500 status", False),
        ("ERROR -debug", "ERROR", True),
        ("ERROR -debug", "ERROR debug", False),
        ("-debug", "ERROR", True),
        ('-"a b"', "a b", False),
        ("?ERROR ?WARN", "WARN", True),
        ("?ERROR ?WARN", "INFO", False),
        ("?ERROR 500", "500", True),
        ("%user-[0-9]+%", "user-42", True),
        ("%user-[0-9]+%", "user-x", False),
        (r'"say \"hi\""', 'say "hi"', True),
        ('{ $.level = "ERROR" }', EVENT, True),
        ('{ $.level = "WARN" }', EVENT, False),
        ("{ $.level = ERROR }", EVENT, True),
        ('{ $.level != "WARN" }', EVENT, True),
        ('{ $.level = "ERR*" }', EVENT, True),
        ("{ $.level = %ERR% }", EVENT, True),
        ("{ $.ms > 12 }", EVENT, True),
        ("{ $.ms >= 12.5 && $.ms < 13 }", EVENT, True),
        ("{ $.ms = 12.50 }", EVENT, True),
        ("{ $.count = 7 }", EVENT, True),
        ("{ $.count > 1e1 }", EVENT, False),
        ('{ $.user.id = "ann-*" }', EVENT, True),
        ('{ $.user.tags[1] = "b" }', EVENT, True),
        ('{ $.user.tags[*] = "b" }', EVENT, True),
        ('{ $.user.tags[2] = "b" }', EVENT, False),
        ("{ $['a b'] = 1 }", EVENT, True),
        ("{ $.ok IS FALSE }", EVENT, True),
        ("{ $.ok IS TRUE }", EVENT, False),
        ("{ $.none IS NULL }", EVENT, True),
        ("{ $.missing NOT EXISTS }", EVENT, True),
        ("{ $.level NOT EXISTS }", EVENT, False),
        ('{ $.level = "WARN" || ($.ms > 1 && $.ok IS FALSE) }', EVENT, True),
        ('{ $.level = "WARN" || $.ms > 1 && $.ok IS TRUE }', EVENT, False),
        ('{ $.level = "ERROR" }', "no JSON", False),
        ('{ $.level = "ERROR" }', "{ broken", False),
        ("[ip, user, time, request, status, bytes]", LINE, True),
        ("[ip, user]", LINE, False),
        ("[ip, ..., bytes]", LINE, True),
        ("[..., status = 4*, bytes]", LINE, True),
        ("[..., status = 5*, bytes]", LINE, False),
        ("[ip, user, time, request = *html*, status = 404 || status = 500, bytes > 1000]", LINE, True),
        ("[ip, user != frank, ...]", LINE, False),
        ("[ip = %127%, ...]", LINE, True),
        ('[ip, user, time, request, status = "404" && status != 500, bytes]', LINE, True),
    ],
)
def test_what_matches(pattern: str, text: str, is_match: bool) -> None:
    matches = compiled(pattern)
    assert (matches is None or matches(text)) is is_match


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("a-b", "Invalid character(s) in term 'a-b'"),
        ('"open', "unbalanced quotes"),
        ("{ $.a = 1", "ends with }"),
        ("{ $.a }", "ends too soon"),
        ("{ $.a = }", "ends too soon"),
        ("{ a = 1 }", "no selector"),
        ("{ ($.a = 1 }", "not closed"),
        ("{ $.a = 1 $.b = 2 }", "nothing belongs before '$.b'"),
        ("{ $.a > x }", "compares numbers only"),
        ("{ $.a IS MAYBE }", "IS MAYBE is no test"),
        ("{ $.a = & }", "cannot be read"),
        ("{ " + "(" * 60 + "$.a = 1" + ")" * 60 + " }", "too deep"),
        ("%(a+)+%", "no groups"),
        ("%[%", "no regular expression"),
        ("[a, b", "ends with ]"),
        ("[..., a, ...]", "only one ..."),
        ("[a = ]", "no condition"),
        ("[a = 1 b]", "cannot be read at 'b'"),
    ],
)
def test_what_is_no_pattern(pattern: str, why: str) -> None:
    with pytest.raises(InvalidParameter, match="Invalid filter pattern: ") as caught:
        compiled(pattern)
    assert why in str(caught.value)
