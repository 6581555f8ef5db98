"""Records that exhausted their retries, kept until somebody sends them again or drops them.

One file a parked batch, in a folder for each function; the name says which records it holds and its number:

    parked/<function>/<stream id>.<shard>.<first counter>-<last counter>.<number>.parked
    parked/<function>/<stream id>.<shard>.<first counter>-<last counter>.<number>.claim-<epoch>     while it is redriven

Content: one line with a CRC32C, then JSON. A file appears whole, under its name, or not at all. Parking comes before
the checkpoint that passes the records, so a crash between the two leaves both the file and the records behind the
checkpoint: `find` is how the next owner of the lease sees that these very records are parked already.

Writers hold `parked/lock` for the call. Any process; not thread-safe.
"""

from __future__ import annotations

import enum
import logging
import os
import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import msgspec
from crc32c import crc32c

from kflow.broker.files import Files, storage_error
from kflow.broker.locks import FileLock
from kflow.errors import Damaged, UsageError
from kflow.interfaces import FunctionError
from kflow.records import Position

log = logging.getLogger(__name__)

_LOCK_TIMEOUT_S: Final = 10.0
_NAME = re.compile(r"([0-9a-f]{16})\.(\d+)\.(\d+)-(\d+)\.(\d+)\.(?:parked|claim-(\d+))")
_FIRST_LINE = re.compile(rb"kflow-parked 1 ([0-9a-f]{8})\n")


class ParkCondition(enum.StrEnum):
    """Why records were given up. Source: recorded: `condition` of Lambda's failure documents."""

    RETRY_ATTEMPTS_EXHAUSTED = "RetryAttemptsExhausted"
    RECORD_AGE_EXCEEDED = "RecordAgeExceeded"


class ParkedRecord(msgspec.Struct, frozen=True):
    """One record, as it was put, with what names it in the stream."""

    data: bytes
    partition_key: str
    sequence_number: int
    arrival_ms: int
    shard_id: str


class ParkedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What was given up, together: at least one record, of one shard.

    Attributes:
        function: name of the function.
        stream: name of the stream.
        stream_id: its id.
        shard: index of the shard.
        shard_id: `shardId-` and twelve digits.
        first_counter: counter of the first record.
        last_counter: counter of the last record.
        start: before the first record.
        end: past the last record.
        records: the records themselves: they stay here when the stream has forgotten them.
        error: the last failure; None where the records were never handed to the function.
        attempts: how often they were handed to it as this batch, redrives included.
        condition: why.
        parked_ms: when, milliseconds since the epoch.
        parked_before: records that this consumer had parked in this shard before: tells a file that an interrupted
            settling left from one of an earlier pass over the same records.
        number: 1, 2, 3 ... in this data folder; given by `park`.
        claimed_by: epoch of the node that redrives it now; 0 where none does. Comes from the name of the file.
    """

    function: str
    stream: str
    stream_id: int
    shard: int
    shard_id: str
    first_counter: int
    last_counter: int
    start: Position
    end: Position
    records: tuple[ParkedRecord, ...]
    error: FunctionError | None
    attempts: int
    condition: ParkCondition
    parked_ms: int
    parked_before: int = 0
    number: int = 0
    claimed_by: int = 0


class _StoredRecord(msgspec.Struct, array_like=True):
    """A record in the file. The number is decimal text, as on the wire: it is too large for an integer of JSON."""

    data: bytes
    partition_key: str
    sequence_number: str
    arrival_ms: int
    shard_id: str


class _Stored(msgspec.Struct):
    """What a file holds: the batch without its records, and the records."""

    batch: ParkedBatch
    records: list[_StoredRecord]


class _Name(NamedTuple):
    function: str
    stream_id: int
    shard: int
    first_counter: int
    last_counter: int
    number: int
    claimed_by: int

    @property
    def text(self) -> str:
        state = f"claim-{self.claimed_by}" if self.claimed_by else "parked"
        counters = f"{self.first_counter:020d}-{self.last_counter:020d}"
        return f"{self.stream_id:016x}.{self.shard}.{counters}.{self.number}.{state}"


class ParkedStore:
    """The parked batches of one data folder."""

    def __init__(self, folder_path: str | os.PathLike[str], files: Files, fsync: str = "interval") -> None:
        """Use the folder `parked` of a data folder.

        Args:
            folder_path: the data folder.
            files: the file calls.
            fsync: the data folder's policy; with `none` nothing is synced here either.
        """
        self._path = os.path.join(os.fspath(folder_path), "parked")
        self._files = files
        self._sync = fsync != "none"
        self._lock = FileLock(os.path.join(self._path, "lock"), files)

    def park(self, entry: ParkedBatch) -> int:
        """Keep a batch. On return it survives the death of any process, and with any policy but `none` power loss.

        Parking the same records of the same consumer again replaces what was kept, under the same number.

        Returns:
            The number people name it by.

        Raises:
            StorageError: it could not be written; nothing was kept.
        """
        try:
            self._files.make_folder(os.path.join(self._path, entry.function))
            with _held(self._lock):
                name = self._twin(entry) or _name_of(entry, self._next_number())
                self._write(name, entry)
        except OSError as error:
            raise storage_error(error, f"park records of {entry.function}") from error
        return name.number

    def find(self, function: str, stream_id: int, shard: int, from_counter: int) -> ParkedBatch | None:
        """The first parked batch of a consumer's shard that begins at or after a counter.

        A damaged one is logged and passed over: parking its records again replaces it.

        Raises:
            StorageError: the folder or the file cannot be read.
        """
        found = [
            name
            for name in self._names(function)
            if name.stream_id == stream_id and name.shard == shard and name.first_counter >= from_counter
        ]
        for name in sorted(found, key=lambda name: (name.first_counter, -name.number)):
            try:
                return self._read(name)
            except Damaged as error:
                log.error("parked batch is damaged number=%d: %s", name.number, error)  # noqa: TRY400  # it says all
            except FileNotFoundError:
                continue  # dropped, claimed or given back meanwhile
        return None

    def list(self) -> Sequence[ParkedBatch]:
        """Everything parked, by number. A damaged file is logged and left out."""
        entries = []
        for name in sorted(self._all_names(), key=lambda name: name.number):
            try:
                entries.append(self._read(name))
            except Damaged as error:
                log.error("parked batch is damaged number=%d: %s", name.number, error)  # noqa: TRY400  # it says all
            except FileNotFoundError:
                continue  # dropped, claimed or given back meanwhile
        return entries

    def count(self) -> int:
        """How many batches are parked; reads names only."""
        return len(self._all_names())

    def show(self, number: int) -> ParkedBatch:
        """One parked batch, with its records.

        Raises:
            UsageError: there is none of that number.
            Damaged: its file is not valid.
        """
        try:
            return self._read(self._numbered(number))
        except FileNotFoundError:  # it was claimed, given back or dropped meanwhile: look once more
            return self._read(self._numbered(number))

    def drop(self, number: int) -> None:
        """Remove a batch for good: it was redriven, or nobody wants it.

        Raises:
            UsageError: there is none of that number.
        """
        with _held(self._lock):
            name = self._numbered(number)
            self._files.unlink(self._file(name))

    def claim(self, number: int, epoch: int) -> ParkedBatch:
        """Take a batch for a redrive: nobody else can, until `unclaim`, `failed_again` or `drop`.

        Args:
            number: of the batch.
            epoch: epoch of the node that redrives, from 1.

        Raises:
            UsageError: there is none of that number, or it is being redriven.
        """
        with _held(self._lock):
            name = self._numbered(number)
            if name.claimed_by:
                raise UsageError(f"parked batch {number} is being redriven already")
            entry = self._read(name)
            self._move(name, name._replace(claimed_by=epoch))
        return msgspec.structs.replace(entry, claimed_by=epoch)

    def unclaim(self, number: int) -> None:
        """Give a claimed batch back as it was.

        Raises:
            UsageError: there is none of that number.
        """
        with _held(self._lock):
            name = self._numbered(number)
            if name.claimed_by:
                self._move(name, name._replace(claimed_by=0))

    def failed_again(self, number: int, error: FunctionError | None, attempts: int = 1) -> None:
        """Give a claimed batch back after a redrive that failed.

        Args:
            number: of the batch.
            error: the failure of the redrive.
            attempts: how many attempts the redrive made; they are added.

        Raises:
            UsageError: there is none of that number.
            StorageError: it could not be written; the claim stays until the next start.
        """
        with _held(self._lock):
            name = self._numbered(number)
            entry = self._read(name)
            try:
                self._write(name, msgspec.structs.replace(entry, error=error, attempts=entry.attempts + attempts))
            except OSError as failure:
                raise storage_error(failure, f"write parked batch {number}") from failure
            if name.claimed_by:
                self._move(name, name._replace(claimed_by=0))

    def release_claims(self, epoch: int) -> int:
        """At the start of a node: give back what other epochs claimed, and clear away half-written files.

        Returns:
            How many claims were given back.
        """
        given_back = 0
        if not os.path.isdir(self._path):
            return 0
        with _held(self._lock):
            for name in self._all_names():
                if name.claimed_by not in (0, epoch):
                    self._move(name, name._replace(claimed_by=0))
                    given_back += 1
            for folder in self._functions():
                for text in self._files.listdir(os.path.join(self._path, folder)):
                    if text.endswith(".tmp"):
                        self._files.discard(os.path.join(self._path, folder, text))
        return given_back

    def _file(self, name: _Name) -> str:
        return os.path.join(self._path, name.function, name.text)

    def _functions(self) -> Sequence[str]:
        try:
            names = self._files.listdir(self._path)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise storage_error(error, f"read {self._path}") from error
        return [name for name in names if os.path.isdir(os.path.join(self._path, name))]

    def _names(self, function: str) -> Iterator[_Name]:
        try:
            texts = self._files.listdir(os.path.join(self._path, function))
        except FileNotFoundError:
            return
        except OSError as error:
            raise storage_error(error, f"read the parked records of {function}") from error
        for text in texts:
            match = _NAME.fullmatch(text)
            if match is not None:
                numbers = [int(match[group] or 0) for group in range(2, 7)]
                yield _Name(function, int(match[1], 16), *numbers)

    def _all_names(self) -> Sequence[_Name]:
        return [name for function in self._functions() for name in self._names(function)]

    def _numbered(self, number: int) -> _Name:
        for name in self._all_names():
            if name.number == number:
                return name
        raise UsageError(f"there is no parked batch {number}; `kflow parked list` shows what there is")

    def _twin(self, entry: ParkedBatch) -> _Name | None:
        """The file that holds the same records of the same consumer already, unless it is being redriven."""
        wanted = _name_of(entry, 0)
        for name in self._names(entry.function):
            if name._replace(number=0) == wanted:
                return name
        return None

    def _next_number(self) -> int:
        """The next number, noted before it is used, so that a number is never given twice."""
        path = os.path.join(self._path, "last_number")
        try:
            noted = self._files.read_bytes(path).strip()
        except FileNotFoundError:
            noted = b""
        last = int(noted) if noted.isdigit() else max((name.number for name in self._all_names()), default=0)
        self._files.write_replace(path, b"%d\n" % (last + 1), sync=False)
        return last + 1

    def _write(self, name: _Name, entry: ParkedBatch) -> None:
        records = [
            _StoredRecord(each.data, each.partition_key, str(each.sequence_number), each.arrival_ms, each.shard_id)
            for each in entry.records
        ]
        batch = msgspec.structs.replace(entry, number=name.number, claimed_by=0, records=())
        content = msgspec.json.encode(_Stored(batch, records))
        line = b"kflow-parked 1 %08x\n" % crc32c(content)
        self._files.write_replace(self._file(name), line + content, sync=self._sync)

    def _read(self, name: _Name) -> ParkedBatch:
        path = self._file(name)
        try:
            raw = self._files.read_bytes(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise storage_error(error, f"read parked batch {name.number} ({path})") from error
        line = _FIRST_LINE.match(raw)
        if line is None or int(line[1], 16) != crc32c(raw[line.end() :]):
            raise Damaged(f"{path}: the parked batch is damaged; its content does not have its checksum")
        stored = msgspec.json.decode(raw[line.end() :], type=_Stored)
        records = tuple(
            ParkedRecord(each.data, each.partition_key, int(each.sequence_number), each.arrival_ms, each.shard_id)
            for each in stored.records
        )
        return msgspec.structs.replace(stored.batch, records=records, number=name.number, claimed_by=name.claimed_by)

    def _move(self, name: _Name, target: _Name) -> None:
        try:
            self._files.rename(self._file(name), self._file(target))
        except OSError as error:
            raise storage_error(error, f"rename parked batch {name.number}") from error


class _held:  # noqa: N801  # reads as the verb it is: `with _held(lock)`
    """Hold a lock for the block."""

    __slots__ = ("_lock",)

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        self._lock.acquire(_LOCK_TIMEOUT_S)

    def __exit__(self, *exception: object) -> None:
        self._lock.release()


def _name_of(entry: ParkedBatch, number: int) -> _Name:
    return _Name(entry.function, entry.stream_id, entry.shard, entry.first_counter, entry.last_counter, number, 0)
