"""`@on_queue` at the start of a node: queues that are named and not there are made, then they are polled."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from msgspec import structs

from kflow.aws.calls import Place
from kflow.declarations import QueueTrigger
from kflow.errors import KflowError
from kflow.lambda_.queue_mapping import QueueMapping
from kflow.runtime.feed import HandlerInfo
from kflow.runtime.mappings.queueinfo import describe
from kflow.runtime.mappings.queuepolling import QueuePolling
from kflow.runtime.mappings.runner import declared_queue
from kflow.runtime.plan.functions import FunctionPlan
from kflow.sqs import limits
from kflow.sqs.facts import Facts

_AT_ONCE: Final = 16
"""So many queues are made at once."""

Ready = Callable[[list[HandlerInfo]], object]


def start(polling: QueuePolling, home: Place, plans: Iterable[FunctionPlan], ready: Ready, *, again: bool) -> None:
    """Make what is missing, and poll for all mappings that are enabled.

    Args:
        polling: polls.
        home: account and region of the data folder.
        plans: all functions.
        ready: told, on the loop, what people are told of each mapping, when all queues are there.
        again: they are polled already.
    """
    found = [(plan, trigger) for plan in plans for trigger in plan.handler.queues]
    infos: dict[int, HandlerInfo] = {}
    fresh: set[str] = set()
    places = iter(range(len(found)))

    def loaded(failure: KflowError | None) -> None:
        if failure is not None:
            polling.host.notice("error", f"no queue is polled: {failure}")
            ready([])
            return
        for _ in range(min(_AT_ONCE, len(found))):
            begin()

    def begin() -> None:
        place = next(places, None)
        if place is None:
            return
        plan, trigger = found[place]
        mapping = declared_queue(home, plan.handler.name, trigger)
        told = partial(over, place, mapping)
        if polling.sqs.directory.by_arn(mapping.queue_arn) is None:
            fresh.add(mapping.queue)
            made = partial(_made, plan=plan, trigger=trigger)
            polling.sqs.directory.create(home, mapping.queue, made, told)
        else:
            polling.host.call_later(0, lambda: told(None))

    def over(place: int, mapping: QueueMapping, failure: KflowError | None) -> None:
        plan, trigger = found[place]
        if failure is not None:
            polling.host.notice("error", f"the queue {mapping.queue} cannot be made: {failure}")
        elif not again:
            _warn(polling, plan, mapping)
            if trigger.enabled:
                polling.start(mapping)
        infos[place] = HandlerInfo(
            name=plan.handler.name,
            place=plan.handler.place,
            stream=mapping.queue,
            shards=0,
            created=mapping.queue in fresh and failure is None,
            options=describe(trigger),
            source="queue",
        )
        if len(infos) == len(found):
            ready([infos[place] for place in range(len(found))])
        else:
            begin()

    polling.sqs.directory.when_loaded(loaded)


def _made(facts: Facts, plan: FunctionPlan, trigger: QueueTrigger) -> Facts:
    """A queue whose messages are hidden long enough: at least as AWS has it, else as it recommends.

    Source: documented: with-sqs: six times the function's timeout, and the batching window; chosen: that a queue that
    kflow makes has that where the default is too short.
    """
    needed_s = 6 * plan.timeout_s + trigger.options.maximum_batching_window_in_seconds
    return structs.replace(facts, visibility_s=min(max(facts.visibility_s, needed_s), limits.VISIBILITY_S))


def _warn(polling: QueuePolling, plan: FunctionPlan, mapping: QueueMapping) -> None:
    queue = polling.sqs.directory.by_arn(mapping.queue_arn)
    if queue is not None and queue.facts.visibility_s < plan.timeout_s:
        polling.host.notice(
            "warning",
            f"{plan.handler.name} may take {plan.timeout_s} s, and messages of {mapping.queue} come again after "
            f"{queue.facts.visibility_s} s: AWS refuses such a mapping; set the queue's VisibilityTimeout to "
            f"{6 * plan.timeout_s} s",
        )
