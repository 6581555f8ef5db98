"""A file of tables: SQLite, one transaction a turn, so that a kill leaves the turn done or not done.

It has one process, which locks it, and is used by one thread at a time. What it holds is its subclass' matter: a queue,
asynchronous invocations, log groups, metrics.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import ClassVar, Final

from kflow.broker.files import Files
from kflow.errors import Damaged, StorageError, StorageFull

log = logging.getLogger(__name__)

_VERSION: Final = 1
_CACHE_KIB: Final = 512
_SYNCHRONOUS: Final = {"always": "FULL", "interval": "NORMAL", "none": "OFF"}
_LOOK_S: Final = 1.0
_SUFFIXES: Final = ("", "-wal", "-shm", "-journal")


class TableFile:
    """One file.

    Args:
        path: of the file.
        fsync: the setting: `always`, `interval` or `none`.
        make: called where the file holds nothing; `_create` makes what it should, in one transaction.
        may_begin: whether a file that is not there is made; else one that is lost is not made up.

    Attributes:
        count: how many rows the table has that is counted.

    Raises:
        StorageError: it cannot be opened.
        Damaged: it is no such file any more.
    """

    _WHAT: ClassVar[str]
    """What people call it."""
    _COUNTED: ClassVar[str]
    """The table whose rows are counted."""
    _OTHER_VERSION: ClassVar[str]
    """What to do where another version wrote it."""
    _DAMAGED: ClassVar[str]
    """What to do where it is damaged."""
    _CHECKPOINT: ClassVar[int] = 1000
    """After so many pages SQLite moves them from its log into the file, and waits for the disk. That is its default."""

    count: int

    def __init__(self, path: str, *, fsync: str, make: Callable[[], object], may_begin: bool) -> None:
        import sqlite3  # weight: 5 ms that only those pay who have such files

        self._path = path
        self._broken = sqlite3.Error
        self._transaction = Transaction(self)
        self._count_before = 0
        self._look_s = 0.0
        with self._said("open"):
            uri = f"{Path(path).as_uri()}?mode={'rwc' if may_begin else 'rw'}"
            self._sql = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)
            try:
                for pragma in (
                    "locking_mode = EXCLUSIVE",  # nobody else reads it, and no file holds what would be shared
                    "journal_mode = WAL",
                    f"synchronous = {_SYNCHRONOUS[fsync]}",
                    f"cache_size = -{_CACHE_KIB}",
                    f"wal_autocheckpoint = {self._CHECKPOINT}",
                ):
                    self._sql.execute(f"PRAGMA {pragma}").fetchall()
                (version,) = self._sql.execute("PRAGMA user_version").fetchone()
                if version == 0:
                    make()
                elif version != _VERSION:
                    raise StorageError(f"{path} was written by another version of kflow: {self._OTHER_VERSION}")
                self._identity = self._found()
                (self.count,) = self._sql.execute(f"SELECT count(*) FROM {self._COUNTED}").fetchone()  # noqa: S608  # constant
            except BaseException:
                self._sql.close()
                raise

    def turn(self) -> Transaction:
        """All that is done within is kept as a whole, or not at all.

        Raises:
            StorageFull: there is no room; nothing was kept.
            StorageError: it cannot be written; nothing was kept.
        """
        return self._transaction

    def checkpoint(self) -> bool:
        """Move what is in SQLite's log into the file; whether it could be. Else it stays there, where it is as safe.

        The next turn that writes begins that log anew and, but with `none`, waits for the disk once more.
        """
        try:
            self._sql.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except self._broken as error:
            log.warning("a checkpoint failed, and comes again file=%s error=%s", self._path, error)
            return False
        return True

    def close(self) -> None:
        """Close the file; what was kept is kept."""
        self._sql.close()

    def _create(self, schema: str, fill: Callable[[], object] = lambda: None) -> None:
        """Make the tables, and what they hold from the beginning."""
        self._sql.executescript(f"BEGIN IMMEDIATE;{schema}PRAGMA user_version = {_VERSION}")
        fill()
        self._sql.execute("COMMIT")

    def _undone(self) -> None:
        """A turn was not kept."""

    @contextlib.contextmanager
    def _said(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._broken as error:
            raise self._failure(what, error) from error

    def _begin(self) -> None:
        self._count_before = self.count
        now = monotonic()
        if now >= self._look_s:
            self._look_s = now + _LOOK_S
            self._look()
        try:
            self._sql.execute("BEGIN IMMEDIATE")
        except self._broken as error:
            raise self._failure("write", error) from error

    def _look(self) -> None:
        """Whether it is still there: SQLite would go on writing what nobody ever finds again."""
        if self._found() != self._identity:
            raise StorageError(f"the {self._WHAT} {self._path} was replaced under kflow; start kflow anew")

    def _found(self) -> tuple[int, int]:
        try:
            found = os.stat(self._path)
        except OSError as error:
            text = f"the {self._WHAT} {self._path} was taken away under kflow ({error.strerror})"
            raise StorageError(f"{text}; put it back, and start kflow anew") from error
        return found.st_dev, found.st_ino

    def _end(self, error: BaseException | None) -> None:
        """Keep what was done; or, where it broke off or cannot be kept, nothing of it."""
        broken = error
        if broken is None:
            try:
                self._sql.execute("COMMIT")
            except BaseException as failure:  # noqa: BLE001 # raised below
                broken = failure
            else:
                return
        try:
            self._take_back()
        except self._broken as failure:
            raise self._failure("write", failure) from failure
        if isinstance(broken, self._broken):
            raise self._failure("write", broken) from broken
        if error is None:
            raise broken

    def _take_back(self) -> None:
        self.count = self._count_before
        self._undone()
        if self._sql.in_transaction:
            self._sql.execute("ROLLBACK")

    def _failure(self, what: str, error: BaseException) -> StorageError:
        text = f"cannot {what} the {self._WHAT} {self._path}: {error}"
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(
            ("SQLITE_FULL", "SQLITE_IOERR_WRITE")
        ):  # the latter where it is a quota, or a limit of files
            return StorageFull(f"{text}; free some space or raise the quota, and try again")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return StorageError(f"{text}; another program has it open: end that")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return Damaged(f"{text}; {self._DAMAGED}")
        return StorageError(text)


class Transaction:
    """A turn at a file; there is one at a time. A generator would do, at four times the cost."""

    __slots__ = ("_file",)

    def __init__(self, file: TableFile) -> None:
        self._file = file

    def __enter__(self) -> None:
        self._file._begin()  # noqa: SLF001  # a part of it

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._file._end(error)  # noqa: SLF001  # a part of it


def remove(path: str, files: Files) -> None:
    """Remove a file that is closed, however much of it is there.

    Raises:
        OSError: it cannot be removed.
    """
    for suffix in reversed(_SUFFIXES):
        files.discard(path + suffix)
