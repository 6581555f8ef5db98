"""The parked store as the engines of one mapping see it: what they give up names the mapping, and the node is told."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from kflow import arn
from kflow.broker.folder import DataFolder
from kflow.broker.parked import Origin, ParkedBatch, ParkedStore
from kflow.broker.streammap import StreamMap
from kflow.lambda_.destinations import DROP, declared_mapping
from kflow.runtime.messages import WorkerSpec


class Parking:
    """A `kflow.lambda_.grants.Parking`. Belongs to the worker's thread.

    Args:
        store: where records are kept.
        origin: the mapping.
        tell: called with the number of what has a destination, once it is kept.
    """

    def __init__(self, store: ParkedStore, origin: Origin, tell: Callable[[int], object]) -> None:
        self._store = store
        self._origin = origin
        self._tell = tell

    def park(self, entry: ParkedBatch) -> int:
        """See `ParkedStore.park`."""
        number = self._store.park(replace(entry, origin=self._origin))
        if self._origin.destination:
            self._tell(number)
        return number

    def find(self, function: str, stream_id: int, shard: int, from_counter: int) -> ParkedBatch | None:
        """See `ParkedStore.find`."""
        return self._store.find(function, stream_id, shard, from_counter)


def origin_of(spec: WorkerSpec, trigger: int, stream: StreamMap, folder: DataFolder) -> Origin:
    """The mapping of a function's trigger, as its failure documents name it."""
    handler = spec.handler
    package, declared = handler.package, handler.triggers[trigger]
    account, region, function, version = spec.account, spec.region, handler.name, "$LATEST"
    if package is not None:
        account, region = package.account or account, package.region or region
        function, version = package.function, package.version
    _, colon, qualifier = handler.name.partition(":")
    stream_account, stream_region = folder.place_of(stream)
    wanted = declared.options.on_failure
    return Origin(
        function_arn=arn.function_arn(region, account, function) + colon + qualifier,
        stream_arn=arn.stream_arn(stream_region, stream_account, stream.name),
        mapping=declared.uuid or declared_mapping(account, region, function, stream.name),
        source_arn=spec.sources[trigger] if spec.sources else "",
        version=version,
        role=package.role if package is not None else "",
        destination="" if wanted in (None, DROP) else wanted,
    )
