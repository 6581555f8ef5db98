"""What a queue may be asked, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec

from kflow.broker.messagequeues import Counts, Message
from kflow.sqs.digests import Value
from kflow.sqs.errors import SqsError
from kflow.sqs.facts import Facts
from kflow.sqs.receipts import Delivery


class More(msgspec.Struct, frozen=True, array_like=True):
    """What is kept with a message besides its body and its state.

    Attributes:
        attributes: type and value by name; binary ones are bytes, all others str.
        group: MessageGroupId; empty: none.
        duplicate: MessageDeduplicationId; empty: none.
        sender: who sent it.
        trace: AWSTraceHeader; empty: none.
        source: ARN of the queue whose dead letter it is; empty: none's.
    """

    attributes: dict[str, tuple[str, Any]] = {}
    group: str = ""
    duplicate: str = ""
    sender: str = ""
    trace: str = ""
    source: str = ""


class Entry(NamedTuple):
    """A message that is to be sent, as the caller gave it; None is what was not given.

    Attributes:
        body: its text.
        delay_s: how long it is hidden.
        attributes: by name; checked already.
        trace: AWSTraceHeader.
        duplicate: MessageDeduplicationId.
        group: MessageGroupId.
    """

    body: str | None
    delay_s: int | None = None
    attributes: Mapping[str, Value] = {}
    trace: str | None = None
    duplicate: str | None = None
    group: str | None = None


class Terms(NamedTuple):
    """What holds in a turn.

    Attributes:
        now_ms: the time, milliseconds since the epoch.
        facts: of the queue.
        arn: its ARN.
        max_receives: after so many receives a message is a dead letter; None: never, or there is nowhere to put it.
    """

    now_ms: int
    facts: Facts
    arn: str
    max_receives: int | None = None


class Send(NamedTuple):
    """Send messages. Answered by `list[Sent | SqsError]`, one each; an error for all of them comes alone."""

    entries: Sequence[Entry]
    sender: str
    is_batch: bool = False


class Receive(NamedTuple):
    """Receive messages. Answered by `Received`.

    Attributes:
        limit: so many at most.
        visibility_s: how long they are in flight; None: as the queue says.
        attempt: ReceiveRequestAttemptId; empty: none.
        needed_s: whoever receives needs them for so long.
        instead_s: how long they are in flight where the queue's own timeout is shorter than that.
    """

    limit: int
    visibility_s: int | None = None
    attempt: str = ""
    needed_s: int = 0
    instead_s: int = 0


class Delete(NamedTuple):
    """Delete messages. Answered by `list[SqsError | None]`."""

    deliveries: Sequence[Delivery]


class Hide(NamedTuple):
    """Set until when messages are in flight, seconds from now. Answered by `list[SqsError | None]`."""

    entries: Sequence[tuple[Delivery, int]]


class GiveBack(NamedTuple):
    """Nobody took these deliveries: others may have them at once, as if they had not been made."""

    deliveries: Sequence[Delivery]


class Count(NamedTuple):
    """Answered by `Counts`."""


class Keep(NamedTuple):
    """Keep other facts of the queue."""

    facts: Facts


class Purge(NamedTuple):
    """Remove all messages."""

    facts: Facts


class Take(NamedTuple):
    """Set aside messages that are to be moved. Answered by `Received`, with `aside` alone."""

    limit: int


class Moved(NamedTuple):
    """A message from another queue.

    Attributes:
        message: as it is there.
        source: id of that queue.
        dead_of: ARN of that queue, for a dead letter; empty: it is moved back, and is a new message here.
    """

    message: Message
    source: str
    dead_of: str = ""


class Accept(NamedTuple):
    """Take in messages from another queue. One that came before and is still there is not taken in twice."""

    messages: Sequence[Moved]


class Drop(NamedTuple):
    """Messages that were set aside are in another queue."""

    numbers: Sequence[int]


class Return(NamedTuple):
    """Messages that were set aside are in no other queue.

    Attributes:
        numbers: which.
        are_dead: whoever receives them would but set them aside again.
    """

    numbers: Sequence[int]
    are_dead: bool = False


class Nothing(NamedTuple):
    """Answered when the queue is there."""


class Sent(NamedTuple):
    """A message that was sent, or would have been had it not been sent lately."""

    id: bytes
    number: int
    md5_body: str
    md5_attributes: str
    md5_trace: str


class Delivered(NamedTuple):
    """A message that was received; `state` is as it is since."""

    message: Message
    more: More
    md5_body: str


class Received(NamedTuple):
    """What came of a receive.

    Attributes:
        messages: that were received.
        aside: that are dead letters by now, and are to be moved.
    """

    messages: Sequence[Delivered] = ()
    aside: Sequence[Message] = ()


Ask: TypeAlias = (
    Send | Receive | Delete | Hide | GiveBack | Count | Keep | Purge | Take | Accept | Drop | Return | Nothing
)
Reply: TypeAlias = Received | Counts | list[Sent | SqsError] | list[SqsError | None] | None
