"""Log groups: those that were made, those of functions, and both together."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kflow.aws.calls import Place
from kflow.broker.folder import DataFolder
from kflow.broker.functionlogs import Index, log_path
from kflow.monitoring.errors import AlreadyExists, InvalidParameter, NoGroup, NoStream
from kflow.monitoring.filterpatterns import compiled
from kflow.monitoring.logged import LAST_ID, NO_ID
from kflow.monitoring.loggroups import DAY_MS, LogGroups, tagged
from kflow.runtime.worker.logfiles import LogFile

HOME = Place("123456789012", "us-east-1")
NOW_MS = 1_790_000_000_000
GROUP = "/aws/lambda/bill"


class Made:
    """Groups of a data folder, and the hand that turns their clock."""

    def __init__(self, path: Path) -> None:
        self.now_ms = NOW_MS
        self.folder = DataFolder.open(path, create=True, region=HOME.region, account=HOME.account)
        self.open()

    def open(self) -> None:
        self.groups = LogGroups(self.folder, HOME, lambda: self.now_ms)

    def put(self, stream: str, *texts: str, group: str = "app", at_ms: int = NOW_MS, step_ms: int = 1) -> None:
        events = [(at_ms + number * step_ms, text) for number, text in enumerate(texts)]
        self.groups.put(HOME, group, stream, events, 10)

    def search(self, pattern: str = "", *, group: str = "app", limit: int = 100, **given: object) -> list[str]:
        """All pages."""
        found: list[str] = []
        after = NO_ID
        while True:
            page = self.groups.search(
                HOME,
                group,
                **{"streams": None, "prefix": "", "since_ms": 0, "until_ms": 10**13, **given},  # type: ignore[arg-type]
                after=after,
                limit=limit,
                matches=compiled(pattern),
            )
            assert len(page.events) <= limit
            found += [each.text for each in page.events]
            after = page.after
            if not after:
                return found

    def page(self, *, group: str = "app", stream: str = "one", limit: int = 100, **given: object) -> list[str]:
        whole = {"since_ms": 0, "until_ms": 10**13, "before": LAST_ID, **given}
        return [
            each.text
            for each in self.groups.page(HOME, group, stream, limit=limit, **whole)  # type: ignore[arg-type]
        ]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    made = Made(tmp_path / "data")
    yield made
    made.groups.close()


@pytest.fixture
def app(made: Made) -> Made:
    made.groups.make(HOME, "app", kind="STANDARD", tags={}, key="", is_protected=False)
    for stream in ("one", "two"):
        made.groups.make_stream(HOME, "app", stream)
    return made


def function(made: Made, stream: str, *texts: str, name: str = "bill", group: str = "") -> None:
    file = LogFile(log_path(made.folder.path, name))
    index = Index(log_path(made.folder.path, name), file.fd, stream, lambda: made.now_ms / 1000, group=group)
    for text in texts:
        index.wrote(os.write(file.fd, text.encode()))
    index.close()
    file.close()


def test_what_is_put_is_found_also_after_a_restart(app: Made) -> None:
    app.put("one", "a", "b")
    app.groups.close()
    app.open()
    assert app.page() == ["a", "b"]
    assert [each.name for each in app.groups.groups(HOME)] == ["app"]
    assert app.groups.groups(Place("123456789012", "eu-west-1")) == []


def test_pages_go_forwards_and_backwards(app: Made) -> None:
    app.put("one", *"abcdefg")
    app.put("two", "x")
    assert app.page(limit=3) == ["e", "f", "g"]
    forwards = app.groups.page(HOME, "app", "one", since_ms=0, until_ms=10**13, after=NO_ID, limit=3)
    assert [each.text for each in forwards] == ["a", "b", "c"]
    assert app.page(after=forwards[-1].id, limit=2) == ["d", "e"]
    assert app.page(before=forwards[-1].id, limit=9) == ["a", "b"]
    assert app.page(since_ms=NOW_MS + 2, until_ms=NOW_MS + 4) == ["c", "d"]


def test_a_search_takes_all_streams_together_in_the_order_of_time(app: Made) -> None:
    app.put("one", "a", "c", "e", step_ms=2)
    app.put("two", "b", "d", at_ms=NOW_MS + 1, step_ms=2)
    assert app.search() == ["a", "b", "c", "d", "e"]
    assert app.search(limit=2) == ["a", "b", "c", "d", "e"]
    assert app.search("-b -d") == ["a", "c", "e"]
    assert app.search(streams=["two"]) == ["b", "d"]
    assert app.search(prefix="t") == ["b", "d"]
    assert app.search(since_ms=NOW_MS + 1, until_ms=NOW_MS + 3) == ["b", "c"]
    with pytest.raises(NoStream):
        app.search(streams=["three"])


def test_the_latest_come_first_where_that_is_asked_for(app: Made) -> None:
    app.put("one", *"abcde")
    found = app.groups.search(
        HOME,
        "app",
        streams=None,
        prefix="",
        since_ms=0,
        until_ms=10**13,
        after="",
        before=LAST_ID,
        limit=2,
        matches=None,
    )
    assert [each.text for each in found.events] == ["e", "d"]
    rest = app.groups.search(
        HOME,
        "app",
        streams=None,
        prefix="",
        since_ms=0,
        until_ms=10**13,
        after="",
        before=found.after,
        limit=9,
        matches=None,
    )
    assert ([each.text for each in rest.events], rest.after) == (["c", "b", "a"], "")


def test_a_functions_group_is_there_by_itself_and_takes_events_too(made: Made) -> None:
    function(made, "env", "START\n", "END\n")
    assert [each.name for each in made.groups.groups(HOME)] == [GROUP]
    assert [each.name for each in made.groups.streams(HOME, GROUP)] == ["env"]
    with pytest.raises(AlreadyExists, match="The specified log group already exists"):
        made.groups.make(HOME, GROUP, kind="STANDARD", tags={}, key="", is_protected=False)
    made.groups.make_stream(HOME, GROUP, "mine")
    made.put("mine", "put", group=GROUP)
    assert sorted(made.search(group=GROUP)) == ["END\n", "START\n", "put"]
    assert made.page(group=GROUP, stream="env") == ["START\n", "END\n"]
    assert [each.name for each in made.groups.streams(HOME, GROUP)] == ["env", "mine"]


def test_a_functions_stream_that_is_deleted_is_shown_no_more(made: Made) -> None:
    function(made, "env", "START\n")
    function(made, "other", "x\n")
    made.groups.delete_stream(HOME, GROUP, "env")
    assert [each.name for each in made.groups.streams(HOME, GROUP)] == ["other"]
    assert made.search(group=GROUP) == ["x\n"]
    with pytest.raises(NoStream, match="The specified log stream does not exist"):
        made.page(group=GROUP, stream="env")


def test_a_group_that_is_deleted_is_gone_with_all_it_held(app: Made) -> None:
    app.put("one", "a")
    function(app, "env", "START\n")
    for name in ("app", GROUP):
        app.groups.delete(HOME, name)
        with pytest.raises(NoGroup, match="The specified log group does not exist"):
            app.groups.facts(HOME, name)
    assert app.groups.groups(HOME) == []
    app.groups.make(HOME, "app", kind="STANDARD", tags={}, key="", is_protected=False)
    assert app.groups.streams(HOME, "app") == []


def test_several_functions_write_to_one_group(app: Made) -> None:
    function(app, "bill[1]", "a\n", group="app")
    app.now_ms += 100
    app.put("one", "b", at_ms=app.now_ms)
    app.now_ms += 100
    function(app, "pay[1]", "c\n", name="pay", group="app")
    function(app, "own", "d\n", name="pay")
    assert [each.name for each in app.groups.groups(HOME)] == ["/aws/lambda/pay", "app"]
    assert [each.name for each in app.groups.streams(HOME, "app")] == ["bill[1]", "one", "pay[1]", "two"]
    assert app.search() == app.search(limit=1) == ["a\n", "b", "c\n"]
    assert app.search(prefix="pay") == ["c\n"]
    assert app.page(stream="bill[1]") == ["a\n"]
    assert app.search(group="/aws/lambda/pay") == ["d\n"]


def test_a_shared_group_that_is_deleted_takes_nothing_of_others_with_it(made: Made) -> None:
    function(made, "own", "a\n")
    function(made, "shared", "b\n", group="app")
    made.groups.delete(HOME, "app")
    assert [each.name for each in made.groups.groups(HOME)] == [GROUP]
    with pytest.raises(NoGroup):
        made.groups.facts(HOME, "app")
    assert made.search(group=GROUP) == ["a\n"]
    made.now_ms += 100
    made.groups.make(HOME, "app", kind="STANDARD", tags={}, key="", is_protected=False)
    made.groups.make_stream(HOME, "app", "one")
    made.put("one", "old", at_ms=NOW_MS - DAY_MS)
    assert made.search() == ["old"]
    function(made, "later", "c\n", group="app")
    assert made.search() == ["old", "c\n"]
    assert [each.name for each in made.groups.streams(HOME, "app")] == ["later", "one"]
    made.groups.delete(HOME, GROUP)
    assert made.search() == ["old", "c\n"]
    assert [each.name for each in made.groups.groups(HOME)] == ["app"]


def test_a_protected_group_stays(made: Made) -> None:
    made.groups.make(HOME, "app", kind="STANDARD", tags={}, key="", is_protected=True)
    with pytest.raises(InvalidParameter, match="protected from deletion"):
        made.groups.delete(HOME, "app")


def test_retention_hides_at_once_and_removes(app: Made) -> None:
    app.put("one", "old", at_ms=NOW_MS - 3 * DAY_MS)
    app.put("one", "new")
    app.groups.change(HOME, "app", lambda facts: type(facts)(created_ms=facts.created_ms, retention_days=1))
    assert app.search() == ["new"]
    app.groups.change(HOME, "app", lambda facts: type(facts)(created_ms=facts.created_ms))
    assert app.search() == ["new"]


def test_what_is_too_old_too_new_or_expired_is_told_and_left_out(app: Made) -> None:
    hour = 3_600_000
    events = [(NOW_MS - 15 * DAY_MS, "old"), (NOW_MS, "now"), (NOW_MS + 3 * hour, "new")]
    assert app.groups.put(HOME, "app", "one", events, 10) == (1, None, 2)
    assert app.search() == ["now"]
    app.groups.change(HOME, "app", lambda facts: type(facts)(created_ms=0, retention_days=1))
    assert app.groups.put(HOME, "app", "one", [(NOW_MS - 2 * DAY_MS, "x")], 10) == (None, 1, None)


def test_tags_are_added_and_taken_off(app: Made) -> None:
    app.groups.change(HOME, "app", lambda facts: tagged(facts, {"a": "1", "b": "2"}))
    app.groups.change(HOME, "app", lambda facts: tagged(facts, {"c": "3"}, without=["a"]))
    assert app.groups.facts(HOME, "app").tags == {"b": "2", "c": "3"}


def test_a_long_search_answers_in_between(app: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kflow.monitoring.loggroups.LOOKED_BYTES", 5)
    app.put("one", *("x" for _ in range(10)), "wanted")
    first = app.groups.search(
        HOME,
        "app",
        streams=None,
        prefix="",
        since_ms=0,
        until_ms=10**13,
        after=NO_ID,
        limit=9,
        matches=compiled("wanted"),
    )
    assert first.events == []
    assert first.after
    assert app.search("wanted") == ["wanted"]


def test_an_answer_holds_a_mebibyte(app: Made) -> None:
    for number in range(3):
        app.put("one", "x" * 500_000, at_ms=NOW_MS + number)
    assert len(app.page(after=NO_ID)) == 2
    assert len(app.page()) == 2
    assert len(app.search()) == 3
