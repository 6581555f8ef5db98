"""What tests of the control plane share: the service over real files, on a clock and threads that the test moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from kflow.aws import models
from kflow.aws.calls import Context, Place
from kflow.aws.dispatch import Dispatcher
from kflow.aws.shapes import Model
from kflow.broker import reshardplan
from kflow.broker.attributes import Attributes
from kflow.broker.encode import Part
from kflow.broker.files import FILES, Files
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.resharding import carry_out
from kflow.broker.sequence import shard_index
from kflow.broker.streammap import StreamMap, StreamMode
from kflow.clock import ManualClock
from kflow.errors import KflowError
from kflow.kinesis.host import PutResult
from kflow.kinesis.registry import Registry, Stream
from kflow.services.kinesis.parts import Parts
from kflow.services.kinesis.service import Kinesis
from tests.looping import SteppedLoop

ACCOUNT = "123456789012"
HOME = Place(ACCOUNT, "us-east-1")
ARN = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/orders"
TRANSITION_MS = 500


class Watch:
    def close(self) -> None:
        return


class ControlHost(SteppedLoop):
    """A host whose threads work when `work` is called, and whose timers fire when the clock is moved.

    Attributes:
        moved: told of maps, as the node tells it.
        notices: what people were told.
        did: the operations that were asked of the administration.
    """

    def __init__(self, log: Log, clock: ManualClock, transition_ms: int) -> None:
        super().__init__(clock)
        self.folder = log.folder
        self.transition_s = transition_ms / 1000
        self.log = log
        self.moved: Callable[[StreamMap], object] = lambda stream: None
        self.notices: list[str] = []
        self.did: list[str] = []

    work = SteppedLoop.run

    def put(
        self, stream: StreamMap, parts: Sequence[Part], done: Callable[[list[PutResult]], object]
    ) -> list[PutResult] | None:
        raise AssertionError((stream, parts, done))

    def stream_by_id(self, stream_id: int) -> StreamMap | None:
        return next((each for each in self.streams() if each.id == stream_id), None)

    def streams(self) -> Sequence[StreamMap]:
        return self.folder.live_maps()

    def watch(self, stream: StreamMap, shard: int, news: Callable[[], object]) -> Watch:
        del stream, shard, news
        return Watch()

    def notice(self, level: str, text: str) -> None:
        self.notices.append(f"{level}: {text}")

    def administrate(self, told: Callable[[Any], object], operation: str, **arguments: Any) -> None:
        self.did.append(operation)

        def then(result: Any) -> None:
            if isinstance(result, StreamMap):
                self.moved(result)
            told(result if isinstance(result, KflowError) else {})

        self.submit(partial(getattr(self, f"_{operation}"), **arguments), then)

    def _create_stream(self, *, mode: str, attributes: dict[str, Any], **wanted: Any) -> StreamMap:
        import msgspec

        kept = msgspec.convert(attributes, Attributes)
        return self.log.create_stream(mode=StreamMode(mode), attributes=kept, **wanted)

    def _alter_stream(self, *, stream_id: int, changes: dict[str, Any]) -> StreamMap:
        given = {**changes, "mode": StreamMode(changes["mode"])} if "mode" in changes else changes
        return self.log.alter_stream(self.folder.map_by_id(stream_id), **given)

    def _delete_stream(self, *, stream_id: int, although_read: bool) -> StreamMap:
        import msgspec

        assert although_read
        return msgspec.structs.replace(self.log.delete(self.folder.map_by_id(stream_id)), deleted=True)

    def _split(self, *, stream_id: int, shard: str, at: str) -> StreamMap:
        stream = self.folder.map_by_id(stream_id)
        plan = reshardplan.split(stream, shard_index(shard), at, account=ACCOUNT, region=HOME.region)
        return carry_out(self.log, plan, clock=self.clock)

    def _merge(self, *, stream_id: int, shard: str, adjacent: str) -> StreamMap:
        stream = self.folder.map_by_id(stream_id)
        plan = reshardplan.merge(stream, shard_index(shard), shard_index(adjacent), account=ACCOUNT)
        return carry_out(self.log, plan, clock=self.clock)

    def _scale(self, *, stream_id: int, shards: int) -> StreamMap:
        stream = self.folder.map_by_id(stream_id)
        plan = reshardplan.scale(stream, shards, account=ACCOUNT, region=HOME.region)
        return carry_out(self.log, plan, clock=self.clock)


@cache
def model() -> Model:
    return models.load("kinesis")


class Desk:
    """The service over a folder.

    Attributes:
        place: of the calls to come.
    """

    host_type = ControlHost

    def __init__(self, path: Path, *, transition_ms: int = TRANSITION_MS, files: Files = FILES, **parts: Any) -> None:
        self.clock = ManualClock()
        self.path = path
        self.place = HOME
        self._files = files
        self._transition_ms = transition_ms
        self._parts = parts
        self.start()

    def start(self) -> None:
        """From what is on the disk, as after a kill."""
        self.folder = DataFolder.open(self.path, create=True, fsync="none", files=self._files)
        self.log = Log(self.folder, clock=self.clock)
        self.log.recover_all(threads=1)
        self.host = self.host_type(self.log, self.clock, self._transition_ms)
        self.registry = Registry(self.host)
        self.registry.load()
        self.host.moved = self.registry.moved
        self.service = Kinesis(Parts(host=self.host, registry=self.registry, **self._parts))
        self.dispatcher = Dispatcher([self.service], {"kinesis": model()}, call_later=self.host.call_later)

    def restart(self) -> None:
        """Kill it, with all that threads had still to do, and start anew."""
        self.log.close()
        self.start()

    def begin(self, operation: str, **parameters: Any) -> list[Any]:
        """Begin a call; its answer is in the list once there is one."""
        answers: list[Any] = []
        context = Context(place=self.place, request_id="00000000-0000-0000-0000-000000000000")
        self.dispatcher.invoke(context, "kinesis", operation, parameters, answers.append)
        return answers

    def call(self, operation: str, **parameters: Any) -> Any:
        """A call and its answer; an error is raised. No time passes."""
        answers = self.begin(operation, **parameters)
        self.host.work()
        (answer,) = answers
        if isinstance(answer, Exception):
            raise answer
        return answer

    def refusal(self, operation: str, **parameters: Any) -> tuple[str, str]:
        """Code and text of the error that a call ends with."""
        answers = self.begin(operation, **parameters)
        self.host.work()
        (answer,) = answers
        assert isinstance(answer, KflowError), answer
        return getattr(answer, "code", type(answer).__name__), str(answer)

    def settle(self) -> None:
        """Let every transition end."""
        self.host.advance(TRANSITION_MS)

    def stream(self, name: str = "orders", **options: Any) -> Stream:
        """A stream that is ACTIVE."""
        wanted = {"ShardCount": 1} if "StreamModeDetails" not in options else {}
        self.call("CreateStream", StreamName=name, **{**wanted, **options})
        self.settle()
        return self.registry.find(self.place, name)

    def status(self, name: str = "orders") -> str:
        """State of a stream, as it is described."""
        summary = self.call("DescribeStreamSummary", StreamName=name)["StreamDescriptionSummary"]
        return str(summary["StreamStatus"])
