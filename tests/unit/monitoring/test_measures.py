"""The metrics of a node: noted in memory, put to the disk, expired."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kflow.broker.folder import DataFolder
from kflow.broker.metricpoints import MINUTES_S, SECONDS_S, Series, of
from kflow.errors import StorageError
from kflow.monitoring import measures as module
from kflow.monitoring.measures import Measures, Put

PLACE = ("123456789012", "us-east-1")
NOW_S = 1_790_000_040
ORDERS = Series(*PLACE, "App", "orders", (("shop", "b"),), "Count")


class Made:
    """Measures over a folder, and the hand that turns their clock."""

    def __init__(self, path: Path) -> None:
        self.now_s = float(NOW_S)
        self.folder = DataFolder.open(path, create=True, region=PLACE[1], account=PLACE[0])
        self.open()

    def open(self) -> None:
        self.measures = Measures(self.folder, lambda: self.now_s)

    def put(self, *values: float, series: Series = ORDERS, at_s: int = NOW_S, step_s: int = 60) -> None:
        self.measures.put([Put(series, at_s, step_s, of(value)) for value in values])

    def sums(self, series: Series = ORDERS, start_s: int = 0, end_s: int = 2_000_000_000) -> dict[int, float]:
        return {row.start_s: row.point.sum for row in self.measures.rows(series, start_s, end_s)}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    made = Made(tmp_path / "data")
    yield made
    made.measures.close()


def test_what_is_put_stands_by_the_minute_also_after_a_restart(made: Made) -> None:
    made.put(1, 2)
    made.put(4, at_s=NOW_S + 61)
    made.measures.close()
    made.open()
    made.put(8)
    assert made.sums() == {NOW_S: 11, NOW_S + 60: 4}
    assert made.sums(end_s=NOW_S + 60) == {NOW_S: 11}


def test_all_of_a_call_is_kept_or_none(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def points() -> Iterator[Put]:
        yield Put(ORDERS, NOW_S, 60, of(1))
        raise StorageError("the disk")

    with pytest.raises(StorageError):
        made.measures.put(points())
    assert made.sums() == {}
    made.put(2)
    assert made.sums() == {NOW_S: 2}


def test_units_stand_apart_and_together(made: Made) -> None:
    made.put(1)
    made.put(2, series=ORDERS._replace(unit="Bytes"))
    assert made.sums() == {NOW_S: 1}
    rows = made.measures.rows(ORDERS._replace(unit=""), 0, 2_000_000_000)
    assert sorted((row.unit, row.point.sum) for row in rows) == [("Bytes", 2), ("Count", 1)]
    assert made.measures.metrics(*PLACE) == [ORDERS._replace(unit="")]


def test_places_stand_apart(made: Made) -> None:
    made.put(1)
    assert made.measures.metrics("999999999999", "us-east-1") == []
    assert made.sums(ORDERS._replace(region="eu-west-1")) == {}


def test_the_nodes_own_wait_in_memory_and_tell_of_the_first(made: Made) -> None:
    told: list[bool] = []
    made.measures.changed = lambda: told.append(True)
    for _ in range(3):
        made.measures.note("AWS/Lambda", "Errors", of(1), (("FunctionName", "bill"),))
    assert told == [True]
    assert not (made.folder.path / "metrics.db").exists()
    own = Series(*PLACE, "AWS/Lambda", "Errors", (("FunctionName", "bill"),), "Count")
    assert made.sums(own) == {NOW_S: 3}
    made.measures.note("AWS/Lambda", "Errors", of(1), (("FunctionName", "bill"),))
    assert told == [True, True]
    assert made.sums(own) == {NOW_S: 4}


def test_a_point_that_is_noted_for_two_is_copied(made: Made) -> None:
    point = of(1)
    made.measures.note("A", "a", point, ())
    made.measures.note("A", "b", point, ())
    made.measures.note("A", "a", point, ())
    assert made.sums(Series(*PLACE, "A", "b", (), "Count")) == {NOW_S: 1}
    assert point == of(1)


def test_what_cannot_be_written_stays_in_memory(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made.measures.note("A", "a", of(1), ())
    with monkeypatch.context() as patched:
        patched.setattr(Measures, "_opened", _full)
        with pytest.raises(StorageError):
            made.measures.flush()
    told: list[bool] = []
    made.measures.changed = lambda: told.append(True)
    made.measures.note("A", "a", of(2), ())
    assert told == [True]  # or nobody would try again
    assert made.sums(Series(*PLACE, "A", "a", (), "Count")) == {NOW_S: 3}


def _full(self: Measures) -> object:
    raise StorageError("no room")


def test_there_is_an_end_to_what_waits_in_memory(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 2)
    for name in "abc":
        made.measures.note("A", name, of(1), ())
    made.measures.note("A", "a", of(1), ())
    assert made.measures.dropped == 1


def test_sources_note_what_they_counted_before_it_is_read(made: Made) -> None:
    made.measures.sources.append(lambda: made.measures.note("A", "a", of(5), ()))
    assert made.sums(Series(*PLACE, "A", "a", (), "Count")) == {NOW_S: 5}


def test_seconds_become_minutes_and_minutes_go(made: Made) -> None:
    made.put(1, step_s=1, at_s=NOW_S + 1)
    made.put(2, step_s=1, at_s=NOW_S + 2)
    made.put(4)
    assert made.sums() == {NOW_S: 4, NOW_S + 1: 1, NOW_S + 2: 2}
    made.now_s += SECONDS_S + 120
    made.put(0, at_s=int(made.now_s))
    assert made.sums(end_s=NOW_S + 60) == {NOW_S: 7}
    made.now_s += MINUTES_S + 60
    made.put(0, series=ORDERS._replace(name="other"), at_s=int(made.now_s))
    assert made.sums() == {}
    assert [each.name for each in made.measures.metrics(*PLACE)] == ["other"]


def test_metrics_that_are_silent_are_left_out_where_that_is_asked_for(made: Made) -> None:
    made.put(1)
    assert made.measures.metrics(*PLACE, since_s=NOW_S - 60) != []
    assert made.measures.metrics(*PLACE, since_s=NOW_S + 60) == []


def test_all_is_forgotten(made: Made) -> None:
    made.put(1)
    made.measures.note("A", "a", of(1), ())
    made.measures.clear()
    assert made.measures.metrics(*PLACE) == []
    made.put(2)
    assert made.sums() == {NOW_S: 2}
