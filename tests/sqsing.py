"""What tests of SQS share: a host that is stepped by hand over a real folder, and calls as a client makes them."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

from kflow.aws import models
from kflow.aws.calls import Context, Place
from kflow.aws.dispatch import Dispatcher
from kflow.aws.shapes import Model
from kflow.broker.folder import DataFolder
from kflow.clock import ManualClock
from kflow.errors import KflowError
from kflow.services.sqs.models import loose
from kflow.services.sqs.parts import Parts
from kflow.services.sqs.service import Sqs
from tests.looping import SteppedLoop

HOME = Place("123456789012", "us-east-1")
BEGIN_MS = 1_700_000_000_000
HERE = "http://localhost:4566"


@functools.cache
def model() -> Model:
    """As the service has it."""
    return loose(models.load("sqs"))


class FakeHost(SteppedLoop):
    """A host over a folder, stepped by hand."""

    def __init__(self, path: Path, fsync: str, clock: ManualClock) -> None:
        super().__init__(clock)
        self.folder = DataFolder.open(path, create=True, region=HOME.region, account=HOME.account, fsync=fsync)
        self.notices: list[tuple[str, str]] = []

    def notice(self, level: str, text: str) -> None:
        self.notices.append((level, text))


class Begun:
    """A call under way, and what became of it."""

    def __init__(self) -> None:
        self.results: list[dict[str, Any] | KflowError] = []
        self.call: Any = None

    @property
    def is_waiting(self) -> bool:
        return not self.results

    @property
    def output(self) -> dict[str, Any]:
        """What it came to; raises what it was refused with."""
        (result,) = self.results
        if isinstance(result, KflowError):
            raise result
        return result

    @property
    def bodies(self) -> list[str]:
        """Of a receive."""
        return [each["Body"] for each in self.output.get("Messages", [])]

    def hang_up(self) -> None:
        self.call.abandon()


class World:
    """A data folder, and a client of its queues."""

    def __init__(self, path: Path, *, fsync: str = "none") -> None:
        self.path = path
        self.host = FakeHost(path, fsync, ManualClock(BEGIN_MS))
        self.start()

    def start(self) -> None:
        """Begin anew with what is on the disk, as after a kill."""
        self.host = FakeHost(self.path, self.host.folder.fsync, self.host.clock)
        self.service = Sqs(Parts(host=self.host, home=HOME, url=lambda: HERE))
        self.dispatcher = Dispatcher([self.service], {"sqs": model()}, call_later=self.host.call_later)

    def stop(self) -> None:
        """Close all files, politely."""
        closed: list[bool] = []
        self.service.close(lambda: closed.append(True))
        self.host.run()
        assert closed

    def restart(self) -> None:
        """Stop, and begin anew."""
        self.stop()
        self.start()

    def begin(self, operation: str, place: Place = HOME, **parameters: Any) -> Begun:
        """Begin a call; what happens in threads happens with `host.run` or `host.advance`."""
        begun = Begun()
        context = Context(place=place, request_id="r", access_key="AKID")
        begun.call = self.dispatcher.invoke(context, "sqs", operation, parameters, begun.results.append)
        return begun

    def call(self, operation: str, place: Place = HOME, **parameters: Any) -> dict[str, Any]:
        """A call and its output; raises what it was refused with."""
        begun = self.begin(operation, place, **parameters)
        self.host.run()
        return begun.output

    def create(self, name: str = "jobs", place: Place = HOME, **attributes: str) -> str:
        """Make a queue; its URL."""
        if name.endswith(".fifo"):
            attributes.setdefault("FifoQueue", "true")
        return str(self.call("CreateQueue", place, QueueName=name, Attributes=attributes)["QueueUrl"])

    def arn(self, url: str) -> str:
        found = self.call("GetQueueAttributes", QueueUrl=url, AttributeNames=["QueueArn"])
        return str(found["Attributes"]["QueueArn"])

    def counts(self, url: str) -> tuple[int, int, int]:
        """Visible, in flight, delayed."""
        found = self.call("GetQueueAttributes", QueueUrl=url, AttributeNames=["All"])["Attributes"]
        head = "ApproximateNumberOfMessages"
        return int(found[head]), int(found[f"{head}NotVisible"]), int(found[f"{head}Delayed"])

    def send(self, url: str, body: str, group: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a message; in a group, each is a new one."""
        if group is not None:
            parameters = {
                "MessageGroupId": group,
                "MessageDeduplicationId": f"{next(_serial)}",
                **parameters,
            }
        return self.call("SendMessage", QueueUrl=url, MessageBody=body, **parameters)

    def receive(self, url: str, most: int = 10, **parameters: Any) -> list[dict[str, Any]]:
        """Receive what there is."""
        output = self.call("ReceiveMessage", QueueUrl=url, MaxNumberOfMessages=most, **parameters)
        return list(output.get("Messages", []))

    def bodies(self, url: str, most: int = 10, **parameters: Any) -> list[str]:
        """The bodies of what there is, received."""
        return [each["Body"] for each in self.receive(url, most, **parameters)]

    def delete(self, url: str, message: dict[str, Any]) -> None:
        self.call("DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    def hide(self, url: str, message: dict[str, Any], seconds: int) -> None:
        handle = message["ReceiptHandle"]
        self.call("ChangeMessageVisibility", QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=seconds)

    def pair(self, most: int = 1, suffix: str = "", **attributes: str) -> tuple[str, str]:
        """A queue, and the queue of its dead letters."""
        dead = self.create(f"dead{suffix}")
        policy = f'{{"deadLetterTargetArn":"{self.arn(dead)}","maxReceiveCount":{most}}}'
        return self.create(f"jobs{suffix}", RedrivePolicy=policy, **attributes), dead


_serial = itertools.count()
