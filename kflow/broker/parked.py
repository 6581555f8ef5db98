"""Records that exhausted their retries, kept until somebody sends them again or drops them.

One file a parked batch, in a folder for each function; the name says which records it holds and its number:

    parked/<function>/<stream id>.<shard>.<first counter>-<last counter>.<number>.parked
    parked/<function>/<stream id>.<shard>.<first counter>-<last counter>.<number>.claim-<epoch>     while it is redriven
    parked/<function>/<the name as above>.unsent       as long as its document has not been sent to its destination

A file appears whole, under its name, or not at all. Parking comes before the checkpoint that passes the records, so a
crash between the two leaves both the file and the records behind the checkpoint: `find` is how the next owner of the
lease sees that these very records are parked already.

Writers hold `parked/lock` for the call. Any process; not thread-safe.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from kflow.broker.files import Files, storage_error
from kflow.broker.locks import FileLock
from kflow.broker.parked_batch import Origin, ParkCondition, ParkedBatch, ParkedRecord, decode, encode
from kflow.broker.parked_names import Name, keyed, name_of, parsed
from kflow.broker.parked_numbers import Noted, Numbers
from kflow.errors import Damaged, UsageError
from kflow.interfaces import FunctionError

__all__ = ["Origin", "ParkCondition", "ParkedBatch", "ParkedRecord", "ParkedStore", "Unreadable"]

log = logging.getLogger(__name__)

_LOCK_TIMEOUT_S: Final = 10.0
_KNOWN: Final = 20_000
"""So many batches are known by their numbers; where there are more, the folder is listed."""


class Unreadable(NamedTuple):
    """A parked batch whose file is damaged: what its name still says.

    Attributes:
        number: of the batch.
        function: name of the function.
        first_counter: counter of its first record.
        last_counter: counter of its last record.
        text: which file, and why.
    """

    number: int
    function: str
    first_counter: int
    last_counter: int
    text: str


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
        self._numbers = Numbers(os.path.join(self._path, "last_number"), files)
        self._ranges: dict[str, int] = {}  # numbers by what they hold, of the functions that were listed
        self._listed: set[str] = set()
        self._seen = 0  # the last number that was given when that was so
        self._unsent: dict[int, Name] = {}

    def park(self, entry: ParkedBatch) -> int:
        """Keep a batch. On return it survives the death of any process, and with any policy but `none` power loss.

        Parking the same records of the same consumer again replaces what was kept, under the same number. What has a
        destination is unsent from then on.

        Returns:
            The number people name it by.

        Raises:
            StorageError: it could not be written; nothing was kept.
        """
        try:
            self._files.make_folder(os.path.join(self._path, entry.function), sync=self._sync)
            with _held(self._lock):
                noted = self._numbers.noted(self._greatest)
                twin = self._twin(entry, noted)
                name = name_of(entry, noted.last + 1 if twin is None else twin.number)
                if twin is None:
                    self._numbers.take(noted, name.key)
                    self._ranges[name.key] = name.number
                    self._seen = name.number
                elif twin != name:
                    self._move(twin, name)
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
            name for name in self._names(function, f"{stream_id:016x}.{shard}.") if name.first_counter >= from_counter
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

    def damaged(self) -> Sequence[Unreadable]:
        """The files whose content does not have its checksum, by number.

        Raises:
            StorageError: a file cannot be read.
        """
        found = []
        for name in sorted(self._all_names(), key=lambda name: name.number):
            try:
                self._read(name)
            except Damaged as error:
                found.append(Unreadable(name.number, name.function, name.first_counter, name.last_counter, str(error)))
            except FileNotFoundError:
                continue  # dropped, claimed or given back meanwhile
        return found

    def set_aside(self, number: int, target: str) -> str:
        """Move a damaged batch into another folder, out of the way of those that can be read; it stays for people.

        Returns:
            Where it is now.

        Raises:
            UsageError: there is none of that number.
            StorageError: it could not be moved.
        """
        with _held(self._lock):
            name = self._numbered(number)
            moved = os.path.join(target, f"{name.function}.{name.text}")
            try:
                self._files.make_folder(target)
                self._files.rename(self._file(name), moved)
                if self._sync:
                    self._files.sync_folder(target)
                    self._files.sync_folder(os.path.dirname(self._file(name)))
            except OSError as error:
                raise storage_error(error, f"set parked batch {number} aside") from error
        return moved

    def count(self) -> int:
        """How many batches are parked; reads names only."""
        return len(self._all_names())

    def show(self, number: int) -> ParkedBatch:
        """One parked batch, with its records.

        Raises:
            UsageError: there is none of that number.
            Damaged: its file is not valid.
        """
        return self._found(number)[1]

    def drop(self, number: int) -> None:
        """Remove a batch for good: it was redriven, or nobody wants it.

        Raises:
            UsageError: there is none of that number.
        """
        with _held(self._lock):
            name = self._numbered(number)
            try:
                self._files.unlink(self._file(name))
            except OSError as error:
                raise storage_error(error, f"drop parked batch {number}") from error

    def drop_all(self, stream_id: int) -> None:
        """Remove the batches of a stream that is no more, damaged ones too.

        Raises:
            StorageError: one cannot be removed.
        """
        if not self._functions():
            return
        with _held(self._lock):
            for name in self._all_names():
                if name.stream_id == stream_id:
                    try:
                        self._files.discard(self._file(name))
                    except OSError as error:
                        raise storage_error(error, f"drop parked batch {name.number}") from error

    def claim(self, number: int, epoch: int) -> ParkedBatch:
        """Take a batch for a redrive: nobody else can, until `unclaim`, `failed_again` or `drop`.

        Args:
            number: of the batch.
            epoch: epoch of the node that redrives, from 1.

        Raises:
            UsageError: there is none of that number, or it is being redriven.
        """
        with _held(self._lock):
            name, entry = self._found(number)
            if name.claimed_by:
                raise UsageError(f"parked batch {number} is being redriven already")
            self._move(name, name._replace(claimed_by=epoch))
        return replace(entry, claimed_by=epoch)

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
            name, entry = self._found(number)
            try:
                self._write(name, replace(entry, error=error, attempts=entry.attempts + attempts))
            except OSError as failure:
                raise storage_error(failure, f"write parked batch {number}") from failure
            if name.claimed_by:
                self._move(name, name._replace(claimed_by=0))

    def unsent(self) -> Sequence[int]:
        """Numbers of the batches whose documents are still to be sent, in their order; reads names only."""
        self._unsent = {name.number: name for name in self._all_names() if name.is_unsent}
        return sorted(self._unsent)

    def sent(self, entry: ParkedBatch) -> None:
        """The document of a batch, as it was read, has reached its destination.

        Raises:
            UsageError: there is no batch of that number any more.
            StorageError: it could not be noted: the document is sent once more at the next start.
        """
        with _held(self._lock):
            name = name_of(entry, entry.number)
            if not self._files.exists(self._file(name)):  # it is being redriven
                name = self._numbered(entry.number)
            if name.is_unsent and self._read(name).parked_ms == entry.parked_ms:  # else it was parked again meanwhile
                self._move(name, name._replace(is_unsent=False))

    def not_sent(self, number: int, trouble: str) -> None:
        """The document of a batch could not be sent, and nobody tries any more before the next start: note why.

        Raises:
            UsageError: there is no batch of that number any more.
            StorageError: it could not be noted.
        """
        with _held(self._lock):
            name, entry = self._found(number)
            try:
                self._write(name, replace(entry, trouble=trouble))
            except OSError as error:
                raise storage_error(error, f"write parked batch {number}") from error

    def release_claims(self, epoch: int) -> int:
        """At the start of a node: give back what other epochs claimed, and clear away half-written files.

        Returns:
            How many claims were given back.
        """
        given_back = 0
        if not self._functions():
            return 0
        with _held(self._lock):
            for name in self._all_names():
                if name.claimed_by not in (0, epoch):
                    self._move(name, name._replace(claimed_by=0))
                    given_back += 1
            for function in self._functions():
                for text in self._texts(function):
                    if text.endswith(".tmp"):
                        self._clear_away(os.path.join(self._path, function, text))
        return given_back

    def _clear_away(self, path: str) -> None:
        """Remove a file of which nothing depends but room on the disk."""
        try:
            self._files.discard(path)
        except OSError as error:
            log.warning("half-written file not removed file=%s error=%s", path, error)

    def _file(self, name: Name) -> str:
        return os.path.join(self._path, name.function, name.text)

    def _functions(self) -> Sequence[str]:
        """Names of the folders; also of the lock and of the last number, which are none."""
        try:
            return self._files.listdir(self._path)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise storage_error(error, f"read {self._path}") from error

    def _texts(self, function: str) -> Sequence[str]:
        try:
            return self._files.listdir(os.path.join(self._path, function))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise storage_error(error, f"read the parked records of {function}") from error

    def _names(self, function: str, prefix: str = "") -> Iterator[Name]:
        """What is parked of a function; of names that do not begin so nothing more is looked at."""
        for text in self._texts(function):
            if text.startswith(prefix):
                name = parsed(function, text)
                if name is not None:
                    yield name

    def _all_names(self) -> Sequence[Name]:
        return [name for function in self._functions() for name in self._names(function)]

    def _numbered(self, number: int) -> Name:
        name = self._unsent.pop(number, None) or self._numbers.recent(number, keyed)
        found = None if name is None else self._unclaimed(name)
        if found is not None:
            return found
        part = f".{number}."
        for function in self._functions():
            for text in self._texts(function):
                if part in text:  # most are passed over without being taken apart
                    name = parsed(function, text)
                    if name is not None and name.number == number:
                        return name
        raise _no_batch(number)

    def _found(self, number: int) -> tuple[Name, ParkedBatch]:
        """A batch and its name."""
        name = self._numbered(number)
        try:
            return name, self._read(name)
        except FileNotFoundError:  # it was claimed, given back or dropped meanwhile: look once more
            name = self._numbered(number)
        try:
            return name, self._read(name)
        except FileNotFoundError as error:
            raise _no_batch(number) from error

    def _unclaimed(self, name: Name) -> Name | None:
        """The name that a batch has now, where it is there and nobody redrives it."""
        for is_unsent in (True, False):
            found = name._replace(claimed_by=0, is_unsent=is_unsent)
            if self._files.exists(self._file(found)):
                return found
        return None

    def _twin(self, entry: ParkedBatch, noted: Noted) -> Name | None:
        """The file that holds the same records of the same consumer already, unless it is being redriven.

        The folder is listed once; then what others have parked is known by their numbers, or it is listed again.
        """
        if noted.last != self._seen:
            others = [(number, key) for number, key in noted.recent if number > self._seen]
            if len(others) == noted.last - self._seen and len(self._ranges) < _KNOWN:
                self._ranges.update((key, number) for number, key in others)
            else:
                self._ranges.clear()
                self._listed.clear()
            self._seen = noted.last
        if entry.function not in self._listed:
            for each in self._names(entry.function):
                self._ranges[each.key] = max(each.number, self._ranges.get(each.key, 0))
            self._listed.add(entry.function)  # not where it could not be read
        name = name_of(entry, 0)
        number = self._ranges.get(name.key)
        return None if number is None else self._unclaimed(name._replace(number=number))

    def _greatest(self) -> int:
        return max((name.number for name in self._all_names()), default=0)

    def _write(self, name: Name, entry: ParkedBatch) -> None:
        content = encode(replace(entry, number=name.number, claimed_by=0, is_unsent=False))
        self._files.write_replace(self._file(name), content, sync=self._sync)

    def _read(self, name: Name) -> ParkedBatch:
        path = self._file(name)
        try:
            raw = self._files.read_bytes(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise storage_error(error, f"read parked batch {name.number} ({path})") from error
        entry = decode(raw)
        if entry is None:
            raise Damaged(f"{path}: the parked batch is damaged; its content does not have its checksum")
        return replace(entry, number=name.number, claimed_by=name.claimed_by, is_unsent=name.is_unsent)

    def _move(self, name: Name, target: Name) -> None:
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


def _no_batch(number: int) -> UsageError:
    return UsageError(f"there is no parked batch {number}; `kflow parked list` shows what there is")
