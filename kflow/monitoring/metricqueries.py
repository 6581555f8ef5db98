"""What `GetMetricData` asks for: statistics of metrics, expressions over them, and pages of the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from kflow.broker.metricpoints import Series
from kflow.monitoring import statistics
from kflow.monitoring.errors import InvalidNextToken, InvalidQuery
from kflow.monitoring.expressions import Line, Scope, Value, evaluate, invalid
from kflow.monitoring.measures import Measures

QUERIES: Final = 500
DATAPOINTS: Final = 100_800
"""In an answer. Source: documented: GetMetricData."""


class Metric(NamedTuple):
    """A statistic of a metric.

    Attributes:
        series: the metric; of all units where `unit` is empty.
        period_s: seconds.
        stat: name of the statistic.
    """

    series: Series
    period_s: int
    stat: str


class Query(NamedTuple):
    """One query.

    Attributes:
        id: names it in expressions.
        what: a metric, or an expression.
        label: as it is given; None: the metric's name, or the id.
        is_shown: whether its values are in the answer.
    """

    id: str
    what: Metric | str
    label: str | None
    is_shown: bool


class Result(NamedTuple):
    """What came of a query.

    Attributes:
        id: of the query.
        label: of the series.
        values: times in seconds since the epoch, and values, in the order that was asked for.
        is_whole: whether all values are there.
    """

    id: str
    label: str
    values: list[tuple[int, float]]
    is_whole: bool


class Page(NamedTuple):
    """An answer; and where to go on, or empty."""

    results: list[Result]
    token: str


def answer(
    measures: Measures,
    queries: Sequence[Query],
    *,
    start_s: int,
    end_s: int,
    is_ascending: bool,
    most: int,
    token: str,
) -> Page:
    """Evaluate queries; in a thread.

    Args:
        measures: the metrics.
        queries: with ids of their own.
        start_s: from this time on.
        end_s: before this time.
        is_ascending: the oldest values first.
        most: so many values at most.
        token: of the page before; empty: none.

    Raises:
        InvalidQuery: one cannot be evaluated.
        InvalidNextToken: the token is none.
    """
    evaluation = _Evaluation(measures, queries, start_s, end_s)
    lines = [(query, line) for query in queries if query.is_shown for line in evaluation.lines(query)]
    if token and not (token.isascii() and token.isdigit() and len(token) < 10):
        raise InvalidNextToken(f"The token {token[:100]} is invalid.")  # chosen
    given = int(token or 0)
    results: list[Result] = []
    room, skipped = most, given
    for query, line in lines:
        values = sorted(line.values.items(), reverse=not is_ascending)
        rest = values[skipped:]
        skipped = max(0, skipped - len(values))
        shown = rest[:room]
        room -= len(shown)
        if token and not shown and values:
            continue
        results.append(Result(query.id, _label(query, line), shown, is_whole=len(shown) == len(rest)))
    total = sum(len(line.values) for _, line in lines)
    following = given + most - room
    return Page(results, str(following) if following < total else "")


def _label(query: Query, line: Line) -> str:
    if query.label is not None:
        return query.label
    return query.what.series.name if isinstance(query.what, Metric) else (line.label or query.id)


class _Evaluation:
    """Evaluates each query once."""

    def __init__(self, measures: Measures, queries: Sequence[Query], start_s: int, end_s: int) -> None:
        self._measures = measures
        self._queries: Mapping[str, Query] = {query.id: query for query in queries}
        self._start_s = start_s
        self._end_s = end_s
        self._found: dict[str, Value] = {}
        self._under_way: list[str] = []
        metrics = tuple(query.id for query in queries if isinstance(query.what, Metric))
        self._scope = Scope(self._value, metrics, start_s, end_s)

    def lines(self, query: Query) -> list[Line]:
        """The series of a query: one, or those of an array."""
        value = self._value(query.id)
        if isinstance(value, Line):
            return [value]
        if isinstance(value, list):
            return value
        raise InvalidQuery(f"Error in expression '{query.id}': it is no time series: use it within another expression")

    def _value(self, name: str) -> Value:
        found = self._found.get(name)
        if found is None:
            query = self._queries.get(name)
            if query is None:
                raise invalid(f"there is no query with the id {name}")
            if name in self._under_way:
                raise invalid(f"{name} needs itself")
            if len(self._under_way) >= QUERIES // 10:
                raise invalid("expressions stand on one another too deep")
            self._under_way.append(name)
            what = query.what
            found = self._metric(what) if isinstance(what, Metric) else evaluate(what, self._scope)
            self._under_way.pop()
            self._found[name] = found
        return found

    def _metric(self, metric: Metric) -> Line:
        stat = statistics.statistic(metric.stat)
        rows = self._measures.rows(metric.series, self._start_s, self._end_s)
        points = statistics.periods(rows, self._start_s, metric.period_s)
        values = {at: value for at, point in points.items() if (value := stat(point)) is not None}
        return Line(values, metric.period_s, metric.series.name)
