"""Mappings of streams on a running node: they come, pause, change and go while others read.

    create: position made (thread) --> the function has one trigger more, leases added
    change: leases taken away --all returned--> position moved or formed anew (thread) --> leases added
    remove: leases taken away --all returned--> position forgotten (thread)

A mapping is a trigger of its function's plan, at an index that stays while the node runs; one that goes leaves its
place to the next. Where there is no such function, the plan holds the mappings that wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from msgspec import structs

from kflow import arn
from kflow.aws.calls import Place
from kflow.broker.streammap import StreamMap
from kflow.declarations import StartingPosition
from kflow.errors import KflowError
from kflow.interfaces import Done
from kflow.kinesis.registry import Registry
from kflow.lambda_.control.mappingfacts import Mapping
from kflow.lambda_.control.runner import Declared
from kflow.lambda_.errors import InvalidParameterValue
from kflow.runtime.consumers import positions
from kflow.runtime.consumers.positions import Opened
from kflow.runtime.consumers.resuming import Reading, Resumed, source_of
from kflow.runtime.node.node import Node
from kflow.runtime.streams.kinesis_host import KinesisHost


class StreamRunner:
    """Belongs to the loop's thread.

    Args:
        node: what runs.
        host: its threads.
        registry: the streams of all places.
        home: account and region of the data folder.
        resumed: what the start has set up.
    """

    def __init__(self, node: Node, host: KinesisHost, registry: Registry, home: Place, resumed: Resumed) -> None:
        self._node = node
        self._host = host
        self._registry = registry
        self._home = home
        self._readings = {each.mapping.uuid: each for each in resumed.readings}
        self._waiting = {each.uuid: each for each in resumed.waiting}  # whose stream is not there
        self._free: dict[str, list[int]] = {}
        self._declared = resumed.declared

    def check(self, mapping: Mapping) -> KflowError | None:
        """Why its stream cannot be read; None: it can."""
        if self._find(mapping.source) is None:
            what = "Stream" if arn.consumer_name(mapping.source) is None else "Stream consumer"
            return InvalidParameterValue(f"{what} not found: {mapping.source}")  # recorded; of a consumer chosen
        return None

    def create(self, mapping: Mapping, told: Done) -> None:
        """Begin at its starting position: what is left of an earlier mapping of the same function is forgotten."""
        stream = self._find(mapping.source)
        if stream is None:
            told(self.check(mapping))
            return
        key = mapping.key(self._home)
        folder = self._node.folder

        def forgotten(failure: KflowError | None) -> None:
            if failure is None:
                self._open(mapping, told)
            else:
                told(failure)

        self._host.submit(lambda: positions.forget(folder, key, stream.id), forgotten)

    def change(self, before: Mapping, after: Mapping, told: Done) -> None:
        """Pause it, and go on as it is to be."""
        reading = self._readings.get(before.uuid)
        if reading is None:  # its stream is not there: nothing runs
            self._open(after, told)
            return
        is_same = (before.options, before.counts, reading.key) == (after.options, after.counts, after.key(self._home))
        if is_same and before.enabled == after.enabled and not after.moved_from:
            reading.mapping = after
            told(None)
            return

        def paused() -> None:
            if reading.key != after.key(self._home):
                self._let_go(reading)
            if is_same and not after.enabled:
                reading.mapping = after
                told(None)
            else:
                self._open(after, told)

        self._pause(reading, paused)

    def remove(self, mapping: Mapping, told: Done) -> None:
        """End it, and forget where it stood."""
        self._waiting.pop(mapping.uuid, None)
        reading = self._readings.get(mapping.uuid)
        if reading is None:
            told(None)
            return
        folder = self._node.folder

        def forgotten(failure: KflowError | None) -> None:
            if failure is None:
                self._let_go(reading)
            told(failure)

        def paused() -> None:
            self._host.submit(lambda: positions.forget(folder, reading.key, reading.stream_id), forgotten)

        self._pause(reading, paused)

    def results(self, mappings: Sequence[Mapping], told: Callable[[list[str] | KflowError], object]) -> None:
        """What became of the last batch of each."""
        folder, found = self._node.folder, self._node.results
        known: list[tuple[str, int, str]] = []
        for mapping in mappings:
            reading = self._readings.get(mapping.uuid)
            if mapping.line:
                known.append(self._declared_result(mapping))
            elif reading is None:
                known.append(("", 0, ""))
            else:
                known.append((reading.key, reading.stream_id, found.get((reading.key, reading.index), "")))

        def work() -> list[str]:
            results = []
            for key, stream_id, last in known:
                stored = positions.last_result(folder, key, stream_id) if key else ""
                results.append("failed" if stored == "failed" and last != "ok" else last or stored)
            return results

        self._host.submit(work, told)

    def counts(self, uuid: str) -> bool:
        """Whether a mapping's events are counted."""
        reading = self._readings.get(uuid)
        return reading is not None and reading.mapping.counts

    def declared(self) -> list[Declared]:
        """The triggers of all decorated handlers."""
        found = []
        for (function, index), enabled in self._declared.items():
            plan = self._node.functions[function]
            trigger, stream = plan.handler.triggers[index], plan.maps[index]
            source = self._source(trigger.consumer, plan.sources.get(stream.name, ""), stream)
            found.append(Declared(function, index, trigger, source, enabled))
        return found

    def switch(self, function: str, index: int, *, enabled: bool, told: Done) -> None:
        """Have a decorated handler's trigger run or not."""
        plan = self._node.functions[function]
        if plan.handler.triggers[index].enabled == enabled:
            told(None)
        elif enabled:
            trigger = structs.replace(plan.handler.triggers[index], enabled=True)
            stream = self._host.stream_by_id(plan.maps[index].id)
            if stream is None:  # it reads the next one of that name
                self._node.reads.set_trigger(function, index, trigger, plan.maps[index], "")
                told(None)
                return
            folder = self._node.folder

            def opened(result: Opened | KflowError) -> None:
                if isinstance(result, KflowError):
                    told(result)
                elif not self._is_now(stream):
                    self.switch(function, index, enabled=True, told=told)
                else:
                    self._node.reads.set_trigger(function, index, trigger, stream, "")
                    self._begin(index, result)
                    told(None)

            self._host.submit(lambda: positions.open_for(folder, function, trigger, stream, time.monotonic()), opened)
        else:
            self._node.reads.stop(function, index, lambda: told(None))

    def stream_born(self, stream: StreamMap) -> None:
        """A stream is there: mappings that wait for it read it from its beginning."""
        place = Place(stream.account or self._home.account, stream.region or self._home.region)
        for mapping in list(self._waiting.values()):
            if mapping.stream == stream.name and self._place(mapping.source) == place:
                options = structs.replace(mapping.options, starting_position=StartingPosition.TRIM_HORIZON)
                self._open(structs.replace(mapping, options=options), self._said(mapping))

    # ------------------------------------------------------------------ inside

    def _said(self, mapping: Mapping) -> Done:
        def told(failure: KflowError | None) -> None:
            if failure is not None:
                self._host.notice("error", f"mapping {mapping.uuid} of {mapping.function} does not run: {failure}")

        return told

    def _open(self, mapping: Mapping, told: Done) -> None:
        """Make its position, or take it up where it is, and run it if it is enabled."""
        stream = self._find(mapping.source)
        if stream is None:
            self._waiting[mapping.uuid] = mapping
            told(None)
            return
        key, folder = mapping.key(self._home), self._node.folder
        trigger = positions.trigger_of(mapping, enabled=mapping.enabled)

        def work() -> Opened:
            return positions.open_for(folder, key, trigger, stream, time.monotonic(), moved_from=mapping.moved_from)

        def opened(result: Opened | KflowError) -> None:
            if isinstance(result, KflowError):
                told(result)
            elif not self._is_now(stream):
                self._open(mapping, told)
            else:
                self._run(mapping, key, stream, result)
                told(None)

        self._host.submit(work, opened)

    def _run(self, mapping: Mapping, key: str, stream: StreamMap, opened: Opened) -> None:
        reading = self._readings.get(mapping.uuid)
        if reading is None:
            reading = self._readings[mapping.uuid] = Reading(mapping, key, self._next_index(key), stream.id)
        reading.mapping, reading.stream_id = mapping, stream.id
        self._waiting.pop(mapping.uuid, None)
        trigger = positions.trigger_of(mapping, enabled=mapping.enabled)
        self._node.reads.set_trigger(key, reading.index, trigger, stream, source_of(mapping.source, stream))
        if mapping.enabled:
            self._begin(reading.index, opened)

    def _begin(self, index: int, opened: Opened) -> None:
        for lease in opened.leases:
            lease.trigger = index
        self._node.reads.add(opened.leases, opened.ends, opened.closed)
        self._node.dispatch()

    def _pause(self, reading: Reading, then: Callable[[], object]) -> None:
        self._node.reads.stop(reading.key, reading.index, then)

    def _next_index(self, key: str) -> int:
        free = self._free.get(key)
        if free:
            return free.pop()
        plan = self._node.functions.get(key)
        return 0 if plan is None else len(plan.handler.triggers)

    def _let_go(self, reading: Reading) -> None:
        """Its trigger's place is free; a function that there is not needs no plan for the last one."""
        if self._readings.pop(reading.mapping.uuid, None) is None:
            return  # it went by another way meanwhile
        self._node.results.pop((reading.key, reading.index), None)
        if self._node.knows(reading.key) or any(each.key == reading.key for each in self._readings.values()):
            self._free.setdefault(reading.key, []).append(reading.index)
        else:
            self._free.pop(reading.key, None)
            self._node.functions.pop(reading.key, None)

    def _declared_result(self, mapping: Mapping) -> tuple[str, int, str]:
        plan = self._node.functions[mapping.function]
        for index, (trigger, stream) in enumerate(zip(plan.handler.triggers, plan.maps, strict=True)):
            if trigger.file and stream.name == mapping.stream:
                return mapping.function, stream.id, self._node.results.get((mapping.function, index), "")
        return "", 0, ""

    def _source(self, consumer: str | None, source: str, stream: StreamMap) -> str:
        if consumer is not None and source:
            return source
        return arn.stream_arn(self._home.region, self._home.account, stream.name)

    def _is_now(self, stream: StreamMap) -> bool:
        """Whether a map is still the stream's: it may have been resharded, or be gone."""
        found = self._host.stream_by_id(stream.id)
        return found is not None and found.generation == stream.generation

    def _place(self, source: str) -> Place:
        _, _, _, region, account, _ = source.split(":", 5)
        return Place(account, region)

    def _find(self, source: str) -> StreamMap | None:
        """The stream of an ARN, its own or a consumer's."""
        place, name = self._place(source), arn.stream_name(source)
        if not self._registry.has(place, name):
            return None
        if arn.consumer_name(source) is not None:
            try:
                self._registry.by_consumer_arn(source, self._host.now_ms())
            except KflowError:
                return None
        return self._host.stream_by_id(self._registry.find(place, name).map.id)
