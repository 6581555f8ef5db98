"""What must stand before "ready": the epoch, the streams that handlers name, a slot with its start for each lease."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec

from kflow import arn, limits
from kflow.aws.calls import Place
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.reader import ShardReader
from kflow.broker.streammap import StreamMap, StreamMode
from kflow.clock import utc_text_ms
from kflow.declarations import Handler, StartingPosition, StreamTrigger
from kflow.errors import ResourceNotFound
from kflow.lambda_.control.mappingfacts import Mapping
from kflow.runtime.consumers import beginning, registering, resuming
from kflow.runtime.consumers.positions import Opened, trigger_of
from kflow.runtime.consumers.resuming import Resumed
from kflow.runtime.feed import HandlerInfo
from kflow.runtime.plan.functions import MEMORY_MB, TIMEOUT_S, FunctionPlan
from kflow.runtime.plan.lease import Lease
from kflow.settings import Settings

log = logging.getLogger(__name__)


class _Epoch(msgspec.Struct):
    epoch: Annotated[int, msgspec.Meta(ge=0)] = 0
    clean: bool = True


class Epochs:
    """Counts the nodes of a data folder, and says whether the one before ended of its own accord."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder
        self._path = folder.path / "epoch.json"
        before = _Epoch()
        if self._path.exists():
            try:
                before = msgspec.json.decode(self._path.read_bytes(), type=_Epoch)
            except msgspec.DecodeError as error:
                log.warning("%s is damaged, numbers go on far above: %s", self._path, error)
                before = _Epoch(int(time.time()), clean=False)  # no folder has seen as many nodes as there are seconds
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
    """What was set up.

    Attributes:
        functions: by name.
        leases: numbered, parents before their children.
        infos: what people are told of each handler.
        ends: by (stream id, shard): its readable end, and the counter of its next record.
        closed: shards that take no more records, as (stream id, shard).
        resumed: mappings that the API made or switched.
    """

    functions: dict[str, FunctionPlan]
    leases: list[Lease]
    infos: list[HandlerInfo]
    ends: dict[tuple[int, int], tuple[int, int]]
    closed: list[tuple[int, int]]
    resumed: Resumed = field(default_factory=Resumed)


def set_up(store: Log, handlers: Sequence[Handler], settings: Settings, now_s: float) -> Started:
    """Create missing streams, make the slots, list the leases.

    Args:
        store: the log, with its writer lock held.
        handlers: what was loaded.
        settings: how streams are created, what functions get.
        now_s: monotonic seconds: the leases begin to wait here.
    """
    started = Started({}, [], [], {}, [])
    fresh: set[str] = set()
    home = Place(store.folder.account, store.folder.region)
    switches = resuming.switched(store.folder, started.resumed)
    for declared in handlers:
        maps: list[StreamMap] = []
        sources: dict[str, str] = {}
        for trigger in declared.triggers:
            name = arn.stream_name(trigger.stream)
            stream, created = _ensure(store, name, settings)
            if created:
                fresh.add(name)
            maps.append(stream)
            if trigger.consumer is not None:
                sources[stream.name] = _register(store, stream, trigger.consumer, settings)
        handler = resuming.as_switched(declared, maps, switches, home, started.resumed)
        for index, (trigger, stream) in enumerate(zip(handler.triggers, maps, strict=True)):
            started.infos.append(
                HandlerInfo(
                    name=handler.name,
                    place=handler.place,
                    stream=stream.name,
                    shards=len(stream.open_shards),
                    created=stream.name in fresh,
                    options=describe(trigger),
                )
            )
            if not trigger.enabled:
                continue
            _look(store, stream, started)
            begin = beginning.Begin(handler, index, stream)
            slots = beginning.make_slots(store.folder, begin)
            try:
                started.leases.extend(beginning.leases_of(begin, stream.shards, started.ends, now_s, slots))
            finally:
                slots.close()
        chosen = settings.function(handler.name)
        started.functions[handler.name] = FunctionPlan(
            handler=handler,
            maps=tuple(maps),
            timeout_s=handler.options.timeout or chosen.timeout or TIMEOUT_S,
            memory_mb=handler.options.memory_size or chosen.memory_size or MEMORY_MB,
            environment={**(chosen.environment or {}), **(handler.options.environment or {})},
            sources=sources,
        )

    def take(mapping: Mapping, stream: StreamMap, opened: Opened) -> None:
        started.leases.extend(opened.leases)
        started.ends.update(opened.ends)
        started.closed.extend(opened.closed)
        started.infos.append(
            HandlerInfo(
                name=mapping.key(home),
                place=f"mapping {mapping.uuid}",
                stream=stream.name,
                shards=len(stream.open_shards),
                created=False,
                options=describe(trigger_of(mapping, enabled=True)),
            )
        )

    resuming.resume(store.folder, started.functions, home, now_s, started.resumed, take)
    for number, lease in enumerate(started.leases, 1):
        lease.id = number
    return started


def _look(store: Log, stream: StreamMap, started: Started) -> None:
    """Note where the shards of a stream end, once for all its readers. Opens no shard for appending."""
    if stream.shards and (stream.id, stream.shards[0].index) in started.ends:
        return
    for shard in stream.shards:
        reader = ShardReader(store.folder, stream, shard.index)
        started.ends[stream.id, shard.index] = (reader.tail, reader.next_counter)
        reader.close()
        if not shard.is_open:
            started.closed.append((stream.id, shard.index))


def _ensure(store: Log, name: str, settings: Settings) -> tuple[StreamMap, bool]:
    try:
        return store.folder.map(name), False
    except ResourceNotFound:
        wanted = settings.stream(name)
        mode = StreamMode(wanted.mode)
        stream = store.create_stream(
            name,
            limits.ON_DEMAND_SHARDS if mode is StreamMode.ON_DEMAND else wanted.shards,
            retention_hours=wanted.retention_hours,
            max_record_bytes=wanted.max_record_size_in_kib * 1024,
            mode=mode,
        )
        return stream, True


def _register(store: Log, stream: StreamMap, name: str, settings: Settings) -> str:
    source, is_new = registering.consumer_arn(
        store.folder,
        stream,
        name,
        region=settings.region,
        account=settings.account,
        now_ms=store.now().epoch_ms,
    )
    if is_new:
        log.info("consumer registered stream=%s consumer=%s", stream.name, name)
    return source


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
    if options.parallelization_factor > 1:
        words.append(f"{options.parallelization_factor} lanes")
    if options.tumbling_window_in_seconds:
        words.append(f"tumbling {options.tumbling_window_in_seconds} s")
    if options.filters:
        words.append("1 filter" if len(options.filters) == 1 else f"{len(options.filters)} filters")
    if options.on_failure is not None:
        words.append(f"on failure {options.on_failure}")
    if options.starting_position is not StartingPosition.TRIM_HORIZON:
        since_ms = options.starting_position_ms
        words.append(options.starting_position.value if since_ms is None else f"from {utc_text_ms(since_ms)}")
    if trigger.consumer is not None:
        words.append(f"consumer {trigger.consumer}")
    if not trigger.enabled:
        words.append("disabled")
    return ", ".join(words)


def clean_run_dir(run_dir: Path) -> None:
    """Remove temporary files of functions of earlier runtimes, which are left where their guards were killed too."""
    shutil.rmtree(run_dir / "tmp", ignore_errors=True)
