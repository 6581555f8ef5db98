"""What is asked of a queue, and what it answers: the nouns between the service, the loop and the thread."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

from kflow.broker.streammap import StreamMap


class Terms(NamedTuple):
    """What holds for a turn.

    Attributes:
        now_ms: milliseconds since the epoch.
        stream: the map of the queue's stream.
        visibility_ms: how long a record that is received is in flight, unless the call says otherwise.
        max_receives: after so many receives a record is a dead letter; None never.
    """

    now_ms: int
    stream: StreamMap
    visibility_ms: int
    max_receives: int | None


class Receive(NamedTuple):
    """Give me records.

    Attributes:
        limit: at most so many.
        visibility_ms: how long they are in flight; None as the queue says.
        dead: dead letters, instead of records.
    """

    limit: int
    visibility_ms: int | None
    dead: bool


class Verb(enum.Enum):
    """What is done with a record that was received."""

    ACKNOWLEDGE = "acknowledge"
    HIDE = "hide"
    """In flight for so long from now on."""
    RESTORE = "restore"
    """A dead letter is a record again."""
    GIVE_BACK = "give back"
    """Nobody took the answer: as if it had not been received."""


class Delivery(NamedTuple):
    """One delivery of one record: what a receipt handle says.

    Attributes:
        shard: index of the record's shard.
        counter: of the record in its shard.
        receipt: a number that only this delivery has.
        dead: whether it was delivered as a dead letter.
    """

    shard: int
    counter: int
    receipt: int
    dead: bool


class Entry(NamedTuple):
    """One entry of a call that settles.

    Attributes:
        delivery: which one.
        hide_ms: for `HIDE`: how long.
    """

    delivery: Delivery
    hide_ms: int = 0


class Settle(NamedTuple):
    """Do something with records that were received.

    Attributes:
        verb: what.
        entries: of one call, in its order.
        dead: whether the call is about dead letters.
    """

    verb: Verb
    entries: Sequence[Entry]
    dead: bool


class Received(NamedTuple):
    """A record, received.

    Attributes:
        delivery: what its receipt handle will say.
        key: its partition key; empty where it has none.
        data: its payload.
        arrival_ms: arrival, milliseconds since the epoch.
        first_ms: when it was first received.
        receives: how often, with this time.
    """

    delivery: Delivery
    key: str
    data: bytes
    arrival_ms: int
    first_ms: int
    receives: int


class Refusal(enum.Enum):
    """Why an entry failed."""

    GONE = "gone"
    """Acknowledged already, expired, or received again since."""
    NOT_DEAD = "not dead"
    DEAD = "dead"


Ask = Receive | Settle
Reply = Sequence[Received] | Sequence[Refusal | None]
"""For `Receive` the records, for `Settle` why an entry failed, or None where it did not."""
