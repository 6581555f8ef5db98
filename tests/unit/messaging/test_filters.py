"""Filter policies of subscriptions: which messages pass."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kflow.messaging.errors import InvalidParameter
from kflow.messaging.filters import ON_ATTRIBUTES, ON_BODY, compile_policy
from kflow.messaging.messages import Attribute, Message
from kflow.messaging.topics import Topic

TOPIC = Topic(arn="arn:aws:sns:us-east-1:123456789012:t")
BLUE, NUMBER = Attribute("String", "blue"), Attribute("Number", "12.50")


def passes(policy: Any, scope: str = ON_ATTRIBUTES, text: str = "x", **attributes: Attribute) -> bool:
    return compile_policy(json.dumps(policy), scope)(Message(TOPIC, text=text, attributes=attributes))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, True),
        ({"colour": ["blue"]}, True),
        ({"colour": ["red", "blue"]}, True),
        ({"colour": ["Blue"]}, False),
        ({"colour": [{"prefix": "bl"}]}, True),
        ({"colour": [{"suffix": "ue"}]}, True),
        ({"colour": [{"equals-ignore-case": "BLUE"}]}, True),
        ({"colour": [{"anything-but": ["red"]}]}, True),
        ({"colour": [{"anything-but": {"prefix": "bl"}}]}, False),
        ({"colour": [{"wildcard": "b*e"}]}, True),
        ({"colour": [{"exists": True}]}, True),
        ({"other": [{"exists": False}]}, True),
        ({"other": ["blue"]}, False),
        ({"number": [12.5]}, True),
        ({"number": ["12.50"]}, False),
        ({"number": [{"numeric": [">", 12, "<=", 12.5]}]}, True),
        ({"number": [{"numeric": ["<", 12]}]}, False),
        ({"colour": ["blue"], "number": [1]}, False),
        ({"$or": [{"colour": ["red"]}, {"number": [12.5]}]}, True),
        ({"list": ["b"]}, True),
        ({"list": [3]}, True),
        ({"list": [None]}, True),
        ({"list": ["c"]}, False),
        ({"address": [{"cidr": "10.0.0.0/24"}]}, True),
        ({"bytes": [{"exists": True}]}, False),
        ({"a.b": ["dots"]}, True),
    ],
)
def test_a_policy_on_attributes_sees_texts_numbers_and_lists(policy: Any, expected: bool) -> None:
    attributes = {
        "colour": BLUE,
        "number": NUMBER,
        "list": Attribute("String.Array", '["a", "b", 3, null]'),
        "address": Attribute("String", "10.0.0.7"),
        "bytes": Attribute("Binary", b"blue"),
        "a.b": Attribute("String", "dots"),
    }
    assert passes(policy, **attributes) is expected


@pytest.mark.parametrize(
    ("policy", "text", "expected"),
    [
        ({"a": {"b": ["c"]}}, '{"a": {"b": "c"}}', True),
        ({"a": {"b": ["c"]}}, '{"a": [{"b": "x"}, {"b": "c"}]}', True),
        ({"a": {"b": [{"numeric": ["=", 1]}]}}, '{"a": {"b": 1.0}}', True),
        ({"a": {"b": ["c"]}}, "no JSON", False),
        ({"a": ["b"]}, '["a"]', False),
        ({"a": [{"exists": False}]}, '{"b": 1}', True),
        ({"a": ["b"]}, "[" * 900 + "]" * 900, False),
        ({"a": ["b"]}, '{"a": ' + "[" * 900 + '"b"' + "]" * 900 + "}", True),
    ],
)
def test_a_policy_on_the_body_sees_its_fields(policy: Any, text: str, expected: bool) -> None:
    assert passes(policy, ON_BODY, text) is expected


@pytest.mark.parametrize(
    ("text", "scope", "reason"),
    [
        ("[]", ON_BODY, "Filter policy must be an object"),
        ('{"a": []}', ON_BODY, "a: empty arrays are not allowed"),
        ('{"$or": [{"a": {"b": ["c"]}}, {"d": ["e"]}]}', ON_ATTRIBUTES, "does not support nested filter policy"),
        (json.dumps({"a": {"b": ["x"] * 76}}), ON_BODY, "Filter policy is too complex"),
        ("[" * 100_000, ON_BODY, "failed to parse JSON"),
        ('{"$or":[{"a":["b"]},' * 900 + '{"a":["b"]}' + "]}" * 900, ON_BODY, r"deeply|depth"),
        ('{"$or":[{"a":["b"]},' * 450 + '{"a":["b"]}' + "]}" * 450, ON_BODY, r"deeply|depth|too complex"),
        ('{"a":' * 900 + '["b"]' + "}" * 900, ON_BODY, "deep"),
    ],
)
def test_what_is_no_policy_is_refused(text: str, scope: str, reason: str) -> None:
    with pytest.raises(InvalidParameter, match=reason) as caught:
        compile_policy(text, scope)
    assert str(caught.value).startswith("Invalid parameter: FilterPolicy: ")
