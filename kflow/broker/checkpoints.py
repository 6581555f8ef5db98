"""Where each consumer stands: one slot per lease, in one file per (function, stream).

    header, 512 bytes:  magic | crc u32 | length u32 | JSON: function, stream, stream_id
    slot, 512 bytes:    copy 0 (256 bytes) | copy 1 (256 bytes)     (`kflow.broker.slots`)

A store goes to the copy with the lower write count, by one `pwrite`: the copy before it stays whole, so a torn write
costs that write alone. A load takes the valid copy with the higher count.

One process at a time writes a slot (the worker that holds the lease; before there is one, the node); anyone may read.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from crc32c import crc32c

from kflow.broker.files import Files, storage_error
from kflow.broker.slots import COPY_BYTES, SLOT_BYTES, Slot, SlotState, key_of, new_slot, pack, unpack
from kflow.errors import Damaged, StorageError

__all__ = ["Slot", "SlotFile", "SlotState", "slots_path"]

_HEADER_BYTES: Final = 512
_MAGIC: Final = b"kflowcp\x01"
_HEADER = struct.Struct("<8sII")


class _Entry:
    """A slot's place in the file, and what was last seen there."""

    __slots__ = ("copies", "newest", "offset", "slot", "writes")

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.copies: list[bytes] = [b"", b""]
        self.newest = 0
        self.writes = 0
        self.slot: Slot | None = None


