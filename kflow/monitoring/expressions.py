"""Metric math: `m1 / m2 * 100`, `SUM(METRICS())`, `IF(errors > 0, errors, 0)`, `FILL(m1, 0)`.

A value is a number, a series (a value a period), or a list of series. What is not computed here is refused by name:
`SEARCH`, `ANOMALY_DETECTION_BAND`, `SELECT` and others.

Source: documented: CloudWatch User Guide, using math expressions.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Final

from kflow.monitoring.mathfunctions import FUNCTIONS
from kflow.monitoring.mathvalues import (
    Line,
    Operation,
    Scope,
    Value,
    both,
    combined,
    comparison,
    either,
    invalid,
    power,
)
from kflow.monitoring.tokens import Tokens

__all__ = ["Line", "Scope", "Value", "evaluate", "invalid"]

_DEEPEST: Final = 50
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z][A-Za-z0-9_]*)"
    r"|(?P<text>\"[^\"]*\"|'[^']*')|(?P<sign>&&|\|\||==|!=|<=|>=|[-+*/^()<>,\[\]]))"
)


_COMPARISONS: Final = tuple(
    (sign, comparison(compare))
    for sign, compare in (
        ("==", operator.eq),
        ("!=", operator.ne),
        ("<=", operator.le),
        (">=", operator.ge),
        ("<", operator.lt),
        (">", operator.gt),
    )
)


def evaluate(text: str, scope: Scope) -> Value:
    """What an expression comes to.

    Raises:
        InvalidQuery: it is none, or what it needs is not computed here.
    """
    tokens = Tokens(text, _TOKEN, invalid)
    try:
        value = _Parser(tokens, scope).either(0)
    except OverflowError as error:
        raise invalid(f"a value is too large: {error}") from error
    tokens.end()
    return value


class _Parser:
    """Evaluates while it reads: OR, AND, comparisons, sums, products, powers, signs."""

    def __init__(self, tokens: Tokens, scope: Scope) -> None:
        self._tokens = tokens
        self._scope = scope

    def either(self, depth: int) -> Value:
        if depth > _DEEPEST:
            raise invalid("it goes too deep")
        return self._chain((("||", either), ("OR", either)), self._both, depth)

    def _both(self, depth: int) -> Value:
        return self._chain((("&&", both), ("AND", both)), self._comparison, depth)

    def _comparison(self, depth: int) -> Value:
        return self._chain(_COMPARISONS, self._sum, depth)

    def _sum(self, depth: int) -> Value:
        return self._chain((("+", operator.add), ("-", operator.sub)), self._product, depth)

    def _product(self, depth: int) -> Value:
        return self._chain((("*", operator.mul), ("/", operator.truediv)), self._signed, depth)

    def _chain(self, signs: tuple[tuple[str, Operation], ...], inner: Callable[[int], Value], depth: int) -> Value:
        value = inner(depth)
        while True:
            for sign, operation in signs:
                if self._tokens.takes(sign):
                    value = combined(operation, value, inner(depth))
                    break
            else:
                return value

    def _signed(self, depth: int) -> Value:
        if depth > _DEEPEST:
            raise invalid("it goes too deep")
        if self._tokens.takes("-"):
            return combined(operator.mul, -1.0, self._signed(depth + 1))
        value = self._one(depth)
        return combined(power, value, self._signed(depth + 1)) if self._tokens.takes("^") else value

    def _one(self, depth: int) -> Value:
        token = self._tokens.take()
        if token.kind == "number":
            return float(token.text)
        if token.kind == "text":
            return token.text[1:-1]
        if token.kind == "name":
            return self._call(token.text, depth) if self._tokens.takes("(") else self._scope.lines(token.text)
        if token.text == "(":
            value = self.either(depth + 1)
            self._needs(")")
            return value
        if token.text == "[":
            found: list[Line] = []
            for value in self._listed("]", depth):
                if not isinstance(value, Line):
                    raise invalid("an array holds time series only")
                found.append(value)
            return found
        raise invalid(f"{token.text!r} is no value")

    def _call(self, name: str, depth: int) -> Value:
        function = FUNCTIONS.get(name.upper())
        if function is None:
            raise invalid(f"kflow evaluates no {name}(); it has {', '.join(sorted(FUNCTIONS))}")
        return function(self._scope, self._listed(")", depth))

    def _listed(self, closing: str, depth: int) -> list[Value]:
        found: list[Value] = []
        if self._tokens.takes(closing):
            return found
        while True:
            found.append(self._argument(depth + 1))
            if self._tokens.takes(closing):
                return found
            self._needs(",")

    def _argument(self, depth: int) -> Value:
        token = self._tokens.peek()
        if token.kind == "name" and token.text in {"REPEAT", "LINEAR"}:
            return self._tokens.take().text
        return self.either(depth)

    def _needs(self, sign: str) -> None:
        if not self._tokens.takes(sign):
            raise invalid(f"{sign!r} is missing")
