"""Filter patterns of CloudWatch Logs: which events an answer holds.

    ERROR "status 500" -debug          all of these words, and not that one; a word is found anywhere
    ?ERROR ?WARN                       any of them
    %user-[0-9]+%                      a regular expression
    { $.level = "ERROR" && $.ms > 10 } a condition on a message that is a JSON object
    [ip, user, status = 4*, ...]       the words of a message, by their place

Source: documented: CloudWatch Logs User Guide, filter and pattern syntax.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from kflow.monitoring import fieldpatterns
from kflow.monitoring.conditions import Compare, Value, comparing, invalid, regular
from kflow.monitoring.tokens import Tokens

__all__ = ["Matches", "compiled"]

Matches = Callable[[str], bool]

_TERM: Final = re.compile(r'\s*([?-]?)(?:"((?:[^"\\]|\\.)*)"|%((?:[^%\\]|\\.)*)%|([^\s"%]+))')
_PLAIN: Final = re.compile(r"\w+(?:\*?)", re.ASCII)
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<path>\$(?:\.[A-Za-z0-9_@$-]+|\.\*|\[\d+\]|\[\*\]|\['(?:[^'\\]|\\.)*'\])+)"
    r'|"(?P<text>(?:[^"\\]|\\.)*)"|%(?P<regex>(?:[^%\\]|\\.)*)%|(?P<sign>&&|\|\||!=|<=|>=|[=<>()])'
    r"|(?P<word>[^\s\"()=<>!&|%]+))"
)
_STEP: Final = re.compile(r"\.([A-Za-z0-9_@$-]+)|\.(\*)|\[(\d+)\]|\[(\*)\]|\['((?:[^'\\]|\\.)*)'\]")
_DEEPEST: Final = 50


def compiled(pattern: str) -> Matches | None:
    """What a pattern means; None: everything matches.

    Raises:
        InvalidParameter: it is none.
    """
    text = pattern.strip()
    if not text:
        return None
    if text.startswith("{"):
        return _json(text)
    if text.startswith("["):
        return fieldpatterns.compiled(text)
    return _terms(text)


def _terms(text: str) -> Matches:
    wanted: list[Matches] = []
    unwanted: list[Matches] = []
    any_of: list[Matches] = []
    at = 0
    while at < len(text):
        found = _TERM.match(text, at)
        if found is None:
            raise invalid("unbalanced quotes")
        sign, quoted, regex, plain = found.groups()
        if quoted is not None:
            matches = _contains(_unescaped(quoted))
        elif regex is not None:
            matches = _finds(regular(regex))
        elif _PLAIN.fullmatch(plain):
            matches = _contains(plain.rstrip("*"))
        else:
            raise invalid(f"Invalid character(s) in term '{plain}'")
        {"": wanted, "-": unwanted, "?": any_of}[sign].append(matches)
        at = found.end()
        while at < len(text) and text[at].isspace():
            at += 1
    if wanted or unwanted:  # documented: beside others, words with a question mark are passed over
        return lambda message: all(each(message) for each in wanted) and not any(each(message) for each in unwanted)
    return lambda message: any(each(message) for each in any_of)


def _contains(word: str) -> Matches:
    return lambda message: word in message


def _finds(regex: re.Pattern[str]) -> Matches:
    return lambda message: regex.search(message) is not None


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


# ---------------------------------------------------------------------- JSON


Test = Callable[[Any], bool]


def _json(text: str) -> Matches:
    if not text.endswith("}"):
        raise invalid("a pattern that begins with { ends with }")
    tokens = Tokens(text[1:-1], _TOKEN, invalid)
    test = _Parser(tokens).any_of(0)
    tokens.end()

    def matches(message: str) -> bool:
        if not message.lstrip().startswith("{"):
            return False
        try:
            value = json.loads(message)
        except (ValueError, RecursionError):
            return False
        return test(value)

    return matches


class _Parser:
    """`a || b && c`: the second binds closer; parentheses."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def any_of(self, depth: int) -> Test:
        if depth > _DEEPEST:
            raise invalid("it goes too deep")
        tests = [self._all_of(depth)]
        while self._tokens.takes("||"):
            tests.append(self._all_of(depth))
        return tests[0] if len(tests) == 1 else lambda value: any(test(value) for test in tests)

    def _all_of(self, depth: int) -> Test:
        tests = [self._one(depth)]
        while self._tokens.takes("&&"):
            tests.append(self._one(depth))
        return tests[0] if len(tests) == 1 else lambda value: all(test(value) for test in tests)

    def _one(self, depth: int) -> Test:
        if self._tokens.takes("("):
            test = self.any_of(depth + 1)
            if not self._tokens.takes(")"):
                raise invalid("a parenthesis is not closed")
            return test
        token = self._tokens.take()
        if token.kind != "path":
            raise invalid(f"{token.text!r} is no selector such as $.level")
        steps = _steps(token.text)
        sign = self._tokens.take()
        if sign.kind == "word":
            return self._word(steps, sign.text.upper())
        if sign.kind != "sign" or sign.text in {"&&", "||", "(", ")"}:
            raise invalid(f"{sign.text!r} is no comparison")
        compare = comparing(sign.text, self._value())
        return lambda value: _compares(value, steps, compare)

    def _word(self, steps: list[str | int | None], word: str) -> Test:
        following = self._tokens.take().text.upper()
        if word == "NOT" and following == "EXISTS":
            return lambda value: not _found(value, steps)
        if word == "IS" and following in {"TRUE", "FALSE", "NULL"}:
            wanted = {"TRUE": True, "FALSE": False, "NULL": None}[following]
            return lambda value: any(each is wanted for each in _found(value, steps))
        raise invalid(f"{word} {following} is no test")

    def _value(self) -> Value:
        token = self._tokens.take()
        if token.kind == "regex":
            return regular(token.text)
        if token.kind == "text":
            return _unescaped(token.text)
        if token.kind != "word":
            raise invalid(f"{token.text!r} is no value")
        try:
            return float(token.text)
        except ValueError:
            return token.text


def _steps(path: str) -> list[str | int | None]:
    """Names, indices; None: each element."""
    steps: list[str | int | None] = []
    for name, star, index, each, quoted in _STEP.findall(path):
        if star or each:
            steps.append(None)
        elif index:
            steps.append(int(index))
        else:
            steps.append(name or _unescaped(quoted))
    return steps


def _found(value: Any, steps: list[str | int | None]) -> list[Any]:
    """What a selector selects."""
    values = [value]
    for step in steps:
        following: list[Any] = []
        for each in values:
            if step is None:
                following += each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
            elif isinstance(step, int):
                if isinstance(each, list) and step < len(each):
                    following.append(each[step])
            elif isinstance(each, dict) and step in each:
                following.append(each[step])
        values = following
    return values


def _compares(value: Any, steps: list[str | int | None], compare: Compare) -> bool:
    return any(compare(each) for each in _found(value, steps))
