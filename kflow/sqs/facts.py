"""What is kept of a queue besides its messages; replaced as a whole."""

from __future__ import annotations

import msgspec

from kflow.sqs import limits

FIFO: str = ".fifo"


class Move(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message move task, whose source the queue is.

        RUNNING --nothing left--> COMPLETED
           +--CancelMessageMoveTask--> CANCELLED   +--a message that cannot be moved--> FAILED

    Attributes:
        id: 16 hexadecimal digits.
        target: ARN of where messages go; empty: each to the queue that it came from.
        rate: messages a second; 0: not limited by the caller.
        started_ms: when it began, milliseconds since the epoch.
        status: as above.
        moved: how many messages have been moved.
        found: how many there were when it began.
        reason: why it failed.
    """

    id: str
    target: str = ""
    rate: int = 0
    started_ms: int
    status: str = "RUNNING"
    moved: int = 0
    found: int = 0
    reason: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of it. Source of the defaults: recorded: GetQueueAttributes of a new queue.

    Attributes:
        id: 16 hexadecimal digits that no other queue has, not even a later one of the same name.
        name: unique in its place; ends in `.fifo` where it keeps an order.
        account: empty for the folder's own, as that is now.
        region: likewise.
        created_ms: creation, milliseconds since the epoch.
        changed_ms: the last change of an attribute.
        visibility_s: how long a message is in flight, where the receive says nothing else.
        retention_s: how long a message is kept.
        delay_s: how long a new message is hidden, where the sender says nothing else.
        wait_s: how long a receive waits, where it says nothing else.
        max_bytes: the longest message.
        is_encrypted: SqsManagedSseEnabled; kept and shown.
        is_content_based: duplicates are told by their bodies.
        scope: `queue` or `messageGroup`: where duplicates are looked for.
        throughput: `perQueue` or `perMessageGroupId`; kept and shown.
        redrive: RedrivePolicy as given; empty: none.
        dead_arn: the dead-letter queue of that policy.
        max_receives: its `maxReceiveCount`.
        allow: RedriveAllowPolicy as given; empty: none.
        policy: Policy as given; empty: none.
        kms_key: KmsMasterKeyId; empty: none.
        kms_reuse_s: KmsDataKeyReusePeriodSeconds as given; empty: none.
        tags: by key.
        purged_ms: the last purge; 0: never.
        moves: move tasks from here, the newest first.
    """

    id: str
    name: str
    account: str = ""
    region: str = ""
    created_ms: int
    changed_ms: int
    visibility_s: int = 30
    retention_s: int = 345_600
    delay_s: int = 0
    wait_s: int = 0
    max_bytes: int = limits.MESSAGE_BYTES
    is_encrypted: bool = True
    is_content_based: bool = False
    scope: str = "queue"
    throughput: str = "perQueue"
    redrive: str = ""
    dead_arn: str = ""
    max_receives: int = 0
    allow: str = ""
    policy: str = ""
    kms_key: str = ""
    kms_reuse_s: str = ""
    tags: dict[str, str] = {}
    purged_ms: int = 0
    moves: tuple[Move, ...] = ()

    @property
    def is_fifo(self) -> bool:
        """Whether it keeps an order."""
        return self.name.endswith(FIFO)


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Facts).decode
