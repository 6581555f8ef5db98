"""What must stand before "ready": the epoch, the streams that handlers name, a slot with its start for each lease."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kflow import arn
from kflow.broker.checkpoints import Slot, SlotFile, SlotState
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.reader import ShardReader
from kflow.broker.streammap import StreamMap
from kflow.declarations import Handler, StartingPosition, StreamTrigger
from kflow.errors import ResourceNotFound
from kflow.records import Position
from kflow.runtime.feed import HandlerInfo
from kflow.runtime.leases import Lease, LeaseState
from kflow.runtime.node import FunctionPlan
from kflow.settings import Settings

DEFAULT_TIMEOUT_S = 3
DEFAULT_MEMORY_MB = 128
"""AWS's defaults for a function. Source: documented: CreateFunction."""


class _Epoch(msgspec.Struct):
    epoch: int = 0
    clean: bool = True


class Epochs:
    """Counts the nodes of a data folder, and says whether the one before ended of its own accord."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder
        self._path = folder.path / "epoch.json"
        before = _Epoch()
        if self._path.exists():
            before = msgspec.json.decode(self._path.read_bytes(), type=_Epoch)
        self.previous_clean = before.clean
        self.epoch = before.epoch + 1
        self._write(clean=False)

    def ended(self) -> None:
        """This node stopped because somebody asked it to."""
        self._write(clean=True)

    def _write(self, *, clean: bool) -> None:
        text = msgspec.json.encode(_Epoch(self.epoch, clean))
        self._folder.files.write_replace(os.fspath(self._path), text, sync=self._folder.fsync != "none")


@dataclass(frozen=True, slots=True)
class Started:
    """What was set up."""

    functions: dict[str, FunctionPlan]
    leases: list[Lease]
    infos: list[HandlerInfo]


def set_up(store: Log, handlers: Sequence[Handler], settings: Settings, now_s: float) -> Started:
    """Create missing streams, make the slots, list the leases.

    Args:
        store: the log, with its writer lock held.
        handlers: what was loaded.
        settings: how streams are created, what functions get.
        now_s: monotonic seconds: the leases begin to wait here.
    """
    functions: dict[str, FunctionPlan] = {}
    leases: list[Lease] = []
    infos: list[HandlerInfo] = []
    fresh: set[str] = set()
    for handler in handlers:
        maps: list[StreamMap] = []
        for index, trigger in enumerate(handler.triggers):
            name = arn.stream_name(trigger.stream)
            stream, created = _ensure(store, name, settings)
            if created:
                fresh.add(name)
            maps.append(stream)
            infos.append(
                HandlerInfo(
                    name=handler.name,
                    place=handler.place,
                    stream=name,
                    shards=len(stream.shards),
                    created=name in fresh,
                    options=describe(trigger),
                )
            )
            if not trigger.enabled:
                continue
            leases += _leases(store, handler, index, stream, now_s)
        chosen = settings.function(handler.name)
        functions[handler.name] = FunctionPlan(
            handler=handler,
            maps=tuple(maps),
            timeout_s=handler.options.timeout or chosen.timeout or DEFAULT_TIMEOUT_S,
            memory_mb=handler.options.memory_size or chosen.memory_size or DEFAULT_MEMORY_MB,
            environment={**(chosen.environment or {}), **(handler.options.environment or {})},
        )
    for number, lease in enumerate(leases, 1):
        lease.id = number
    return Started(functions, leases, infos)


def _ensure(store: Log, name: str, settings: Settings) -> tuple[StreamMap, bool]:
    try:
        return store.folder.map(name), False
    except ResourceNotFound:
        wanted = settings.stream(name)
        stream = store.create_stream(
            name,
            wanted.shards,
            retention_hours=wanted.retention_hours,
            max_record_bytes=wanted.max_record_size_in_kib * 1024,
        )
        return stream, True


def _leases(store: Log, handler: Handler, index: int, stream: StreamMap, now_s: float) -> list[Lease]:
    """The leases of a trigger; one with nothing left to read waits for news, so that no worker starts in vain."""
    slots = _make_slots(store, handler, handler.triggers[index], stream)
    leases = []
    try:
        for shard in stream.shards:
            lease = Lease(0, handler.name, stream.id, shard.index, index, settled_at=now_s)
            slot = slots.load(shard.index)
            if slot.state is SlotState.IDLE and slot.checkpoint.offset >= store.shard(stream, shard.index).tail:
                lease.state = LeaseState.NEWS
                lease.read_offset = slot.checkpoint.offset
            leases.append(lease)
    finally:
        slots.close()
    return leases


def _make_slots(store: Log, handler: Handler, trigger: StreamTrigger, stream: StreamMap) -> SlotFile:
    folder = store.folder

    def initial(shard: int) -> Slot:
        reader = ShardReader(folder, stream, shard)
        try:
            options = trigger.options
            if options.starting_position is StartingPosition.LATEST:
                return Slot(checkpoint=Position(reader.tail, 0), checkpoint_counter=reader.next_counter)
            if options.starting_position is StartingPosition.AT_TIMESTAMP and options.starting_position_ms is not None:
                position = reader.seek_time(options.starting_position_ms)
            else:
                position = reader.clamp(Position(0, 0))
            return Slot(checkpoint=position, checkpoint_counter=_counter_at(reader, position))
        finally:
            reader.close()

    return SlotFile.open(
        folder.path,
        handler.name,
        stream.id,
        files=folder.files,
        stream=stream.name,
        create_for=[shard.index for shard in stream.shards],
        initial=initial,
        sync=folder.fsync != "none",
    )


def _counter_at(reader: ShardReader, position: Position) -> int:
    if position.offset >= reader.tail:
        return reader.next_counter
    blocks = reader.read(position.offset, 1)
    return blocks[0].first_counter + position.index if blocks else reader.next_counter


def describe(trigger: StreamTrigger) -> str:
    """A trigger's options in words, the telling ones only."""
    options = trigger.options
    words = [f"batch {options.batch_size}"]
    if options.maximum_batching_window_in_seconds:
        words.append(f"window {options.maximum_batching_window_in_seconds} s")
    if options.maximum_retry_attempts >= 0:
        retries = options.maximum_retry_attempts
        words.append(f"{retries} {'retry' if retries == 1 else 'retries'}")
    if options.maximum_record_age_in_seconds >= 0:
        words.append(f"age {options.maximum_record_age_in_seconds} s")
    if options.bisect_batch_on_function_error:
        words.append("bisect")
    if options.report_batch_item_failures:
        words.append("reports item failures")
    if options.starting_position is not StartingPosition.TRIM_HORIZON:
        words.append(options.starting_position.value)
    if not trigger.enabled:
        words.append("disabled")
    return ", ".join(words)


def clean_run_dir(run_dir: Path) -> None:
    """Make the folder for sockets and worker locks."""
    run_dir.mkdir(parents=True, exist_ok=True)
