"""What people are told of the queues of handlers. Needs nothing of SQS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kflow.declarations import QueueTrigger
from kflow.runtime.feed import HandlerInfo


def describe(trigger: QueueTrigger) -> str:
    """A trigger's options in words, the telling ones only."""
    options = trigger.options
    words = [f"batch {options.batch_size}"]
    if options.maximum_batching_window_in_seconds:
        words.append(f"window {options.maximum_batching_window_in_seconds} s")
    if options.report_batch_item_failures:
        words.append("reports item failures")
    if options.maximum_concurrency is not None:
        words.append(f"at most {options.maximum_concurrency} at once")
    if options.filters:
        words.append("1 filter" if len(options.filters) == 1 else f"{len(options.filters)} filters")
    if not trigger.enabled:
        words.append("disabled")
    return ", ".join(words)


def merged(streams: Sequence[HandlerInfo], queues: Sequence[HandlerInfo], names: Iterable[str]) -> list[HandlerInfo]:
    """What people are told of all handlers, each with all that it reads."""
    order = {name: place for place, name in enumerate(names)}
    return sorted([*streams, *queues], key=lambda info: order[info.name])
