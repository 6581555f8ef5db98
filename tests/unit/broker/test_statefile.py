"""A small state in one file: changes go together, failures are told, damage is seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kflow.broker import statefile
from kflow.broker.folder import DataFolder
from kflow.broker.sessions import Sessions
from kflow.errors import Damaged, KflowError, StorageError


class Host:
    """Does file work when it is told to."""

    def __init__(self, path: Path) -> None:
        self.folder = DataFolder.open(path, create=True)
        self.work: list[tuple[Callable[[], Any], Callable[[Any], object]]] = []

    def submit(self, work: Callable[[], Any], then: Callable[[Any], object]) -> None:
        self.work.append((work, then))

    def step(self) -> None:
        work, then = self.work.pop(0)
        try:
            result = work()
        except KflowError as error:
            result = error
        then(result)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "data")


def test_changes_that_come_during_a_write_go_together_with_the_next(host: Host) -> None:
    state = [0]
    file = statefile.StateFile(host, "state.json", lambda: b'{"state":%d}' % state[0])
    told: list[Any] = []
    for number in (1, 2, 3):
        state[0] = number
        file.keep(lambda failure, number=number: told.append((number, failure)))
    host.step()
    assert statefile.load(host.folder, "state.json") == b'{"state":1}'
    assert told == [(1, None)]
    host.step()
    assert statefile.load(host.folder, "state.json") == b'{"state":3}'
    assert told == [(1, None), (2, None), (3, None)]
    assert host.work == []


def test_a_write_that_fails_is_told_and_the_next_is_tried(host: Host) -> None:
    file = statefile.StateFile(host, "none/state.json", lambda: b'{"state":1}')
    told: list[Any] = []
    file.keep(told.append)
    file.keep(told.append)
    host.step()
    (host.folder.path / "none").mkdir()
    host.step()
    assert isinstance(told[0], StorageError)
    assert told[1] is None


def test_a_damaged_file_is_read_from_its_copy_and_both_are_not_believed(host: Host) -> None:
    assert statefile.load(host.folder, "state.json") is None
    statefile.StateFile(host, "state.json", lambda: b'{"state":1}').keep(lambda _: None)
    host.step()
    (host.folder.path / "state.json").write_bytes(b'{"state":2}')
    assert statefile.load(host.folder, "state.json") == b'{"state":1}'
    (host.folder.path / "state.json.twin").write_bytes(b"")
    with pytest.raises(Damaged, match="and its copy are damaged"):
        statefile.load(host.folder, "state.json")


def test_sessions_are_found_again_and_forgotten_when_they_have_expired(host: Host) -> None:
    def begin(sessions: Sessions, now_ms: int) -> str:
        session = sessions.begin(
            "222233334444", role="r", name="n", source="", now_ms=now_ms, seconds=900, told=lambda _: None
        )
        host.step()
        return session.access_key

    sessions = Sessions(host)
    first = begin(sessions, 0)
    second = begin(sessions, 100_000)
    assert first.startswith("ASIAKFLOW222233334444")
    again = Sessions(host)
    assert again.find(first) == sessions.find(first)
    third = begin(again, 950_000)
    assert [again.find(each) is not None for each in (first, second, third)] == [False, True, True]
    for name in ("sessions.json", "sessions.json.twin"):
        (host.folder.path / name).write_bytes(b"garbage")
    assert Sessions(host).find(third) is None
