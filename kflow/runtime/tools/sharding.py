"""What tools do to a stream's shards: through the node if one runs, else by themselves under the writer's lock."""

from __future__ import annotations

from typing import Any

import msgspec

from kflow.broker.folder import DataFolder
from kflow.broker.linking import call
from kflow.broker.resharding import carry_out
from kflow.broker.reshardplan import planner
from kflow.broker.writing import writing
from kflow.errors import NoNode
from kflow.runtime.streams.resharding import summary

_CALL_SECONDS = 120.0
"""A parent on a slow disk is waited for; nobody but its own producers waits with it."""


class Resharded(msgspec.Struct, frozen=True, kw_only=True):
    """What was done.

    Attributes:
        stream: name of the stream.
        closed: ids of the shards that take no more records.
        opened: ids of the shards that take theirs.
        open_shards: how many take records now.
    """

    stream: str
    closed: tuple[str, ...]
    opened: tuple[str, ...]
    open_shards: int


def split(folder: DataFolder, name: str, shard: str, at: str | None = None) -> Resharded:
    """Split a shard in two; on return the children take its records.

    Args:
        folder: the data folder.
        name: of the stream.
        shard: its id, or the number in it.
        at: first hash key of the upper child, decimal; None for the middle of the range.

    Raises:
        ResourceNotFound, ResourceInUse, ValidationFailed, InvalidArgument, LimitExceeded: as AWS refuses it.

    Source: documented: SplitShard.
    """
    return _change(folder, "split", name, {"shard": shard, "at": at})


def merge(folder: DataFolder, name: str, shard: str, adjacent: str) -> Resharded:
    """Merge two neighbours, the one with the lower hash keys first; on return their child takes their records.

    Raises:
        ResourceNotFound, ResourceInUse, ValidationFailed, InvalidArgument: as AWS refuses it.

    Source: documented: MergeShards.
    """
    return _change(folder, "merge", name, {"shard": shard, "adjacent": adjacent})


def scale(folder: DataFolder, name: str, shards: int) -> Resharded:
    """Have another number of open shards, of even ranges: at most double of what is there, at least half.

    Raises:
        ResourceNotFound, ResourceInUse, ValidationFailed, InvalidArgument, LimitExceeded: as AWS refuses it.

    Source: documented: UpdateShardCount.
    """
    return _change(folder, "scale", name, {"shards": shards})


def _change(folder: DataFolder, kind: str, name: str, arguments: dict[str, Any]) -> Resharded:
    try:
        answer = call(folder.path, kind, _CALL_SECONDS, name=name, **arguments)
    except NoNode:
        plan_for = planner((folder.account, folder.region), kind, name, arguments)
        with writing(folder) as log:
            plan = plan_for(folder.map(name))
            carry_out(log, plan)
        answer = summary(plan)
    return msgspec.convert(answer, Resharded)
