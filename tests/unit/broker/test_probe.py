"""Whether a folder can hold a log."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

from kflow.broker import probe as module
from kflow.broker.files import Files
from kflow.broker.probe import file_system, probe
from kflow.errors import StorageError
from tests.storing import FaultyFiles


def test_a_local_disk_will_do_and_nothing_is_left(tmp_path: Path) -> None:
    probe(tmp_path)
    assert os.listdir(tmp_path) == []


def test_locks_that_do_not_exclude_are_noticed(tmp_path: Path) -> None:
    class Lockless(Files):
        def flock(self, fd: int, operation: int) -> None:
            """Like a network file system mounted with `nolock`."""

    with pytest.raises(StorageError, match=r"locks do not exclude in .*: name a data_dir on a local disk"):
        probe(tmp_path, Lockless())
    assert os.listdir(tmp_path) == []


def test_stores_that_are_not_seen_are_noticed(tmp_path: Path) -> None:
    class Blind(Files):
        def pread(self, fd: int, length: int, offset: int) -> bytes:
            return bytes(length)

    with pytest.raises(StorageError, match="stores into a mapped page are not seen"):
        probe(tmp_path, Blind())


def test_a_rename_that_does_not_replace_is_noticed(tmp_path: Path) -> None:
    class Copying(Files):
        def replace(self, source, target) -> None:
            """Does nothing."""

    with pytest.raises(StorageError, match="rename did not replace a file"):
        probe(tmp_path, Copying())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    files = FaultyFiles()
    files.errors["open"] = errno.EROFS
    with pytest.raises(StorageError, match="as a data folder: the folder is read-only"):
        probe(tmp_path, files)


def test_network_file_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "file_system", lambda path: "nfs4")
    with pytest.raises(StorageError, match=r"lies on a network file system \(nfs4\)"):
        probe(tmp_path)


def test_the_file_system_is_the_one_mounted_nearest() -> None:
    assert file_system("/proc") == "proc"
    assert file_system("/proc/self") == "proc"
    assert file_system("/") != "proc"


def test_a_network_file_system_is_known_by_its_place_whatever_that_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = "/dev/vda1 / ext4 rw 0 0\nnas:/d /mnt/Daten\\040für\\040uns nfs4 rw 0 0\n"
    monkeypatch.setattr(module, "open", lambda *_, **__: io.StringIO(mounts), raising=False)
    assert file_system("/mnt/Daten für uns/kflow") == "nfs4"
    assert file_system("/mnt/Daten") == "ext4"
