"""Registers the consumers that handlers name: before the loop runs, and again where their stream is made anew.

Who is registered already stays who he is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from kflow import arn
from kflow.broker import attributes
from kflow.broker.attributes import Consumer
from kflow.broker.folder import DataFolder
from kflow.broker.streammap import StreamMap
from kflow.errors import KflowError
from kflow.kinesis.registry import Registry
from kflow.runtime.plan.functions import FunctionPlan


def consumer_arn(
    folder: DataFolder, stream: StreamMap, name: str, *, region: str, account: str, now_ms: int
) -> tuple[str, bool]:
    """The ARN of a registered consumer of a home stream; registered here, and ACTIVE at once, where there is none.

    Only whoever holds the writer's lock calls this, and not while a loop runs that has the attributes in memory.

    Args:
        folder: the data folder.
        stream: the stream.
        name: of the consumer.
        region: AWS region that ARNs name.
        account: AWS account that ARNs name, 12 digits.
        now_ms: milliseconds since the epoch.

    Returns:
        The ARN, and whether the consumer is new.

    Raises:
        StorageError: what is kept of the stream cannot be read or written.

    Source: chosen: the quota of consumers is not looked at, for nobody sees it who runs handlers here.
    """
    where = folder.stream_dir(stream)
    kept = attributes.load(where, folder.files)
    source = arn.stream_arn(region, account, stream.name)
    found = next((each for each in kept.consumers if each.name == name and each.gone_ms is None), None)
    if found is not None:
        return arn.consumer_arn(source, name, found.created_s), False
    others = tuple(each for each in kept.consumers if each.name != name)
    used = [each.created_s for each in kept.consumers if each.name == name]
    used += [kept.seconds[name]] if name in kept.seconds else []
    created_s = max(now_ms // 1000, *(second + 1 for second in used)) if used else now_ms // 1000
    new = Consumer(name=name, created_s=created_s)
    changed = msgspec.structs.replace(kept, consumers=(*others, new))
    attributes.store(where, changed, folder.files, sync=folder.fsync != "none")
    return arn.consumer_arn(source, name, created_s), True


def register_again(
    registry: Registry, made: StreamMap, plans: Iterable[FunctionPlan], notice: Callable[[str, str], object]
) -> None:
    """A home stream was made: functions that read one of its name as a consumer keep that, with the ARN they know.

    Args:
        registry: knows the stream already.
        made: the stream.
        plans: the functions that run.
        notice: tells people, by level and text.
    """
    stream = registry.by_id(made.id)
    sources = sorted({plan.sources[made.name] for plan in plans if made.name in plan.sources})
    if stream is None or not sources:
        return
    there = stream.attributes.consumers
    names = {each.name for each in there}
    consumers = [
        Consumer(name=name, created_s=int(source.rpartition(":")[2]))
        for source in sources
        if (name := arn.consumer_name(source)) is not None and name not in names
    ]

    if not consumers:
        return

    def kept(failure: KflowError | None) -> None:
        if failure is not None:
            notice("error", f"consumers of stream {made.name} are not registered: {failure}")

    registry.change(stream, kept, consumers=(*there, *consumers))
