"""Metric math: what expressions come to, and what is refused."""

from __future__ import annotations

import pytest

from kflow.monitoring.errors import InvalidQuery
from kflow.monitoring.expressions import Line, Scope, Value, evaluate

LINES = {
    "m1": Line({0: 1.0, 60: 2.0, 120: 4.0}, 60),
    "m2": Line({0: 2.0, 120: 0.0}, 60),
    "e1": Line({0: 7.0}, 60),
}


def value(text: str) -> Value:
    return evaluate(text, Scope(LINES.__getitem__, ("m1", "m2"), 0, 240))


def values(text: str) -> dict[int, float]:
    found = value(text)
    assert isinstance(found, Line)
    assert found.period_s == 60
    return dict(sorted(found.values.items()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("m1 + 1", {0: 2, 60: 3, 120: 5}),
        ("10 - m1", {0: 9, 60: 8, 120: 6}),
        ("m1 + m2", {0: 3, 120: 4}),
        ("m1 / m2 * 100", {0: 50}),
        ("-m1", {0: -1, 60: -2, 120: -4}),
        ("m1 ^ 2", {0: 1, 60: 4, 120: 16}),
        ("2 + 3 * m1", {0: 5, 60: 8, 120: 14}),
        ("(2 + 3) * m1", {0: 5, 60: 10, 120: 20}),
        ("m1 > 1", {0: 0, 60: 1, 120: 1}),
        ("m1 >= 2 AND m1 < 4", {0: 0, 60: 1, 120: 0}),
        ("m1 == 1 || m1 == 4", {0: 1, 60: 0, 120: 1}),
        ("m1 != 1 && m1 <= 4", {0: 0, 60: 1, 120: 1}),
        ("SUM([m1, m2])", {0: 3, 60: 2, 120: 4}),
        ("SUM(METRICS())", {0: 3, 60: 2, 120: 4}),
        ('MAX(METRICS("m"))', {0: 2, 60: 2, 120: 4}),
        ("MIN([m1, m2])", {0: 1, 60: 2, 120: 0}),
        ("AVG([m1, m2])", {0: 1.5, 60: 2, 120: 2}),
        ("m1 - MIN(m1)", {0: 0, 60: 1, 120: 3}),
        ("m1 / SUM(m1) * 7", {0: 1, 60: 2, 120: 4}),
        ("m1 * METRIC_COUNT(METRICS())", {0: 2, 60: 4, 120: 8}),
        ("m1 / PERIOD(m1) * 60", {0: 1, 60: 2, 120: 4}),
        ("IF(m1 > 1, m1, 0)", {0: 0, 60: 2, 120: 4}),
        ("IF(m1 > 1, m1)", {60: 2, 120: 4}),
        ("IF(m1 > 1, m2, m1)", {0: 1, 120: 0}),
        ("IF(MAX(m1) > 3, m1, m2)", {0: 1, 60: 2, 120: 4}),
        ("FILL(m2, 9)", {0: 2, 60: 9, 120: 0, 180: 9}),
        ("FILL(m2, REPEAT)", {0: 2, 60: 2, 120: 0, 180: 0}),
        ("FILL(m2, LINEAR)", {0: 2, 60: 1, 120: 0}),
        ("DIFF(m1)", {60: 1, 120: 2}),
        ("RATE(m1) * 60", {60: 1, 120: 2}),
        ("RUNNING_SUM(m1)", {0: 1, 60: 3, 120: 7}),
        ("ABS(0 - m1)", {0: 1, 60: 2, 120: 4}),
        ("CEIL(m1 / 3)", {0: 1, 60: 1, 120: 2}),
        ("FLOOR(m1 / 3)", {0: 0, 60: 0, 120: 1}),
        ("LOG10(m2 * 50)", {0: 2}),
        ("TIME_SERIES(5)", {0: 5, 60: 5, 120: 5, 180: 5}),
        ("e1", {0: 7}),
    ],
)
def test_what_a_series_comes_to(text: str, expected: dict[int, float]) -> None:
    assert values(text) == pytest.approx(expected)


def test_numbers_and_arrays_come_out_as_they_are() -> None:
    assert value("1 + 2 * 3") == 7
    assert value("STDDEV(m1)") == pytest.approx(1.2472191)
    assert value("-2 ^ 2") == -4
    found = value("METRICS() * 2")
    assert isinstance(found, list)
    assert [line.values[0] for line in found] == [2, 4]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("SEARCH('{AWS/Lambda} Errors', 'Sum')", "kflow evaluates no SEARCH(); it has ABS, AVG"),
        ("ANOMALY_DETECTION_BAND(m1)", "kflow evaluates no ANOMALY_DETECTION_BAND()"),
        ("m1 +", "ends too soon"),
        ("(m1", "')' is missing"),
        ("m1 m2", "nothing belongs before 'm2'"),
        ("m1 ; m2", "cannot be read"),
        ("1 / 0", "division by zero"),
        ("[m1] + [m2]", "two arrays"),
        ("[1]", "time series only"),
        ("'a' + 1", "no number"),
        ("SUM(1)", "SUM takes a time series"),
        ("SUM(m1, m2)", "SUM takes one argument, not 2"),
        ("FILL(m1)", "FILL takes a time series, and a number"),
        ("FILL(m2, m1)", "FILL fills by a number"),
        ("IF(0, m1)", "no value where"),
        ("RATE(1)", "RATE takes a time series"),
        ("LOG(0)", "is no number"),
        ("*", "is no value"),
        ("(" * 200 + "1" + ")" * 200, "too deep"),
        ("-" * 200 + "1", "too deep"),
    ],
)
def test_what_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidQuery, match="Error in expression: ") as caught:
        value(text)
    assert why in str(caught.value)
