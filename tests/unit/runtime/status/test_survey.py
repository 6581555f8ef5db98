"""What a survey of a data folder costs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kflow.broker.checkpoints import SlotFile
from kflow.runtime.status import survey
from tests.storing import Store


def work(path: Path, shards: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many calls a survey of one consumer makes, the slots that it lists counted as one each."""
    store = Store(path, shards=shards)
    SlotFile.open(
        store.folder.path, "bill", store.stream.id, files=store.files, create_for=range(shards), factor=2, sync=False
    ).close()
    calls = 0
    plain = SlotFile.keys

    def keys(slots: SlotFile) -> list[tuple[int, int]]:
        nonlocal calls
        found = plain(slots)
        calls += len(found)
        return found

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    with monkeypatch.context() as patch:
        patch.setattr(SlotFile, "keys", keys)
        sys.setprofile(count)
        try:
            (found,) = survey.consumers(store.folder)
        finally:
            sys.setprofile(None)
    assert len(found.lanes) == 2 * shards
    store.log.close()
    return calls


def test_a_survey_of_many_shards_costs_as_much_a_shard_as_one_of_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = work(tmp_path / "few", 20, monkeypatch), work(tmp_path / "many", 200, monkeypatch)

    assert many < 12 * few