class SlotFile:
    """The slots of one (function, stream). Not thread-safe; each process opens its own."""

    def __init__(self, path: str, fd: int, seed: int, *, files: Files) -> None:
        self.path = path
        self._fd = fd
        self._seed = seed
        self._files = files
        found = files.fstat(fd)
        self._identity = (found.st_dev, found.st_ino)
        self._entries: dict[tuple[int, int], _Entry] = {}
        self._damaged: list[int] = []
        self._end = _HEADER_BYTES

    @classmethod
    def open(
        cls,
        folder_path: str | os.PathLike[str],
        function: str,
        stream_id: int,
        *,
        files: Files,
        stream: str = "",
        create_for: Iterable[int] = (),
        initial: Callable[[int], Slot] | None = None,
        sync: bool = True,
    ) -> SlotFile:
        """Open the file, with a slot for each shard of `create_for`; with none of them, it must exist.

        Creating is the node's part, before "ready" and before any worker of the function starts. A new slot appears
        whole, with its starting position in it, so that a crash never leaves a LATEST that was resolved to nothing.

        Args:
            folder_path: the data folder.
            function: name of the function.
            stream_id: id of the stream.
            files: the file calls.
            stream: the stream's name, for people who look into a new file.
            create_for: indexes of shards that must have a slot (lane 0).
            initial: the first content for a shard's slot; the shard's beginning where it is not given.
            sync: whether a new file and its name are made durable.

        Raises:
            StorageError: it does not exist, or cannot be read or written.
            Damaged: its header is not valid.
        """
        path = slots_path(folder_path, function, stream_id)
        wanted = list(create_for)
        make = initial or _at_the_beginning
        seed = crc32c(b"%s\0%016x" % (function.encode(), stream_id))
        try:
            try:
                fd = files.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                if not wanted:
                    raise
                files.make_folder(os.path.dirname(path))
                content = _file_header(function, stream, stream_id)
                content += b"".join(new_slot(make(shard), shard, 0, seed) for shard in wanted)
                files.write_replace(path, content, sync=sync)
                fd = files.open(path, os.O_RDWR | os.O_CLOEXEC)
            slots = cls(path, fd, seed, files=files)
            try:
                _check_header(path, files.pread(fd, _HEADER_BYTES, 0))
                slots._scan()
                slots._add(wanted, make, sync=sync)
            except (OSError, StorageError):
                slots.close()
                raise
        except OSError as error:
            raise storage_error(error, f"open the checkpoints of {function} ({path})") from error
        return slots

    def load(self, shard: int, lane: int = 0) -> Slot:
        """Read a slot: the valid copy that was written last.

        Unchanged bytes give the same object again.

        Raises:
            StorageError: there is no such slot, or it cannot be read.
            Damaged: neither copy is valid.
        """
        entry = self._entry(shard, lane)
        try:
            raw = self._files.pread(self._fd, SLOT_BYTES, entry.offset)
        except OSError as error:
            raise storage_error(error, f"read the checkpoint of shard {shard} ({self.path})") from error
        copies = [raw[:COPY_BYTES], raw[COPY_BYTES:]]
        if entry.slot is not None and copies == entry.copies:
            return entry.slot
        read = [unpack(copy, shard, lane, self._seed) for copy in copies]
        counts = [-1 if each is None else each[0] for each in read]
        newest = 0 if counts[0] >= counts[1] else 1
        best = read[newest]
        if best is None:
            raise Damaged(f"{self.path}: both copies of the slot at byte {entry.offset} (shard {shard}) are damaged")
        entry.copies = copies
        entry.newest = newest
        entry.writes, entry.slot = best
        return entry.slot

    def store(self, shard: int, lane: int, slot: Slot) -> None:
        """Write a slot, by one `pwrite` to its older copy. On return it survives the death of any process.

        The caller must be the one that may write this slot, and have loaded it since it became so.

        Raises:
            StorageError: it was not written as a whole; the copy before it is still there.
        """
        entry = self._entry(shard, lane)
        if entry.slot is None:
            self.load(shard, lane)
        older = entry.newest ^ 1
        raw = pack(slot, shard, lane, entry.writes + 1, self._seed)
        try:
            self._files.write_all(self._fd, raw, entry.offset + older * COPY_BYTES)
        except OSError as error:
            entry.slot = None  # what lies there now is not known: read before the next store
            raise storage_error(error, f"write the checkpoint of shard {shard} ({self.path})") from error
        entry.copies[older] = raw
        entry.newest = older
        entry.writes += 1
        entry.slot = slot

    def keys(self) -> list[tuple[int, int]]:
        """The (shard, lane) of every slot, in order."""
        return sorted(self._entries)

    def fds(self) -> list[tuple[int, int, int]]:
        """What is open: (descriptor, device, inode), to be checked after user code ran."""
        return [(self._fd, *self._identity)]

    def close(self) -> None:
        """Give the descriptor back, unless user code has taken its number."""
        self._files.close_if(self._fd, *self._identity)

    def _entry(self, shard: int, lane: int) -> _Entry:
        entry = self._entries.get((shard, lane))
        if entry is None:
            self._scan()  # the node may have added slots since
            entry = self._entries.get((shard, lane))
        if entry is None:
            raise self._missing(shard, lane)
        return entry

    def _missing(self, shard: int, lane: int) -> StorageError:
        if self._damaged:
            return Damaged(f"{self.path}: the slot at byte {self._damaged[0]} is damaged; shard {shard} may be the one")
        return StorageError(f"{self.path} has no slot for shard {shard}, lane {lane}")

    def _scan(self) -> None:
        """Note the slots past the last one noted."""
        try:
            while len(raw := self._files.pread(self._fd, SLOT_BYTES, self._end)) == SLOT_BYTES:
                key = key_of(raw, self._seed)
                if key is None:
                    self._damaged.append(self._end)
                else:
                    self._entries[key] = _Entry(self._end)
                self._end += SLOT_BYTES
        except OSError as error:
            raise storage_error(error, f"read the checkpoints in {self.path}") from error

    def _add(self, shards: list[int], make: Callable[[int], Slot], *, sync: bool) -> None:
        missing = [shard for shard in shards if (shard, 0) not in self._entries]
        if not missing:
            return
        if self._damaged:
            raise self._missing(missing[0], 0)  # a fresh slot instead would start that shard anew, silently
        content = b"".join(new_slot(make(shard), shard, 0, self._seed) for shard in missing)
        self._files.write_all(self._fd, content, self._end)
        if sync:
            self._files.fsync(self._fd)
        self._scan()


def slots_path(folder_path: str | os.PathLike[str], function: str, stream_id: int) -> str:
    """Where the slots of a (function, stream) lie in the data folder."""
    return os.path.join(os.fspath(folder_path), "checkpoints", function, f"{stream_id:016x}.slots")


def _at_the_beginning(shard: int) -> Slot:
    del shard
    return Slot()


def _file_header(function: str, stream: str, stream_id: int) -> bytes:
    text = msgspec.json.encode({"function": function, "stream": stream, "stream_id": f"{stream_id:016x}"})
    return (_HEADER.pack(_MAGIC, crc32c(text), len(text)) + text).ljust(_HEADER_BYTES, b"\0")


def _check_header(path: str, raw: bytes) -> None:
    if len(raw) == _HEADER_BYTES:
        magic, crc, length = _HEADER.unpack_from(raw)
        if magic == _MAGIC and crc32c(raw[_HEADER.size : _HEADER.size + length]) == crc:
            return
    raise Damaged(f"{path}: this is not a checkpoint file, or its first {_HEADER_BYTES} bytes are damaged")
