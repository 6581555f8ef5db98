"""Statistics of periods: out of the minutes that are kept.

Source: documented: CloudWatch User Guide, statistics definitions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from kflow.broker.metricpoints import Point, Row, nothing
from kflow.monitoring.errors import InvalidParameterValue

_PERCENTILE: Final = re.compile(r"p(100|[0-9]{1,2}(?:\.[0-9]{1,10})?)")
Statistic = Callable[[Point], float | None]
"""None: these values have none."""

SIMPLE: Final[Mapping[str, Statistic]] = {
    "SampleCount": lambda point: point.count,
    "Sum": lambda point: point.sum,
    "Average": lambda point: point.sum / point.count if point.count else None,
    "Minimum": lambda point: point.least,
    "Maximum": lambda point: point.most,
}


def statistic(name: str) -> Statistic:
    """A statistic by its name: one of `SIMPLE`, or a percentile such as `p99.9`.

    Raises:
        InvalidParameterValue: there is none of that name, or it is not computed here.
    """
    found = SIMPLE.get(name)
    if found is not None:
        return found
    match = _PERCENTILE.fullmatch(name)
    if match is None:
        raise InvalidParameterValue(
            f"The value {name} for parameter Stat is not supported: kflow computes {', '.join(SIMPLE)} and percentiles "
            "such as p99"
        )  # chosen
    share = float(match[1]) / 100
    return lambda point: percentile(point, share)


def percentile(point: Point, share: float) -> float | None:
    """The value that this share of all does not pass, between its neighbours in proportion.

    None where only a sum of the values is known, and they differ.
    """
    if point.least == point.most:
        return point.least
    if not point.values:
        return None
    wanted = share * (point.count - 1)
    seen = 0.0
    before: float | None = None
    for value in sorted(point.values):
        count = point.values[value]
        if wanted <= seen + count - 1:
            if before is None or wanted >= seen:
                return value
            return before + (value - before) * (wanted - (seen - 1))
        seen += count
        before = value
    return before


def periods(rows: Iterable[Row], start_s: int, period_s: int) -> dict[int, Point]:
    """Rows summed up: periods begin at `start_s`, and each is named by its beginning."""
    found: dict[int, Point] = {}
    for row in rows:
        at = start_s + (row.start_s - start_s) // period_s * period_s
        found.setdefault(at, nothing()).add(row.point)
    return found
