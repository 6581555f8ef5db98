"""The functions of a node as data, and what a worker is told of them: its spec, and grants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from msgspec import structs

from kflow.broker import streammap
from kflow.broker.streammap import StreamMap
from kflow.declarations import Handler, StreamTrigger, sourceless
from kflow.runtime.messages import Grant, LaneGrant, WorkerSpec
from kflow.runtime.plan.lease import Lease
from kflow.runtime.plan.places import GrantLease

TIMEOUT_S: Final = 3
MEMORY_MB: Final = 128
"""AWS's defaults for a function. Source: documented: CreateFunction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionPlan:
    """A function to run: its handler, the streams of its triggers, what it may use.

    Attributes:
        sources: by the stream's name, the ARN of the registered consumer that it reads the stream as.
        exists: whether there is such a function; without it its mappings wait.
    """

    handler: Handler
    maps: tuple[StreamMap, ...]
    timeout_s: int
    memory_mb: int
    environment: Mapping[str, str]
    sources: Mapping[str, str] = field(default_factory=dict)
    exists: bool = True

    def triggers_on(self, stream: StreamMap) -> list[int]:
        """Which of its triggers read a stream."""
        return [index for index, each in enumerate(self.maps) if each.id == stream.id]

    @property
    def region(self) -> str:
        """Where the function is; empty: at home."""
        return "" if self.handler.package is None else self.handler.package.region

    @property
    def account(self) -> str:
        """Whose the function is; empty: the folder's."""
        return "" if self.handler.package is None else self.handler.package.account

    def with_trigger(self, index: int, trigger: StreamTrigger, stream: StreamMap, source: str) -> FunctionPlan:
        """The same with another trigger in one place, or one more at the end.

        Args:
            index: of the trigger.
            trigger: what it is from now on.
            stream: that it reads.
            source: ARN that its events name; empty: the stream's.
        """
        triggers, maps = list(self.handler.triggers), list(self.maps)
        triggers[index : index + 1] = [trigger]
        maps[index : index + 1] = [stream]
        sources = {**self.sources, stream.name: source} if source else self.sources
        handler = structs.replace(self.handler, triggers=tuple(triggers))
        return replace(self, handler=handler, maps=tuple(maps), sources=sources)

    def missing(self) -> FunctionPlan:
        """What is left of it without the function: its mappings, and no code."""
        return replace(self, handler=nothing(self.handler.name, self.handler.triggers), exists=False)

    def with_map(self, trigger: int, stream: StreamMap) -> FunctionPlan:
        """The same with another map for one of its triggers."""
        return replace(self, maps=(*self.maps[:trigger], stream, *self.maps[trigger + 1 :]))

    def place(self, lease: Lease) -> str:
        """A lease of it, for people."""
        lane = f" lane {lease.lane}" if self.handler.triggers[lease.trigger].options.parallelization_factor > 1 else ""
        return f"{lease.function} {self.maps[lease.trigger].name}/{lease.shard}{lane}"


def nothing(name: str, triggers: tuple[StreamTrigger, ...] = ()) -> Handler:
    """What stands for a function that there is not: a worker of it may look at records, and never runs any code."""
    return sourceless(name, None, triggers=triggers)


def absent(name: str) -> FunctionPlan:
    """The plan of a function that there is not, for mappings that wait for it."""
    return FunctionPlan(
        handler=nothing(name), maps=(), timeout_s=TIMEOUT_S, memory_mb=MEMORY_MB, environment={}, exists=False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """What the node needs from the settings, and which node of the folder it is.

    Attributes:
        epoch: counts the nodes of the folder.
        previous_epoch_clean: whether the one before ended of its own accord.
    """

    region: str
    account: str
    max_workers: int
    retry_backoff_scale: float
    epoch: int
    previous_epoch_clean: bool


def worker_spec(
    worker: int, plan: FunctionPlan, options: NodeOptions, *, data_dir: str, init_in_invocation: bool, every_batch: bool
) -> WorkerSpec:
    """All that a worker is told at its start."""
    return WorkerSpec(
        worker=worker,
        handler=plan.handler,
        data_dir=data_dir,
        maps=tuple(map(_text, plan.maps)),
        epoch=options.epoch,
        previous_epoch_clean=options.previous_epoch_clean,
        region=plan.region or options.region,
        account=plan.account or options.account,
        retry_backoff_scale=options.retry_backoff_scale,
        timeout_s=plan.timeout_s,
        memory_mb=plan.memory_mb,
        environment=dict(plan.environment),
        init_in_invocation=init_in_invocation,
        every_batch=every_batch,
        sources=tuple(plan.sources.get(each.name, "") for each in plan.maps) if plan.sources else (),
    )


_TEXTS_MOST: Final = 10_000
_TEXTS: dict[int, tuple[StreamMap, bytes]] = {}


def _text(stream: StreamMap) -> bytes:
    """A map as workers are told of it; kept, for a function may read a thousand streams and start again and again."""
    known = _TEXTS.get(stream.id)
    if known is None or known[0] is not stream:
        if len(_TEXTS) >= _TEXTS_MOST:
            _TEXTS.clear()
        known = _TEXTS[stream.id] = (stream, streammap.encode(stream))
    return known[1]


def grant(action: GrantLease, now: float, *, window_over: bool) -> Grant:
    """The message of a grant. A death note goes with one grant only: here it is taken off the lease."""
    first = action.leases[0]
    lanes = []
    for lease in action.leases:
        death = lease.told = lease.death
        lease.death = None
        lanes.append(
            LaneGrant(
                lease.id,
                lease.generation,
                int((now - lease.settled_at) * 1000),
                lease.lane,
                lease.window_due,
                lease.alone,
                death,
                lease.last_error,
            )
        )
    return Grant(first.trigger, first.shard, tuple(lanes), action.spare, window_over, action.throttled)
