"""What the status page shows beside streams: functions, their mappings, and queues, as they are at this moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from kflow.broker.functionlogs import log_name
from kflow.lambda_.queue_mapping import QueueMapping
from kflow.runtime.endpoint.pages import Table
from kflow.runtime.plan.functions import FunctionPlan
from kflow.sqs.directory import Queue


def tables(
    functions: Mapping[str, FunctionPlan],
    busy: Mapping[str, int],
    polled: Iterable[QueueMapping],
    queues: Iterable[Queue],
) -> list[Table]:
    """All of them; those without rows are left out by the page.

    Args:
        functions: of the node, by key.
        busy: how many environments run now, by key.
        polled: mappings of queues that run.
        queues: that are known.
    """
    return [
        Table("function", ("runtime", "code", "memory", "timeout", "running"), list(_functions(functions, busy))),
        Table("mapping of", ("source", "batch size", "state"), sorted(_mappings(functions, polled))),
        Table("queue", ("region", "account", "kind"), sorted(_queues(queues))),
    ]


def _functions(functions: Mapping[str, FunctionPlan], busy: Mapping[str, int]) -> Iterator[tuple[object, ...]]:
    for key, plan in sorted(functions.items()):
        if not plan.exists:
            continue
        package = plan.handler.package
        runtime = "kflow" if package is None else package.runtime
        code = plan.handler.place if package is None else package.entry
        yield key, runtime, code, f"{plan.memory_mb} MB", f"{plan.timeout_s} s", busy.get(key, 0)


def _mappings(functions: Mapping[str, FunctionPlan], polled: Iterable[QueueMapping]) -> Iterator[tuple[object, ...]]:
    for key, plan in functions.items():
        for trigger in plan.handler.triggers:
            waits = "" if plan.exists else ", waits for its function"
            state = ("Enabled" if trigger.enabled else "Disabled") + waits
            yield key, f"stream {log_name(trigger.stream)}", trigger.options.batch_size, state
    for mapping in polled:
        yield mapping.key, f"queue {mapping.queue}", mapping.options.batch_size, "Enabled"


def _queues(queues: Iterable[Queue]) -> Iterator[tuple[object, ...]]:
    for queue in queues:
        kind = "FIFO" if queue.facts.is_fifo else "standard"
        yield queue.facts.name, queue.place.region, queue.place.account, kind
