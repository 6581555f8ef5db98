"""What tests of records share: the service over a real log, with a host that is stepped by hand, called in process."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from kflow.aws import models
from kflow.aws.calls import Context, Place
from kflow.aws.dispatch import Dispatcher
from kflow.aws.shapes import Model
from kflow.broker import reshardplan
from kflow.broker.encode import Part
from kflow.broker.files import FILES, Files
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.resharding import carry_out
from kflow.broker.streammap import StreamMap
from kflow.clock import ManualClock
from kflow.errors import KflowError, StaleMap
from kflow.kinesis.host import PutResult, Stored
from kflow.kinesis.registry import Registry, Stream
from kflow.services.kinesis.parts import Parts
from kflow.services.kinesis.service import Kinesis
from tests.looping import SteppedLoop

ACCOUNT = "123456789012"
REGION = "us-east-1"


class Watch:
    def close(self) -> None:
        return


class DeskHost(SteppedLoop):
    """A host over a log, stepped by hand.

    Attributes:
        held: puts wait in `later` while it is set, as behind a slow disk.
        refusal: what the next puts fail with.
        rounds: of the loop, that `run` has made.
    """

    def __init__(self, log: Log, clock: ManualClock) -> None:
        super().__init__(clock)
        self.log = log
        self.folder = log.folder
        self.transition_s = 0.0
        self.held = False
        self.later: list[tuple[StreamMap, Sequence[Part], Callable[[list[PutResult]], object]]] = []
        self.refusal: KflowError | None = None
        self.rounds = 0
        self.puts = 0
        self.notices: list[tuple[str, str]] = []
        self.maps: dict[int, StreamMap] = {}

    def run(self) -> None:
        """Do what threads would do, and all timers that are due within ten seconds."""
        while self.errands or self._timers:
            super().run()
            if self._timers:
                self.rounds += 1
                due, _, timer = heapq.heappop(self._timers)
                if due > self.clock.monotonic_ms + 10_000:
                    return
                if timer.call is not None:
                    timer.call()

    def put(
        self, stream: StreamMap, parts: Sequence[Part], done: Callable[[list[PutResult]], object]
    ) -> list[PutResult] | None:
        self.puts += 1
        if self.held:
            self.later.append((stream, parts, done))
            return None
        return self._results(stream, parts)

    def release(self) -> None:
        """The disk has caught up."""
        self.held = False
        waiting, self.later = self.later, []
        for stream, parts, done in waiting:
            done(self._results(stream, parts))

    def _results(self, stream: StreamMap, parts: Sequence[Part]) -> list[PutResult]:
        if self.refusal is not None:
            return [self.refusal for _ in parts]
        current = self.maps.get(stream.id)
        if current is None or current.generation != stream.generation:
            return [StaleMap("the shards have changed") for _ in parts]
        results = self.log.append_each(current, parts)
        return [result if isinstance(result, KflowError) else Stored(*result) for result in results]

    def stream_by_id(self, stream_id: int) -> StreamMap | None:
        return self.maps.get(stream_id)

    def streams(self) -> list[StreamMap]:
        return list(self.maps.values())

    def watch(self, stream: StreamMap, shard: int, news: Callable[[], object]) -> Watch:
        return Watch()

    def administrate(self, told: Callable[[Any], object], operation: str, **arguments: Any) -> None:
        raise AssertionError(operation)

    def notice(self, level: str, text: str) -> None:
        self.notices.append((level, text))


@cache
def model() -> Model:
    return models.load("kinesis")


class Desk:
    """The service with its host."""

    def __init__(self, path: Path, *, fsync: str = "none", files: Files = FILES, **parts: Any) -> None:
        self.clock = ManualClock()
        self.folder = DataFolder.open(path, create=True, fsync=fsync, files=files)
        self.log = Log(self.folder, clock=self.clock)
        self.host = DeskHost(self.log, self.clock)
        self.host.maps = {found.id: found for found in self.folder.all_maps()}
        self.registry = Registry(self.host)
        self.registry.load()
        self.parts = Parts(host=self.host, registry=self.registry, **parts)
        self.service = Kinesis(self.parts)
        self.dispatcher = Dispatcher([self.service], {"kinesis": model()}, call_later=self.host.call_later)
        self.place = Place(ACCOUNT, REGION)

    def create(self, name: str = "orders", shards: int = 1, **options: Any) -> Stream:
        """Make a stream that is there already."""
        made = self.log.create_stream(name, shards, **options)
        self.learn(made)
        return self.registry.find(self.registry.home, name)

    def learn(self, stream: StreamMap) -> None:
        self.host.maps[stream.id] = stream
        self.registry.learn(stream)

    def set(self, stream: Stream, **changes: Any) -> None:
        """Change attributes."""
        self.registry.change(stream, lambda failure: None, **changes)
        self.host.run()

    def split(self, stream: Stream, shard: int = 0) -> StreamMap:
        """Split a shard in the log; nobody is told before `learn`."""
        return carry_out(
            self.log, reshardplan.split(stream.map, shard, None, account=ACCOUNT, region=REGION), clock=self.clock
        )

    def merge(self, stream: Stream, shard: int, adjacent: int) -> StreamMap:
        return carry_out(self.log, reshardplan.merge(stream.map, shard, adjacent, account=ACCOUNT), clock=self.clock)

    def delete(self, stream: Stream) -> None:
        self.log.delete_stream(stream.name)
        self.host.maps.pop(stream.id)
        self.registry.forget(stream.id)

    def start(self, operation: str, **parameters: Any) -> list[Any]:
        """Begin a call; its answer is in the list once there is one."""
        answers: list[Any] = []
        context = Context(place=self.place, request_id="00000000-0000-0000-0000-000000000000")
        self.dispatcher.invoke(context, "kinesis", operation, parameters, answers.append)
        return answers

    def call(self, operation: str, **parameters: Any) -> Any:
        """A call and its answer; an error is raised."""
        answers = self.start(operation, **parameters)
        if not answers:
            self.host.run()
        (answer,) = answers
        if isinstance(answer, Exception):
            raise answer
        return answer

    def iterator(self, kind: str = "TRIM_HORIZON", shard: str = "0", stream: str = "orders", **more: Any) -> str:
        answer = self.call("GetShardIterator", StreamName=stream, ShardId=shard, ShardIteratorType=kind, **more)
        return str(answer["ShardIterator"])

    def drain(self, token: str, **options: Any) -> list[Any]:
        """All records from a token to the tip or the end of the shard."""
        found: list[Any] = []
        while True:
            answer = self.call("GetRecords", ShardIterator=token, **options)
            found += answer["Records"]
            if not answer["Records"] or "NextShardIterator" not in answer:
                return found
            token = answer["NextShardIterator"]
