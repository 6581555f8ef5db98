"""The node's administration of streams: made, deleted, emptied, split, merged, scaled, while producers append.

All file work is done by threads, one errand after the other; each request is answered when its errand is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from kflow import limits
from kflow.broker.forgetting import forget
from kflow.broker.sequence import shard_id
from kflow.broker.streammap import StreamMap
from kflow.errors import KflowError, UsageError
from kflow.runtime.errands import Errands, guarded
from kflow.runtime.node import Node
from kflow.runtime.resharding import Holding, Resharding, planner

T = TypeVar("T")
Answer = Callable[[Any], None]
"""Called once, on the loop, with a JSON value or the error that refuses the request."""


class Streams(Protocol):
    """What appends to streams. `kflow.runtime.ingest.Ingest` is one."""

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
        moved: told of each stream whose map has changed, or that is gone.
    """

    def __init__(self, node: Node, streams: Streams, moved: Callable[[StreamMap], None]) -> None:
        self._node = node
        self._streams = streams
        self._moved = moved
        self._errands = Errands()
        self._resharding = Resharding(node.log, streams.appender, node.upkeep, self._errands, self._map_changed)
        self.operations: dict[str, Callable[..., None]] = {
            "create_stream": self.create,
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
    ) -> None:
        """Create a stream. Handlers that name it run from the next start on."""

        def work() -> StreamMap:
            return self._node.log.create_stream(
                name, shards, retention_hours=retention_hours, max_record_bytes=max_record_bytes
            )

        def told(made: StreamMap | KflowError) -> None:
            if isinstance(made, StreamMap):
                answer({"name": made.name, "id": f"{made.id:016x}", "shards": len(made.shards)})
            else:
                answer(made)

        self._errands.add(lambda over: self._do(work, told, over))

    def delete(self, answer: Answer, *, name: str) -> None:
        """Delete a stream that no running handler reads, once no append to it is under way."""
        self._refuse_if_read(self._node.folder.map(name), "delete")
        store = self._node.log
        self._errands.add(
            lambda over: self._remove(
                "delete",
                lambda: [self._node.folder.map(name)],
                lambda each: store.delete_stream(each.name, unlink=False),
                answer,
                over,
            )
        )

    def reset(self, answer: Answer, *, stream: str | None = None) -> None:
        """Empty streams that no running handler reads, once no append to them is under way."""
        folder, store = self._node.folder, self._node.log

        def chosen() -> list[StreamMap]:
            return folder.maps() if stream is None else [folder.map(stream)]

        for each in chosen():
            self._refuse_if_read(each, "reset")
        self._errands.add(
            lambda over: self._remove("reset", chosen, lambda each: store.reset_stream(each.name), answer, over)
        )

    def split(self, answer: Answer, *, name: str, shard: str, at: str | None = None) -> None:
        """Split a shard in two. Source: documented: SplitShard."""
        self._change(answer, "split", name, {"shard": shard, "at": at})

    def merge(self, answer: Answer, *, name: str, shard: str, adjacent: str) -> None:
        """Merge two neighbours. Source: documented: MergeShards."""
        self._change(answer, "merge", name, {"shard": shard, "adjacent": adjacent})

    def scale(self, answer: Answer, *, name: str, shards: int) -> None:
        """Have another number of open shards. Source: documented: UpdateShardCount."""
        self._change(answer, "scale", name, {"shards": shards})

    def _change(self, answer: Answer, kind: str, name: str, arguments: dict[str, Any]) -> None:
        self._resharding.change(name, planner(self._node.folder, kind, name, arguments), answer)

    def _map_changed(self, old: StreamMap, new: StreamMap) -> None:
        """Readers first: then no record of a child can be there before they know of it."""
        try:
            self._node.map_changed(old, new)
        finally:
            self._streams.learn(new)
            self._moved(new)
        closed = [shard.index for shard in old.open_shards if not new.shards[shard.index].is_open]
        opened = [shard.index for shard in new.open_shards if shard.index >= len(old.shards)]
        self._node.shards_changed(new.name, [*map(shard_id, closed)], [*map(shard_id, opened)])

    def _remove(
        self,
        what: str,
        chosen: Callable[[], list[StreamMap]],
        remove: Callable[[StreamMap], object],
        answer: Answer,
        over: Callable[[], None],
    ) -> None:
        """Let go of streams, remove them, and what belongs to them; answer, and only then give the space back."""
        node = self._node
        try:
            streams = chosen()
            for each in streams:
                self._refuse_if_read(each, what)
        except KflowError as error:
            answer(error)
            over()
            return
        left = len(streams)

        def work() -> None:
            for each in streams:
                remove(each)
                forget(node.folder, each)

        def told(failure: KflowError | None) -> None:
            for each in streams:
                self._streams.forget(each.id)
                self._moved(each)
            answer({"streams": [each.name for each in streams]} if failure is None else failure)
            self._do(node.log.empty_trash, lambda _: None, over)

        def idle() -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                self._do(work, told, lambda: None)

        for each in streams:
            self._streams.retire(each.id, idle)
        if not streams:
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
