"""Statistics of periods, and of points."""

from __future__ import annotations

import pytest

from kflow.broker.metricpoints import Point, Row, nothing, of
from kflow.monitoring.errors import InvalidParameterValue
from kflow.monitoring.statistics import percentile, periods, statistic


def point(*values: float) -> Point:
    found = nothing()
    for value in values:
        found.add(of(value))
    return found


def test_the_simple_ones() -> None:
    found = point(1, 2, 6)
    assert {name: statistic(name)(found) for name in ("SampleCount", "Sum", "Average", "Minimum", "Maximum")} == {
        "SampleCount": 3,
        "Sum": 9,
        "Average": 3,
        "Minimum": 1,
        "Maximum": 6,
    }


@pytest.mark.parametrize(
    ("name", "expected"), [("p0", 1), ("p50", 3), ("p25", 2), ("p90", 4.6), ("p99.9", 4.996), ("p100", 5)]
)
def test_percentiles_stand_between_their_neighbours(name: str, expected: float) -> None:
    assert statistic(name)(point(5, 3, 1, 2, 4)) == pytest.approx(expected)


def test_a_value_that_came_often_counts_often() -> None:
    found = point(1)
    found.add(of(10, 99))
    assert statistic("p50")(found) == 10


def test_where_only_sums_are_known_there_are_no_percentiles_unless_all_are_equal() -> None:
    assert percentile(Point(3, 9, 1, 6, {}), 0.5) is None
    assert percentile(Point(3, 9, 3, 3, {}), 0.5) == 3


def test_many_different_values_are_kept_by_two_digits() -> None:
    found = point(*range(1, 2001))
    assert (found.count, found.sum, found.least, found.most) == (2000, 2001000, 1, 2000)
    assert len(found.values) <= 200 + 64
    assert statistic("p50")(found) == pytest.approx(1000, rel=0.05)


@pytest.mark.parametrize("name", ["p101", "p", "tm99", "IQM", "Median", ""])
def test_what_is_not_computed_is_refused(name: str) -> None:
    with pytest.raises(InvalidParameterValue, match="is not supported: kflow computes SampleCount, Sum"):
        statistic(name)


def test_periods_begin_where_the_query_does() -> None:
    rows = [Row(60, "None", of(1)), Row(120, "None", of(2)), Row(180, "None", of(4))]
    assert {at: found.sum for at, found in periods(rows, 60, 120).items()} == {60: 3, 180: 4}
