"""States of tumbling windows on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kflow.broker.files import Files
from kflow.broker.windows import WindowStore, windows_path
from kflow.errors import StorageError, StorageFull


class Noting(Files):
    """Notes syncs and renames; can have a full disk."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.full = False

    def pwrite(self, fd: int, data: bytes, offset: int, /) -> int:  # type: ignore[override]
        if self.full:
            raise OSError(28, "No space left on device")
        return os.pwrite(fd, data, offset)

    def fsync(self, fd: int) -> None:  # type: ignore[override]
        self.calls.append("sync")
        os.fsync(fd)

    def replace(self, source: str, target: str) -> None:  # type: ignore[override]
        self.calls.append("replace")
        os.replace(source, target)


def test_a_state_is_read_back_by_its_number(tmp_path: Path) -> None:
    store = WindowStore(tmp_path, Files())
    store.put("bill", 77, 3, 1, b'{"n":1}')
    store.put("bill", 77, 3, 2, b'{"n":2}')
    other = WindowStore(tmp_path, Files())
    assert [other.get("bill", 77, 3, number) for number in (1, 2, 3)] == [b'{"n":1}', b'{"n":2}', None]
    assert other.get("bill", 77, 4, 1) is None
    assert os.listdir(os.path.join(windows_path(tmp_path, "bill", 77), "3")) != []


def test_a_number_written_again_replaces_its_state(tmp_path: Path) -> None:
    store = WindowStore(tmp_path, Files())
    store.put("bill", 77, 0, 1, b"left over")
    store.put("bill", 77, 0, 1, b"{}")
    assert store.get("bill", 77, 0, 1) == b"{}"


def test_pruning_keeps_what_is_named(tmp_path: Path) -> None:
    store = WindowStore(tmp_path, Files())
    for number in range(1, 5):
        store.put("bill", 77, 0, number, b"%d" % number)
    store.prune("bill", 77, 0, (3, 4))
    assert [store.get("bill", 77, 0, number) for number in range(1, 5)] == [None, None, b"3", b"4"]
    store.prune("bill", 77, 9, (1,))


@pytest.mark.parametrize(("fsync", "first"), [("interval", "sync"), ("none", "replace")])
def test_a_state_is_durable_before_it_has_its_name(tmp_path: Path, fsync: str, first: str) -> None:
    files = Noting()
    WindowStore(tmp_path, files, fsync).put("bill", 77, 0, 1, b"{}")
    files.calls.clear()
    WindowStore(tmp_path, files, fsync).put("bill", 77, 0, 2, b"{}")
    assert files.calls[0] == first
    assert (files.calls.count("sync") > 0) == (fsync != "none")


def test_a_full_disk_is_named_and_leaves_the_state_before(tmp_path: Path) -> None:
    files = Noting()
    store = WindowStore(tmp_path, files)
    store.put("bill", 77, 0, 1, b"{}")
    files.full = True
    with pytest.raises(StorageFull, match="write the window state of bill, shard 0"):
        store.put("bill", 77, 0, 2, b"{}")
    assert (store.get("bill", 77, 0, 1), store.get("bill", 77, 0, 2)) == (b"{}", None)


def test_what_cannot_be_read_is_no_absent_state(tmp_path: Path) -> None:
    os.makedirs(os.path.join(windows_path(tmp_path, "bill", 77), "0", "1"))
    with pytest.raises(StorageError, match="read the window state"):
        WindowStore(tmp_path, Files()).get("bill", 77, 0, 1)
