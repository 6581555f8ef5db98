"""The limits of `deliver-lambda`, in a process of its own: the same events to the same handler, without the log.

    python -m tests.bench.ram loop|bare DATA_DIR STREAM BATCH MODULE

`loop`: the worker's own loop (engine, invoker, function log, messages), fed from blocks in memory, its slots in memory.
`bare`: building the events, cutting them into batches and calling the handler, and nothing else.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from kflow import arn, loading, settings
from kflow.broker import streammap
from kflow.broker.block import Block
from kflow.broker.checkpoints import Slot
from kflow.broker.folder import DataFolder
from kflow.broker.writing import writing
from kflow.declarations import Handler, HandlerForm
from kflow.lambda_.mapping import EventSourceMapping
from kflow.lambda_.shapes import Shape, shape_for
from kflow.runtime import messages, starting
from kflow.runtime.feed import live_pair
from kflow.runtime.messages import Channel, WorkerSpec
from kflow.runtime.worker.engines import ShardEngines
from kflow.runtime.worker.process import Worker
from tests.bench.reading import all_blocks


def main(argv: Sequence[str]) -> int:
    """Deliver everything once."""
    kind, data_dir, stream_name, batch, module = argv
    folder = DataFolder.open(data_dir)
    stream = folder.map(stream_name)
    (handler,) = loading.load(module).handlers
    blocks = [all_blocks(folder, stream, info.index) for info in stream.shards]
    if kind == "loop":
        _loop(folder, handler, blocks)
    else:
        _bare(folder, stream, handler, blocks, int(batch))
    return 0


# ---------------------------------------------------------------------------------------------------------- the loop


class _Source:
    """Blocks in memory, read as a shard is."""

    closed = False
    horizon = 0

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks
        self._next = 0
        self.tail = blocks[-1].end if blocks else 0
        self.next_counter = blocks[-1].first_counter + blocks[-1].count if blocks else 1

    def read(self, offset: int, max_bytes: int = 1 << 20) -> Sequence[Block]:
        """About as many blocks as one read of the log brings."""
        del offset
        begin = self._next
        size = 0
        while self._next < len(self._blocks) and size < max_bytes:
            size += len(self._blocks[self._next].body)
            self._next += 1
        return self._blocks[begin : self._next]

    def fds(self) -> list[tuple[int, int, int]]:
        """Nothing is open."""
        return []


class _Slots:
    """Slots in memory."""

    def __init__(self) -> None:
        self._slots: dict[tuple[int, int], Slot] = {}

    def load(self, shard: int, lane: int = 0) -> Slot:
        """What was stored last."""
        return self._slots.setdefault((shard, lane), Slot())

    def store(self, shard: int, lane: int, slot: Slot) -> None:
        """Remember it."""
        self._slots[shard, lane] = slot


class _RamWorker(Worker):
    """A worker whose shards and slots are in memory."""

    def feed(self, blocks: Sequence[Sequence[Block]]) -> None:
        """Deliver all of it."""
        spec, slots = self._spec, _Slots()
        stream = self._engines.maps[0]
        for shard, of_shard in enumerate(blocks):
            source = _Source(of_shard)
            engines = ShardEngines((0, shard), source, shared=False)  # type: ignore[arg-type]  # read as a shard is
            mapping = EventSourceMapping(
                options=spec.handler.triggers[0].options,
                function=spec.handler.name,
                stream=stream.name,
                stream_id=stream.id,
                shard=shard,
                source=source,
                slots=slots,
                invoker=self._environment,
                parking=self._parked,
                shape=self._environment.shape(stream, shard),
            )
            engines.lanes[0] = mapping
            self._engines.keep(engines)
            self._run(messages.Grant(0, shard, (messages.LaneGrant(shard + 1, 1, 0),)))


def _loop(folder: DataFolder, handler: Handler, blocks: Sequence[Sequence[Block]]) -> None:
    chosen = settings.load(files=False, overrides={"data_dir": str(folder.path)})
    with writing(folder) as log:
        plan = starting.set_up(log, [handler], chosen, time.monotonic()).functions[handler.name]
    ours, theirs = socket.socketpair()
    live, live_out = live_pair()
    node = os.fork()
    if node == 0:  # hears what a node would hear
        theirs.close()
        live_out.close()
        while ours.recv(65536):
            pass
        os._exit(0)
    ours.close()
    live.close()
    gc.collect()
    gc.freeze()
    spec = WorkerSpec(
        worker=1,
        handler=handler,
        data_dir=str(folder.path),
        maps=tuple(streammap.encode(each) for each in plan.maps),
        epoch=1,
        previous_epoch_clean=True,
        region=folder.region,
        account=folder.account,
        retry_backoff_scale=1.0,
        timeout_s=plan.timeout_s,
        memory_mb=plan.memory_mb,
        environment={},
    )
    _RamWorker(spec, Channel(theirs, "to_worker"), live_out, []).feed(blocks)
    theirs.close()
    os.waitpid(node, 0)


# ---------------------------------------------------------------------------------------------------------- bare


def _bare(
    folder: DataFolder, stream: streammap.StreamMap, handler: Handler, blocks: Sequence[Sequence[Block]], size: int
) -> None:
    shapes = [
        shape_for(
            HandlerForm.EVENT,
            stream=stream,
            shard=info.index,
            arn=arn.stream_arn(folder.region, folder.account, stream.name),
            region=folder.region,
            role=arn.role_arn(folder.account, handler.name),
        )
        for info in stream.shards
    ]
    touch = loading.load_function(handler)
    gc.collect()
    gc.freeze()
    for shape, of_shard in zip(shapes, blocks, strict=True):
        _deliver(shape, of_shard, size, touch)


def _deliver(shape: Shape, blocks: Sequence[Block], size: int, touch: Callable[[Any, Any], Any]) -> None:
    waiting: list[Any] = []
    for block in blocks:
        waiting += shape.build(block, 0, block.count)
        at = 0
        while len(waiting) - at >= size:
            touch({"Records": waiting[at : at + size]}, None)
            at += size
        waiting = waiting[at:]
    if waiting:
        touch({"Records": waiting}, None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
