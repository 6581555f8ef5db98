"""`ctl`: one mapped page a shard, where the writer publishes and everybody looks.

512 words of 8 bytes, each stored by one thread at a time and with one instruction (`memoryview.cast("Q")`;
`struct.pack_into` would store byte by byte, and readers would see torn numbers). The page is complete under a temporary
name before it is renamed, and is filled by `write`: a sparse page on a full disk kills the process that touches it.
Nothing else is mapped.

A page whose magic, boot id or own (device, inode) differ says nothing: the machine was restarted, or the folder copied,
and what was mapped then may never have reached the disk.
"""

from __future__ import annotations

import functools
import os
import struct
from typing import Final

from kflow.broker.files import Files, temporary_name
from kflow.errors import StorageError
from kflow.records import BEGIN_COUNTER

FILE_NAME: Final = "ctl"
PAGE_BYTES: Final = 4096
MAGIC_WORD: Final = int.from_bytes(b"kflowct1", "little")

MAGIC, BOOT, DEVICE, INODE, STREAM, SHARD = range(6)
TAIL: Final = 6
"""Logical offset past the last committed block: storing it commits."""
COUNTER: Final = 7
"""Counter of the next record."""
ARRIVAL: Final = 8
"""Arrival of the last record, milliseconds since the epoch."""
DIRTY: Final = 9
"""Not 0 while an append is under way: who finds it so must recover before appending."""
SEGMENT: Final = 10
"""Base of the segment that is appended to."""
CLOSED: Final = 11
"""Not 0 once the shard takes no more records."""
DURABLE: Final = 16
"""Logical offset up to which all bytes have been synced. Stored by the thread that syncs."""
POISONED: Final = 17
"""Not 0 after a failed sync. Stored by the thread that syncs."""
DURABLE_COUNTER: Final = 18
"""Counter of the first record at or behind the durable tail. Stored by the thread that syncs."""
HORIZON: Final = 24
"""Logical offset below which records have expired. Stored by the thread that retains."""

_WORDS = PAGE_BYTES // 8
_abandoned: list[memoryview] = []


class Ctl:
    """A mapped page.

    Attributes:
        words: the page as 512 unsigned integers.
        identity: (device, inode) of the file.
    """

    __slots__ = ("identity", "words")

    def __init__(self, page: memoryview, identity: tuple[int, int]) -> None:
        self.words = page.cast("Q")
        self.identity = identity

    @classmethod
    def open(cls, folder: str, files: Files, *, owner: tuple[int, int] | None = None, write: bool) -> Ctl:
        """Map the page of the shard in `folder`.

        Args:
            folder: of the shard.
            files: file calls.
            owner: stream id and shard index that the page must name; None trusts the folder's name.
            write: whether to store words.

        Raises:
            FileNotFoundError: there is none.
            StorageError: it is not a page of ours.
            OSError: it cannot be opened.
        """
        path = os.path.join(folder, FILE_NAME)
        fd = files.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC)
        try:
            found = files.fstat(fd)
            if found.st_size != PAGE_BYTES:
                raise StorageError(f"{path} has {found.st_size} bytes instead of {PAGE_BYTES}")
            page = files.map_page(fd, PAGE_BYTES, write)
        finally:
            files.close(fd)
        ctl = cls(page, (found.st_dev, found.st_ino))
        words = ctl.words
        if words[MAGIC] != MAGIC_WORD or (owner is not None and (words[STREAM], words[SHARD]) != owner):
            raise StorageError(f"{path} is not the control page of this shard")
        return ctl

    @classmethod
    def create(
        cls,
        folder: str,
        files: Files,
        *,
        stream_id: int,
        shard: int,
        offset: int = 0,
        counter: int = BEGIN_COUNTER,
        arrival_ms: int = 0,
        horizon: int = 0,
        dirty: bool = False,
        believed: bool = True,
        sync: bool = False,
    ) -> None:
        """Write a complete page for the shard in `folder`, replacing one that is there.

        After power loss a page is not believed, and one that is missing is made anew. It still tells how far the log
        was durable: where nothing is acknowledged before it is, it must not be missing.

        Args:
            folder: of the shard.
            files: file calls.
            stream_id: of the stream.
            shard: index of the shard.
            offset: logical offset where the shard begins.
            counter: of its first record.
            arrival_ms: arrivals begin here.
            horizon: logical offset below which there is nothing.
            dirty: whether who opens it must recover first.
            believed: False where recovery is to fill it in: until `adopt` nobody takes it for current.
            sync: whether a loss of power must not take it.
        """
        path = os.path.join(folder, FILE_NAME)
        temporary = temporary_name(path)
        try:
            fd = files.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                found = files.fstat(fd)
                words = [0] * _WORDS
                words[MAGIC] = MAGIC_WORD
                words[BOOT] = boot_id() if believed else 0
                words[DEVICE], words[INODE] = found.st_dev, found.st_ino
                words[STREAM], words[SHARD] = stream_id, shard
                words[TAIL] = words[SEGMENT] = words[DURABLE] = offset
                words[COUNTER] = words[DURABLE_COUNTER] = counter
                words[ARRIVAL], words[HORIZON] = arrival_ms, horizon
                words[DIRTY] = int(dirty)
                files.write_all(fd, struct.pack(f"={_WORDS}Q", *words), 0)
                if sync:
                    files.fsync(fd)
            finally:
                files.close(fd)
            files.replace(temporary, path)
            if sync:
                files.sync_folder(folder)
        except OSError:
            files.discard(temporary)
            raise

    @property
    def is_current(self) -> bool:
        """Whether the page was written under this boot of this machine, in this very file."""
        words = self.words
        return words[BOOT] == boot_id() and (words[DEVICE], words[INODE]) == self.identity

    def adopt(self) -> None:
        """Declare the page valid for this boot, after recovery has set its words."""
        words = self.words
        words[DEVICE], words[INODE] = self.identity
        words[BOOT] = boot_id()

    def abandon(self) -> None:
        """Keep the mapping for ever, after user code closed descriptors.

        Before Python 3.13 a map holds a descriptor that it closes with itself; by now its number may be the user's
        file.
        """
        _abandoned.append(self.words)


def sync_page(folder: str, files: Files) -> None:
    """Make the page of the shard in `folder` durable, as it is now.

    Raises:
        OSError: it could not be synced.
    """
    fd = files.open(os.path.join(folder, FILE_NAME), os.O_RDONLY | os.O_CLOEXEC)
    try:
        files.fsync(fd)
    finally:
        files.close(fd)


@functools.cache
def boot_id() -> int:
    """A number that differs after every start of the machine."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            text = file.read()
    except FileNotFoundError:
        text = _boot_session()
    return int(text.strip().replace("-", "")[:16], 16)


def _boot_session() -> str:
    """macOS: the UUID of this boot."""
    import ctypes  # a millisecond that only macOS pays

    buffer = ctypes.create_string_buffer(64)
    size = ctypes.c_size_t(len(buffer))
    if ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", buffer, ctypes.byref(size), None, 0) != 0:
        raise StorageError("this system does not tell one start of the machine from another")
    return buffer.value.decode()
