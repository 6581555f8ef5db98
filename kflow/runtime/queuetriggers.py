"""`@on_queue` at the start of a node: queues that are named and not there are made, then they are polled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from msgspec import structs

from kflow import arn
from kflow.aws.calls import Place
from kflow.declarations import Handler, QueueTrigger
from kflow.errors import KflowError
from kflow.lambda_.queue_mapping import QueueMapping
from kflow.runtime.feed import HandlerInfo
from kflow.runtime.functions import FunctionPlan
from kflow.runtime.queueinfo import describe
from kflow.runtime.queuepolling import QueuePolling, declared_uuid
from kflow.sqs import limits
from kflow.sqs.facts import Facts

Ready = Callable[[list[HandlerInfo]], object]


def mapping_of(home: Place, handler: Handler, trigger: QueueTrigger) -> QueueMapping:
    """The mapping of a decorator. A queue that is named by an ARN is the local one of that name, as a stream is."""
    queue = arn.queue_name(trigger.queue)
    return QueueMapping(
        uuid=declared_uuid(home.account, home.region, handler.name, queue),
        key=handler.name,
        function_arn=arn.function_arn(home.region, home.account, handler.name),
        queue_arn=arn.queue_arn(home.region, home.account, queue),
        options=trigger.options,
    )


def start(polling: QueuePolling, home: Place, plans: Iterable[FunctionPlan], ready: Ready) -> None:
    """Make what is missing, and poll for all mappings that are enabled.

    Args:
        polling: polls.
        home: account and region of the data folder.
        plans: all functions.
        ready: told, on the loop, what people are told of each mapping, when all queues are there.
    """
    left = deque((plan, trigger) for plan in plans for trigger in plan.handler.queues)
    infos: list[HandlerInfo] = []
    fresh: set[str] = set()

    def loaded(failure: KflowError | None) -> None:
        if failure is not None:
            polling.host.notice("error", f"no queue is polled: {failure}")
            ready(infos)
        else:
            step()

    def step() -> None:
        if not left:
            ready(infos)
            return
        plan, trigger = left.popleft()
        mapping = mapping_of(home, plan.handler, trigger)
        queue = polling.sqs.directory.by_arn(mapping.queue_arn)
        if queue is not None:
            told(plan, trigger, mapping, None)
            return
        fresh.add(mapping.queue)
        polling.sqs.directory.create(
            home,
            mapping.queue,
            lambda facts: _made(facts, plan, trigger),
            lambda failure: told(plan, trigger, mapping, failure),
        )

    def told(plan: FunctionPlan, trigger: QueueTrigger, mapping: QueueMapping, failure: KflowError | None) -> None:
        if failure is not None:
            polling.host.notice("error", f"the queue {mapping.queue} cannot be made: {failure}")
        else:
            _warn(polling, plan, mapping)
            if trigger.enabled:
                polling.start(mapping)
        infos.append(
            HandlerInfo(
                name=plan.handler.name,
                place=plan.handler.place,
                stream=mapping.queue,
                shards=0,
                created=mapping.queue in fresh and failure is None,
                options=describe(trigger),
                source="queue",
            )
        )
        step()

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
