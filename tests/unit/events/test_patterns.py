"""The grammar of filter patterns as a table: each row is a rule, a pattern, an event, and whether it passes."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kflow.errors import UsageError
from kflow.events import wildcards
from kflow.events.patterns import PatternError, compile_filters

NO_METADATA = {}

STATE = {"state": "running"}

# (rule, pattern for `data`, event, passes)
TABLE: list[tuple[str, Any, Any, bool]] = [
    # equals
    ("a string equals itself", {"a": ["x"]}, {"a": "x"}, True),
    ("a string is case-sensitive", {"a": ["x"]}, {"a": "X"}, False),
    ("a string is not normalised", {"a": ["\u00e9"]}, {"a": "e\u0301"}, False),
    ("a string is not a part", {"a": ["x"]}, {"a": "xx"}, False),
    ("any of several strings", {"a": ["x", "y"]}, {"a": "y"}, True),
    ("none of several strings", {"a": ["x", "y"]}, {"a": "z"}, False),
    ("a digit's text is not its number", {"a": ["1"]}, {"a": 1}, False),
    ("a number is not its text", {"a": [1]}, {"a": "1"}, False),
    ("true is true", {"a": [True]}, {"a": True}, True),
    ("true is not its text", {"a": [True]}, {"a": "true"}, False),
    ("true is not false", {"a": [True]}, {"a": False}, False),
    ("false is false", {"a": [False]}, {"a": False}, True),
    ("true is not one", {"a": [True]}, {"a": 1}, False),
    ("one is not true", {"a": [1]}, {"a": True}, False),
    ("zero is not false", {"a": [0]}, {"a": False}, False),
    ("a string does not match an object", {"a": ["x"]}, {"a": {"x": 1}}, False),
    # null
    ("null matches an explicit null", {"a": [None]}, {"a": None}, True),
    ("null does not match a missing field", {"a": [None]}, {}, False),
    ("null does not match its text", {"a": [None]}, {"a": "null"}, False),
    ("null does not match an empty array", {"a": [None]}, {"a": []}, False),
    ("null does not match an empty string", {"a": [None]}, {"a": ""}, False),
    ("null does not match false", {"a": [None]}, {"a": False}, False),
    ("null in an array", {"a": [None]}, {"a": [None]}, True),
    # empty
    ("empty matches the empty string", {"a": [""]}, {"a": ""}, True),
    ("empty does not match another string", {"a": [""]}, {"a": " "}, False),
    ("empty does not match null", {"a": [""]}, {"a": None}, False),
    ("empty does not match a missing field", {"a": [""]}, {}, False),
    # number literal
    ("a number equals by value: integer pattern", {"a": [300]}, {"a": 300.0}, True),
    ("a number equals by value: float pattern", {"a": [300.0]}, {"a": 300}, True),
    ("a number equals by value: exponent", {"a": [300]}, b'{"a": 3e2}', True),
    ("a number equals by value: minus zero", {"a": [0]}, b'{"a": -0.0}', True),
    ("another number", {"a": [300]}, {"a": 300.1}, False),
    ("a number is an IEEE double", {"a": [9007199254740993]}, {"a": 9007199254740992}, True),
    ("a number beyond a double's range", {"a": [1]}, b'{"a": 1e400}', False),
    ("an integer beyond a double's range", {"a": [1]}, b'{"a": ' + b"9" * 5_000 + b"}", False),
    # numeric
    ("numeric =", {"a": [{"numeric": ["=", 5]}]}, {"a": 5.0}, True),
    ("numeric = of another", {"a": [{"numeric": ["=", 5]}]}, {"a": 6}, False),
    ("numeric < below", {"a": [{"numeric": ["<", 5]}]}, {"a": 4.99}, True),
    ("numeric < the bound", {"a": [{"numeric": ["<", 5]}]}, {"a": 5}, False),
    ("numeric <= the bound", {"a": [{"numeric": ["<=", 5]}]}, {"a": 5}, True),
    ("numeric > the bound", {"a": [{"numeric": [">", 5]}]}, {"a": 5}, False),
    ("numeric > above", {"a": [{"numeric": [">", 5]}]}, {"a": 5.01}, True),
    ("numeric > beyond a double's range", {"a": [{"numeric": [">", 5]}]}, b'{"a": 1e400}', True),
    ("numeric < beyond a double's range", {"a": [{"numeric": ["<", 5]}]}, b'{"a": -1e400}', True),
    ("numeric >= the bound", {"a": [{"numeric": [">=", 5]}]}, {"a": 5}, True),
    ("numeric of a negative", {"a": [{"numeric": ["<", 0]}]}, {"a": -1}, True),
    ("a range, inside", {"a": [{"numeric": [">=", 100, "<", 200]}]}, {"a": 100}, True),
    ("a range, its open end", {"a": [{"numeric": [">=", 100, "<", 200]}]}, {"a": 200}, False),
    ("a range, its open beginning", {"a": [{"numeric": [">", 100, "<=", 200]}]}, {"a": 100}, False),
    ("a range, its closed end", {"a": [{"numeric": [">", 100, "<=", 200]}]}, {"a": 200}, True),
    ("a range, outside", {"a": [{"numeric": [">=", 100, "<", 200]}]}, {"a": 99.9}, False),
    ("numeric on a numeric string: no match, no error", {"a": [{"numeric": ["=", 5]}]}, {"a": "5"}, False),
    ("numeric on null: no match, no error", {"a": [{"numeric": ["<", 5]}]}, {"a": None}, False),
    ("numeric on true: no match", {"a": [{"numeric": ["=", 1]}]}, {"a": True}, False),
    ("numeric or anything-but: one", {"a": [{"numeric": [">", 5]}, {"anything-but": [1]}]}, {"a": 3}, True),
    ("numeric or anything-but: neither", {"a": [{"numeric": [">", 5]}, {"anything-but": [1]}]}, {"a": 1}, False),
    # exists
    ("exists: a scalar", {"a": [{"exists": True}]}, {"a": "x"}, True),
    ("exists: zero", {"a": [{"exists": True}]}, {"a": 0}, True),
    ("exists: false itself", {"a": [{"exists": True}]}, {"a": False}, True),
    ("exists: null", {"a": [{"exists": True}]}, {"a": None}, True),
    ("exists: an array's element", {"a": [{"exists": True}]}, {"a": [1]}, True),
    ("exists: an empty array does not count", {"a": [{"exists": True}]}, {"a": []}, False),
    ("exists: an array in an array, empty", {"a": [{"exists": True}]}, {"a": [[]]}, False),
    ("exists: an object does not count", {"a": [{"exists": True}]}, {"a": {"b": 1}}, False),
    ("exists: an array of objects does not count", {"a": [{"exists": True}]}, {"a": [{"b": 1}]}, False),
    ("exists: missing", {"a": [{"exists": True}]}, {"b": 1}, False),
    ("exists: in a missing parent", {"a": {"b": [{"exists": True}]}}, {"c": 1}, False),
    ("not exists: missing", {"a": [{"exists": False}]}, {"b": 1}, True),
    ("not exists: there", {"a": [{"exists": False}]}, {"a": 1}, False),
    ("not exists: null is there", {"a": [{"exists": False}]}, {"a": None}, False),
    ("not exists: in a missing parent", {"a": {"b": [{"exists": False}]}}, {"c": 1}, True),
    ("not exists: in a parent that is a scalar", {"a": {"b": [{"exists": False}]}}, {"a": 1}, True),
    ("not exists: in a parent without it", {"a": {"b": [{"exists": False}]}}, {"a": {"c": 1}}, True),
    ("not exists: an object at the path", {"a": [{"exists": False}]}, {"a": {"b": 1}}, True),
    ("not exists: an empty array at the path", {"a": [{"exists": False}]}, {"a": []}, True),
    ("not exists: an element at the path", {"a": [{"exists": False}]}, {"a": [1]}, False),
    ("not exists: in no object of an array", {"a": {"b": [{"exists": False}]}}, {"a": [{"c": 1}, {"c": 2}]}, True),
    ("not exists: in one object of an array", {"a": {"b": [{"exists": False}]}}, {"a": [{"c": 1}, {"b": 2}]}, False),
    ("not exists: beside a field of the same element",
     {"a": {"b": [{"exists": False}], "c": [1]}}, {"a": [{"b": 1}, {"c": 1}]}, True),
    ("not exists: with the field in the same element",
     {"a": {"b": [{"exists": False}], "c": [1]}}, {"a": [{"b": 1, "c": 1}]}, False),
    ("not exists, or a value: missing", {"a": [{"exists": False}, "x"]}, {}, True),
    ("not exists, or a value: the value", {"a": [{"exists": False}, "x"]}, {"a": "x"}, True),
    ("not exists, or a value: another", {"a": [{"exists": False}, "x"]}, {"a": "y"}, False),
    ("not exists: and another field there", {"a": [{"exists": False}], "b": [1]}, {"b": 1}, True),
    ("not exists: and another field not there", {"a": [{"exists": False}], "b": [1]}, {"c": 1}, False),
    # anything-but
    ("anything-but: another", {"a": [{"anything-but": "x"}]}, {"a": "y"}, True),
    ("anything-but: that", {"a": [{"anything-but": "x"}]}, {"a": "x"}, False),
    ("anything-but: of a list", {"a": [{"anything-but": ["x", "y"]}]}, {"a": "y"}, False),
    ("anything-but: not of a list", {"a": [{"anything-but": ["x", "y"]}]}, {"a": "z"}, True),
    ("anything-but: missing", {"a": [{"anything-but": "x"}]}, {}, False),
    ("anything-but: an object is no leaf", {"a": [{"anything-but": "x"}]}, {"a": {"b": 1}}, False),
    ("anything-but: an empty array is no leaf", {"a": [{"anything-but": "x"}]}, {"a": []}, False),
    ("anything-but: null is different", {"a": [{"anything-but": "x"}]}, {"a": None}, True),
    ("anything-but: a number is different", {"a": [{"anything-but": ["x"]}]}, {"a": 5}, True),
    ("anything-but: true is different", {"a": [{"anything-but": "true"}]}, {"a": True}, True),
    ("anything-but: that number", {"a": [{"anything-but": 5}]}, {"a": 5.0}, False),
    ("anything-but: another number", {"a": [{"anything-but": [5, 6]}]}, {"a": 7}, True),
    ("anything-but: zero", {"a": [{"anything-but": 0}]}, {"a": 0}, False),
    ("anything-but: the number as text is different", {"a": [{"anything-but": 5}]}, {"a": "5"}, True),
    ("anything-but zero: false is different", {"a": [{"anything-but": 0}]}, {"a": False}, True),
    ("anything-but: one element is different", {"a": [{"anything-but": "x"}]}, {"a": ["x", "y"]}, True),
    ("anything-but: no element is different", {"a": [{"anything-but": "x"}]}, {"a": ["x"]}, False),
    ("anything-but prefix: with it", {"a": [{"anything-but": {"prefix": "in"}}]}, {"a": "init"}, False),
    ("anything-but prefix: without", {"a": [{"anything-but": {"prefix": "in"}}]}, {"a": "on"}, True),
    ("anything-but prefix: of a list", {"a": [{"anything-but": {"prefix": ["in", "un"]}}]}, {"a": "undo"}, False),
    ("anything-but prefix: a number is different", {"a": [{"anything-but": {"prefix": "1"}}]}, {"a": 123}, True),
    ("anything-but prefix: null is different", {"a": [{"anything-but": {"prefix": "n"}}]}, {"a": None}, True),
    ("anything-but prefix: missing", {"a": [{"anything-but": {"prefix": "in"}}]}, {}, False),
    ("anything-but suffix: with it", {"a": [{"anything-but": {"suffix": ".txt"}}]}, {"a": "a.txt"}, False),
    ("anything-but suffix: without", {"a": [{"anything-but": {"suffix": [".txt", ".rtf"]}}]}, {"a": "a.png"}, True),
    ("anything-but suffix: missing", {"a": [{"anything-but": {"suffix": ".txt"}}]}, {}, False),
    ("anything-but ignoring case: that", {"a": [{"anything-but": {"equals-ignore-case": "On"}}]}, {"a": "oN"}, False),
    ("anything-but ignoring case: another",
     {"a": [{"anything-but": {"equals-ignore-case": ["on", "off"]}}]}, {"a": "of"}, True),
    ("anything-but ignoring case: null", {"a": [{"anything-but": {"equals-ignore-case": "null"}}]}, {"a": None}, True),
    ("anything-but wildcard: matched", {"a": [{"anything-but": {"wildcard": "*/lib/*"}}]}, {"a": "/u/lib/x"}, False),
    ("anything-but wildcard: not matched",
     {"a": [{"anything-but": {"wildcard": ["*/lib/*", "*.c"]}}]}, {"a": "x"}, True),
    ("anything-but wildcard: of a list",
     {"a": [{"anything-but": {"wildcard": ["*/lib/*", "*.c"]}}]}, {"a": "x.c"}, False),
    ("anything-but wildcard: empty excludes the empty string",
     {"a": [{"anything-but": {"wildcard": ""}}]}, {"a": ""}, False),
    ("anything-but wildcard: a number", {"a": [{"anything-but": {"wildcard": "1*"}}]}, {"a": 123}, True),
    # prefix, suffix, equals-ignore-case
    ("prefix", {"a": [{"prefix": "ab"}]}, {"a": "abc"}, True),
    ("prefix: the whole", {"a": [{"prefix": "abc"}]}, {"a": "abc"}, True),
    ("prefix: not at the beginning", {"a": [{"prefix": "bc"}]}, {"a": "abc"}, False),
    ("prefix: case", {"a": [{"prefix": "AB"}]}, {"a": "abc"}, False),
    ("prefix: of a number", {"a": [{"prefix": "1"}]}, {"a": 12}, False),
    ("prefix: of null", {"a": [{"prefix": "n"}]}, {"a": None}, False),
    ("an empty prefix matches every string", {"a": [{"prefix": ""}]}, {"a": "x"}, True),
    ("an empty prefix matches the empty string", {"a": [{"prefix": ""}]}, {"a": ""}, True),
    ("an empty prefix matches no number", {"a": [{"prefix": ""}]}, {"a": 1}, False),
    ("prefix ignoring case", {"a": [{"prefix": {"equals-ignore-case": "AB"}}]}, {"a": "aBc"}, True),
    ("prefix ignoring case: another", {"a": [{"prefix": {"equals-ignore-case": "AB"}}]}, {"a": "bc"}, False),
    ("suffix", {"a": [{"suffix": ".png"}]}, {"a": "x.png"}, True),
    ("suffix: not at the end", {"a": [{"suffix": ".png"}]}, {"a": "x.png.txt"}, False),
    ("an empty suffix matches every string", {"a": [{"suffix": ""}]}, {"a": "x"}, True),
    ("suffix ignoring case", {"a": [{"suffix": {"equals-ignore-case": ".PNG"}}]}, {"a": "x.pnG"}, True),
    ("suffix ignoring case: another", {"a": [{"suffix": {"equals-ignore-case": ".PNG"}}]}, {"a": "x.pn"}, False),
    ("ignoring case", {"a": [{"equals-ignore-case": "aLPHa"}]}, {"a": "AlphA"}, True),
    ("ignoring case: beyond ASCII", {"a": [{"equals-ignore-case": "ÄRGER"}]}, {"a": "ärger"}, True),
    ("ignoring case: another", {"a": [{"equals-ignore-case": "alpha"}]}, {"a": "beta"}, False),
    ("ignoring case, empty: the empty string", {"a": [{"equals-ignore-case": ""}]}, {"a": ""}, True),
    ("ignoring case, empty: nothing else", {"a": [{"equals-ignore-case": ""}]}, {"a": "x"}, False),
    # wildcard
    ("wildcard: in the middle", {"a": [{"wildcard": "dir/*.png"}]}, {"a": "dir/x.png"}, True),
    ("wildcard: zero characters", {"a": [{"wildcard": "dir/*.png"}]}, {"a": "dir/.png"}, True),
    ("wildcard: at the ends", {"a": [{"wildcard": "*b*"}]}, {"a": "abc"}, True),
    ("wildcard: alone", {"a": [{"wildcard": "*"}]}, {"a": ""}, True),
    ("wildcard: none", {"a": [{"wildcard": "abc"}]}, {"a": "abc"}, True),
    ("wildcard: empty matches the empty string", {"a": [{"wildcard": ""}]}, {"a": ""}, True),
    ("wildcard: empty matches nothing else", {"a": [{"wildcard": ""}]}, {"a": "x"}, False),
    ("wildcard: case", {"a": [{"wildcard": "A*"}]}, {"a": "abc"}, False),
    ("wildcard: the parts do not overlap", {"a": [{"wildcard": "ab*ba"}]}, {"a": "aba"}, False),
    ("wildcard: parts in order", {"a": [{"wildcard": "*b*a*"}]}, {"a": "ab"}, False),
    ("wildcard: repeating text",
     {"a": [{"wildcard": "/Users/*/dir/dir/dir/dir/dir/doc.txt"}]},
     {"a": "/Users/me/dir/dir/dir/dir/dir/dir/doc.txt"}, True),
    ("wildcard: an escaped star", {"a": [{"wildcard": "a\\*b"}]}, {"a": "a*b"}, True),
    ("wildcard: an escaped star is no wildcard", {"a": [{"wildcard": "a\\*b"}]}, {"a": "axb"}, False),
    ("wildcard: an escaped backslash", {"a": [{"wildcard": "a\\\\*"}]}, {"a": "a\\x"}, True),
    ("wildcard: a line break is a character", {"a": [{"wildcard": "a*b"}]}, {"a": "a\nb"}, True),
    ("wildcard: a number is no string", {"a": [{"wildcard": "*"}]}, {"a": 1}, False),
    # cidr
    ("cidr: inside", {"a": [{"cidr": "10.0.0.0/24"}]}, {"a": "10.0.0.255"}, True),
    ("cidr: outside", {"a": [{"cidr": "10.0.0.0/24"}]}, {"a": "10.0.1.0"}, False),
    ("cidr: no address", {"a": [{"cidr": "10.0.0.0/24"}]}, {"a": "10.0.0"}, False),
    ("cidr: a number", {"a": [{"cidr": "10.0.0.0/24"}]}, {"a": 10}, False),
    ("cidr: version 6 inside", {"a": [{"cidr": "2001:db8::/32"}]}, {"a": "2001:db8:1::5"}, True),
    ("cidr: version 6 outside", {"a": [{"cidr": "2001:db8::/32"}]}, {"a": "2001:db9::"}, False),
    ("cidr: of the other version", {"a": [{"cidr": "0.0.0.0/1"}]}, {"a": "::1"}, False),
    # and, or, fields
    ("every field must match: both", {"a": [1], "b": [2]}, {"a": 1, "b": 2}, True),
    ("every field must match: one", {"a": [1], "b": [2]}, {"a": 1, "b": 3}, False),
    ("fields that are not named are ignored", {"a": [1]}, {"a": 1, "z": {"y": [1]}}, True),
    ("a missing field", {"a": [1]}, {"b": 1}, False),
    ("nested", {"a": {"b": {"c": [1]}}}, {"a": {"b": {"c": 1}}}, True),
    ("nested, another", {"a": {"b": {"c": [1]}}}, {"a": {"b": {"d": 1}}}, False),
    ("nested in a scalar", {"a": {"b": [1]}}, {"a": 1}, False),
    ("keys are case-sensitive", {"a": [1]}, {"A": 1}, False),
    ("an empty key", {"": [1]}, {"": 1}, True),
    ("JSON in a string is not parsed", {"a": {"k": [1]}}, {"a": '{"k":1}'}, False),
    ("an operator's name may be a field", {"prefix": ["x"]}, {"prefix": "x"}, True),
    ("an operator's name may be a field below another", {"a": {"exists": [True]}}, {"a": {"exists": True}}, True),
    # $or
    ("or: the first", {"$or": [{"a": [1]}, {"b": [2]}]}, {"a": 1}, True),
    ("or: the second", {"$or": [{"a": [1]}, {"b": [2]}]}, {"b": 2}, True),
    ("or: neither", {"$or": [{"a": [1]}, {"b": [2]}]}, {"a": 2, "b": 1}, False),
    ("or, and a field", {"c": [3], "$or": [{"a": [1]}, {"b": [2]}]}, {"b": 2, "c": 3}, True),
    ("or, and a field that is not so", {"c": [3], "$or": [{"a": [1]}, {"b": [2]}]}, {"b": 2}, False),
    ("or below a field", {"x": {"$or": [{"a": [1]}, {"b": [2]}]}}, {"x": {"b": 2}}, True),
    ("or in an or", {"$or": [{"a": [1]}, {"$or": [{"b": [2]}, {"c": [3]}]}]}, {"c": 3}, True),
    ("or with several fields in a branch: all", {"$or": [{"a": [1], "b": [2]}, {"c": [3]}]}, {"a": 1, "b": 2}, True),
    ("or with several fields in a branch: one", {"$or": [{"a": [1], "b": [2]}, {"c": [3]}]}, {"a": 1}, False),
    ("or: not exists", {"$or": [{"a": [{"exists": False}]}, {"b": [2]}]}, {"c": 1}, True),
    ("or: not exists in a missing parent", {"$or": [{"a": {"b": [{"exists": False}]}}, {"c": [2]}]}, {}, True),
    ("or within one element of an array",
     {"a": {"x": [1]}, "$or": [{"a": {"y": [2]}}, {"b": [3]}]}, {"a": [{"x": 1}, {"y": 2}]}, False),
    ("$or with operators is a field", {"$or": [{"prefix": "x"}, {"exists": False}]}, {"$or": "xy"}, True),
    ("$or with values is a field", {"$or": ["x"]}, {"$or": "x"}, True),
    ("$or with an object is a field", {"$or": {"a": [1]}}, {"$or": {"a": 1}}, True),
    # arrays in the event
    ("any element may match", {"a": ["x"]}, {"a": ["y", "x"]}, True),
    ("no element matches", {"a": ["x"]}, {"a": ["y", "z"]}, False),
    ("an empty array matches nothing", {"a": ["x"]}, {"a": []}, False),
    ("arrays in arrays are flattened", {"a": ["x"]}, {"a": [["y"], ["z", ["x"]]]}, True),
    ("elements of several types", {"a": [1]}, {"a": ["1", {"b": 1}, 1]}, True),
    ("a field of an object in an array", {"a": {"b": [1]}}, {"a": [{"b": 2}, {"b": 1}]}, True),
    ("fields of one object in an array", {"a": {"b": [1], "c": [2]}}, {"a": [{"b": 1, "c": 2}]}, True),
    ("fields of two objects in an array", {"a": {"b": [1], "c": [2]}}, {"a": [{"b": 1}, {"c": 2}]}, False),
    ("fields of one object in arrays in arrays",
     {"a": {"b": [1], "c": [2]}}, {"a": [[{"b": 1}], [{"b": 1, "c": 2}]]}, True),
    ("objects below objects in arrays",
     {"a": {"b": {"c": [1]}}}, {"a": [{"b": [{"c": 2}]}, {"b": [{"c": 1}]}]}, True),
    # dots
    ("dots in the pattern", {"a.b": [1]}, {"a": {"b": 1}}, True),
    ("dots in the event", {"a": {"b": [1]}}, {"a.b": 1}, True),
    ("dots in both", {"a.b": [1]}, {"a.b": 1}, True),
    ("dots in the event, in the middle", {"a": {"b": {"c": [1]}}}, {"a.b": {"c": 1}}, True),
    ("dots in the event, further down", {"a": {"b": {"c": [1]}}}, {"a": {"b.c": 1}}, True),
    ("dots in the event, of all", {"a": {"b": {"c": [1]}}}, {"a.b.c": 1}, True),
    ("dots in the pattern, in the middle", {"x": {"a.b": {"c": [1]}}}, {"x": {"a": {"b": {"c": 1}}}}, True),
    ("dots: one name more in the event", {"a": {"b": [1]}}, {"a.b": {"b": 1}}, False),
    ("dots: one name more in the pattern", {"a.b": {"b": [1]}}, {"a": {"b": 1}}, False),
    ("dots beside the object", {"a": {"b": [1], "c": [2]}}, {"a": {"b": 1}, "a.c": 2}, True),
    ("dots before the object", {"a": {"b": [1], "c": [2]}}, {"a.c": 2, "a": {"b": 1}}, True),
    ("dots beside the same field", {"a": {"b": [1]}}, {"a": {"b": 2}, "a.b": 1}, True),
    ("dots beside an array", {"a": {"b": [1]}}, {"a": [{"b": 2}], "a.b": 1}, True),
    ("dots: not exists", {"a": {"b": [{"exists": False}]}}, {"a.b": 1}, False),
    ("dots in two patterns for one object of an array",
     {"a.b": [1], "a": {"c": [2]}}, {"a": [{"b": 1}, {"c": 2}]}, False),
    # duplicate keys
    ("of duplicate keys in an event the last one counts", {"a": [1]}, b'{"a": 2, "a": 1}', True),
    ("of duplicate keys in an event the first one does not count", {"a": [2]}, b'{"a": 2, "a": 1}', False),
]  # fmt: skip


def passes(pattern: Any, event: Any) -> bool:
    filters = compile_filters([json.dumps({"data": pattern})])
    data = event if isinstance(event, bytes) else json.dumps(event).encode()
    return filters.select([data], lambda index: NO_METADATA) is None


@pytest.mark.parametrize(("pattern", "event", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_a_rule_of_the_grammar(pattern: Any, event: Any, expected: bool) -> None:
    assert passes(pattern, event) is expected


def test_the_table_names_each_rule_once() -> None:
    names = [row[0] for row in TABLE]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("pattern", "event", "expected"),
    # What the fast decoder skips, or cannot read, is read in full: with the same answer.
    [row[1:] for row in TABLE if isinstance(row[2], dict)],
    ids=[row[0] for row in TABLE if isinstance(row[2], dict)],
)
def test_a_rule_holds_whatever_else_is_in_the_record(pattern: Any, event: Any, expected: bool) -> None:
    for beside in (b'"z": "\\ud800"', b'"z": 1e999', '"zä": "ü"'.encode()):
        text = json.dumps(event, ensure_ascii=False).encode()
        assert passes(pattern, b"{" + beside + (b"," if event else b"") + text[1:]) is expected


# ---------------------------------------------------------------- formats


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"plain text",
        b"{",
        b'{"a": 1',
        b'{"a": NaN}',
        b'{"a": 1} {"a": 1}',
        b"\xef\xbb\xbf" + b'{"a": 1}',
        b'{"a": 1, "b": "\xff"}',
        b'{"a": 1, "\xff": 1}',
        b"\x1f\x8b\x08\x00",
        b"[" * 100_000,
        '{"a": 1}'.encode("utf-16"),
    ],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_not_json_satisfies_no_pattern_for_data(data: bytes) -> None:
    assert not passes({"a": [1]}, data)
    assert not passes({"a": [{"exists": False}]}, data)


@pytest.mark.parametrize("data", [b"1", b'"a"', b"null", b"true", b"[]", b'[{"a": 1}]', b' ["a"] '])
def test_json_that_is_no_object_has_no_fields(data: bytes) -> None:
    assert not passes({"a": [1]}, data)
    assert not passes({"a": [{"exists": True}]}, data)
    assert passes({"a": [{"exists": False}]}, data)
    assert passes({"a": {"b": [{"exists": False}]}}, data)


def test_metadata_is_matched_whatever_the_payload_is() -> None:
    filters = compile_filters(['{"partitionKey": ["a"]}'])
    keys = ["a", "b", "a"]
    selected = filters.select([b"text", b"{}", b"{}"], lambda index: {"partitionKey": keys[index]})
    assert selected == [0, 2]


def test_metadata_and_data_must_both_match() -> None:
    filters = compile_filters(['{"partitionKey": ["a"], "data": {"n": [1]}}'])
    keys = ["a", "b", "a", "a"]
    datas = [b'{"n": 1}', b'{"n": 1}', b'{"n": 2}', b"text"]
    assert filters.select(datas, lambda index: {"partitionKey": keys[index]}) == [0]


def test_metadata_is_not_asked_for_by_a_pattern_for_data_alone() -> None:
    def never(index: int) -> dict[str, Any]:
        raise AssertionError

    assert compile_filters(['{"data": {"n": [1]}}']).select([b'{"n": 2}'], never) == []


def test_a_data_path_may_be_written_with_dots() -> None:
    assert compile_filters(['{"data.order.type": ["buy"]}']).select([b'{"order": {"type": "buy"}}'], dict) is None


# ---------------------------------------------------------------- several filters


def test_without_filters_every_record_passes() -> None:
    filters = compile_filters([])
    assert not filters
    assert filters.select([b"x", b"{}"], lambda index: NO_METADATA) is None


def test_any_filter_is_enough_and_indexes_ascend() -> None:
    filters = compile_filters(['{"data": {"n": [3]}}', '{"data": {"n": [1]}}'])
    assert filters
    datas = [b'{"n": %d}' % n for n in range(5)]
    assert filters.select(datas, lambda index: NO_METADATA) == [1, 3]


def test_filters_on_different_fields_are_alternatives() -> None:
    filters = compile_filters(['{"data": {"a": [1]}}', '{"data": {"b": {"c": [2]}}}'])
    datas = [b'{"a": 1}', b'{"b": {"c": 2}}', b'{"a": 2, "b": 2}', b'{"b.c": 2}']
    assert filters.select(datas, lambda index: NO_METADATA) == [0, 1, 3]


def test_a_filter_on_metadata_passes_what_one_on_data_does_not() -> None:
    filters = compile_filters(['{"data": {"n": [1]}}', '{"partitionKey": ["a"]}'])
    assert filters.select([b"text", b'{"n": 2}'], lambda index: {"partitionKey": "ab"[index]}) == [0]


def test_an_or_over_data_and_metadata() -> None:
    filters = compile_filters(['{"$or": [{"data": {"n": [1]}}, {"partitionKey": ["a"]}]}'])
    assert filters.select([b"text", b'{"n": 1}', b"{}"], lambda index: {"partitionKey": "abb"[index]}) == [0, 1]


def test_of_duplicate_keys_in_a_pattern_the_last_one_counts() -> None:
    filters = compile_filters(['{"data": {"a": [1], "a": [2]}}'])
    assert filters.select([b'{"a": 1}', b'{"a": 2}'], dict) == [1]


def test_of_one_path_written_twice_the_last_one_counts() -> None:
    filters = compile_filters(['{"data": {"a.b": [1], "a": {"b": [2]}}}'])
    assert filters.select([b'{"a": {"b": 1}}', b'{"a": {"b": 2}}'], dict) == [1]


def test_payloads_are_not_changed() -> None:
    data = b' {"n" : 1.50,  "z":"\\u00e4" } '
    datas = [data]
    assert compile_filters(['{"data": {"n": [1.5]}}']).select(datas, dict) is None
    assert datas[0] is data


# ---------------------------------------------------------------- what is no pattern


INVALID: list[tuple[str, str]] = [
    ("null", "filters[0]: a pattern is a JSON object, as {'data': {...}}, not null"),
    ('"text"', "filters[0]: a pattern is a JSON object, as {'data': {...}}, not \"text\""),
    ("[]", "filters[0]: a pattern is a JSON object, as {'data': {...}}, not []"),
    ("", "filters[0]: line 1, column 1: not JSON: Expecting value"),
    ('{"data": {"a": [1]}', "filters[0]: line 1, column 20: not JSON: Expecting ',' delimiter"),
    ('{"data": {"a": [NaN]}}', "filters[0]: NaN is not JSON"),
    ('{"data": {"a": [1e999]}}', "filters[0]: data.a[0]: the number is larger than a double can hold"),
    ("{}", "filters[0]: empty objects are not allowed: name a field"),
    ('{"data": {}}', "filters[0]: data: empty objects are not allowed: name a field"),
    ('{"data": {"a": {}}}', "filters[0]: data.a: empty objects are not allowed: name a field"),
    ('{"data": {"a": []}}', "filters[0]: data.a: empty arrays are not allowed: name a value"),
    ('{"data": {"a": "x"}}', 'filters[0]: data.a: must be an object or an array, not "x": write ["x"]'),
    ('{"data": {"a": 42}}', "filters[0]: data.a: must be an object or an array, not 42: write [42]"),
    ('{"data": {"a": null}}', "filters[0]: data.a: must be an object or an array, not null: write [null]"),
    ('{"data": {"a": true}}', "filters[0]: data.a: must be an object or an array, not true: write [true]"),
    ('{"data": {"a": [[1]]}}',
     "filters[0]: data.a[0]: a value is a string, a number, true, false, null or {operator}, not an array"),
    ('{"data": ["text"]}', "filters[0]: data: must be an object: a record's data is matched by its fields"),
    ('{"data": {"a": [{}]}}', "filters[0]: data.a[0]: exactly one key is allowed in a match expression, not 0"),
    ('{"data": {"a": ["x", {"prefix": "a", "suffix": "b"}]}}',
     "filters[0]: data.a[1]: exactly one key is allowed in a match expression, not 2"),
    ('{"data": {"a": [{"EXISTS": true}]}}',
     "filters[0]: data.a[0]: unrecognized match type EXISTS: did you mean exists?"),
    ('{"data": {"a": [{"NUMERIC": ["=", 5]}]}}',
     "filters[0]: data.a[0]: unrecognized match type NUMERIC: did you mean numeric?"),
    ('{"data": {"a": [{"q": 1}]}}',
     ("filters[0]: data.a[0]: unrecognized match type q: there are anything-but, cidr, equals-ignore-case, exists, "
     "numeric, prefix, suffix, wildcard")),
    ('{"data": {"a": [{"exists": "true"}]}}', 'filters[0]: data.a[0].exists: must be true or false, not "true"'),
    ('{"data": {"a": [{"exists": 1}]}}', "filters[0]: data.a[0].exists: must be true or false, not 1"),
    ('{"data": {"a": [{"numeric": 5}]}}',
     'filters[0]: data.a[0].numeric: must be [operator, number], twice for a range, not 5: [">", 0, "<=", 5]'),
    ('{"data": {"a": [{"numeric": ["=", "5"]}]}}', 'filters[0]: data.a[0].numeric: must be a number, not "5"'),
    ('{"data": {"a": [{"numeric": ["=", true]}]}}', "filters[0]: data.a[0].numeric: must be a number, not true"),
    ('{"data": {"a": [{"numeric": ["!", 5]}]}}',
     'filters[0]: data.a[0].numeric: unrecognized numeric range operator "!": =, <, <=, > or >='),
    ('{"data": {"a": [{"numeric": [">", 0, ">", 0]}]}}',
     ('filters[0]: data.a[0].numeric: bad numeric range [">", 0, ">", 0]: '
     "the lower bound (> or >=) comes first, then the upper (< or <=)")),
    ('{"data": {"a": [{"numeric": ["<", 5, ">", 0]}]}}',
     ('filters[0]: data.a[0].numeric: bad numeric range ["<", 5, ">", 0]: '
     "the lower bound (> or >=) comes first, then the upper (< or <=)")),
    ('{"data": {"a": [{"numeric": [">", 5, "<", 5]}]}}',
     'filters[0]: data.a[0].numeric: bottom must be less than top in [">", 5, "<", 5]'),
    ('{"data": {"a": [{"numeric": [">", 0, "<"]}]}}',
     ('filters[0]: data.a[0].numeric: must be [operator, number], twice for a range, not [">", 0, "<"]: '
     '[">", 0, "<=", 5]')),
    ('{"data": {"a": [{"anything-but": null}]}}',
     "filters[0]: data.a[0].anything-but: takes strings, or numbers, not both, and nothing else"),
    ('{"data": {"a": [{"anything-but": ["x", null]}]}}',
     "filters[0]: data.a[0].anything-but: takes strings, or numbers, not both, and nothing else"),
    ('{"data": {"a": [{"anything-but": [1, true]}]}}',
     "filters[0]: data.a[0].anything-but: takes strings, or numbers, not both, and nothing else"),
    ('{"data": {"a": [{"anything-but": ["x", 1]}]}}',
     "filters[0]: data.a[0].anything-but: takes strings, or numbers, not both, and nothing else"),
    ('{"data": {"a": [{"anything-but": []}]}}',
     "filters[0]: data.a[0].anything-but: takes strings, or numbers, not both, and nothing else"),
    ('{"data": {"a": [{"anything-but": {"prefix": ""}}]}}',
     "filters[0]: data.a[0].anything-but.prefix: an empty prefix would exclude every string"),
    ('{"data": {"a": [{"anything-but": {"suffix": ["x", ""]}}]}}',
     "filters[0]: data.a[0].anything-but.suffix: an empty suffix would exclude every string"),
    ('{"data": {"a": [{"anything-but": {"prefix": {"equals-ignore-case": "x"}}}]}}',
     'filters[0]: data.a[0].anything-but.prefix: must be a string, not {"equals-ignore-case": "x"}'),
    ('{"data": {"a": [{"anything-but": {"prefix": 5}}]}}',
     "filters[0]: data.a[0].anything-but.prefix: must be a string, not 5"),
    ('{"data": {"a": [{"anything-but": {"equals-ignore-case": ["x", 5]}}]}}',
     "filters[0]: data.a[0].anything-but.equals-ignore-case: must be a string, not 5"),
    ('{"data": {"a": [{"anything-but": {"wildcard": []}}]}}',
     "filters[0]: data.a[0].anything-but.wildcard: empty arrays are not allowed: name a value"),
    ('{"data": {"a": [{"anything-but": {"numeric": ["=", 1]}}]}}',
     ("filters[0]: data.a[0].anything-but: unsupported anything-but pattern numeric: "
     "prefix, suffix, equals-ignore-case or wildcard")),
    ('{"data": {"a": [{"prefix": ["x"]}]}}', 'filters[0]: data.a[0].prefix: must be a string, not ["x"]'),
    ('{"data": {"a": [{"suffix": 5}]}}', "filters[0]: data.a[0].suffix: must be a string, not 5"),
    ('{"data": {"a": [{"equals-ignore-case": ["x"]}]}}',
     'filters[0]: data.a[0].equals-ignore-case: must be a string, not ["x"]'),
    ('{"data": {"a": [{"prefix": {"wildcard": "x"}}]}}',
     "filters[0]: data.a[0].prefix: only equals-ignore-case may stand in a prefix, not wildcard"),
    ('{"data": {"a": [{"wildcard": null}]}}', "filters[0]: data.a[0].wildcard: must be a string, not null"),
    ('{"data": {"a": [{"wildcard": "a**b"}]}}',
     'filters[0]: data.a[0].wildcard: "a**b": consecutive wildcards: one * is enough'),
    ('{"data": {"a": [{"wildcard": "a\\\\nb"}]}}',
     'filters[0]: data.a[0].wildcard: "a\\\\nb": \\n is no escape: \\* and \\\\ are the only ones'),
    ('{"data": {"a": [{"wildcard": "a\\\\"}]}}',
     'filters[0]: data.a[0].wildcard: "a\\\\": \\ is no escape: \\* and \\\\ are the only ones'),
    ('{"data": {"a": [{"wildcard": "*:*:*:*:*:event-bus/*"}]}}',
     ('filters[0]: data.a[0].wildcard: "*:*:*:*:*:event-bus/*" is too complex: use fewer wildcard characters, or fewer '
     "repeating character sequences after a wildcard character")),
    ('{"data": {"a": [{"cidr": "10.0.0.0"}]}}',
     'filters[0]: data.a[0].cidr: malformed CIDR "10.0.0.0": not an address, a slash and a number of bits'),
    ('{"data": {"a": [{"cidr": "10.0.0.0/32"}]}}',
     'filters[0]: data.a[0].cidr: malformed CIDR "10.0.0.0/32": the number of bits must be less than 32'),
    ('{"data": {"a": [{"cidr": 10}]}}', "filters[0]: data.a[0].cidr: must be a string, not 10"),
    ('{"data": {"$or": [{"a": [1]}]}}',
     ("filters[0]: data.$or[0]: unrecognized match type a: there are anything-but, cidr, equals-ignore-case, exists, "
     "numeric, prefix, suffix, wildcard")),
    ('{"data": {"$or": [{"a": [1]}, {}]}}', "filters[0]: data: empty objects are not allowed: name a field"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), INVALID, ids=[row[0] for row in INVALID])
def test_what_is_no_pattern_says_where_and_why(text: str, message: str) -> None:
    with pytest.raises(PatternError) as raised:
        compile_filters([text])
    assert str(raised.value) == message


@pytest.mark.parametrize(
    "text",
    [
        '{"data": {"a": [{"cidr": "300.0.0.0/8"}]}}',
        '{"data": {"a": [{"cidr": "::g/8"}]}}',
        '{"data": {"a": [{"cidr": "::/129"}]}}',
    ],
)
def test_a_block_of_addresses_must_be_one(text: str) -> None:
    with pytest.raises(PatternError, match="malformed CIDR"):
        compile_filters([text])


def test_an_error_names_its_filter_and_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=re.escape("filters[1]: data.a: must be an object or an array")):
        compile_filters(['{"data": {"a": [1]}}', '{"data": {"a": 1}}'])


def test_a_pattern_has_4096_characters_at_most() -> None:
    compile_filters(['{"data": {"a": ["%s"]}}' % ("x" * (4096 - 21))])
    with pytest.raises(PatternError, match="has 4097 characters, AWS takes 4096"):
        compile_filters(['{"data": {"a": ["%s"]}}' % ("x" * (4097 - 21))])


def test_ten_filters_are_the_most_and_more_than_five_are_warned_of() -> None:
    text = '{"data": {"a": ["x"]}}'
    assert compile_filters([text] * 5).warnings == ()
    assert compile_filters([text] * 6).warnings == ("6 filters: AWS takes more than 5 after a quota increase only",)
    with pytest.raises(PatternError, match="11 filters: AWS takes 5, and 10 at most"):
        compile_filters([text] * 11)


def test_paths_are_at_most_100_fields_deep() -> None:
    compile_filters([json.dumps({"data." + ".".join("a" * 99): [1]})])
    with pytest.raises(PatternError, match=re.escape("data.a.a...: more than 100 fields deep")):
        compile_filters([json.dumps({"data." + ".".join("a" * 100): [1]})])
    with pytest.raises(PatternError, match="more than 100 fields deep"):
        compile_filters(['{"a":' * 600 + "[1]" + "}" * 600])


def test_ors_come_to_1000_combinations_at_most() -> None:
    def ors(count: int) -> str:
        pattern: dict[str, Any] = {"z": [1]}
        for level in range(count):
            pattern = {f"x{level}": {"$or": [{"a": [i]} for i in range(10)]}, **pattern}
        return json.dumps({"data": pattern})

    event = b'{"x0": {"a": 9}, "x1": {"a": 0}, "x2": {"a": 5}, "z": 1}'
    assert compile_filters([ors(3)]).select([event, b"{}"], dict) == [0]
    with pytest.raises(PatternError, match="come to more than 1000 combinations"):
        compile_filters([ors(4)])


# ---------------------------------------------------------------- warnings


@pytest.mark.parametrize(
    ("pattern", "warning"),
    [
        ('{"data": {"a": [{"wildcard": "a*"}]}}', "filters[0]: data.a[0].wildcard: wildcard may be rejected by AWS"),
        ('{"data": {"a": [{"cidr": "10.0.0.0/8"}]}}', "filters[0]: data.a[0].cidr: cidr may be rejected by AWS"),
        (
            '{"data": {"a": [{"anything-but": {"prefix": "a"}}]}}',
            "filters[0]: data.a[0].anything-but: prefix in anything-but may be rejected by AWS",
        ),
        ('{"partitionKey": ["a"]}', "filters[0]: partitionKey: AWS's documentation supports data alone for Kinesis"),
        (
            '{"type": ["order"]}',
            (
                "filters[0]: type: a record has no field type beside its data: "
                'fields of the payload stand below data: {"data": {"type": ...}}'
            ),
        ),
        ('{"data": {"a": [300]}}', "filters[0]: data.a[0]: the number 300 is compared by value here"),
    ],
)
def test_what_may_not_work_on_aws_is_warned_of(pattern: str, warning: str) -> None:
    (said,) = compile_filters([pattern]).warnings
    assert said.startswith(warning)


@pytest.mark.parametrize(
    "item",
    [
        '"x"', '""', "null", "true", '{"prefix": "a"}', '{"suffix": "a"}', '{"equals-ignore-case": "a"}',
        '{"exists": true}', '{"numeric": ["=", 1]}', '{"numeric": [">", 1, "<", 2]}', '{"anything-but": ["a"]}',
    ],
)  # fmt: skip
def test_what_lambda_documents_is_not_warned_of(item: str) -> None:
    text = '{"data": {"a": [ITEM], "$or": [{"b": ["x"]}, {"c": ["x"]}]}}'.replace("ITEM", item)
    assert compile_filters([text]).warnings == ()


# ---------------------------------------------------------------- against simple models


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b", "ab"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=8,
)


def leaves(event: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    if isinstance(event, dict):
        return [leaf for name, value in event.items() for leaf in leaves(value, (*path, name))]
    if isinstance(event, list):
        return [leaf for value in event for leaf in leaves(value, path)]
    return [(path, event)]


@given(
    event=st.dictionaries(st.sampled_from("xyz"), VALUES, max_size=3),
    path=st.lists(st.sampled_from("xyz"), min_size=1, max_size=3),
    wanted=st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b"]),
)
def test_one_path_is_matched_as_by_the_list_of_all_leaves(event: Any, path: list[str], wanted: Any) -> None:
    at = [value for where, value in leaves(event) if where == tuple(path)]
    name = ".".join(path)
    same = [value for value in at if value == wanted and isinstance(value, bool) == isinstance(wanted, bool)]
    assert passes({name: [wanted]}, event) is bool(same)
    assert passes({name: [{"exists": True}]}, event) is bool(at)
    assert passes({name: [{"exists": False}]}, event) is not at
    assert passes({name: [{"anything-but": ["a"]}]}, event) is any(value != "a" for value in at)


@given(pattern=st.text("ab*", max_size=8), text=st.text("ab", max_size=10))
def test_wildcards_match_as_regular_expressions_do(pattern: str, text: str) -> None:
    if "**" in pattern:
        with pytest.raises(wildcards.WildcardError):
            wildcards.tokens(pattern)
        return
    expected = re.fullmatch(pattern.replace("*", ".*"), text) is not None
    assert wildcards.matcher(wildcards.tokens(pattern))(text) is expected


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("abc", 1),
        ("*", 2),
        ("a*b*c*d*e*f*g", 7),
        ("/Users/*/dir/dir/dir/dir/dir/doc.txt", 7),
        ("*:*:*:*:*:event-bus/*", 10),
        ("*a" * 500, 10),
        ("*" + "abcdefgh" * 400, 10),
        ("*" + "".join(map(chr, range(1_000, 4_000))), 2),
    ],
)
def test_the_complexity_of_wildcards(text: str, places: int) -> None:
    assert wildcards.complexity(wildcards.tokens(text)) == places
