"""The two encodings of AWS's JSON protocol: JSON itself, and the CBOR that Java's SDK and the KPL speak."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol

from kflow.aws.dispatch import Bound
from kflow.aws.errors import SerializationFailed
from kflow.aws.eventstream import Vocabulary
from kflow.aws.json_input import plain
from kflow.aws.json_output import JsonOutput, encode
from kflow.aws.shapes import Operation, Structure
from kflow.aws.vocabulary import Vocabularies
from kflow.errors import AwsError


class Wire(Protocol):
    """An encoding. Belongs to the loop.

    Attributes:
        name: `json` or `cbor`, as in `Context.protocol`.
        content_type: of requests and answers.
    """

    name: str
    content_type: bytes

    def quick(self, bound: Bound, body: bytes) -> Any:
        """The input as a struct; None: it takes `plain` and `exact` to say what it is, or what is wrong with it."""
        ...

    def reader(self, bound: Bound) -> Callable[[bytes], Any]:
        """`quick` of one operation, for whoever asks often."""
        ...

    def plain(self, body: bytes) -> dict[str, Any]:
        """The body's members, whatever they are. `SerializationFailed`, without a text: it is no object."""
        ...

    def exact(self, bound: Bound, value: Mapping[str, Any]) -> Any:
        """The input as a struct, of what `plain` gave. `SerializationFailed` or `ValidationFailed`: it is none."""
        ...

    def write(self, shape: Structure, value: Mapping[str, Any]) -> bytes:
        """A structure."""
        ...

    def write_sliced(self, shape: Structure, value: Mapping[str, Any]) -> Generator[None, None, list[bytes]]:
        """The same in pieces, a slice a step; where a member is long."""
        ...

    def write_plain(self, value: Mapping[str, Any]) -> bytes:
        """Strings by name."""
        ...

    def vocabulary(self, operation: Operation) -> Vocabulary:
        """How the events of an operation's answer are written."""
        ...


class JsonWire:
    """JSON 1.0 or 1.1."""

    name = "json"

    def __init__(self, version: str) -> None:
        self.content_type = f"application/x-amz-json-{version}".encode()
        self._output = JsonOutput()
        self.write = self._output.bytes_of
        self.write_sliced = self._output.sliced
        self.plain = plain
        self.write_plain = encode
        self.vocabulary = Vocabularies(
            self.write,
            self.write_plain,
            content_type=self.content_type.decode(),
            event_content_type="application/json",
        )

    def quick(self, bound: Bound, body: bytes) -> Any:
        """See `Wire`."""
        return bound.json_input.quick(body)

    def reader(self, bound: Bound) -> Callable[[bytes], Any]:
        """See `Wire`."""
        return bound.json_input.quick

    def exact(self, bound: Bound, value: Mapping[str, Any]) -> Any:
        """See `Wire`."""
        return bound.json_input.exact(value)


def error_body(wire: Wire, error: AwsError, namespace: str = "") -> bytes:
    """A failure: `__type`, and a message where there is one.

    Source: recorded: kinesalite's test-suite against AWS: `Message` where something could not be converted, else
    `message`.
    """
    text, kind = str(error), namespace + error.code
    if not text:
        return wire.write_plain({"__type": kind})
    key = "Message" if isinstance(error, SerializationFailed) else "message"
    return wire.write_plain({"__type": kind, key: text})
