"""One call of an operation, from whatever door it came: what a service's method is given, and how it answers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from kflow.errors import KflowError


class Place(NamedTuple):
    """Whose resources a call is about: what exists in one place does not in another.

    Attributes:
        account: twelve digits.
        region: for example `us-east-1`.
    """

    account: str
    region: str


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls, and how.

    Attributes:
        place: the account is the access key where that is twelve digits, else the setting; the region is the credential
            scope's, else the setting.
        request_id: of this call, a UUID as text.
        access_key: empty where the call is unsigned.
        protocol: `json`, `cbor`, `query`, `rest-json`, `rest-xml` or `local`.
        version: of HTTP (`1.1`, `2`), or empty.
        base_url: of the endpoint as the caller names it, for example `http://localhost:4566`; empty where the call came
            another way.
        trace: the header `X-Amzn-Trace-Id` of a REST or query call, which SDKs send on inside a function; empty: none.
    """

    place: Place
    request_id: str
    access_key: str = ""
    protocol: str = "local"
    version: str = ""
    base_url: str = ""
    trace: str = ""


class Later:
    """What a method returns that answers by `Call.answer` or `Call.refuse` afterwards."""


LATER: Final = Later()

Output = Mapping[str, Any] | None
"""By member name, as the model writes it: str, int, float, bool, bytes (blobs), datetime or milliseconds as int
(timestamps), lists, mappings, `kflow.aws.columns.Columns` for long lists of structures. None members are left out. None
as a whole is an empty answer."""

Answer = Output | Later | Generator[None, None, Output]
"""A generator does long work in slices of at most about 0.5 ms: each `yield` lets the loop serve others."""


class EventStream(Protocol):
    """The events of an answer that goes on. Belongs to the loop.

    Attributes:
        on_drain: called when the peer has taken most of what is buffered.
        on_close: called once if the peer goes away.
    """

    on_drain: Callable[[], object] | None
    on_close: Callable[[], object] | None

    @property
    def buffered(self) -> int:
        """Bytes the peer has not taken yet."""
        ...

    @property
    def is_closed(self) -> bool:
        """Whether nothing more can be sent."""
        ...

    def send(self, event: str, members: Mapping[str, Any]) -> None:
        """Send one event, by its member name in the event stream's shape."""
        ...

    def fail(self, error: KflowError) -> None:
        """End with an exception event."""
        ...

    def end(self) -> None:
        """End without an error."""
        ...


class Call(Protocol):
    """A call under way. `answer`, `refuse` or `stream` is called once, on the loop, where the method returned `LATER`.

    Attributes:
        context: who calls.
        on_close: called once if the peer goes away before the answer.
    """

    context: Context
    on_close: Callable[[], object] | None

    @property
    def is_closed(self) -> bool:
        """Whether nobody waits for the answer any more."""
        ...

    def answer(self, output: Output, then: Callable[[], object] | None = None) -> None:
        """It worked.

        Args:
            output: of the operation.
            then: called once it is written as a whole, or nobody waits for it any more: a long one takes a while.
        """
        ...

    def refuse(self, error: KflowError) -> None:
        """It did not; what is no `AwsError` becomes an InternalFailure, logged."""
        ...

    def stream(self, output: Output = None) -> EventStream:
        """It worked, and events follow; the initial response is sent at once.

        Args:
            output: what of it travels in headers, in protocols that have such.
        """
        ...


Method = Callable[[Call, Any], Answer]
"""A service's method: the call, and its input as a struct with the model's member names, as in `given.StreamName`.

What is absent is None. Nested structures are structs too, lists are lists, maps are dicts, blobs are bytes, timestamps
are milliseconds since the epoch as int. Raises `AwsError`s to refuse."""


class Service(Protocol):
    """The operations of one AWS service: a method each, named like the operation in snake_case, as `Method`.

    Attributes:
        service_name: as botocore's data folder is named, for example `kinesis`.
    """

    service_name: str


Reply = Callable[[Mapping[str, Any] | KflowError], object]
"""Called once, on the loop, perhaps before the call returns: with the output as boto3 gives it, or with the error."""

CallService = Callable[[Context, str, str, Mapping[str, Any], Reply], object]
"""Calls an operation of a service of this process, as `kflow.aws.dispatch.Dispatcher.invoke` does."""
