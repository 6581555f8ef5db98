"""Where each consumer stands: one slot per lease, in one file per (function, stream).

    header, 512 bytes:  magic | crc u32 | length u32 | JSON: function, stream, stream_id, factor
    slot, 512 bytes:    copy 0 (256 bytes) | copy 1 (256 bytes)     (`kflow.broker.slots`)

A store goes to the copy with the lower write count, by one `pwrite`: the copy before it stays whole, so a torn write
costs that write alone. A load takes the valid copy with the higher count.

A shard has a slot for each of its lanes, as many as the consumer's parallelization factor. The factor is in the header:
with another one the file is written anew as a whole, and the lanes of each shard restart at the least of theirs.

One process at a time writes a slot (the worker that holds the lease; before there is one, the node); anyone may read.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

import msgspec
from crc32c import crc32c

from kflow.broker.files import Files, storage_error
from kflow.broker.slots import COPY_BYTES, SLOT_BYTES, Slot, SlotState, WindowFlag, key_of, new_slot, pack, unpack
from kflow.errors import Damaged, StorageError
from kflow.records import Position

__all__ = ["Slot", "SlotFile", "SlotState", "WindowFlag", "slots_path"]

_HEADER_BYTES: Final = 512
_MAGIC: Final = b"kflowcp\x01"
_HEADER = struct.Struct("<8sII")
_TOTALS: Final = ("succeeded", "delivered", "invocations", "failures", "parked", "lost", "dropped")


class _FileHeader(msgspec.Struct, frozen=True):
    """What the header says. A file from before there were lanes has one a shard."""

    function: str
    stream: str
    stream_id: str
    factor: int = 1


# Made once, here: msgspec ends the process where two threads use a type for the first time at the same time.
_decode_header = msgspec.json.Decoder(_FileHeader).decode


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
    """The slots of one (function, stream). Not thread-safe; each process opens its own.

    Attributes:
        path: of the file.
        factor: lanes of each shard.
    """

    def __init__(self, path: str, fd: int, seed: int, *, files: Files) -> None:
        self.path = path
        self.factor = 1
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
        factor: int | None = None,
    ) -> SlotFile:
        """Open the file, with a slot for each lane of each shard of `create_for`; with none of them, it must exist.

        Creating is the node's part, before "ready" and before any worker of the function starts. A new slot appears
        whole, with its starting position in it, so that a crash never leaves a LATEST that was resolved to nothing.
        So is a change of the factor, with no lease of the old one out: what some lane had settled past the least
        checkpoint of its shard is delivered again.

        Args:
            folder_path: the data folder.
            function: name of the function.
            stream_id: id of the stream.
            files: the file calls.
            stream: the stream's name, for people who look into a new file.
            create_for: indexes of shards that must have their slots.
            initial: the first content for a shard's slots; the shard's beginning where it is not given.
            sync: whether a new file and its name are made durable.
            factor: lanes of each shard from now on, 1 to 10; None keeps what the file says.

        Raises:
            StorageError: it does not exist, or cannot be read or written.
            Damaged: its header is not valid.
        """
        path = slots_path(folder_path, function, stream_id)
        wanted = list(create_for)
        make = initial or _at_the_beginning
        header = _FileHeader(function, stream, f"{stream_id:016x}", factor or 1)
        seed = _seed(function, stream_id)
        try:
            try:
                fd = files.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                if not wanted:
                    raise
                files.make_folder(os.path.dirname(path), sync=sync)
                first = [(shard, make(shard)) for shard in wanted]
                content = [((shard, lane), slot) for shard, slot in first for lane in range(header.factor)]
                files.write_replace(path, _content(header, content, seed), sync=sync)
                fd = files.open(path, os.O_RDWR | os.O_CLOEXEC)
            slots = cls._of(path, fd, seed, files)
            if factor is not None and factor != slots.factor:
                try:
                    changed = _content(header, cls._restarted(slots, factor), seed)
                finally:
                    slots.close()
                files.write_replace(path, changed, sync=sync)
                slots = cls._of(path, files.open(path, os.O_RDWR | os.O_CLOEXEC), seed, files)
            try:
                cls._add(slots, wanted, make, sync=sync)
            except (OSError, StorageError):
                slots.close()
                raise
        except OSError as error:
            raise storage_error(error, f"open the checkpoints of {function} ({path})") from error
        return slots

    @classmethod
    def _of(cls, path: str, fd: int, seed: int, files: Files) -> SlotFile:
        try:
            slots = cls(path, fd, seed, files=files)
        except OSError:
            files.close(fd)
            raise
        try:
            slots.factor = _read_header(path, files.pread(fd, _HEADER_BYTES, 0)).factor
            slots._scan()
        except (OSError, StorageError):
            slots.close()
            raise
        return slots

    def load(self, shard: int, lane: int = 0) -> Slot:
        """Read a slot: the valid copy that was written last.

        Unchanged bytes give the same object again.

        Raises:
            StorageError: there is no such slot, or it cannot be read.
            Damaged: neither copy is valid.
        """
        entry = self._entry(shard, lane)
        copies = self._copies(entry, shard)
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

    def before(self, shard: int, lane: int = 0) -> Slot | None:
        """What a slot said before it was last stored; None where that copy is not valid.

        Raises:
            StorageError: there is no such slot, or it cannot be read.
        """
        entry = self._entry(shard, lane)
        read = [unpack(copy, shard, lane, self._seed) for copy in self._copies(entry, shard)]
        valid = [each for each in read if each is not None]
        return min(valid, key=lambda each: each[0])[1] if len(valid) > 1 else None

    def least(self, shard: int, factor: int | None = None) -> tuple[Position, int]:
        """The least checkpoint over a shard's lanes, with its counter: all before it is settled.

        Args:
            shard: index of the shard.
            factor: how many lanes; as many as the file says where it is not given.

        Raises:
            StorageError: a lane has no slot, or it cannot be read.
            Damaged: neither copy of a lane's slot is valid.
        """
        first = min((self.load(shard, lane) for lane in range(factor or self.factor)), key=_place)
        return first.checkpoint, first.checkpoint_counter

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

    def lanes(self, shard: int) -> list[int]:
        """The lanes of a shard that have a slot, in order."""
        return [lane for lane in range(self.factor) if (shard, lane) in self._entries]

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

    def _copies(self, entry: _Entry, shard: int) -> list[bytes]:
        try:
            raw = self._files.pread(self._fd, SLOT_BYTES, entry.offset)
        except OSError as error:
            raise storage_error(error, f"read the checkpoint of shard {shard} ({self.path})") from error
        return [raw[:COPY_BYTES], raw[COPY_BYTES:]]

    def _restarted(self, factor: int) -> list[tuple[tuple[int, int], Slot]]:
        """The slots of another number of lanes: each shard's at its least checkpoint, its totals in lane 0."""
        if self._damaged:
            raise Damaged(
                f"{self.path}: the slot at byte {self._damaged[0]} is damaged: its lanes cannot be formed anew"
            )
        content: list[tuple[tuple[int, int], Slot]] = []
        for shard in sorted({shard for shard, _ in self._entries}):
            lanes = [self.load(*key) for key in self.keys() if key[0] == shard]
            least = min(lanes, key=_place)
            fresh = Slot(
                checkpoint=least.checkpoint,
                checkpoint_counter=least.checkpoint_counter,
                start=least.checkpoint,
                end=least.checkpoint,
            )
            totals = {name: sum(getattr(slot, name) for slot in lanes) for name in _TOTALS}
            content.append(((shard, 0), msgspec.structs.replace(fresh, **totals)))
            content += [((shard, lane), fresh) for lane in range(1, factor)]
        return content

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
        wanted = [(shard, lane) for shard in shards for lane in range(self.factor)]
        missing = [key for key in wanted if key not in self._entries]
        if not missing:
            return
        if self._damaged:
            raise self._missing(*missing[0])  # a fresh slot instead would start that shard anew, silently
        first = {shard: make(shard) for shard in dict.fromkeys(shard for shard, _ in missing)}
        content = b"".join(new_slot(first[shard], shard, lane, self._seed) for shard, lane in missing)
        self._files.write_all(self._fd, content, self._end)
        if sync:
            self._files.fsync(self._fd)
        self._scan()


