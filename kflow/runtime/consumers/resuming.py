"""At the start of the node: mappings that the API made go on where they stood, and decorators' triggers as switched.

Functions that the API made are not known yet: their mappings are put into plans without a function, and wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from kflow import arn
from kflow.aws.calls import Place
from kflow.broker.folder import DataFolder
from kflow.broker.streammap import StreamMap
from kflow.declarations import Handler
from kflow.errors import KflowError
from kflow.lambda_.control import mappingfacts
from kflow.lambda_.control.mappingfacts import Mapping, Switch
from kflow.lambda_.destinations import declared_mapping
from kflow.runtime.consumers import positions
from kflow.runtime.consumers.positions import Opened
from kflow.runtime.plan import functions
from kflow.runtime.plan.functions import FunctionPlan


@dataclass(slots=True)
class Reading:
    """A mapping that the node knows.

    Attributes:
        mapping: as it is now.
        key: of its function.
        index: of the trigger in the function's plan.
        stream_id: of the stream whose position it has.
    """

    mapping: Mapping
    key: str
    index: int
    stream_id: int


@dataclass(slots=True)
class Resumed:
    """What the start has found.

    Attributes:
        readings: mappings that go on.
        waiting: those whose stream is not there, or whose position cannot be read.
        declared: triggers of decorated handlers, by function and index: whether the decorator has them enabled.
        queues: the same of their queues.
        troubles: what people are told.
    """

    readings: list[Reading] = field(default_factory=list)
    waiting: list[Mapping] = field(default_factory=list)
    declared: dict[tuple[str, int], bool] = field(default_factory=dict)
    queues: dict[tuple[str, int], bool] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)


def switched(folder: DataFolder, resumed: Resumed) -> dict[str, Switch]:
    """The switches that are kept; none where they cannot be read, which is said."""
    try:
        return mappingfacts.load_switches(folder)
    except (KflowError, msgspec.MsgspecError) as error:
        resumed.troubles.append(f"mappings are enabled as their decorators say: {error}")
        return {}


def as_switched(
    handler: Handler, maps: Sequence[StreamMap], switches: dict[str, Switch], home: Place, resumed: Resumed
) -> Handler:
    """A decorated handler, with its triggers on or off as the API has switched them.

    Args:
        handler: as loaded.
        maps: the stream of each trigger.
        switches: what was switched.
        home: account and region of the data folder.
        resumed: is told of the triggers.
    """
    triggers = list(handler.triggers)
    for index, trigger in enumerate(triggers):
        uuid = declared_mapping(home.account, home.region, handler.name, maps[index].name)
        resumed.declared[handler.name, index] = trigger.enabled
        enabled = mappingfacts.is_on(switches, uuid, declared=trigger.enabled)
        if enabled != trigger.enabled:
            triggers[index] = msgspec.structs.replace(trigger, enabled=enabled)
    queues = list(handler.queues)
    for index, queue in enumerate(queues):
        source = arn.queue_arn(home.region, home.account, arn.queue_name(queue.queue))
        uuid = declared_mapping(home.account, home.region, handler.name, source)
        resumed.queues[handler.name, index] = queue.enabled
        enabled = mappingfacts.is_on(switches, uuid, declared=queue.enabled)
        queues[index] = msgspec.structs.replace(queue, enabled=enabled)
    return msgspec.structs.replace(handler, triggers=tuple(triggers), queues=tuple(queues))


def resume(
    folder: DataFolder,
    plans: dict[str, FunctionPlan],
    home: Place,
    now_s: float,
    resumed: Resumed,
    take: Callable[[Mapping, StreamMap, Opened], object],
) -> None:
    """Take up the mappings that are kept.

    Args:
        folder: the data folder.
        plans: of the functions, by key; gets the mappings.
        home: account and region of the data folder.
        now_s: monotonic seconds: leases begin to wait here.
        resumed: is told of them.
        take: called for each that runs, with its leases.
    """
    kept, failures = mappingfacts.load_all(folder)
    resumed.troubles += [f"an event source mapping is not served: {failure}" for failure in failures]
    streams = {
        (each.account or home.account, each.region or home.region, each.name): each
        for each in (folder.live_maps() if kept else ())
    }
    held = {(each.key(home), each.source.partition("/consumer/")[0]) for each in kept}
    for mapping in mappingfacts.of_stream(kept):
        if (mapping.moved_from, mapping.source.partition("/consumer/")[0]) in held:
            mapping = msgspec.structs.replace(mapping, moved_from="")  # noqa: PLW2901  # it was: that is another's now
        _, _, _, region, account, _ = mapping.source.split(":", 5)
        stream = streams.get((account, region, mapping.stream))
        key = mapping.key(home)
        try:
            if mapping.is_deleting:
                if stream is not None:
                    positions.forget(folder, key, stream.id)
                mappingfacts.remove(folder, mapping.uuid)
                continue
            if stream is None:
                resumed.waiting.append(mapping)
                continue
            trigger = positions.trigger_of(mapping, enabled=mapping.enabled)
            opened = positions.open_for(folder, key, trigger, stream, now_s, moved_from=mapping.moved_from)
        except KflowError as error:
            resumed.troubles.append(f"mapping {mapping.uuid} of {mapping.function} does not run: {error}")
            resumed.waiting.append(mapping)
            continue
        plan = plans.get(key) or functions.absent(key)
        index = len(plan.handler.triggers)
        plans[key] = plan.with_trigger(index, trigger, stream, source_of(mapping.source, stream))
        resumed.readings.append(Reading(mapping, key, index, stream.id))
        for lease in opened.leases:
            lease.trigger = index
        if mapping.enabled:
            take(mapping, stream, opened)


def source_of(source: str, stream: StreamMap) -> str:
    """The ARN that events name, where it is not what it would be without: a consumer's, or that of another place."""
    return source if arn.consumer_name(source) is not None or not stream.is_home else ""
