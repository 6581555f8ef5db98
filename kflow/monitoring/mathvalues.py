"""Values of metric math, and how two of them are combined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kflow.monitoring.errors import InvalidQuery


@dataclass(slots=True)
class Line:
    """One series.

    Attributes:
        values: by when their period begins, seconds since the epoch.
        period_s: seconds.
        label: of it.
    """

    values: dict[int, float]
    period_s: int
    label: str = ""


Value = float | Line | list[Line] | str


@dataclass(slots=True)
class Scope:
    """What an expression is evaluated over.

    Attributes:
        lines: of ids; asked for when they are needed, for they may be expressions themselves.
        metrics: ids of those that are metrics, in their order.
        start_s: of the query.
        end_s: likewise.
    """

    lines: Callable[[str], Value]
    metrics: tuple[str, ...] = ()
    start_s: int = 0
    end_s: int = 0


def invalid(why: str) -> InvalidQuery:
    """Source: chosen: AWS's texts differ from case to case."""
    return InvalidQuery(f"Error in expression: {why}")


Operation = Callable[[Any, Any], Any]


def combined(operation: Operation, left: Value, right: Value) -> Value:
    """Numbers together; series where both have a value; a list with each of its series.

    Raises:
        InvalidQuery: a text, or two lists, cannot be combined.
    """
    if isinstance(left, str) or isinstance(right, str):
        raise invalid("a text is no number")
    if isinstance(left, list):
        if isinstance(right, list):
            raise invalid("two arrays cannot be combined: use SUM, AVG, MIN or MAX of each")
        return [_lined(operation, each, right) for each in left]
    if isinstance(right, list):
        return [_lined(operation, left, each) for each in right]
    if isinstance(left, Line) or isinstance(right, Line):
        return _lined(operation, left, right)
    found = _applied(operation, left, right)
    if found is None:
        raise invalid("a division by zero")
    return found


def _lined(operation: Operation, left: float | Line, right: float | Line) -> Line:
    """What cannot be computed is left out."""
    if isinstance(left, Line):
        model = left
        pairs = [
            (at, value, right.values.get(at) if isinstance(right, Line) else right) for at, value in left.values.items()
        ]
    else:
        assert isinstance(right, Line), "one of them is a series"
        model = right
        pairs = [(at, left, value) for at, value in right.values.items()]
    found: dict[int, float] = {}
    for at, first, second in pairs:
        value = None if second is None else _applied(operation, first, second)
        if value is not None:
            found[at] = value
    return Line(found, model.period_s)


def _applied(operation: Operation, left: float, right: float) -> float | None:
    try:
        found = operation(left, right)
    except (ZeroDivisionError, OverflowError):
        return None
    return None if isinstance(found, complex) or found != found else float(found)  # noqa: PLR0124  # not a number


def power(left: float, right: float) -> Any:
    """`left ^ right`; complex where it is no real number."""
    return left**right


def both(left: float, right: float) -> float:
    """1 where both are not 0."""
    return float(bool(left) and bool(right))


def either(left: float, right: float) -> float:
    """1 where one is not 0."""
    return float(bool(left) or bool(right))


def comparison(compare: Callable[[Any, Any], bool]) -> Operation:
    """1 where it holds, else 0."""
    return lambda left, right: float(compare(left, right))
