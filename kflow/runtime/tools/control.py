"""What the node answers to tools: one function per operation, named as on the wire.

Requests come over the node's socket as JSON `{"op": ..., ...}`; a `KflowError` raised here is the answer.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kflow.broker.streammap import StreamMap
from kflow.errors import KflowError, ResourceNotFound, UsageError
from kflow.runtime.intake.connection import Connection
from kflow.runtime.node.node import Node
from kflow.runtime.status.report import node_report
from kflow.runtime.streams.admin import StreamAdmin, Streams


@dataclass(slots=True)
class _Waiting:
    connection: Connection
    request: int
    stream_id: int
    offsets: dict[int, int]


class Control:
    """The operations of one node.

    Attributes:
        admin: makes, deletes and changes streams.
    """

    def __init__(self, node: Node, streams: Streams) -> None:
        self._node = node
        self._parked = node.parked
        self._waiting: list[_Waiting] = []
        self._started = time.monotonic()
        self._operations: dict[str, Callable[..., Any]] = {
            "status": self.status,
            "stop": self.stop,
            "drain": self.drain,
            "drop": self.drop,
        }
        self._later: dict[str, Callable[[Connection, int, dict[str, Any]], Any]] = {
            "wait": self._wait,
            "redrive": self._redrive,
            "quarantine": self._quarantine,
        }
        self.admin = StreamAdmin(node, streams, self._moved)
        self._on_moved: list[Callable[[StreamMap], None]] = []
        node.watch_appends(self._appended)

    def watch_streams(self, tell: Callable[[StreamMap], None]) -> None:
        """Call `tell` on the loop whenever a stream's map was published, or it is gone (its map says `deleted`)."""
        self._on_moved.append(tell)

    def handle(self, connection: Connection, request: int, message: dict[str, Any]) -> Any:
        """Answer one request, or None where the answer follows later."""
        arguments = dict(message)
        name = arguments.pop("op", "")
        later = self._later.get(name)
        if later is not None:
            return later(connection, request, arguments)
        on_streams = self.admin.operations.get(name)
        if on_streams is not None:
            on_streams(functools.partial(_answer, connection, request), **arguments)
            return None
        operation = self._operations.get(name)
        if operation is None:
            raise UsageError(f"this runtime knows no operation {name!r}; it may be of an older version than the tool")
        return operation(**arguments)

    # ------------------------------------------------------------------ status

    def status(self) -> dict[str, Any]:
        """What only the node knows: its process, the state of each lease, its workers. Positions are in the slots."""
        now = time.monotonic()
        return node_report(self._node, now - self._started, now)

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

    # ------------------------------------------------------------------ parked entries

    def drop(self, *, number: int) -> dict[str, Any]:
        """Remove a parked entry for good."""
        self._parked.drop(number)
        return {"number": number}

    def _redrive(self, connection: Connection, request: int, arguments: dict[str, Any]) -> None:
        number = int(arguments["number"])
        entry = self._parked.show(number)
        plan = self._node.functions.get(entry.function)
        if plan is None or not plan.exists:
            known = ", ".join(sorted(filter(self._node.knows, self._node.functions))) or "none"
            raise UsageError(f"parked {number} is of handler {entry.function}, which does not run here ({known} do)")
        if self._node.table.is_blocked(entry.function):
            raise UsageError(
                f"parked {number} is of {entry.function}, whose reserved concurrency is 0: nothing of it may run"
            )
        trigger = next((i for i, each in enumerate(plan.maps) if each.id == entry.stream_id), 0)
        self._parked.claim(number, self._node.options.epoch)
        self._node.redrive(entry.function, number, trigger, lambda answer: connection.answer(request, answer))

    # ------------------------------------------------------------------ damage

    def _quarantine(self, connection: Connection, request: int, arguments: dict[str, Any]) -> None:
        """Look at a block that a tool could not read; what the writer cannot read either is lost from then on."""
        stream = self._node.folder.map_by_id(int(arguments["stream_id"]))
        shard, offset = int(arguments["shard"]), int(arguments["offset"])
        if not 0 <= shard < len(stream.shards):
            raise ResourceNotFound(f"stream {stream.name} has no shard {shard}")
        told = functools.partial(_answer, connection, request)
        self._node.damaged(stream, shard, offset, lambda failure: told({} if failure is None else failure))

    # ------------------------------------------------------------------ waiting for records

    def _wait(self, connection: Connection, request: int, arguments: dict[str, Any]) -> dict[str, Any] | None:
        stream_id = int(arguments["stream_id"])
        offsets = {int(shard): int(offset) for shard, offset in arguments["offsets"].items()}
        stream = self._node.folder.map_by_id(stream_id)
        if arguments.get("generation", stream.generation) != stream.generation:
            return {"shard": None}
        for shard, offset in offsets.items():
            if self._node.log.end(stream, shard).readable > offset:
                return {"shard": shard}
        self._waiting = [w for w in self._waiting if not w.connection.closed]
        self._waiting.append(_Waiting(connection, request, stream_id, offsets))
        return None

    def _appended(self, stream: StreamMap, shard: int) -> None:
        if self._waiting:
            self._wake(lambda waiting: waiting.stream_id == stream.id and shard in waiting.offsets, {"shard": shard})

    def _moved(self, stream: StreamMap) -> None:
        """A stream is new, its shards have changed, or it is gone: whoever waits looks for himself."""
        for tell in self._on_moved:
            tell(stream)
        self._wake(lambda waiting: waiting.stream_id == stream.id, {"shard": None})

    def _wake(self, is_meant: Callable[[_Waiting], bool], answer: dict[str, Any]) -> None:
        kept = []
        for waiting in self._waiting:
            if not is_meant(waiting):
                kept.append(waiting)
            elif not waiting.connection.closed:
                waiting.connection.answer(waiting.request, answer)
        self._waiting = kept


def _answer(connection: Connection, request: int, result: Any) -> None:
    if isinstance(result, KflowError):
        connection.refuse(request, result)
    else:
        connection.answer(request, result)
