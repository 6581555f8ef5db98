"""boto3 as a witness: clients that hold every answer against the service's own model, and an endpoint with three lives.

Every answer that a `Desk` client receives is checked as it comes, before boto3 parses it: what is in the body is in the
output's shape, with its types, what the shape requires is there, nothing is null, an operation without output has an
empty body, and an error is one that the model lists for the operation, or one of requests as such.
"""

from __future__ import annotations

import base64
import itertools
import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from botocore.exceptions import ClientError

from kflow.broker.folder import DataFolder
from kflow.kinesis.seals import Seal
from tests.deadline import eventually
from tests.served import ACCOUNT, Served, served

REGION = "us-east-1"
LIVES = ("in its first life", "after SIGTERM", "after kill -9")
OF_REQUESTS = frozenset({"ValidationException", "SerializationException"})
"""What any operation may answer, listed or not."""
OPTIONAL = frozenset({"ContinuationSequenceNumber"})
"""Required by the model, and absent at the end of a shard."""


class Refusal(NamedTuple):
    """What an SDK makes of an error."""

    code: str
    message: str
    status: int = 400


def refusal(call: Callable[..., Any], **arguments: Any) -> Refusal:
    """The error that a call ends with."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    return Refusal(answer["Error"]["Code"], answer["Error"]["Message"], answer["ResponseMetadata"]["HTTPStatusCode"])


# ---------------------------------------------------------------------- the model as a witness


class Witness:
    """Looks at every answer of a client.

    Attributes:
        answered: operations that were answered with success.
        refused: code by operation.
    """

    def __init__(self) -> None:
        self.answered: set[str] = set()
        self.refused: set[tuple[str, str]] = set()

    def attach(self, client: Any) -> None:
        """Look at what this client receives from now on."""
        client.meta.events.register("before-parse.kinesis", self._look)

    def _look(self, operation_model: Any, response_dict: Mapping[str, Any], **_: Any) -> None:
        name, status = operation_model.name, response_dict["status_code"]
        headers = {key.lower(): value for key, value in response_dict["headers"].items()}
        assert headers["x-amzn-requestid"], f"{name}: no request id"
        assert len(base64.b64decode(headers["x-amz-id-2"], validate=True)) >= 48, f"{name}: no extended request id"
        if status != 200:
            self._look_at_error(operation_model, status, headers, response_dict["body"])
            return
        self.answered.add(name)
        if operation_model.has_event_stream_output:
            assert headers["content-type"] == "application/vnd.amazon.eventstream", name
            return
        body = response_dict["body"]
        assert int(headers["content-length"]) == len(body), name
        if operation_model.output_shape is None:
            assert body == b"", f"{name}: {body!r}"
        else:
            assert headers["content-type"] == "application/x-amz-json-1.1", name
            check(operation_model.output_shape, json.loads(body), name)

    def _look_at_error(self, model: Any, status: int, headers: Mapping[str, str], body: bytes) -> None:
        assert status == 400, f"{model.name}: {status} {body!r}"
        assert headers["content-type"] == "application/x-amz-json-1.1", model.name
        said = json.loads(body)
        code = said["__type"]
        assert code in OF_REQUESTS | {each.name for each in model.error_shapes}, f"{model.name} never answers {code}"
        assert set(said) == {"__type", "Message" if code == "SerializationException" else "message"}, said
        self.refused.add((model.name, code))


def check(shape: Any, value: Any, path: str) -> None:
    """Whether a value of JSON has the form of a shape."""
    kinds = {
        "string": str,
        "integer": int,
        "long": int,
        "boolean": bool,
        "timestamp": (int, float),
        "blob": str,
        "structure": dict,
        "map": dict,
        "list": list,
    }
    assert isinstance(value, kinds[shape.type_name]), f"{path}: {value!r} is no {shape.type_name}"
    if shape.type_name == "structure":
        assert set(value) <= set(shape.members), f"{path}: {set(value) - set(shape.members)}"
        missing = set(shape.required_members) - set(value) - OPTIONAL
        assert not missing, f"{path} lacks {missing}"
        for key, member in value.items():
            check(shape.members[key], member, f"{path}.{key}")
    elif shape.type_name == "list":
        for member in value:
            check(shape.member, member, f"{path}[]")
    elif shape.type_name == "blob":
        base64.b64decode(value, validate=True)
    elif shape.type_name == "string" and shape.enum:
        assert value in shape.enum, f"{path}: {value}"
    elif shape.type_name == "timestamp":
        assert round(value, 3) == value, f"{path}: {value!r} is finer than a millisecond"


@cache
def operations() -> dict[str, Any]:
    """Models of the newest operations of Kinesis, by name."""
    from botocore.session import Session

    model = Session().get_service_model("kinesis")
    return {name: model.operation_model(name) for name in model.operation_names}


# ---------------------------------------------------------------------- an endpoint


class Desk:
    """An endpoint, clients of it, and names that no other test has.

    Attributes:
        place: the process.
        witness: of all its clients.
        life: which of `LIVES` it is in.
    """

    _numbers = itertools.count(1)

    def __init__(self, place: Served) -> None:
        self.place = place
        self.witness = Witness()
        self.life = 0
        self._clients: dict[tuple[Any, ...], Any] = {}

    def client(self, *, region: str = REGION, account: str = "test", checked: bool = True, seconds: float = 60) -> Any:
        """A client.

        Args:
            region: where it signs for.
            account: access key.
            checked: whether boto3 checks parameters before they are sent.
            seconds: how long it waits for an answer.
        """
        key = (self.place.url, region, account, checked, seconds)
        if key not in self._clients:
            self._clients[key] = self.new_client(region=region, account=account, checked=checked, seconds=seconds)
        return self._clients[key]

    def new_client(
        self, *, region: str = REGION, account: str = "test", checked: bool = True, seconds: float = 60
    ) -> Any:
        """A client with a connection of its own; the caller closes it."""
        from botocore.config import Config

        config = Config(
            retries={"max_attempts": 0, "mode": "standard"},
            connect_timeout=30,
            read_timeout=seconds,
            proxies={},
            parameter_validation=checked,
        )
        made = self.place.client(region=region, access_key=account, config=config)
        self.witness.attach(made)
        return made

    def name(self, what: str = "stream") -> str:
        """A name that nothing else has."""
        return f"{what}-{next(self._numbers)}"

    def stream(self, shards: int = 1, *, name: str | None = None, client: Any = None, **options: Any) -> str:
        """A new stream that is ACTIVE; its name."""
        name, client = name or self.name(), client or self.client()
        if "StreamModeDetails" not in options:
            options["ShardCount"] = shards
        client.create_stream(StreamName=name, **options)
        eventually(lambda: self.status(name, client) == "ACTIVE", seconds=60, what=f"{name} to be ACTIVE")
        return name

    def on_demand(self, **options: Any) -> str:
        """A new on-demand stream that is ACTIVE; its name."""
        return self.stream(StreamModeDetails={"StreamMode": "ON_DEMAND"}, **options)

    def settled(self, name: str, client: Any = None) -> None:
        """Wait until a stream is ACTIVE again."""
        eventually(lambda: self.status(name, client) == "ACTIVE", seconds=60, what=f"{name} to be ACTIVE")

    def status(self, name: str, client: Any = None) -> str:
        """StreamStatus."""
        return str(self.summary(name, client)["StreamStatus"])

    def summary(self, name: str, client: Any = None) -> dict[str, Any]:
        """StreamDescriptionSummary."""
        found = (client or self.client()).describe_stream_summary(StreamName=name)
        return dict(found["StreamDescriptionSummary"])

    def arn(self, name: str, region: str = REGION, account: str = ACCOUNT) -> str:
        """The ARN of a stream, whether it exists or not."""
        return f"arn:aws:kinesis:{region}:{account}:stream/{name}"

    def consumer(self, stream: str, name: str = "fast") -> str:
        """A registered consumer that is ACTIVE; its ARN."""
        client = self.client()
        made = client.register_stream_consumer(StreamARN=self.arn(stream), ConsumerName=name)["Consumer"]
        arn = str(made["ConsumerARN"])
        eventually(lambda: self._consumer(arn)["ConsumerStatus"] == "ACTIVE", seconds=60, what="the consumer")
        return arn

    def _consumer(self, arn: str) -> dict[str, Any]:
        return dict(self.client().describe_stream_consumer(ConsumerARN=arn)["ConsumerDescription"])

    def queue(self, stream: str, name: str | None = None, **options: Any) -> str:
        """A queue on a stream that is ACTIVE; its ARN."""
        client = self.client()
        configuration = [{"StreamARN": self.arn(stream), "StartingPosition": {"Type": "TRIM_HORIZON"}}]
        made = client.create_queue(
            QueueName=name or self.name("queue"), **{"StreamConfigurationList": configuration, **options}
        )
        arn = str(made["QueueDescription"]["QueueARN"])

        def is_active() -> bool:
            return bool(client.describe_queue(QueueARN=arn)["QueueDescription"]["QueueStatus"] == "ACTIVE")

        eventually(is_active, seconds=60, what="the queue")
        return arn

    def iterator(self, stream: str, kind: str = "TRIM_HORIZON", shard: str = "shardId-000000000000", **at: Any) -> str:
        """A shard iterator."""
        found = self.client().get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType=kind, **at)
        return str(found["ShardIterator"])

    def read(self, stream: str, kind: str = "TRIM_HORIZON", shard: str = "shardId-000000000000", **at: Any) -> Any:
        """All records of a shard from a position on, up to its tip or end."""
        token: str | None = self.iterator(stream, kind, shard, **at)
        found: list[dict[str, Any]] = []
        while token:
            page = self.client().get_records(ShardIterator=token)
            found += page["Records"]
            token = page.get("NextShardIterator")
            if not page["Records"] and page["MillisBehindLatest"] == 0:
                break
        return found

    @property
    def seal(self) -> Seal:
        """Makes tokens as the endpoint does: for old ones."""
        return Seal(DataFolder.open(self.place.data_dir).id.encode())

    def restart(self, signum: int) -> None:
        """End the process by a signal, and start the next one over the same data."""
        if signum == signal.SIGKILL:
            self.place.kill()
        else:
            assert self.place.stop(signum) in (0, 130, 128 + signum, -signum), self.place.output
        self.close()
        self.place.start()

    def reach(self, life: int) -> None:
        """Be in one of `LIVES`."""
        while self.life < life:
            self.life += 1
            self.restart(signal.SIGTERM if self.life == 1 else signal.SIGKILL)

    def close(self) -> None:
        """Close all clients."""
        while self._clients:
            self._clients.popitem()[1].close()


@contextmanager
def desk(folder: Path, **environment: str) -> Iterator[Desk]:
    """For fixtures: an endpoint that leaves no process and no connection behind."""
    with served(folder, **environment) as place:
        made = Desk(place)
        try:
            yield made
        finally:
            made.close()
