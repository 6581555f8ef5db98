"""What a poller makes of the messages that it has received: records of the event, those that pass its filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kflow.declarations import QueueOptions
from kflow.lambda_.queue_polling import Item
from kflow.sqs.asking import Delivered
from kflow.sqs.directory import Queue
from kflow.sqs.receipts import Delivery

if TYPE_CHECKING:
    from kflow.events.queue_patterns import MessageFilters
    from kflow.services.sqs.service import Sqs

_SAMPLE_BYTES: Final = 200
Held = tuple[Queue, Delivery]
"""A message that is in flight: the very queue that it came from, and its delivery."""


def compiled(options: QueueOptions) -> MessageFilters | None:
    """The filters of a mapping; None: it has none."""
    if not options.filters:
        return None
    # Only for mappings that filter.
    from kflow.events.queue_patterns import compile_message_filters

    return compile_message_filters(options.filters)


def written(
    sqs: Sqs, queue: Queue, messages: Sequence[Delivered], filters: MessageFilters | None
) -> tuple[list[Item], list[Held]]:
    """The messages as records of the event, and those that do not pass. In a thread.

    Args:
        sqs: knows how AWS shows a message.
        queue: where they are.
        messages: that were received.
        filters: of the mapping; None: all pass.
    """
    items: list[Item] = []
    filtered: list[Held] = []
    for each in messages:
        record: Mapping[str, Any] = sqs.event_record(queue, each)
        delivery = (queue, delivery_of(each))
        if filters is not None and not filters.passes(record):
            filtered.append(delivery)
            continue
        items.append(
            Item(
                delivery,
                record["messageId"],
                msgspec.json.encode(record),
                each.more.group if queue.facts.is_fifo else "",
                each.message.state.receives,
                each.message.body[:_SAMPLE_BYTES].encode()[:_SAMPLE_BYTES],
            )
        )
    return items, filtered


def delivery_of(delivered: Delivered) -> Delivery:
    """What the queue knows a delivery by."""
    state = delivered.message.state
    return Delivery(state.number, state.receives)
