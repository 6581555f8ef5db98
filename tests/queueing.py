"""What tests of queues share: a host that is stepped by hand over a real log, and calls as the wire would make them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from kflow.aws.calls import LATER, Context, Place
from kflow.broker.encode import Encoder
from kflow.broker.resharding import carry_out
from kflow.broker.reshardplan import split
from kflow.broker.streammap import StreamMap, StreamMode
from kflow.errors import AwsError, KflowError
from kflow.kinesis.registry import Registry
from kflow.services.kinesis.parts import Parts
from kflow.services.kinesis.queues import Queues
from tests.looping import SteppedLoop
from tests.storing import Store

HOME = Place("123456789012", "us-east-1")


class _Watch:
    def __init__(self, host: FakeHost, key: tuple[int, int], news: Callable[[], object]) -> None:
        self.host = host
        self.key = key
        self.news = news
        host.watches.append(self)

    def close(self) -> None:
        self.host.watches.remove(self)


class FakeHost(SteppedLoop):
    """A host of one stream, stepped by hand."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.clock)
        self.folder = store.folder
        self.transition_s = 0.5
        self.maps: dict[int, StreamMap] = {}
        self.notices: list[tuple[str, str]] = []
        self.watches: list[_Watch] = []

    def stream_by_id(self, stream_id: int) -> StreamMap | None:
        return self.maps.get(stream_id)

    def streams(self) -> Sequence[StreamMap]:
        return list(self.maps.values())

    def watch(self, stream: StreamMap, shard: int, news: Callable[[], object]) -> _Watch:
        return _Watch(self, (stream.id, shard), news)

    def notice(self, level: str, text: str) -> None:
        self.notices.append((level, text))


class FakeCall:
    """A call, and what became of it."""

    def __init__(self, place: Place = HOME) -> None:
        self.context = Context(place=place, request_id="r")
        self.is_closed = False
        self.on_close: Callable[[], object] | None = None
        self.output: Any = LATER
        self.error: KflowError | None = None

    @property
    def is_waiting(self) -> bool:
        return self.output is LATER and self.error is None

    def answer(self, output: Any) -> None:
        assert self.is_waiting
        self.output = output

    def refuse(self, error: KflowError) -> None:
        assert self.is_waiting
        self.error = error

    def hang_up(self) -> None:
        self.is_closed = True
        if self.on_close is not None:
            self.on_close()


class Given(SimpleNamespace):
    """An input: members that were not given are None, as the wire has them."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return None


def given(value: Any) -> Any:
    """Dictionaries of members as structs; maps are those whose keys are not member names."""
    if isinstance(value, dict) and all(name[:1].isupper() for name in value):
        return Given(**{name: given(each) for name, each in value.items()})
    if isinstance(value, list):
        return [given(each) for each in value]
    return value


class World:
    """A data folder with one on-demand stream, the queues of it, and a client."""

    def __init__(self, path: Path, *, shards: int = 1, **options: Any) -> None:
        self.store = Store(path, shards=shards, **options)
        self.host = FakeHost(self.store)
        self.store.stream = msgspec.structs.replace(self.store.stream, mode=StreamMode.ON_DEMAND)
        self.host.maps[self.store.stream.id] = self.store.stream
        self.start()

    def start(self) -> None:
        """Begin anew with what is on the disk, as after a kill."""
        self.host.watches.clear()
        self.host.forget()
        self.registry = Registry(self.host)  # type: ignore[arg-type]
        self.registry.load()
        self.service = Queues(Parts(host=self.host, registry=self.registry))  # type: ignore[arg-type]

    def stop(self) -> None:
        """Close all files."""
        closed: list[bool] = []
        self.service.queues.close(lambda: closed.append(True))
        self.host.run()
        assert closed

    @property
    def stream_arn(self) -> str:
        return self.registry.by_id(self.store.stream.id).arn  # type: ignore[union-attr]

    def begin(self, operation: str, *, place: Place = HOME, **members: Any) -> FakeCall:
        """Begin a call; LATER answers come with `host.run` or `host.advance`."""
        call = FakeCall(place)
        try:
            answer = getattr(self.service, operation)(call, given(members))
        except AwsError as error:
            call.error = error
            return call
        if answer is not LATER:
            call.answer(answer)
        return call

    def call(self, operation: str, **members: Any) -> Any:
        """A call and its output; raises what it was refused with."""
        call = self.begin(operation, **members)
        self.host.run()
        if call.error is not None:
            raise call.error
        assert not call.is_waiting, "it waits: use begin"
        return call.output

    def create(self, name: str = "jobs", *, position: Any = "LATEST", attributes: Any = None, **more: Any) -> str:
        """Create a queue, wait until it is ACTIVE; its ARN."""
        start = {"Type": position} if isinstance(position, str) else position
        members = {"StreamConfigurationList": [{"StreamARN": self.stream_arn, "StartingPosition": start}]}
        output = self.call("create_queue", QueueName=name, QueueAttributes=attributes, **members, **more)
        self.host.advance(500)
        return output["QueueDescription"]["QueueARN"]

    def put(self, *datas: bytes, key: str = "k") -> None:
        """Put records; readers hear of it."""
        self.store.put(*datas, key=key)
        for watch in list(self.host.watches):
            watch.news()

    def split(self, shard: int) -> None:
        """Split a shard in the middle, as on-demand scaling does."""
        store = self.store
        plan = split(msgspec.structs.replace(store.stream, mode=StreamMode.PROVISIONED), shard, None, **HOME._asdict())
        changed = carry_out(store.log, plan, clock=store.clock)
        store.stream = self.host.maps[changed.id] = msgspec.structs.replace(changed, mode=StreamMode.ON_DEMAND)
        store.encoder = Encoder(store.stream)
        self.registry.learn(store.stream)

    def receive(self, queue: str, *, limit: int | None = None, dead: bool = False, **members: Any) -> list[Any]:
        """Receive what there is; nothing is waited for: the wait is cut short by the clock."""
        operation = "receive_dead_letter_queue_records" if dead else "receive_queue_records"
        call = self.begin(operation, QueueARN=queue, Limit=limit, WaitTimeSeconds=1, **members)
        self.host.run()
        if call.is_waiting:
            call.hang_up()
            return []
        if call.error is not None:
            raise call.error
        return call.output["QueueRecords"]

    def settle(self, operation: str, queue: str, *handles: str, **members: Any) -> list[str | None]:
        """A call with entries: the error code of each, None where it worked."""
        entries = [{"ReceiptHandle": handle, **members} for handle in handles]
        output = self.call(operation, QueueARN=queue, Entries=entries)
        failed = {each["ReceiptHandle"]: each["ErrorCode"] for each in output["Failed"]}
        assert len(output["Failed"]) + len(output["Successful"]) == len(handles)
        return [failed.get(handle) for handle in handles]

    def acknowledge(self, queue: str, *records: Any) -> list[str | None]:
        return self.settle("acknowledge_queue_records", queue, *(each["ReceiptHandle"] for each in records))
