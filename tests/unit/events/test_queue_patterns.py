"""Filters of messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kflow.events.patterns import PatternError
from kflow.events.queue_patterns import compile_message_filters


def passes(pattern: dict[str, Any], body: str, **fields: Any) -> bool:
    record = {"messageId": "m", "body": body, "attributes": {}, "messageAttributes": {}, **fields}
    return compile_message_filters([json.dumps(pattern)]).passes(record)


@pytest.mark.parametrize(
    ("pattern", "body", "expected"),
    [
        # recorded and documented: text matches text, JSON matches JSON, and neither the other
        ({"body": ["text"]}, "text", True),
        ({"body": ["text"]}, "other", False),
        ({"body": [{"prefix": "te"}]}, "text", True),
        ({"body": {"a": [1]}}, '{"a": 1}', True),
        ({"body": {"a": [1]}}, '{"a": 2}', False),
        ({"body": {"a": [1]}}, "text", False),
        ({"body": {"a": [{"exists": False}]}}, "text", False),
        ({"body": {"a": [{"exists": False}]}}, "{}", True),
        ({"body": [{"anything-but": "x"}]}, '{"a": 1}', False),
        ({"body": {"a": {"b": [{"numeric": [">=", 100, "<", 200]}]}}}, '{"a": {"b": 150}}', True),
        # chosen: scalars are text
        ({"body": ["12"]}, "12", True),
        ({"body": [12]}, "12", False),
        # only other fields: the body may be anything
        ({"attributes": {"SenderId": ["me"]}}, "text", True),
        ({"attributes": {"SenderId": ["me"]}}, "{}", True),
        ({"attributes": {"SenderId": ["you"]}}, "{}", False),
        ({"attributes": {"SenderId": ["me"]}, "body": ["text"]}, "text", True),
        ({"messageAttributes": {"kind": {"stringValue": ["a"]}}}, "text", True),
        ({"$or": [{"body": ["text"]}, {"body": {"a": [1]}}]}, '{"a": 1}', True),
        ({"$or": [{"body": ["text"]}, {"body": {"a": [1]}}]}, "text", True),
    ],
)
def test_a_pattern_and_a_body(pattern, body, expected):
    found = passes(pattern, body, attributes={"SenderId": "me"}, messageAttributes={"kind": {"stringValue": "a"}})
    assert found is expected


def test_any_filter_is_enough():
    filters = compile_message_filters(['{"body": ["a"]}', '{"body": {"n": [1]}}'])
    assert [filters.passes({"body": body}) for body in ("a", "b", '{"n": 1}', '{"n": 2}')] == [True, False, True, False]


@pytest.mark.parametrize("text", ["null", '"text"', '{"body": "text"}', '{"body": []}', "{", "{}"])
def test_what_is_no_pattern_is_refused(text):
    with pytest.raises(PatternError):
        compile_message_filters([text])


def test_a_field_that_no_message_has_is_warned_of():
    (warning,) = compile_message_filters(['{"data": {"a": ["x"]}}']).warnings
    assert warning == (
        "filters[0]: data.a: a message has no field data: fields of a body that is JSON stand below body: "
        '{"body": {"data": ...}}'
    )
