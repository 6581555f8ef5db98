"""Patterns of words by their place: `[ip, user, ..., status = 4*, bytes > 1000]`.

A message is cut at spaces; what stands in quotation marks or in brackets is one word.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from kflow.monitoring.conditions import Value, comparing, invalid, regular

_WORD: Final = re.compile(r'"([^"]*)"|\[([^\]]*)\]|(\S+)')
_TEST: Final = re.compile(
    r'\s*(\w+)\s*(!=|<=|>=|=|<|>)\s*("(?:[^"\\]|\\.)*"|%(?:[^%\\]|\\.)*%|[^\s&|,\]]+)\s*', re.ASCII
)
_NAME: Final = re.compile(r"\w*", re.ASCII)
_ELLIPSIS: Final = "..."

Test = Callable[[Any], bool]


def compiled(text: str) -> Callable[[str], bool]:
    """What a pattern means.

    Raises:
        InvalidParameter: it is none.
    """
    if not text.endswith("]"):
        raise invalid("a pattern that begins with [ ends with ]")
    fields = [each.strip() for each in re.split(r',(?=(?:[^"]*"[^"]*")*[^"]*$)', text[1:-1])]
    if fields.count(_ELLIPSIS) > 1:
        raise invalid("there is only one ... in a pattern")
    split = fields.index(_ELLIPSIS) if _ELLIPSIS in fields else -1
    before = [_field(each) for each in (fields if split < 0 else fields[:split])]
    behind = [] if split < 0 else [_field(each) for each in fields[split + 1 :]]

    def matches(message: str) -> bool:
        words = ["".join(found) for found in _WORD.findall(message)]
        if len(words) < len(before) + len(behind) or (split < 0 and len(words) != len(before)):
            return False
        first = words[: len(before)]
        last = words[len(words) - len(behind) :] if behind else []
        return all(test(word) for test, word in zip((*before, *behind), (*first, *last), strict=True))

    return matches


def _field(text: str) -> Test:
    """A name alone takes anything."""
    if _NAME.fullmatch(text):
        return lambda _: True
    either: list[list[Test]] = [[]]
    at = 0
    while True:
        found = _TEST.match(text, at)
        if found is None:
            raise invalid(f"{text!r} is no condition such as status = 4*")
        either[-1].append(comparing(found[2], _value(found[3])))
        at = found.end()
        if at == len(text):
            return lambda word: any(all(test(word) for test in tests) for tests in either)
        if text.startswith("&&", at):
            at += 2
        elif text.startswith("||", at):
            at += 2
            either.append([])
        else:
            raise invalid(f"{text!r} cannot be read at {text[at:]!r}")


def _value(text: str) -> Value:
    if text[0] == '"' and text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    if text[0] == "%" and text[-1] == "%":
        return regular(text[1:-1])
    try:
        return float(text)
    except ValueError:
        return text
