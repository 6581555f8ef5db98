"""Comparisons of filter patterns: with numbers, with texts that may hold `*`, with regular expressions."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any, Final

from kflow.monitoring.errors import InvalidParameter

Value = str | float | re.Pattern[str]
Compare = Callable[[Any], bool]

_ORDERED: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


def invalid(why: str) -> InvalidParameter:
    """Source: recorded: the first two words; chosen: the rest."""
    return InvalidParameter(f"Invalid filter pattern: {why}")


def regular(text: str) -> re.Pattern[str]:
    """A regular expression. AWS takes no groups, which also keeps one from taking for ever.

    Raises:
        InvalidParameter: it is none.
    """
    bare = re.sub(r"\\.|\[[^\]]*\]", "", text)
    if "(" in bare or ")" in bare:
        raise invalid("a regular expression has no groups here")
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise invalid(f"%{text}% is no regular expression: {error}") from error


def comparing(sign: str, wanted: Value) -> Compare:
    """What a comparison means for one value.

    Args:
        sign: `=`, `!=`, `<`, `>`, `<=` or `>=`.
        wanted: what stands behind it.

    Raises:
        InvalidParameter: only numbers have an order.
    """
    if sign in _ORDERED:
        if not isinstance(wanted, float):
            raise invalid(f"{sign} compares numbers only")
        compare, limit = _ORDERED[sign], wanted
        return lambda value: (number := _number(value)) is not None and compare(number, limit)
    equals = _equals(wanted)
    return equals if sign == "=" else lambda value: not equals(value)


def _equals(wanted: Value) -> Compare:
    if isinstance(wanted, float):
        return lambda value: _number(value) == wanted
    if isinstance(wanted, re.Pattern):
        return lambda value: isinstance(value, str | int | float) and wanted.search(_text(value)) is not None
    if "*" in wanted:
        pieces = re.compile(".*".join(map(re.escape, wanted.split("*"))), re.DOTALL)
        return lambda value: isinstance(value, str | int | float) and pieces.fullmatch(_text(value)) is not None
    return lambda value: value == wanted or (isinstance(value, int | float) and _text(value) == wanted)


def _number(value: Any) -> float | None:
    """A number, also one that stands in a text."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return None


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
