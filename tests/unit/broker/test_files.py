"""File calls: whole or not at all, and errors in words."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kflow.broker.files import FILES, Files, storage_error
from kflow.errors import StorageError, StorageFull
from tests.storing import FaultyFiles


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    FILES.write_replace(tmp_path / "a", b"new", sync=True)
    assert FILES.read_bytes(tmp_path / "a") == b"new"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("call", ["pwrite", "fsync", "replace"])
def test_a_file_that_cannot_be_replaced_keeps_its_old_content(tmp_path: Path, call: str) -> None:
    files = FaultyFiles()
    (tmp_path / "a").write_bytes(b"old")
    files.errors[call] = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        files.write_replace(tmp_path / "a", b"new", sync=True)
    assert FILES.read_bytes(tmp_path / "a") == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_short_write_counts_as_a_full_disk(tmp_path: Path) -> None:
    class Short(Files):
        def pwrite(self, fd: int, data: bytes, offset: int) -> int:
            return os.pwrite(fd, data[:-1], offset)

    with pytest.raises(OSError, match="only 2 of 3 bytes") as raised:
        Short().write_replace(tmp_path / "a", b"new", sync=False)
    assert raised.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == []


def test_large_files_are_read_whole(tmp_path: Path) -> None:
    content = os.urandom((3 << 20) + 7)
    (tmp_path / "a").write_bytes(content)
    assert FILES.read_bytes(tmp_path / "a") == content


def test_folders_are_made_with_their_parents(tmp_path: Path) -> None:
    FILES.make_folder(tmp_path / "a/b/c")
    FILES.make_folder(tmp_path / "a/b/c")
    assert (tmp_path / "a/b/c").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        FILES.make_folder(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        FILES.make_folder("")


def test_a_tree_is_removed_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/file").touch()
    (tmp_path / "tree/link").symlink_to(tmp_path / "kept")
    FILES.remove_tree(tmp_path / "tree")
    FILES.remove_tree(tmp_path / "tree")
    assert (tmp_path / "kept/file").exists()
    FILES.remove_tree(tmp_path / "kept/file")
    assert os.listdir(tmp_path / "kept") == []


def test_only_the_file_that_was_opened_is_closed(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "a", os.O_CREAT | os.O_RDWR)
    found = os.fstat(fd)
    FILES.close_if(fd, found.st_dev, found.st_ino + 1)
    os.fstat(fd)
    FILES.close_if(fd, found.st_dev, found.st_ino)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    FILES.close_if(fd, found.st_dev, found.st_ino)


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (errno.ENOSPC, StorageFull, "cannot do it: the disk is full"),
        (errno.EDQUOT, StorageFull, "cannot do it: the disk is full"),
        (errno.EROFS, StorageError, "cannot do it: the folder is read-only for this user"),
        (errno.EPERM, StorageError, "cannot do it: the folder is read-only for this user"),
        (errno.EIO, StorageError, "cannot do it: .*Input/output error"),
    ],
)
def test_errors_of_the_system_are_put_in_words(code: int, kind, text: str) -> None:
    error = storage_error(OSError(code, os.strerror(code)), "do it")
    assert type(error) is kind
    with pytest.raises(kind, match=text):
        raise error


def test_a_link_that_leads_nowhere_is_said_and_nothing_made(tmp_path: Path) -> None:
    os.symlink(tmp_path / "unplugged" / "disk", tmp_path / "streams")
    with pytest.raises(FileNotFoundError, match="streams"):
        FILES.make_folder(tmp_path / "streams")
    assert os.listdir(tmp_path) == ["streams"]


def test_a_new_file_that_could_not_be_written_whole_is_removed(tmp_path: Path) -> None:
    files = FaultyFiles()
    files.errors["pwrite"] = errno.ENOSPC
    with pytest.raises(OSError, match="No space left"):
        files.write_new(tmp_path / "a", b"new", sync=False)
    assert os.listdir(tmp_path) == []
