"""Lambda's mappings over a folder, with a runner that runs nothing and says so; stepped by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kflow import arn
from kflow.aws.calls import Place
from kflow.broker.files import FILES, Files
from kflow.declarations import MappingOptions, StreamTrigger
from kflow.errors import KflowError
from kflow.interfaces import Done
from kflow.lambda_.control.mappingfacts import Mapping as Kept
from kflow.lambda_.control.mappings import Mappings as Book
from kflow.lambda_.control.runner import Declared
from kflow.lambda_.errors import InvalidParameterValue
from kflow.lambda_.fleet import Published
from kflow.services.lambda_.functions import Functions
from kflow.services.lambda_.mappings import Mappings
from tests.lambdaing import HOME, World

STREAM = "arn:aws:kinesis:us-east-1:123456789012:stream/orders"
QUEUE = "arn:aws:sqs:us-east-1:123456789012:jobs"


class FakeRunner:
    """Knows what it was told.

    Attributes:
        told: in order: what was done, and of what.
        waits: what is answered when `go_on` is called; None: everything is answered at once.
        last: results by UUID.
        refuse: what the next change is refused with.
    """

    def __init__(self, declared: Sequence[Declared] = ()) -> None:
        self.told: list[str] = []
        self.waits: list[Callable[[], object]] | None = None
        self.last: dict[str, str] = {}
        self.refuse: KflowError | None = None
        self._declared = declared

    def _say(self, text: str, told: Done) -> None:
        self.told.append(text)
        failure, self.refuse = self.refuse, None
        if self.waits is None:
            told(failure)
        else:
            self.waits.append(lambda: told(failure))

    def go_on(self) -> None:
        """Answer all that waits."""
        waits, self.waits = self.waits or [], None
        for each in waits:
            each()

    def check(self, mapping: Kept, told: Done) -> None:
        is_there = mapping.is_queue or mapping.stream == "orders"
        told(None if is_there else InvalidParameterValue(f"Stream not found: {mapping.source}"))

    def create(self, mapping: Kept, told: Done) -> None:
        self._say(f"create {mapping.function} {mapping.source} {mapping.enabled}", told)

    def resume(self, mapping: Kept) -> None:
        self.told.append(f"resume {mapping.function} {mapping.enabled}")

    def change(self, before: Kept, after: Kept, told: Done) -> None:
        self._say(f"change {before.function} to {after.function} {after.enabled} from {after.moved_from!r}", told)

    def remove(self, mapping: Kept, told: Done) -> None:
        self._say(f"remove {mapping.function}", told)

    def results(self, mappings: Sequence[Kept], told: Callable[[list[str] | KflowError], object]) -> None:
        told([self.last.get(each.uuid, "") for each in mappings])

    def declared(self) -> Sequence[Declared]:
        return self._declared

    def switch(self, function: str, index: int, *, enabled: bool, told: Done) -> None:
        self._say(f"switch {function} {index} {enabled}", told)


class Service(Functions, Mappings):
    """Functions and mappings alone."""

    service_name = "lambda"


class MappingWorld(World):
    """A `World` with mappings.

    Attributes:
        runner: of this run.
        mappings: all of this run.
    """

    def __init__(
        self,
        path: Path,
        *,
        transition_s: float = 0,
        files: Files = FILES,
        declared: Mapping[str, Published] | None = None,
        triggers: Sequence[Declared] = (),
    ) -> None:
        self._triggers = triggers
        super().__init__(path, transition_s=transition_s, files=files, declared=declared)

    def _service(self) -> Any:
        self.runner = FakeRunner(self._triggers)
        self.mappings = Book(self.host, HOME, self.runner)
        self.mappings.load()
        return Service(self._parts(self.mappings, self.runner))

    def map(self, function: str = "f", /, place: Place = HOME, **parameters: Any) -> dict[str, Any]:
        """A mapping of the stream, and what the create answers."""
        given = {
            "FunctionName": function,
            "EventSourceArn": STREAM,
            "StartingPosition": "LATEST",
            **parameters,
        }
        return self.call(
            "CreateEventSourceMapping", place, **{name: each for name, each in given.items() if each != ""}
        )

    def state(self, uuid: str) -> str:
        """Of a mapping."""
        return str(self.call("GetEventSourceMapping", UUID=uuid)["State"])


def trigger(function: str, stream: str = "orders", *, enabled: bool = True, now: bool | None = None) -> Declared:
    """A decorator's trigger of a home stream.

    Args:
        function: the handler.
        stream: its name.
        enabled: as the decorator has it.
        now: as it is; the same where it is not given.
    """
    return Declared(
        function,
        0,
        StreamTrigger(
            stream=stream,
            options=MappingOptions(batch_size=7),
            enabled=enabled if now is None else now,
            file="functions/app.py",
            line=12,
        ),
        arn.stream_arn(HOME.region, HOME.account, stream),
        enabled,
    )
