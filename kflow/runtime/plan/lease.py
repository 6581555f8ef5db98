"""A lease: the right to run one function on one lane of one shard. Data only; `kflow.runtime.plan.leases` moves it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from kflow.interfaces import FunctionError
from kflow.runtime.messages import DeathNote

KNOWN: Final = frozenset({"lane", "backoff", "window", "retired"})
"""Reasons of a return that say that the lane has a batch: it needs no look before it gets a worker of its own."""


class LeaseState(enum.Enum):
    """Where a lease is; drawn in `kflow.runtime.plan.leases`."""

    PARENTS = "parents"
    NEWS = "news"
    DUE = "due"
    READY = "ready"
    GRANTED = "granted"
    DRAINED = "drained"


@dataclass(slots=True, eq=False)
class Lease:
    """The right to run one function on one lane of a shard.

    Attributes:
        trigger: which trigger of the function reads the shard.
        lane: which lane of the shard.
        parents: indexes of the shards that must be drained, in all lanes, before this one is read.
        generation: counts grants; messages of another generation are void.
        read_offset: how far the last holder had read.
        settled_offset: everything before it is settled, as the last holder said.
        want_counter: where it waits for its due time, the next counter at which it need not wait any longer; 0: none.
        settled_at: when the last batch was settled, else when the lease was made.
        reason: why the last holder returned it; empty while it is held.
        known: it has a batch, as far as the last holder knew.
        retiring: its holder was asked to return it.
        window_due: it is granted because its batching window is over.
        ready_since: since when it waits for a worker.
        alone: it is to run while nothing else does.
        death: how its last holder died, for the next one.
        told: the death that the present holder was told of.
        last_error: what its batch failed with last, for the next holder.
        trouble: what the storage refused it, so that it is told once.
        ages: its records are given up by their age, also while the function may not run.
        last: what became of the last batch: `ok`, `failed`; empty where that is not known.
        place_in_log: the shard: stream id and index.
        family: what the lanes of one function on one shard have in common.
    """

    id: int
    function: str
    stream_id: int
    shard: int
    trigger: int
    settled_at: float
    lane: int = 0
    parents: tuple[int, ...] = ()
    state: LeaseState = LeaseState.READY
    generation: int = 0
    worker: int | None = None
    last_worker: int | None = None
    read_offset: int = 0
    settled_offset: int = 0
    want_counter: int = 0
    due: float | None = None
    reason: str = ""
    known: bool = False
    retiring: bool = False
    window_due: bool = False
    ready_since: float = 0.0
    alone: bool = False
    death: DeathNote | None = None
    told: DeathNote | None = None
    last_error: FunctionError | None = None
    trouble: str = ""
    ages: bool = False
    last: str = ""
    place_in_log: tuple[int, int] = field(init=False)
    family: tuple[str, int, int] = field(init=False)

    def __post_init__(self) -> None:
        self.place_in_log = (self.stream_id, self.shard)
        self.family = (self.function, self.stream_id, self.shard)
