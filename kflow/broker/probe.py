"""Whether a data folder can live in a place: locks must exclude, mapped stores must be seen, rename must work.

Network file systems fail one of these silently, and some hang in the attempt: the node and `kflow doctor` run `probe`
in a child process with a deadline.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Final

from kflow.broker.files import FILES, Files, storage_error, temporary_name
from kflow.errors import StorageError

_NETWORK: Final = frozenset(
    {
        "9p",
        "afs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "fuse.davfs2",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "gfs2",
        "glusterfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "smb3",
        "smbfs",
        "webdav",
    }
)
_PAGE: Final = 4096


def probe(path: str | os.PathLike[str], files: Files = FILES) -> None:
    """Try out what a data folder needs, with files of its own that it removes again.

    Args:
        path: an existing folder.
        files: file calls.

    Raises:
        StorageError: a data folder cannot live here; names the reason.
    """
    kind = file_system(path)
    if kind in _NETWORK:
        raise StorageError(
            f"{os.fspath(path)} lies on a network file system ({kind}), which does not keep locks and mapped pages "
            "coherent: name a data_dir on a local disk"
        )
    name = temporary_name(os.path.join(path, "probe"))
    try:
        files.write_new(name, bytes(_PAGE), sync=False)
        try:
            _locks_exclude(name, files)
            _stores_are_seen(name, files)
            _rename_works(name, files)
        finally:
            files.discard(name)
    except OSError as error:
        raise storage_error(error, f"use {os.fspath(path)} as a data folder") from error


def file_system(path: str | os.PathLike[str]) -> str:
    """Type of the file system that holds `path`, as Linux names it; empty where the system does not tell."""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return ""
    real = os.path.realpath(path)
    best, kind = "", ""
    for line in lines:
        _, mounted, found, *_ = line.split(" ")
        # A blank is \\040; what is no ASCII stands as it is.
        mounted = os.fsdecode(mounted.encode("utf-8", "surrogateescape").decode("unicode_escape").encode("latin-1"))
        inside = real == mounted or real.startswith(mounted.rstrip("/") + "/")
        if inside and len(mounted) >= len(best):
            best, kind = mounted, found
    return kind


def _locks_exclude(name: str, files: Files) -> None:
    first = files.open(name, os.O_RDWR | os.O_CLOEXEC)
    second = files.open(name, os.O_RDWR | os.O_CLOEXEC)
    try:
        files.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            files.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        raise StorageError(f"locks do not exclude in {os.path.dirname(name)}: name a data_dir on a local disk")
    finally:
        files.close(second)
        files.close(first)


def _stores_are_seen(name: str, files: Files) -> None:
    fd = files.open(name, os.O_RDWR | os.O_CLOEXEC)
    try:
        with files.map_page(fd, _PAGE, True) as one, files.map_page(fd, _PAGE, False) as other:
            one[8:16] = b"visible!"
            if bytes(other[8:16]) != b"visible!" or files.pread(fd, 8, 8) != b"visible!":
                raise StorageError(
                    f"stores into a mapped page are not seen in {os.path.dirname(name)}: "
                    "name a data_dir on a local disk"
                )
    finally:
        files.close(fd)


def _rename_works(name: str, files: Files) -> None:
    """Renaming over a file that is there must replace it in one step."""
    other = temporary_name(name)
    files.write_new(other, b"", sync=False)
    try:
        files.replace(other, name)
    finally:
        files.discard(other)
    if files.stat(name).st_size:
        raise OSError(errno.EIO, "rename did not replace a file")
