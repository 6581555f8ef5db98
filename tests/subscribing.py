"""SubscribeToShard over a real log, on a host whose threads, timers and clock do what a test says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kflow.aws.calls import LATER, Context, Place
from kflow.broker import resharding
from kflow.broker.attributes import Attributes, Consumer
from kflow.broker.attributes import store as store_attributes
from kflow.broker.files import FILES, Files
from kflow.broker.streammap import StreamMap
from kflow.errors import KflowError
from kflow.kinesis.registry import Registry
from kflow.services.kinesis.fanout import Fanout
from kflow.services.kinesis.parts import Parts
from tests.looping import SteppedLoop
from tests.storing import Store

STREAM_ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/orders"
FAST = f"{STREAM_ARN}/consumer/fast:1600000000"
OTHER = f"{STREAM_ARN}/consumer/other:1600000001"


class Host(SteppedLoop):
    """A host whose threads and timers run when a test says so; time is the store's."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.clock)
        self.store = store
        self.folder = store.folder
        self.transition_s = 0.0
        self.maps = {store.stream.id: store.stream}
        self.readers: dict[tuple[int, int], list[Callable[[], object]]] = {}

    def stream_by_id(self, stream_id: int) -> StreamMap | None:
        return self.maps.get(stream_id)

    def streams(self) -> list[StreamMap]:
        return list(self.maps.values())

    def watch(self, stream: StreamMap, shard: int, news: Callable[[], object]) -> Watch:
        return Watch(self.readers.setdefault((stream.id, shard), []), news)

    def tell(self, shard: int = 0) -> None:
        for news in list(self.readers.get((self.store.stream.id, shard), ())):
            news()

    def settle(self) -> None:
        """Do all that is due now."""
        self.advance(0)


class Watch:
    """An interest in a shard."""

    def __init__(self, readers: list[Callable[[], object]], news: Callable[[], object]) -> None:
        self._readers = readers
        self._news = news
        readers.append(news)

    def close(self) -> None:
        self._readers.remove(self._news)


class Call:
    """A call, its answer, and the events of its stream."""

    def __init__(self) -> None:
        self.context = Context(place=Place("123456789012", "us-east-1"), request_id="r")
        self.is_closed = False
        self.on_close: Callable[[], object] | None = None
        self.refusal: KflowError | None = None
        self.out: Out | None = None

    def answer(self, output: Any) -> None:
        raise AssertionError(output)

    def refuse(self, error: KflowError) -> None:
        self.refusal = error

    def stream(self) -> Out:
        self.out = Out()
        return self.out

    @property
    def datas(self) -> list[bytes]:
        """All payloads that were sent."""
        assert self.out is not None
        return [data for event in self.out.events if event["Records"] for data in event["Records"].members["Data"]]

    @property
    def last(self) -> Mapping[str, Any]:
        """The last event."""
        assert self.out is not None
        return self.out.events[-1]

    @property
    def ending(self) -> str | None:
        """How its stream ended: an error's text, or nothing; None while it goes on."""
        assert self.out is not None
        return self.out.ending


class Out:
    """The events of an answer."""

    def __init__(self) -> None:
        self.buffered = 0
        self.on_drain: Callable[[], object] | None = None
        self.on_close: Callable[[], object] | None = None
        self.is_closed = False
        self.events: list[Mapping[str, Any]] = []
        self.ending: str | None = None

    def send(self, event: str, members: Mapping[str, Any]) -> None:
        assert event == "SubscribeToShardEvent"
        assert not self.is_closed
        self.events.append(members)

    def fail(self, error: KflowError) -> None:
        self.is_closed = True
        self.ending = f"{type(error).__name__}: {error}"

    def end(self) -> None:
        self.is_closed = True
        self.ending = ""

    def hang_up(self) -> None:
        """The peer goes away."""
        self.is_closed = True
        call, self.on_close = self.on_close, None
        assert call is not None
        call()


class Position(NamedTuple):
    """A StartingPosition."""

    Type: str
    SequenceNumber: str | None = None
    Timestamp: int | None = None


class Given(NamedTuple):
    """The input of a call."""

    ConsumerARN: str
    ShardId: str
    StartingPosition: Position
    DryRun: bool | None = None


class Desk:
    """A stream `orders` with consumers, and the operation on it."""

    def __init__(self, path: Path, *, enforce_limits: bool = False, files: Files = FILES) -> None:
        self.store = Store(path, files=files)
        self.store.folder.configure(fsync=None, region="us-east-1", account="123456789012")
        kept = Attributes(
            consumers=(
                Consumer(name="fast", created_s=1_600_000_000),
                Consumer(name="other", created_s=1_600_000_001),
                Consumer(name="new", created_s=1_600_000_002, active_ms=self.store.clock.epoch_ms + 500),
                Consumer(name="old", created_s=1_600_000_003, gone_ms=self.store.clock.epoch_ms + 500),
            )
        )
        store_attributes(self.store.folder.stream_dir(self.store.stream), kept, self.store.files, sync=False)
        self.host = Host(self.store)
        self.registry = Registry(self.host)
        self.registry.load()
        self.fanout = Fanout(Parts(host=self.host, registry=self.registry, enforce_limits=enforce_limits))

    def subscribe(
        self, kind: str = "LATEST", sequence_number: object = None, *, arn: str = FAST, shard: int = 0, **more: Any
    ) -> Call:
        call = Call()
        position = Position(
            kind, None if sequence_number is None else str(sequence_number), more.pop("timestamp", None)
        )
        answer = self.fanout.subscribe_to_shard(call, Given(arn, f"shardId-{shard:012d}", position, **more))
        assert answer is LATER
        self.host.settle()
        return call

    def put(self, *datas: bytes, shard: int = 0) -> list[int]:
        numbers = self.store.put(*datas)
        self.host.tell(shard)
        self.host.settle()
        return numbers

    def split(self) -> None:
        plan = resharding.split(self.store.stream, 0, None, account="123456789012", region="us-east-1")
        resharding.carry_out(self.store.log, plan, clock=self.store.clock)
        self.moved()

    def moved(self) -> None:
        """The node has a new map."""
        self.store.stream = self.store.folder.map("orders")
        self.host.maps[self.store.stream.id] = self.store.stream
        self.registry.learn(self.store.stream)
        self.host.tell()
        self.host.settle()

    def change_consumers(self, *consumers: Consumer) -> None:
        stream = self.registry.find(Place("123456789012", "us-east-1"), "orders")
        self.registry.change(stream, lambda _: None, consumers=consumers)
        self.host.settle()
