"""The node's administration of streams: made, changed, deleted, emptied, split, merged, scaled, while producers append.

All file work is done by threads, one errand after the other; each request is answered when its errand is over. A stream
is named by its name, where it is at home, or by its id.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import msgspec

from kflow import limits
from kflow.broker.attributes import Attributes
from kflow.broker.forgetting import forget
from kflow.broker.reshardplan import planner
from kflow.broker.sequence import shard_id
from kflow.broker.streammap import StreamMap, StreamMode
from kflow.countdown import countdown
from kflow.errors import KflowError, UsageError
from kflow.runtime.errands import Errands, guarded
from kflow.runtime.node.node import Node
from kflow.runtime.streams.resharding import Holding, Resharding

T = TypeVar("T")
Answer = Callable[[Any], None]
"""Called once, on the loop, with a JSON value or the error that refuses the request."""


class Streams(Protocol):
    """What appends to streams. `kflow.runtime.intake.ingest.Ingest` is one."""

    @property
    def appender(self) -> Holding:
        """Appends; holds shards back."""
        ...

    def retire(self, stream_id: int, then: Callable[[], None]) -> None:
        """Append nothing more to a stream; call `then` once nothing is under way."""
        ...

    def forget(self, stream_id: int) -> None:
        """The stream is gone, or there may be another map of it."""
        ...

    def learn(self, stream: StreamMap) -> None:
        """The stream has this map from now on."""
        ...


class StreamAdmin:
    """The operations on streams. Belongs to the loop's thread.

    Args:
        node: what runs.
        streams: what appends.
        moved: told of each new map of a stream, also of its first; and of the last one, marked deleted, once it is
            gone.
    """

    def __init__(self, node: Node, streams: Streams, moved: Callable[[StreamMap], None]) -> None:
        self._node = node
        self._folder = node.folder
        self._streams = streams
        self._moved = moved
        self._errands = Errands()
        self._resharding = Resharding(node.log, streams.appender, node.upkeep, self._errands, self._map_changed)
        self.operations: dict[str, Callable[..., None]] = {
            "create_stream": self.create,
            "alter_stream": self.alter,
            "delete_stream": self.delete,
            "reset": self.reset,
            "split": self.split,
            "merge": self.merge,
            "scale": self.scale,
        }

    def create(
        self,
        answer: Answer,
        *,
        name: str,
        shards: int,
        retention_hours: int = limits.RETENTION_HOURS,
        max_record_bytes: int = limits.RECORD_BYTES,
        mode: str = StreamMode.PROVISIONED,
        account: str = "",
        region: str = "",
        attributes: dict[str, Any] | None = None,
    ) -> None:
        """Create a stream. Handlers whose stream of that name was deleted read it; others, from the next start on."""

        def work() -> StreamMap:
            return self._node.log.create_stream(
                name,
                shards,
                retention_hours=retention_hours,
                max_record_bytes=max_record_bytes,
                mode=StreamMode(mode),
                account=account,
                region=region,
                attributes=None if attributes is None else msgspec.convert(attributes, Attributes),
            )

        def told(made: StreamMap | KflowError) -> None:
            if isinstance(made, StreamMap):
                self._born(made)
                answer({"name": made.name, "id": f"{made.id:016x}", "shards": len(made.shards)})
            else:
                answer(made)

        self._errands.add(lambda over: self._do(work, told, over))

    def alter(
        self, answer: Answer, *, name: str = "", stream_id: int | None = None, changes: dict[str, int | str]
    ) -> None:
        """Change `retention_hours`, `max_record_bytes` or `mode` of a stream."""
        stream = self._named(name, stream_id)
        given: dict[str, Any] = dict(changes)
        if "mode" in given:
            given["mode"] = StreamMode(given["mode"])
        before = stream

        def work() -> StreamMap:
            nonlocal before
            before = self._folder.current(stream)
            return self._node.log.alter_stream(before, **given)

        def told(new: StreamMap | KflowError) -> None:
            if isinstance(new, StreamMap):
                self._map_changed(before, new)
                answer({"name": new.name, "generation": new.generation})
            else:
                answer(new)

        self._errands.add(lambda over: self._do(work, told, over))

    def delete(
        self, answer: Answer, *, name: str = "", stream_id: int | None = None, although_read: bool = False
    ) -> None:
        """Delete a stream, once no append to it is under way.

        Args:
            answer: told.
            name: of the stream.
            stream_id: or its id.
            although_read: whether running handlers may read it: they read nothing of it from then on, until one of that
                name is made.
        """
        stream = self._named(name, stream_id)
        if not although_read:
            self._refuse_if_read(stream, "delete")
        self._errands.add(
            lambda over: self._remove(
                "delete",
                lambda: [self._folder.current(stream)],
                lambda each: self._node.log.delete(each, unlink=False),
                answer,
                over,
                although_read=although_read,
            )
        )

    def reset(self, answer: Answer, *, stream: str | None = None) -> None:
        """Empty a stream, or all of all places, that no running handler reads, once no append is under way."""
        folder, store = self._folder, self._node.log

        def chosen() -> list[StreamMap]:
            return folder.live_maps() if stream is None else [folder.map(stream)]

        for each in chosen():
            self._refuse_if_read(each, "reset")
        self._errands.add(lambda over: self._remove("reset", chosen, store.reset, answer, over))

    def split(
        self, answer: Answer, *, shard: str, at: str | None = None, name: str = "", stream_id: int | None = None
    ) -> None:
        """Split a shard in two. Source: documented: SplitShard."""
        self._change(answer, "split", name, stream_id, {"shard": shard, "at": at})

    def merge(self, answer: Answer, *, shard: str, adjacent: str, name: str = "", stream_id: int | None = None) -> None:
        """Merge two neighbours. Source: documented: MergeShards."""
        self._change(answer, "merge", name, stream_id, {"shard": shard, "adjacent": adjacent})

    def scale(self, answer: Answer, *, shards: int, name: str = "", stream_id: int | None = None) -> None:
        """Have another number of open shards. Source: documented: UpdateShardCount."""
        self._change(answer, "scale", name, stream_id, {"shards": shards})

    def _named(self, name: str, stream_id: int | None) -> StreamMap:
        return self._folder.map(name) if stream_id is None else self._folder.map_by_id(stream_id)

    def _change(self, answer: Answer, kind: str, name: str, stream_id: int | None, arguments: dict[str, Any]) -> None:
        folder = self._folder
        if stream_id is None:  # the form of shard ids first
            plan = planner((folder.account, folder.region), kind, name, arguments)
            self._resharding.change(folder.map(name), plan, answer)
        else:
            stream = folder.map_by_id(stream_id)
            plan = planner(folder.place_of(stream), kind, stream.name, arguments)
            self._resharding.change(stream, plan, answer)

    def _born(self, made: StreamMap) -> None:
        """A stream is there: whoever waits for one of its name gets it."""
        self._streams.learn(made)
        self._moved(made)
        readers = self._node.reads.stream_born(made) if made.is_home else []
        if readers:
            self._node.notice("info", f"stream {made.name} was created anew: {', '.join(readers)} from its beginning")

    def _map_changed(self, old: StreamMap, new: StreamMap) -> None:
        """Readers first: then no record of a child can be there before they know of it."""
        try:
            self._node.reads.map_changed(old, new)
        finally:
            self._streams.learn(new)
            self._moved(new)
        closed = [shard.index for shard in old.open_shards if not new.shards[shard.index].is_open]
        opened = [shard.index for shard in new.open_shards if shard.index >= len(old.shards)]
        self._node.people.shards_changed(new.name, [*map(shard_id, closed)], [*map(shard_id, opened)])

    def _remove(
        self,
        what: str,
        chosen: Callable[[], list[StreamMap]],
        remove: Callable[[StreamMap], StreamMap],
        answer: Answer,
        over: Callable[[], None],
        *,
        although_read: bool = False,
    ) -> None:
        """Let go of streams, remove them, and what belongs to them; answer, and only then give the space back."""
        node = self._node
        try:
            streams = chosen()
            for each in streams if not although_read else ():
                self._refuse_if_read(each, what)
        except KflowError as error:
            answer(error)
            over()
            return
        made: list[StreamMap] = []
        for each in streams:
            readers = node.reads.stream_gone(each)
            if readers:
                node.notice(
                    "warning",
                    f"stream {each.name} is deleted, and {', '.join(readers)} read it: nothing is read until one of "
                    "that name is created",
                )

        def work() -> None:
            for each in streams:
                new = remove(each)
                if new.id != each.id:
                    made.append(new)
                forget(node.folder, each)

        def told(failure: KflowError | None) -> None:
            try:
                for new in made:  # first: what is kept of the old one is the new one's
                    self._born(new)
                for each in streams:
                    self._streams.forget(each.id)
                    if failure is None:
                        self._moved(msgspec.structs.replace(each, deleted=True))
                answer({"streams": [each.name for each in streams]} if failure is None else failure)
            finally:
                self._do(node.log.empty_trash, lambda _: None, over)

        idle = countdown(len(streams) + 1, lambda: self._do(work, told, lambda: None))
        for each in streams:
            self._streams.retire(each.id, idle)
        idle()

    def _do(self, work: Callable[[], T], then: Callable[[T | KflowError], object], over: Callable[[], None]) -> None:
        def told(result: T | KflowError) -> None:
            try:
                then(result)
            finally:
                over()

        self._node.upkeep.submit(guarded(work), told)

    def _refuse_if_read(self, stream: StreamMap, what: str) -> None:
        leases = self._node.table.leases.values()
        readers = sorted({lease.function for lease in leases if lease.stream_id == stream.id})
        if readers:
            raise UsageError(
                f"stream {stream.name} is read by {', '.join(readers)} just now: `kflow stop` first, then {what} it"
            )
