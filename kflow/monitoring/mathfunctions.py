"""The functions of metric math that are computed here, by name.

Source: documented: CloudWatch User Guide, functions supported for metric math.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from kflow.monitoring.mathvalues import Line, Scope, Value, invalid

Function = Callable[[Scope, Sequence[Value]], Value]


def _one(name: str, given: Sequence[Value]) -> Value:
    if len(given) != 1:
        raise invalid(f"{name} takes one argument, not {len(given)}")
    return given[0]


def _line(name: str, value: Value) -> Line:
    if not isinstance(value, Line):
        raise invalid(f"{name} takes a time series")
    return value


def _reducing(name: str, reduce: Callable[[Sequence[float]], float]) -> Function:
    """Of a series: of all its values, a number. Of a list: of the values of each time, a series."""

    def function(scope: Scope, given: Sequence[Value]) -> Value:
        del scope
        value = _one(name, given)
        if isinstance(value, Line):
            return reduce(list(value.values.values())) if value.values else 0.0
        if not isinstance(value, list):
            raise invalid(f"{name} takes a time series, or an array of them")
        times = sorted({at for line in value for at in line.values})
        found = {at: reduce([line.values[at] for line in value if at in line.values]) for at in times}
        return Line(found, max((line.period_s for line in value), default=60))

    return function


def _mapping(name: str, apply: Callable[[float], float]) -> Function:
    """Of each value; what has none is left out."""

    def of_line(line: Line) -> Line:
        found: dict[int, float] = {}
        for at, value in line.values.items():
            try:
                found[at] = float(apply(value))
            except (ValueError, OverflowError):
                continue
        return Line(found, line.period_s)

    def function(scope: Scope, given: Sequence[Value]) -> Value:
        del scope
        value = _one(name, given)
        if isinstance(value, Line):
            return of_line(value)
        if isinstance(value, list):
            return [of_line(line) for line in value]
        if isinstance(value, str):
            raise invalid(f"{name} takes numbers")
        try:
            return float(apply(value))
        except (ValueError, OverflowError) as error:
            raise invalid(f"{name}({value:g}) is no number") from error

    return function


def _stepping(name: str, apply: Callable[[float, float, float], float]) -> Function:
    """Of each value, the one before, and the seconds between."""

    def function(scope: Scope, given: Sequence[Value]) -> Value:
        del scope
        line = _line(name, _one(name, given))
        found: dict[int, float] = {}
        before: tuple[int, float] | None = None
        for at in sorted(line.values):
            value = line.values[at]
            if before is not None:
                found[at] = apply(value, before[1], at - before[0])
            before = at, value
        return Line(found, line.period_s)

    return function


def _running_sum(scope: Scope, given: Sequence[Value]) -> Value:
    del scope
    line = _line("RUNNING_SUM", _one("RUNNING_SUM", given))
    total = 0.0
    found: dict[int, float] = {}
    for at in sorted(line.values):
        total += line.values[at]
        found[at] = total
    return Line(found, line.period_s)


def _fill(scope: Scope, given: Sequence[Value]) -> Value:
    """What is missing within the time of the query: by a number, by the value before, or between its neighbours."""
    if len(given) != 2:  # as it is called
        raise invalid("FILL takes a time series, and a number, REPEAT or LINEAR")
    value, by = given
    if isinstance(value, list):
        return [_filled(scope, line, by) for line in value]
    return _filled(scope, _line("FILL", value), by)


def _filled(scope: Scope, line: Line, by: Value) -> Line:
    start_s = _first(scope, line) if line.values else scope.start_s
    found = dict(line.values)
    known = sorted(line.values)
    for at in range(start_s, scope.end_s, line.period_s):
        if at in found:
            continue
        place = bisect(known, at)
        before = known[place - 1] if place else None
        behind = known[place] if place < len(known) else None
        if isinstance(by, float):
            found[at] = by
        elif by == "REPEAT":
            if before is not None:
                found[at] = line.values[before]
        elif by == "LINEAR":
            if before is not None and behind is not None:
                share = (at - before) / (behind - before)
                found[at] = line.values[before] + share * (line.values[behind] - line.values[before])
        else:
            raise invalid("FILL fills by a number, REPEAT or LINEAR")
    return Line(found, line.period_s)


def _first(scope: Scope, line: Line) -> int:
    """The first period of the query, in step with those of the series."""
    known = min(line.values)
    return known - max(0, known - scope.start_s) // line.period_s * line.period_s


def _if(scope: Scope, given: Sequence[Value]) -> Value:
    """`IF(condition, then, else)`; without the last, what does not meet the condition is left out."""
    del scope
    if len(given) not in (2, 3):
        raise invalid("IF takes a condition, a value, and perhaps another")
    condition, *values = given
    if isinstance(condition, float):
        if len(values) == 1 and not condition:
            raise invalid("IF has no value where the condition does not hold")
        return values[0] if condition else values[1]
    line = _line("IF", condition)
    found: dict[int, float] = {}
    for at, holds in line.values.items():
        if not holds and len(values) == 1:
            continue
        value = values[0] if holds else values[1]
        if isinstance(value, Line):
            if at in value.values:
                found[at] = value.values[at]
        elif isinstance(value, float):
            found[at] = value
        else:
            raise invalid("IF takes numbers and time series")
    return Line(found, line.period_s)


def _metrics(scope: Scope, given: Sequence[Value]) -> Value:
    """All metrics of the query; or those whose ids hold a text."""
    if len(given) > 1 or not all(isinstance(each, str) for each in given):
        raise invalid("METRICS takes nothing, or a text")
    part = str(given[0]) if given else ""
    found: list[Line] = []
    for name in scope.metrics:
        line = scope.lines(name)
        if part in name and isinstance(line, Line):
            found.append(line)
    return found


def _metric_count(scope: Scope, given: Sequence[Value]) -> Value:
    del scope
    value = _one("METRIC_COUNT", given)
    return float(len(value)) if isinstance(value, list) else 1.0


def _period(scope: Scope, given: Sequence[Value]) -> Value:
    del scope
    return float(_line("PERIOD", _one("PERIOD", given)).period_s)


def _time_series(scope: Scope, given: Sequence[Value]) -> Value:
    """A number as a series, a value a minute."""
    value = _one("TIME_SERIES", given)
    if not isinstance(value, float):
        raise invalid("TIME_SERIES takes a number")
    return Line(dict.fromkeys(range(scope.start_s, scope.end_s, 60), value), 60)


FUNCTIONS: Final[Mapping[str, Function]] = {
    "ABS": _mapping("ABS", abs),
    "AVG": _reducing("AVG", statistics.fmean),
    "CEIL": _mapping("CEIL", math.ceil),
    "DIFF": _stepping("DIFF", lambda value, before, _: value - before),
    "FILL": _fill,
    "FLOOR": _mapping("FLOOR", math.floor),
    "IF": _if,
    "LOG": _mapping("LOG", math.log),
    "LOG10": _mapping("LOG10", math.log10),
    "MAX": _reducing("MAX", max),
    "METRICS": _metrics,
    "METRIC_COUNT": _metric_count,
    "MIN": _reducing("MIN", min),
    "PERIOD": _period,
    "RATE": _stepping("RATE", lambda value, before, seconds: (value - before) / seconds),
    "RUNNING_SUM": _running_sum,
    "STDDEV": _reducing("STDDEV", statistics.pstdev),
    "SUM": _reducing("SUM", math.fsum),
    "TIME_SERIES": _time_series,
}