def slots_path(folder_path: str | os.PathLike[str], function: str, stream_id: int) -> str:
    """Where the slots of a (function, stream) lie in the data folder."""
    return os.path.join(os.fspath(folder_path), "checkpoints", function, f"{stream_id:016x}.slots")


class Inspected(NamedTuple):
    """What is sound in a slot file.

    Attributes:
        has_header: whether its header is.
        factor: lanes of each shard; where the header is damaged, as many as there are slots of one shard.
        slots: by (shard, lane), those with a valid copy.
        halved: the (shard, lane) of slots of which one copy is not valid.
        lost: how many slots have no valid copy.
    """

    has_header: bool
    factor: int
    slots: dict[tuple[int, int], Slot]
    halved: tuple[tuple[int, int], ...]
    lost: int


def inspect(content: bytes, function: str, stream_id: int) -> Inspected:
    """Look at the bytes of a slot file, however damaged."""
    seed = _seed(function, stream_id)
    try:
        header = _read_header("", content[:_HEADER_BYTES])
    except Damaged:
        header = None
    slots: dict[tuple[int, int], Slot] = {}
    halved: list[tuple[int, int]] = []
    lost = 0
    for at in range(_HEADER_BYTES, len(content) - SLOT_BYTES + 1, SLOT_BYTES):
        raw = content[at : at + SLOT_BYTES]
        key = key_of(raw, seed)
        read = [] if key is None else [unpack(each, *key, seed) for each in (raw[:COPY_BYTES], raw[COPY_BYTES:])]
        valid = [each for each in read if each is not None]
        if key is None or not valid:
            lost += 1
            continue
        slots[key] = max(valid, key=lambda each: each[0])[1]
        if len(valid) < len(read):
            halved.append(key)
    lanes = 1 + max((lane for _, lane in slots), default=0)
    return Inspected(header is not None, lanes if header is None else header.factor, slots, tuple(halved), lost)


