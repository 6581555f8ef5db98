"""The file of log groups and events: what the disk refuses is said in words that help."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kflow.broker.folder import DataFolder
from kflow.broker.logevents import FILE_NAME, GroupFacts, LogEvents
from kflow.errors import Damaged, StorageError


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    folder = DataFolder.open(tmp_path / "data", create=True)
    os.rmdir(folder.path / "logs")
    (folder.path / "logs").write_bytes(b"")
    with pytest.raises(StorageError, match=r"cannot make .*/logs"):
        LogEvents(folder)


def test_events_on_a_damaged_page_are_said_to_be_damaged(tmp_path: Path) -> None:
    folder = DataFolder.open(tmp_path / "data", create=True, fsync="none")
    file = LogEvents(folder)
    with file.turn():
        group = file.put_group("123456789012", "us-east-1", "app", GroupFacts(created_ms=1))
        file.put(group, file.make_stream(group, "one", 1), [(ms, "x" * 500) for ms in range(100)], 1, 50_000)
    assert [row.ms for row in file.events(group, after=(98, 0), until_ms=1 << 64)] == [98, 99]
    file.close()
    path = folder.path / "logs" / FILE_NAME
    content = path.read_bytes()
    path.write_bytes(content[: 9 * 4096] + b"\xff" * (len(content) - 9 * 4096))

    file = LogEvents(folder)
    with pytest.raises(Damaged, match=r"cannot read the log groups .*; remove it to begin anew"):
        list(file.events(group, after=(0, 0), until_ms=1000))
    file.close()
