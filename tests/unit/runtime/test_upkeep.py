"""Work off the loop: whatever happens in a thread is told, and told on the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kflow.clock import Now
from kflow.errors import InternalError, KflowError, StorageError
from kflow.runtime.loop import Loop
from kflow.runtime.upkeep import Upkeep
from tests.storing import Store


def _refuse() -> None:
    raise StorageError("no")


def _break() -> None:
    raise ValueError("a broken promise")


@pytest.mark.parametrize(("work", "kind"), [(_refuse, StorageError), (_break, InternalError)])
def test_whoever_waits_for_work_is_told_of_any_failure(tmp_path: Path, work: Any, kind: type[KflowError]) -> None:
    loop, told = Loop(), []
    upkeep = Upkeep(Store(tmp_path).log, loop, told.append)
    upkeep.submit(work, told.append)
    upkeep.close()
    loop.round(0.0)
    loop.close()
    assert [type(each) for each in told] == [kind]


def test_whoever_waits_for_work_that_no_thread_can_do_is_told_that(tmp_path: Path) -> None:
    loop, told = Loop(), []
    upkeep = Upkeep(Store(tmp_path).log, loop, told.append)
    upkeep.close()
    upkeep.submit(_break, told.append)
    loop.round(0.0)
    loop.close()
    assert [(type(each), str(each)) for each in told] == [
        (StorageError, "cannot read or write the data folder: the threads kflow-disk are closed")
    ]


def test_people_are_told_when_retention_breaks_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, told = Loop(), []
    store = Store(tmp_path).log
    upkeep = Upkeep(store, loop, told.append)

    def retain(now: Now) -> int:
        raise ValueError(f"no retention at {now.epoch_ms > 0}")

    monkeypatch.setattr(store, "retain", retain)
    monkeypatch.setattr("kflow.runtime.upkeep.RETAIN_S", 0.0)
    upkeep.start()
    loop.round(0.0)
    upkeep.close()
    loop.close()
    assert told == ["ValueError: no retention at True; please report it"]
