"""The log of a data folder, as its one writer sees it: appends to open shards, streams made and deleted.

Whoever uses a `Log` holds the folder's `writer.lock`: a node for its life, a script without a node for one call
(`kflow.broker.writing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from kflow import limits
from kflow.broker import attributes as attributefiles
from kflow.broker import opening, streammap, streams
from kflow.broker.attributes import DEFAULTS, Attributes
from kflow.broker.encode import Part
from kflow.broker.files import storage_error
from kflow.broker.folder import DataFolder
from kflow.broker.opening import End, name_of
from kflow.broker.openshards import OPEN_SHARDS, OpenShards
from kflow.broker.retention import Retention
from kflow.broker.streammap import StreamMap, StreamMode
from kflow.broker.sync import THREADS
from kflow.clock import Clock, Now
from kflow.errors import KflowError, ResourceInUse


class Log(OpenShards):
    """All shards of a folder, for appending. Belongs to one thread, but for what `OpenShards` says."""

    def __init__(self, folder: DataFolder, *, clock: Clock | None = None, open_shards: int = OPEN_SHARDS) -> None:
        super().__init__(folder, clock=clock, open_shards=open_shards)
        self._retention = Retention(told_when_durable=folder.fsync == "always")

    def end(self, stream: StreamMap, index: int) -> End:
        """Where a shard ends. Opens none for appending, as long as its page can be believed; any thread.

        Raises:
            ResourceNotFound: the stream has no such shard, or is gone.
            StorageError: it cannot be looked at.
        """
        key = (stream.id, index)
        with self._lock:
            opened = self._shards.get(key) or self._alive.get(key)
        found = None if opened is not None else opening.end_by_page(self.folder, stream, index)
        if found is not None:
            return found
        shard = opened or self.shard(stream, index)
        return End(shard.tail, shard.readable_end)

    def append(
        self, stream: StreamMap, parts: Sequence[Part], producer: int = 0, frame: int = 0
    ) -> list[tuple[int, int]]:
        """Append the parts of one call, in order.

        Returns:
            First counter and arrival (milliseconds) of each part.

        Raises:
            KflowError: of the first part that failed. Parts before it are stored, parts after it for other shards too;
                use `append_each` to learn which.
        """
        answers: list[tuple[int, int]] = []
        for answer in self.append_each(stream, parts, producer, frame):
            if isinstance(answer, KflowError):
                raise answer
            answers.append(answer)
        return answers

    def append_each(
        self, stream: StreamMap, parts: Sequence[Part], producer: int = 0, frame: int = 0
    ) -> list[tuple[int, int] | KflowError]:
        """As `append`, with an error in the place of each part that was not stored.

        After a failure the shard's later parts are not tried, so that nothing overtakes within a partition key.
        """
        if self._turn:
            self._verify_map(stream)
        answers: list[tuple[int, int] | KflowError] = []
        failed: dict[int, KflowError] = {}
        for number, part in enumerate(parts):
            try:
                if failed and part.shard in failed:
                    raise failed[part.shard]
                answers.append(
                    self.shard(stream, part.shard).append(
                        part.body, part.count, part.crc, part.flags, producer, frame, number
                    )
                )
            except KflowError as error:
                failed[part.shard] = error
                answers.append(error)
        return answers

    def find(
        self, stream: StreamMap, shard: int, producer: int, frame: int, part: int, from_offset: int
    ) -> tuple[int, int] | None:
        """Whether a block that may have been appended was: look through the headers from `from_offset` on.

        Args:
            stream: its map.
            shard: index of the shard.
            producer: id of the producer.
            frame: number of its frame.
            part: place in the frame.
            from_offset: a tail that the producer knew before it first sent the block.

        Returns:
            First counter and arrival of the block, or None.

        Raises:
            StorageError: the shard cannot be read.
        """
        opened = self.shard(stream, shard)
        try:
            return opening.find(self.folder, stream, shard, (producer, frame, part), from_offset, opened.tail)
        except OSError as error:
            raise storage_error(error, f"read {name_of(stream, shard)}") from error

    def create_stream(
        self,
        name: str,
        shards: int,
        *,
        retention_hours: int = limits.RETENTION_HOURS,
        max_record_bytes: int = limits.RECORD_BYTES,
        mode: StreamMode = StreamMode.PROVISIONED,
        account: str = "",
        region: str = "",
        attributes: Attributes | None = None,
    ) -> StreamMap:
        """Make a stream; on return it exists, durably unless the policy is `none`.

        Args:
            name: 1 to 128 letters, digits, `_`, `.`, `-`.
            shards: 1 to 1,000, with even hash key ranges.
            retention_hours: 24 to 8,760.
            max_record_bytes: 1 MiB to 10 MiB.
            mode: capacity mode.
            account: of the place that it belongs to; empty for the folder's own.
            region: as `account`.
            attributes: what is kept of it beside its map.

        Raises:
            ResourceInUse: it exists in that place.
            ValidationFailed, InvalidArgument, LimitExceeded: a value is not acceptable.
            StorageError: it could not be written.

        Source: documented: CreateStream.
        """
        streams.check(name, shards, retention_hours, max_record_bytes)
        for found in self.folder.live_maps():
            if (found.name, found.account, found.region) == (name, account, region):
                raise ResourceInUse(f"Stream {name} under account {account or self.folder.account} already exists.")
        wanted = streams.Wanted(name, shards, retention_hours, max_record_bytes, mode, account, region, attributes)
        made = streams.make(self.folder, self._clock, wanted)
        streams.write_catalogue(self.folder)
        return made

    def alter_stream(self, stream: StreamMap, **changes: Any) -> StreamMap:
        """Change settings of a stream.

        Args:
            stream: whose; its map may be an older one.
            changes: `retention_hours`, `max_record_bytes`, `mode`.

        Returns:
            The new map.

        Raises:
            ResourceNotFound: it is gone.
            InvalidArgument, ValidationFailed: a value is not acceptable.
            StorageError: it could not be written; the old map stands.
        """
        found = self.folder.current(stream)
        hours = changes.get("retention_hours", found.retention_hours)
        streams.check(found.name, 1, hours, changes.get("max_record_bytes", found.max_record_bytes))
        expired_ms = found.trim_ms(self._clock.now().epoch_ms)
        if hours > found.retention_hours and expired_ms > found.created_s * 1000:
            changes["expired_ms"] = expired_ms  # documented: it makes nothing accessible that has expired already
        new = streams.alter(self.folder, found, changes)
        self._retain_for(new.id, hours)
        streams.write_catalogue(self.folder)
        return new

    def delete_stream(self, name: str, *, unlink: bool = True) -> StreamMap:
        """Delete a home stream with all its records.

        Args:
            name: of the stream.
            unlink: remove the files now; else `empty_trash` does, later and perhaps in another thread.

        Raises:
            ResourceNotFound: there is none.
            StorageError: it could not be written.
        """
        return self.delete(self.folder.map(name), unlink=unlink)

    def delete(self, stream: StreamMap, *, unlink: bool = True) -> StreamMap:
        """Delete a stream of any place with all its records.

        Args:
            stream: its map, perhaps an older one.
            unlink: as for `delete_stream`.

        Raises:
            ResourceNotFound: it is gone.
            StorageError: it could not be written.
        """
        found = self.folder.current(stream)
        self._delete(found)
        streams.write_catalogue(self.folder)
        if unlink:
            self.empty_trash()
        return found

    def reset_stream(self, name: str) -> StreamMap:
        """Delete a home stream and create it anew, as `reset` does.

        Raises:
            ResourceNotFound: there is none.
            StorageError: it could not be written.
        """
        return self.reset(self.folder.map(name))

    def reset(self, stream: StreamMap) -> StreamMap:
        """Delete a stream and create it anew with as many shards, the same settings and what is kept beside its map.

        The new one is there before the old one goes, so that a crash between leaves one of them.

        Returns:
            The new map.

        Raises:
            ResourceNotFound: it is gone.
            StorageError: it could not be written.
        """
        old = self.folder.current(stream)
        kept = attributefiles.load(self.folder.stream_dir(old), self._files)
        wanted = streams.Wanted(
            old.name,
            len(old.open_shards),
            old.retention_hours,
            old.max_record_bytes,
            old.mode,
            old.account,
            old.region,
            None if kept == DEFAULTS else msgspec.structs.replace(kept, pending=None, created_ms=0),
        )
        made = streams.make(self.folder, self._clock, wanted)
        self._delete(old)
        streams.write_catalogue(self.folder)
        self.empty_trash()
        return made

    def empty_trash(self) -> None:
        """Remove what deletion has put aside.

        Raises:
            StorageError: something could not be removed.
        """
        streams.empty_trash(self.folder)

    def recover_all(self, *, threads: int = THREADS) -> None:
        """At the start of a node: finish what a crash interrupted, and recover every shard that needs it.

        Args:
            threads: how many shards are recovered at once; 1 does it in this thread.

        Raises:
            StorageError: something could not be written or read.
        """
        due: list[tuple[StreamMap, int]] = []
        try:
            streams.remove_leftovers(self.folder)
            for stream in self.folder.live_maps():
                path = self.folder.stream_dir(stream) / streammap.FILE_NAME
                streammap.settle(path, stream, self._files, sync=self.folder.syncs)
                attributefiles.settle(path.parent, self._files, sync=self.folder.syncs)
                due += [
                    (stream, shard.index)
                    for shard in stream.shards
                    if not opening.is_sound(self.folder, stream, shard.index)
                ]
        except OSError as error:
            raise storage_error(error, f"recover {self.folder.path}") from error
        self.open_all(due, threads=threads)
        if self.folder.fsync == "always":  # readers see nothing before
            self.sync(threads=threads)
        streams.write_catalogue(self.folder)

    def retain(self, now: Now) -> int:
        """Let records expire whose retention is over, and remove their files. Call it about once a minute.

        Returns:
            How many bytes of the log expired.

        Raises:
            StorageError: a shard could not be read or written; the others were looked at.
        """
        return self._retention.look_at_all(self.folder, now)

    def _delete(self, stream: StreamMap) -> None:
        self._drop(stream.id)
        streams.delete(self.folder, stream)
