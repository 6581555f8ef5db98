"""AWS CloudWatch: metrics of what runs here, and those that are put.

Alarms, dashboards and all else of it are not here. Source: documented: CloudWatch API reference; recorded: the texts,
but those marked chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from kflow.aws.calls import LATER, Answer, Call, Output, Place
from kflow.broker.host import Host
from kflow.broker.metricpoints import MINUTE_S, Dimensions, Point, Series, nothing, of
from kflow.monitoring import metricqueries, statistics
from kflow.monitoring.errors import (
    InvalidParameterCombination,
    InvalidParameterValue,
    InvalidQuery,
    MissingParameter,
)
from kflow.monitoring.measures import Measures, Put
from kflow.monitoring.metricqueries import Metric, Query
from kflow.monitoring.onethread import OneThread
from kflow.services.answering import answering

T = TypeVar("T")

_LISTED: Final = 500
_DATA: Final = 1000
_VALUES: Final = 150
_DATAPOINTS: Final = 1440
_RECENT_S: Final = 3 * 3600
_OLDEST_S: Final = 14 * 86_400
_NEWEST_S: Final = 2 * 3600
_SHORT_S: Final = frozenset({1, 5, 10, 30})
_GREATEST: Final = 2.0**360
"""Source: documented: MetricDatum, Value."""


class CloudWatch:
    """Its operations. Belongs to the loop's thread.

    Args:
        host: the node.
        measures: the metrics.
    """

    service_name = "cloudwatch"

    def __init__(self, host: Host, measures: Measures) -> None:
        self._host = host
        self._measures = measures
        self._thread = OneThread(host)

    def clear(self, then: Callable[[], object]) -> None:
        """Forget all metrics."""
        self._thread.do(self._measures.clear, lambda _: then())

    # ------------------------------------------------------------------ writing

    def put_metric_data(self, call: Call, given: Any) -> Answer:
        """Keep values: all of a call or none. Entities are not related to anything here."""
        place = call.context.place
        if given.Namespace.startswith("AWS/"):
            raise InvalidParameterValue("The value AWS/ for parameter Namespace is invalid.")
        data = [(f"MetricData.member.{number}", each) for number, each in enumerate(given.MetricData or (), 1)]
        for group, entity in enumerate(given.EntityMetricData or (), 1):
            head = f"EntityMetricData.member.{group}.MetricData.member"
            data += [(f"{head}.{number}", each) for number, each in enumerate(entity.MetricData or (), 1)]
        if not data:
            raise MissingParameter("The parameter MetricData is required.")
        if len(data) > _DATA:
            raise InvalidParameterValue(f"The collection MetricData must not have a size greater than {_DATA}.")
        now_s = self._host.now_ms() / 1000

        def put() -> None:
            self._measures.put([_put(place, given.Namespace, where, each, now_s) for where, each in data])

        return self._do(call, put, lambda _: None)

    # ------------------------------------------------------------------ reading

    def list_metrics(self, call: Call, given: Any) -> Answer:
        """Metrics that have values, 500 a page. AWS forgets them after two weeks; so do we."""
        place = call.context.place
        if given.OwningAccount is not None and given.OwningAccount != place.account:
            raise InvalidParameterValue(f"The account {given.OwningAccount} is not linked to this one.")  # chosen
        since_s = None if given.RecentlyActive is None else self._host.now_ms() // 1000 - _RECENT_S
        wanted = [(each.Name, each.Value) for each in given.Dimensions or ()]
        skipped = _skipped(given.NextToken)

        def shown(found: list[Series]) -> Output:
            rows = [
                each
                for each in found
                if given.Namespace in (None, each.namespace)
                and given.MetricName in (None, each.name)
                and all(_has(each.dimensions, name, value) for name, value in wanted)
            ]
            page = rows[skipped : skipped + _LISTED]
            token = str(skipped + _LISTED) if len(rows) > skipped + _LISTED else None
            output: dict[str, Any] = {"Metrics": [_metric(each) for each in page], "NextToken": token}
            if given.IncludeLinkedAccounts:
                output["OwningAccounts"] = [place.account] * len(page)
            return output

        return self._do(call, lambda: self._measures.metrics(*place, since_s=since_s), shown)

    def get_metric_statistics(self, call: Call, given: Any) -> Answer:
        """Statistics of one metric, a datapoint a period and unit, in no order."""
        names, extended = given.Statistics or [], given.ExtendedStatistics or []
        if not names and not extended:
            raise InvalidParameterCombination(
                "At least one of the parameters Statistics, ExtendedStatistics must be set."
            )
        period_s, start_s, end_s = given.Period, given.StartTime // 1000, math.ceil(given.EndTime / 1000)
        _check_period(period_s, "Period")
        if start_s >= end_s:
            raise InvalidParameterValue("The parameter StartTime must be less than the parameter EndTime.")
        start_s = _begin(start_s, period_s)
        points = -(-(end_s - start_s) // period_s)
        if points > _DATAPOINTS:
            raise InvalidParameterCombination(
                f"You have requested up to {points:,} datapoints, which exceeds the limit of 1,440. You may reduce the "
                "datapoints requested by increasing Period, or decreasing the time range."
            )
        stats = {name: statistics.statistic(name) for name in (*names, *extended)}
        series = _series(call.context.place, given.Namespace, given, given.Unit or "")

        def shown(rows: Sequence[Any]) -> Output:
            found = []
            for unit in sorted({row.unit for row in rows}):
                own = [row for row in rows if row.unit == unit]
                for at, point in statistics.periods(own, start_s, period_s).items():
                    datapoint: dict[str, Any] = {"Timestamp": at * 1000, "Unit": unit}
                    datapoint |= {name: stats[name](point) for name in names}
                    percentiles = {name: stats[name](point) for name in extended}
                    known = {name: value for name, value in percentiles.items() if value is not None}
                    if known:
                        datapoint["ExtendedStatistics"] = known
                    if names or known:
                        found.append(datapoint)
            return {"Label": given.MetricName, "Datapoints": found}

        return self._do(call, lambda: self._measures.rows(series, start_s, end_s), shown)

    def get_metric_data(self, call: Call, given: Any) -> Answer:
        """Statistics of metrics, and expressions over them."""
        place = call.context.place
        start_s, end_s = given.StartTime // 1000, math.ceil(given.EndTime / 1000)
        if start_s >= end_s:
            raise InvalidQuery("The parameter StartTime must be less than the parameter EndTime.")
        most = metricqueries.DATAPOINTS if given.MaxDatapoints is None else given.MaxDatapoints
        if not 1 <= most <= metricqueries.DATAPOINTS:
            raise InvalidQuery(f"MaxDatapoints must be between 1 and {metricqueries.DATAPOINTS}.")  # chosen
        queries = [_query(place, each) for each in given.MetricDataQueries]
        if not queries:
            raise InvalidQuery("The parameter MetricDataQueries is required.")
        if len(queries) > metricqueries.QUERIES:
            raise InvalidQuery(
                f"The collection MetricDataQueries must not have a size greater than {metricqueries.QUERIES}."
            )
        names = [query.id for query in queries]
        if len(set(names)) < len(names):
            raise InvalidQuery("The values for parameter id in MetricDataQueries are not unique.")
        shortest_s = min((query.what.period_s for query in queries if isinstance(query.what, Metric)), default=MINUTE_S)
        start_s = _begin(start_s, shortest_s)
        if (end_s - start_s) // shortest_s > metricqueries.DATAPOINTS:
            raise InvalidQuery(
                f"A query may not ask for more than {metricqueries.DATAPOINTS:,} datapoints: increase Period, or "
                "decrease the time range."
            )  # chosen

        def shown(page: metricqueries.Page) -> Output:
            return {
                "MetricDataResults": [
                    {
                        "Id": each.id,
                        "Label": each.label,
                        "Timestamps": [at * 1000 for at, _ in each.values],
                        "Values": [value for _, value in each.values],
                        "StatusCode": "Complete" if each.is_whole else "PartialData",
                    }
                    for each in page.results
                ],
                "NextToken": page.token or None,
                "Messages": [],
            }

        return self._do(
            call,
            lambda: metricqueries.answer(
                self._measures,
                queries,
                start_s=start_s,
                end_s=end_s,
                is_ascending=given.ScanBy == "TimestampAscending",
                most=most,
                token=given.NextToken or "",
            ),
            shown,
        )

    # ------------------------------------------------------------------ inside

    def _do(self, call: Call, work: Callable[[], T], shown: Callable[[T], Output]) -> Answer:
        """Do file work, and answer with what it came to; that is put into words in the thread too: it may be long."""
        self._thread.do(lambda: shown(work()), answering(call, lambda found: found))
        return LATER


def _begin(start_s: int, period_s: int) -> int:
    """Where the first period begins: at the minute of the start (chosen), or its second for shorter periods.

    Source: documented: a start of the last 15 days is rounded down to the minute, for longer periods than one.
    """
    step_s = min(period_s, MINUTE_S)
    return start_s // step_s * step_s


def _check_period(period_s: int, where: str) -> None:
    if period_s % MINUTE_S and period_s not in _SHORT_S:
        raise InvalidParameterValue(
            f"The parameter {where} must be a multiple of 60, or one of 1, 5, 10 and 30."
        )  # chosen


def _dimensions(given: Any) -> Dimensions:
    return tuple(sorted((each.Name, each.Value) for each in given or ()))


def _series(place: Place, namespace: str, given: Any, unit: str) -> Series:
    return Series(*place, namespace, given.MetricName, _dimensions(given.Dimensions), unit)


def _query(place: Place, given: Any) -> Query:
    if given.AccountId not in (None, place.account):
        raise InvalidQuery(f"The account {given.AccountId} is not linked to this one.")  # chosen
    if not (given.Id[0].islower() and given.Id.isascii() and given.Id.replace("_", "a").isalnum()):
        raise InvalidQuery(
            f"The value {given.Id} for parameter MetricDataQueries.member.Id is not matching the expected pattern "
            "^[a-z][a-zA-Z0-9_]*$."
        )
    if given.Label is not None and "${" in given.Label:
        raise InvalidQuery("kflow computes no dynamic labels: leave ${...} out of Label")  # chosen
    if (given.MetricStat is None) == (given.Expression is None):
        raise InvalidQuery(
            "Exactly one of the parameters MetricStat and Expression must be set for each of MetricDataQueries."
        )  # chosen
    is_shown = given.ReturnData is not False
    if given.MetricStat is None:
        return Query(given.Id, given.Expression, given.Label, is_shown)
    stat = given.MetricStat
    if stat.Metric.Namespace is None or stat.Metric.MetricName is None:
        raise InvalidQuery("A metric has a Namespace and a MetricName.")  # chosen
    _check_period(stat.Period, "MetricStat.Period")
    statistics.statistic(stat.Stat)
    series = _series(place, stat.Metric.Namespace, stat.Metric, stat.Unit or "")
    return Query(given.Id, Metric(series, stat.Period, stat.Stat), given.Label, is_shown)


def _skipped(token: str | None) -> int:
    if token is None:
        return 0
    if not (token.isascii() and token.isdigit() and len(token) < 10):
        raise InvalidParameterValue(f"The token {token[:100]} is invalid.")  # chosen: the text
    return int(token)


def _has(dimensions: Dimensions, name: str, value: str | None) -> bool:
    return any(each == name and value in (None, found) for each, found in dimensions)


def _metric(series: Series) -> dict[str, Any]:
    return {
        "Namespace": series.namespace,
        "MetricName": series.name,
        "Dimensions": [{"Name": name, "Value": value} for name, value in series.dimensions],
    }


def _put(place: Place, namespace: str, where: str, given: Any, now_s: float) -> Put:
    at_s = now_s if given.Timestamp is None else given.Timestamp / 1000
    if at_s < now_s - _OLDEST_S:
        raise InvalidParameterValue(
            f"The parameter {where}.Timestamp must specify a time no more than two weeks in the past."
        )
    if at_s > now_s + _NEWEST_S:
        raise InvalidParameterValue(
            f"The parameter {where}.Timestamp must specify a time no more than two hours in the future."
        )
    step_s = given.StorageResolution or MINUTE_S
    if step_s not in (1, MINUTE_S):
        raise InvalidParameterValue(f"The parameter {where}.StorageResolution must be 1 or 60.")  # chosen
    names = [each.Name for each in given.Dimensions or ()]
    if len(set(names)) < len(names):
        raise InvalidParameterValue(f"No dimension may come twice in {where}.Dimensions.")  # chosen
    series = _series(place, namespace, given, given.Unit or "None")
    return Put(series, int(at_s), step_s, _point(where, given))


def _point(where: str, given: Any) -> Point:
    forms = [name for name in ("Value", "Values", "StatisticValues") if getattr(given, name) is not None]
    if not forms:
        raise MissingParameter(
            f"At least one of the parameters {where}.Value, {where}.Values or "
            f"{where}.StatisticValues must be specified."
        )
    if len(forms) > 1:
        raise InvalidParameterCombination(
            f"The parameters {where}.{forms[0]} and {where}.{forms[1]} are mutually exclusive and you have specified "
            "both."
        )
    if given.Counts is not None and given.Values is None:
        raise InvalidParameterCombination(f"The parameter {where}.Counts goes with {where}.Values.")  # chosen
    if given.Value is not None:
        return of(_checked(f"{where}.Value", given.Value))
    if given.StatisticValues is not None:
        stats = given.StatisticValues
        for name in ("SampleCount", "Sum", "Minimum", "Maximum"):
            _checked(f"{where}.StatisticValues.{name}", getattr(stats, name))
        if stats.SampleCount <= 0 or stats.Minimum > stats.Maximum:
            raise InvalidParameterValue(
                f"The statistics of {where}.StatisticValues cannot be those of values."
            )  # chosen
        return Point(stats.SampleCount, stats.Sum, stats.Minimum, stats.Maximum, {})
    return _summed(where, given.Values, given.Counts)


def _summed(where: str, values: Sequence[float], counts: Sequence[float] | None) -> Point:
    if len(values) > _VALUES:
        raise InvalidParameterValue(f"The collection {where}.Values must not have a size greater than {_VALUES}.")
    if not values:
        raise InvalidParameterValue(f"The collection {where}.Values must not be empty.")  # chosen
    if counts is not None and len(counts) != len(values):
        raise InvalidParameterValue(f"The parameters {where}.Values and {where}.Counts must have the same size.")
    point = nothing()
    for number, (value, count) in enumerate(_counted(values, counts), 1):
        _checked(f"{where}.Values.member.{number}", value)
        if _checked(f"{where}.Counts.member.{number}", count) <= 0:
            raise InvalidParameterValue(f"The value {count:g} for parameter {where}.Counts.member.{number} is invalid.")
        point.add(of(value, count))
    return point


def _counted(values: Sequence[float], counts: Sequence[float] | None) -> Iterator[tuple[float, float]]:
    return zip(values, [1.0] * len(values) if counts is None else counts, strict=True)


def _checked(where: str, value: float) -> float:
    if not abs(value) <= _GREATEST:  # what is no number is refused too
        raise InvalidParameterValue(f"The value {value} for parameter {where} is invalid.")
    return value
