"""Putting into a local data folder: one `Home` a folder, which lends channels to threads."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

from kflow.arn import stream_name
from kflow.broker.folder import DataFolder
from kflow.broker.sequence import number, shard_id
from kflow.broker.streammap import StreamMap
from kflow.errors import AwsError, FailedEntry, KflowError, PutFailed, ResourceNotFound, StorageError, UsageError
from kflow.producing.channel import Channel
from kflow.producing.frames import Failure, Frame
from kflow.producing.pipeline import CHUNK_RECORDS, Entries, Pipeline, Sources
from kflow.records import Placed


class Home:
    """A data folder as this process produces to it. Any thread may use it."""

    def __init__(self, path: Path) -> None:
        self.folder = DataFolder.open(path)
        self._maps: dict[str, StreamMap] = {}
        self._idle: deque[Channel] = deque()

    def stream(self, name: str) -> StreamMap:
        """The map of a stream, as it was last seen.

        Raises:
            ResourceNotFound: there is no such stream; names the nearest, and the line that creates it.
        """
        found = self._maps.get(name)
        if found is None:
            found = self._maps[name] = self.folder.map(stream_name(name))
        return found

    def refresh(self, name: str) -> StreamMap:
        """The map of a stream, as it is now."""
        self._maps.pop(name, None)
        return self.stream(name)

    def source(self, name: str) -> Sources:
        """Where a pipeline gets the map of a stream."""
        return Sources(lambda: self.stream(name), lambda: self.refresh(name))

    def take(self) -> Channel:
        """A channel for one call of one thread; `give` it back, or close it where the call did not end as it should."""
        try:
            channel = self._idle.pop()
        except IndexError:
            return Channel(self.folder)
        channel.check()
        return channel

    def give(self, channel: Channel) -> None:
        """Lend the channel to the next caller."""
        self._idle.append(channel)


_homes: dict[str, Home] = {}


def home(path: str) -> Home:
    """This process's one `Home` of a data folder.

    Raises:
        StorageError: the folder cannot be used, or is not there.
    """
    found = _homes.get(path)
    if found is None:
        found = _homes[path] = Home(Path(path))
    return found


def current_home(path: str) -> Home:
    """The same, of what lies at the path by now: a folder may have been replaced by another."""
    where = home(path)
    if not _is_current(where.folder):
        _homes.pop(path, None)
        where = home(path)
    return where


def put_one(path: str, name: str, data: bytes, key: str, hash_key: int | None) -> Placed:
    """Put one record and wait until it is stored.

    Raises:
        PutFailed: it is not.
    """
    where = home(path)
    try:
        return _put_one(where, name, data, key, hash_key)
    except (StorageError, PutFailed) as error:
        where = _replaced(path, where, error)
        return _put_one(where, name, data, key, hash_key)


def put_all(path: str, name: str, entries: Entries) -> list[Placed]:
    """Put the records of one call and wait until all are stored.

    Raises:
        PutFailed: some are not; names each.
    """
    placed, failures = put_each(path, name, entries)
    if failures:
        raise put_failed(name, len(placed), failures)
    return placed  # type: ignore[return-value]  # complete, for nothing failed


def put_each(path: str, name: str, entries: Entries) -> tuple[list[Placed | None], dict[int, Failure]]:
    """Put the records of one call and wait for all.

    Returns:
        Where each record is, None where it failed; and why it did, by its place in the call.
    """
    where = home(path)
    try:
        placed, failures = _put_each(where, name, entries)
    except StorageError as error:
        where = _replaced(path, where, error)
        return _put_each(where, name, entries)
    if failures and all(failure.status == "refused" for failure in failures.values()) and not any(placed):
        try:
            where.folder.recheck()
        except StorageError:  # another folder lies there by now, and the failures were about the old one
            return _put_each(_replaced(path, where, put_failed(name, len(placed), failures)), name, entries)
    return placed, failures


def _replaced(path: str, where: Home, error: KflowError) -> Home:
    """The home that now lies where another one was, and took the blame for it; else raise `error` as it is."""
    if _is_current(where.folder) or any(entry.status != "refused" for entry in getattr(error, "failed", ())):
        raise error
    _homes.pop(path, None)
    return home(path)


def _is_current(folder: DataFolder) -> bool:
    try:
        folder.recheck()
    except StorageError:
        return False
    return True


def _put_one(where: Home, name: str, data: bytes, key: str, hash_key: int | None) -> Placed:
    channel = where.take()
    try:
        stream = where.stream(name)
        part = channel.encoder(stream).encode_one(data, key, hash_key)
        answer = channel.put_one(stream, part)
    except BaseException:
        channel.close()
        raise
    where.give(channel)
    if isinstance(answer, Frame):
        failure = answer.failures[0] if answer.failures else None
        if failure is not None and failure.status == "stale":
            where.refresh(name)
            entries = Entries((key,), (data,), None if hash_key is None else (hash_key,))
            placed, failures = _put_each(where, name, entries)
            if placed[0] is None:
                raise put_failed(name, 1, failures)
            return placed[0]
        if failure is not None:
            raise put_failed(name, 1, {0: failure})
        counter, arrival_ms = answer.answers[0]
    else:
        counter, arrival_ms = answer
    index = part.shard
    return Placed(shard_id(index), number(stream.shards[index].created_s, index, counter, arrival_ms))


def _put_each(where: Home, name: str, entries: Entries) -> tuple[list[Placed | None], dict[int, Failure]]:
    total = len(entries.keys)
    channel = where.take()
    try:
        pipeline = Pipeline(channel, where.source(name), total)
        if total <= CHUNK_RECORDS:
            pipeline.push(range(total), entries)
        else:
            _push_chunks(pipeline, entries, total)
        pipeline.settle()
    except BaseException:
        channel.close()
        raise
    where.give(channel)
    return pipeline.placed, pipeline.failures


def _push_chunks(pipeline: Pipeline, entries: Entries, total: int) -> None:
    for begin in range(0, total, CHUNK_RECORDS):
        end = min(begin + CHUNK_RECORDS, total)
        try:
            pipeline.push(range(begin, end), entries.cut(begin, end))
        except KflowError as error:
            if not begin:
                raise  # nothing was sent: the whole call is refused
            pipeline.refuse(range(begin, end), type(error)(f"counting from record {begin}: {error}"))
        if pipeline.failures:
            rest = StorageError("not tried, for a record before it failed")
            pipeline.refuse(range(end, total), rest)
            return


def put_failed(name: str, total: int, failures: dict[int, Failure]) -> KflowError:
    """The error to raise for records that have no place."""
    if len(failures) == total:
        only = {(failure.status, failure.error) for failure in failures.values()}
        if len(only) == 1:
            status, error = only.pop()
            if status == "refused" and isinstance(error, ResourceNotFound | UsageError):
                return error  # nothing is stored, and it is no matter of single records
    failed = [failed_entry(number, failures[number]) for number in sorted(failures)]
    first = failed[0]
    unknown = sum(entry.status == "unknown" for entry in failed)
    doubt = f", {unknown} of them may be stored" if unknown else ""
    return PutFailed(
        f"{len(failed)} of {total} records were not acknowledged by stream {name}{doubt}: "
        f"record {first.index}: {first.code}: {first.message}",
        failed,
    )


def failed_entry(number: int, failure: Failure) -> FailedEntry:
    """A failure as the caller sees it."""
    error = failure.error
    code = error.code if isinstance(error, AwsError) else type(error).__name__
    return FailedEntry(number, failure.status, code, str(error))


def _after_fork_in_child() -> None:
    # The channels have been reset one by one; those in the hands of other threads, which are gone here, are never given
    # back. What is left would only share the parent's caches, so begin with none.
    _homes.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
