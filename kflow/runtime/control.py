"""What the node answers to tools: one function per operation, named as on the wire.

Requests come over the node's socket as JSON `{"op": ..., ...}`; a `KflowError` raised here is the answer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from kflow.broker.streammap import StreamMap
from kflow.errors import KflowError, UsageError
from kflow.runtime.admin import forget
from kflow.runtime.connection import Connection
from kflow.runtime.leases import Lease, LeaseState
from kflow.runtime.node import Node


@dataclass(slots=True)
class _Waiting:
    connection: Connection
    request: int
    stream_id: int
    offsets: dict[int, int]


class Streams(Protocol):
    """What appends to streams, as far as deleting one concerns it. `kflow.runtime.ingest.Ingest` is one."""

    def retire(self, stream_id: int, then: Callable[[], None]) -> None:
        """Append nothing more to a stream; call `then` once nothing is under way."""
        ...

    def forget(self, stream_id: int) -> None:
        """The stream's map has changed, or is gone."""
        ...


class Control:
    """The operations of one node."""

    def __init__(self, node: Node, streams: Streams) -> None:
        self._node = node
        self._parked = node.parked
        self._streams = streams
        self._waiting: list[_Waiting] = []
        self._started = time.monotonic()
        self._operations: dict[str, Callable[..., Any]] = {
            "status": self.status,
            "stop": self.stop,
            "drain": self.drain,
            "create_stream": self.create_stream,
            "drop": self.drop,
        }
        self._later: dict[str, Callable[[Connection, int, dict[str, Any]], Any]] = {
            "wait": self._wait,
            "redrive": self._redrive,
            "delete_stream": self._delete,
            "reset": self._reset,
        }
        node.watch_appends(self._appended)

    def handle(self, connection: Connection, request: int, message: dict[str, Any]) -> Any:
        """Answer one request, or None where the answer follows later."""
        arguments = dict(message)
        name = arguments.pop("op", "")
        later = self._later.get(name)
        if later is not None:
            return later(connection, request, arguments)
        operation = self._operations.get(name)
        if operation is None:
            raise UsageError(f"this runtime knows no operation {name!r}; it may be of an older version than the tool")
        return operation(**arguments)

    # ------------------------------------------------------------------ status

    def status(self) -> dict[str, Any]:
        """What only the node knows: its process, the state of each lease, its workers. Positions are in the slots."""
        node = self._node
        return {
            "pid": os.getpid(),
            "epoch": node.options.epoch,
            "uptime_s": round(time.monotonic() - self._started, 3),
            "stopping": node.table.stopping,
            "data_dir": str(node.folder.path),
            "leases": [self._lease(lease) for lease in node.table.leases.values()],
            "workers": [
                {"id": place.id, "function": place.function, "state": place.state.value, "pid": self._pid(place.id)}
                for place in node.table.places.values()
            ],
            "dropped_lines": node.feed.dropped,
        }

    def _lease(self, lease: Lease) -> dict[str, Any]:
        stream = self._node.functions[lease.function].maps[lease.trigger]
        granted = lease.state is LeaseState.GRANTED
        return {
            "function": lease.function,
            "stream": stream.name,
            "shard": lease.shard,
            "state": "running" if granted else lease.reason or lease.state.value,
        }

    def _pid(self, worker: int) -> int | None:
        handle = self._node.supervisor.handles.get(worker)
        return None if handle is None else handle.pid

    # ------------------------------------------------------------------ life

    def stop(self, *, kill: bool = False) -> dict[str, Any]:
        """Stop the node, after this answer has been sent."""
        self._node.loop.call_later(0, lambda: self._node.request_stop("kflow stop", kill=kill))
        return {"pid": os.getpid()}

    def drain(self) -> dict[str, Any]:
        """Stop once everything that is in the log now is settled or parked."""
        node = self._node
        ends = {lease.id: node.readable_end(lease)[0] for lease in node.table.leases.values()}
        node.loop.call_later(0, lambda: node.start_drain(ends))
        return {"pid": os.getpid()}

    # ------------------------------------------------------------------ streams

    def create_stream(
        self, *, name: str, shards: int, retention_hours: int = 24, max_record_bytes: int = 1048576
    ) -> dict[str, Any]:
        """Create a stream. Handlers that name it run from the next start on."""
        stream = self._node.log.create_stream(
            name, shards, retention_hours=retention_hours, max_record_bytes=max_record_bytes
        )
        return {"name": stream.name, "id": f"{stream.id:016x}", "shards": len(stream.shards)}

    def _delete(self, connection: Connection, request: int, arguments: dict[str, Any]) -> None:
        """Delete a stream that no running handler reads, once no append to it is under way."""
        stream = self._node.folder.map(str(arguments["name"]))
        self._refuse_if_read(stream, "delete")

        def delete() -> None:
            self._node.log.delete_stream(stream.name)
            self._gone(stream)

        self._retire([stream], delete, connection, request)

    def _reset(self, connection: Connection, request: int, arguments: dict[str, Any]) -> None:
        """Empty streams that no running handler reads, once no append to them is under way."""
        folder, name = self._node.folder, arguments.get("stream")
        chosen = [folder.map(str(name))] if name else folder.maps()
        for each in chosen:
            self._refuse_if_read(each, "reset")

        def reset() -> None:
            for each in chosen:
                self._node.log.reset_stream(each.name)
                self._gone(each)

        self._retire(chosen, reset, connection, request)

    def _retire(self, streams: list[StreamMap], then: Callable[[], None], connection: Connection, request: int) -> None:
        """Do `then` when no stream has an append under way, and answer."""
        left = len(streams)

        def idle() -> None:
            nonlocal left
            left -= 1
            if left > 0:
                return
            try:
                then()
            except KflowError as error:
                connection.refuse(request, error)
            else:
                connection.answer(request, {"streams": [each.name for each in streams]})

        for each in streams:
            self._streams.retire(each.id, idle)
        if not streams:
            connection.answer(request, {"streams": []})

    def _gone(self, stream: StreamMap) -> None:
        self._streams.forget(stream.id)
        forget(self._node.folder, stream)

    def _refuse_if_read(self, stream: StreamMap, what: str) -> None:
        readers = sorted({lease.function for lease in self._node.table.leases.values() if lease.stream_id == stream.id})
        if readers:
            raise UsageError(
                f"stream {stream.name} is read by {', '.join(readers)} just now: `kflow stop` first, then {what} it"
            )

    # ------------------------------------------------------------------ parked entries

    def drop(self, *, number: int) -> dict[str, Any]:
        """Remove a parked entry for good."""
        self._parked.drop(number)
        return {"number": number}

    def _redrive(self, connection: Connection, request: int, arguments: dict[str, Any]) -> None:
        number = int(arguments["number"])
        entry = self._parked.show(number)
        plan = self._node.functions.get(entry.function)
        if plan is None:
            known = ", ".join(sorted(self._node.functions)) or "none"
            raise UsageError(f"parked {number} is of handler {entry.function}, which does not run here ({known} do)")
        trigger = next((i for i, each in enumerate(plan.maps) if each.id == entry.stream_id), 0)
        self._parked.claim(number, self._node.options.epoch)
        self._node.redrive(entry.function, number, trigger, lambda answer: connection.answer(request, answer))

    # ------------------------------------------------------------------ waiting for records

    def _wait(self, connection: Connection, request: int, arguments: dict[str, Any]) -> dict[str, Any] | None:
        stream_id = int(arguments["stream_id"])
        offsets = {int(shard): int(offset) for shard, offset in arguments["offsets"].items()}
        stream = self._node.folder.map_by_id(stream_id)
        for shard, offset in offsets.items():
            if self._node.log.shard(stream, shard).tail > offset:
                return {"shard": shard}
        self._waiting = [w for w in self._waiting if not w.connection.closed]
        self._waiting.append(_Waiting(connection, request, stream_id, offsets))
        return None

    def _appended(self, stream: StreamMap, shard: int) -> None:
        if not self._waiting:
            return
        kept = []
        for waiting in self._waiting:
            if waiting.stream_id == stream.id and shard in waiting.offsets:
                if not waiting.connection.closed:
                    waiting.connection.answer(waiting.request, {"shard": shard})
            else:
                kept.append(waiting)
        self._waiting = kept
