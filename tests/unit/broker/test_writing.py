"""What a process keeps open of the folders that it writes to without a node."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from kflow.broker import writing as module
from kflow.broker.encode import Encoder
from kflow.broker.folder import DataFolder
from kflow.broker.streammap import StreamMap
from kflow.broker.writing import KEPT, writing


@pytest.fixture(autouse=True)
def writers(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    kept: dict[str, object] = {}
    monkeypatch.setattr(module, "_writers", kept)
    return kept


STREAMS: dict[Path, StreamMap] = {}


def put(path: Path, data: bytes) -> int:
    """The record's number in its shard."""
    folder = DataFolder.open(path, create=True, fsync="none")
    with writing(folder) as log:
        if path not in STREAMS:
            STREAMS[path] = log.create_stream("orders", 1)
        stream = STREAMS[path]
        ((counter, _),) = log.append(stream, Encoder(stream).encode_many(["key"], [data]))
        return counter


@pytest.mark.skipif(sys.platform != "linux", reason="it counts descriptors as Linux shows them")
def test_files_of_many_folders_are_not_all_kept_open(tmp_path: Path, writers: dict[str, object]) -> None:
    for number in range(KEPT):
        put(tmp_path / str(number), b"x")
    full = len(os.listdir("/proc/self/fd"))
    for number in range(KEPT, KEPT + 20):
        put(tmp_path / str(number), b"x")
    assert len(writers) == KEPT
    assert len(os.listdir("/proc/self/fd")) == full
    before = put(tmp_path / "1", b"y")
    assert put(tmp_path / "1", b"z") == before + 1


def test_a_folder_that_is_written_to_keeps_its_files_and_one_that_is_gone_lets_go(
    tmp_path: Path, writers: dict[str, object]
) -> None:
    held = DataFolder.open(tmp_path / "held", create=True, fsync="none")
    put(tmp_path / "held", b"x")
    put(tmp_path / "gone", b"x")
    shutil.rmtree(tmp_path / "gone")
    with writing(held):
        for number in range(KEPT - 1):
            put(tmp_path / str(number), b"x")
        assert os.fspath(held.path) in writers
        assert not any(key.endswith("gone") for key in writers)
    assert len(writers) == KEPT