def compose(function: str, stream: str, stream_id: int, factor: int, slots: Mapping[tuple[int, int], Slot]) -> bytes:
    """The bytes of a slot file that holds these slots, for who replaces a damaged one."""
    header = _FileHeader(function, stream, f"{stream_id:016x}", factor)
    return _content(header, sorted(slots.items()), _seed(function, stream_id))


def _seed(function: str, stream_id: int) -> int:
    return crc32c(b"%s\0%016x" % (function.encode(), stream_id))


def _at_the_beginning(shard: int) -> Slot:
    del shard
    return Slot()


def _place(slot: Slot) -> tuple[int, Position]:
    return slot.checkpoint_counter, slot.checkpoint


def _content(header: _FileHeader, slots: Iterable[tuple[tuple[int, int], Slot]], seed: int) -> bytes:
    """The bytes of a new file."""
    text = msgspec.json.encode(header)
    pieces = [(_HEADER.pack(_MAGIC, crc32c(text), len(text)) + text).ljust(_HEADER_BYTES, b"\0")]
    pieces += [new_slot(slot, shard, lane, seed) for (shard, lane), slot in slots]
    return b"".join(pieces)


def _read_header(path: str, raw: bytes) -> _FileHeader:
    if len(raw) == _HEADER_BYTES:
        magic, crc, length = _HEADER.unpack_from(raw)
        text = raw[_HEADER.size : _HEADER.size + length]
        if magic == _MAGIC and crc32c(text) == crc:
            return _decode_header(text)
    raise Damaged(f"{path}: this is not a checkpoint file, or its first {_HEADER_BYTES} bytes are damaged")
