"""Metrics as they are kept: one SQLite file, `metrics.db`, a row for each series and minute.

What has a resolution of a second has rows of seconds for three hours, which are added to its minutes then; minutes are
kept for 15 days. Source: documented: CloudWatch keeps seconds for 3 hours, minutes for 15 days; and coarser ones for
longer, which is not done here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from kflow.broker.folder import DataFolder
from kflow.broker.tablefile import TableFile

FILE_NAME: Final = "metrics.db"
MINUTE_S: Final = 60
SECONDS_S: Final = 3 * 3600
"""Rows of seconds are kept so long."""
MINUTES_S: Final = 15 * 86_400
"""And those of minutes."""
_DISTINCT: Final = 64
"""So many values of a row are kept as they are; of more, two digits of each: 5 % from where they were (chosen)."""
_SCHEMA: Final = """
CREATE TABLE series (
    number INTEGER PRIMARY KEY, account TEXT NOT NULL, region TEXT NOT NULL, namespace TEXT NOT NULL,
    name TEXT NOT NULL, dimensions TEXT NOT NULL, unit TEXT NOT NULL, last_s INTEGER NOT NULL,
    UNIQUE (account, region, namespace, name, dimensions, unit)
);
CREATE TABLE points (
    series INTEGER NOT NULL, start_s INTEGER NOT NULL, step_s INTEGER NOT NULL, point BLOB NOT NULL,
    PRIMARY KEY (series, start_s, step_s)
) WITHOUT ROWID;
"""

Dimensions = tuple[tuple[str, str], ...]
"""Names and values, in the order of names."""


class Series(NamedTuple):
    """What a row is of."""

    account: str
    region: str
    namespace: str
    name: str
    dimensions: Dimensions = ()
    unit: str = "None"


class Point(msgspec.Struct, array_like=True):
    """Some values, summed up. Belongs to whoever made it.

    Attributes:
        count: how many they are.
        sum: of them.
        least: the least of them.
        most: the greatest.
        values: how often each was there; empty: nobody knows.
    """

    count: float
    sum: float
    least: float
    most: float
    values: dict[float, float]

    def note(self, value: float) -> None:
        """Take in one value."""
        if value not in self.values:
            self.add(of(value))
            return
        self.count += 1
        self.sum += value
        self.values[value] += 1
        if value > self.most:  # what is in the table may be rounded
            self.most = value
        elif value < self.least:
            self.least = value

    def add(self, other: Point) -> None:
        """Take in others, at least one."""
        if not self.count:
            self.count, self.sum, self.least, self.most = other.count, other.sum, other.least, other.most
            self.values = dict(other.values)
            return
        self.count += other.count
        self.sum += other.sum
        self.least = min(self.least, other.least)
        self.most = max(self.most, other.most)
        if not self.values or not other.values:
            self.values = {}
            return
        is_rough = len(self.values) > _DISTINCT
        for value, count in other.values.items():
            key = _rounded(value) if is_rough else value
            self.values[key] = self.values.get(key, 0) + count
        if not is_rough and len(self.values) > _DISTINCT:
            rough: dict[float, float] = {}
            for value, count in self.values.items():
                key = _rounded(value)
                rough[key] = rough.get(key, 0) + count
            self.values = rough


# Made once, here: msgspec ends the process where two threads use a type for the first time at the same time.
_read_point = msgspec.msgpack.Decoder(Point).decode


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def nothing() -> Point:
    """A point of no values, to add others to."""
    return Point(0, 0, 0, 0, {})


def of(value: float, count: float = 1) -> Point:
    """A point of one value, which came so often."""
    return Point(count, value * count, value, value, {value: count})


class Row(NamedTuple):
    """A point, and when it was.

    Attributes:
        start_s: seconds since the epoch.
        unit: of its series.
        point: the values.
    """

    start_s: int
    unit: str
    point: Point


class MetricPoints(TableFile):
    """The file. Used by one thread at a time; what changes it stands within `turn`."""

    _WHAT = "metrics"
    _COUNTED = "series"
    _OTHER_VERSION = "open it with that version, or remove it to begin anew"
    _DAMAGED = "remove it to begin anew: metrics alone are in it"

    def __init__(self, folder: DataFolder) -> None:
        super().__init__(
            os.fspath(folder.path / FILE_NAME),
            fsync=folder.fsync,
            make=lambda: self._create(_SCHEMA),
            may_begin=True,
        )
        self._numbers: dict[Series, int] = {}

    def add(self, series: Series, start_s: int, step_s: int, point: Point) -> None:
        """Add to a row. `step_s` is 1 or `MINUTE_S`; `start_s` a multiple of it."""
        number = self._number(series, start_s)
        key = (number, start_s, step_s)
        known = self._sql.execute("SELECT point FROM points WHERE (series, start_s, step_s) = (?, ?, ?)", key)
        whole = nothing()
        for (text,) in known.fetchall():
            whole = _point(text)
        whole.add(point)
        self._sql.execute("REPLACE INTO points VALUES (?, ?, ?, ?)", (*key, msgspec.msgpack.encode(whole)))

    def _number(self, series: Series, start_s: int) -> int:
        found = self._numbers.get(series)
        if found is None:
            row = self._sql.execute(
                "INSERT INTO series (account, region, namespace, name, dimensions, unit, last_s) "
                "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET last_s = last_s RETURNING number",
                (*series[:4], _written(series.dimensions), series.unit, start_s),
            ).fetchall()
            found = self._numbers[series] = int(row[0][0])
        self._sql.execute("UPDATE series SET last_s = ? WHERE number = ? AND last_s < ?", (start_s, found, start_s))
        return found

    def _undone(self) -> None:
        self._numbers.clear()

    def rows(self, series: Series, start_s: int, end_s: int) -> Iterator[Row]:
        """The rows of a metric from one time to before another, those of all units where `unit` is empty; in order."""
        sql = (
            "SELECT p.start_s, s.unit, p.point FROM series s JOIN points p ON p.series = s.number WHERE "
            "(s.account, s.region, s.namespace, s.name, s.dimensions) = (?, ?, ?, ?, ?) AND (? = '' OR s.unit = ?) "
            "AND p.start_s >= ? AND p.start_s < ? ORDER BY p.start_s"
        )
        values = (*series[:4], _written(series.dimensions), series.unit, series.unit, start_s, end_s)
        with self._said("read"):
            found = self._sql.execute(sql, values).fetchall()
        for at, unit, text in found:
            yield Row(at, unit, _point(text))

    def metrics(self, account: str, region: str, *, since_s: int) -> list[Series]:
        """All series of a place that have a row of this time or later; without their units, each once, in order."""
        with self._said("read"):
            rows = self._sql.execute(
                "SELECT DISTINCT namespace, name, dimensions FROM series WHERE (account, region) = (?, ?) "
                "AND last_s >= ? ORDER BY namespace, name, dimensions",
                (account, region, since_s),
            ).fetchall()
        return [Series(account, region, namespace, name, _read(text), "") for namespace, name, text in rows]

    def expire(self, now_s: int) -> None:
        """Remove what is too old; seconds go into their minutes."""
        old = "WHERE step_s = 1 AND start_s < ?"
        before_s = (now_s - SECONDS_S) // MINUTE_S * MINUTE_S
        rows = self._sql.execute(f"SELECT series, start_s, point FROM points {old}", (before_s,)).fetchall()  # noqa: S608  # constant
        minutes: dict[tuple[int, int], Point] = {}
        for series, start_s, text in rows:
            minutes.setdefault((series, start_s // MINUTE_S * MINUTE_S), nothing()).add(_point(text))
        for (series, start_s), point in minutes.items():
            key = (series, start_s, MINUTE_S)
            known = self._sql.execute("SELECT point FROM points WHERE (series, start_s, step_s) = (?, ?, ?)", key)
            for (text,) in known.fetchall():
                point.add(_point(text))
            self._sql.execute("REPLACE INTO points VALUES (?, ?, ?, ?)", (*key, msgspec.msgpack.encode(point)))
        self._sql.execute(f"DELETE FROM points {old}", (before_s,))  # noqa: S608  # constant
        self._sql.execute("DELETE FROM points WHERE start_s < ?", (now_s - MINUTES_S,))
        self._sql.execute("DELETE FROM series WHERE last_s < ?", (now_s - MINUTES_S,))
        self._numbers.clear()

    def clear(self) -> None:
        """Remove everything."""
        self._sql.execute("DELETE FROM points")
        self._sql.execute("DELETE FROM series")
        self._numbers.clear()


def _point(text: bytes) -> Point:
    return _read_point(text)


def _written(dimensions: Iterable[tuple[str, str]]) -> str:
    return msgspec.json.encode(sorted(dimensions)).decode()


def _read(text: str) -> Dimensions:
    return msgspec.json.decode(text, type=Dimensions)
