"""Places: the worker processes of a node as the plan sees them, and what a plan consists of. Data only."""

from __future__ import annotations

import enum
import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from kflow.runtime.plan.lease import Lease

SLICE_S: Final = 1.0
"""A busy worker gives its place up after this long (or ten times its start time) when something else waits."""
IDLE_S: Final = 60.0
"""An idle worker ends after this long."""
BACKOFF_S: Final = (0.1, 10.0)
"""Starts of one function wait this long after a death: the first value, doubled up to the second."""
JOB_BACKOFF_S: Final = 0.4
"""No longer than this where it ran a job: people try a function again and again that ends its process."""

NESTED: Final = 64
"""So many places that wait for another function are not counted: a function that invokes itself ends there."""

Unit = list[Lease]
"""Leases that are granted together: lanes of one shard of which it is not known whether they have a batch; else one."""
UnitKey = int | tuple[int, int]


def owner_of(key: str) -> str:
    """A function's key without its qualifier."""
    return key.partition(":")[0]


class Job(NamedTuple):
    """A function is to be run once: an invocation, or a parked entry that is sent again.

    Attributes:
        number: of the invocation, or of the entry.
        trigger: for an entry, which trigger of its function it came by; None: it is an invocation.
        since: since when it waits.
        until: from then on it is not begun any more.
    """

    number: int
    trigger: int | None = None
    since: float = 0.0
    until: float = math.inf


class PlaceState(enum.Enum):
    """What a worker process is up to."""

    IDLE = "idle"
    BUSY = "busy"
    STOPPING = "stopping"


@dataclass(slots=True, eq=False)
class Place:
    """A worker process, as the plan sees it.

    Attributes:
        since: when the state last changed.
        leases: what it holds, by id: lanes of one shard.
        running: id of the lease whose batch it runs, once that is known: then it has looked at all of them.
        start_s: how long its start took; 0 while unknown.
        job: what it runs beside leases.
        retiring: it has been asked to return all it holds.
        is_stale: its function means something else by now: it ends with what it runs.
        looks: what it holds it may not run, only look at: it is no invocation.
        owner: the function without a qualifier.
    """

    id: int
    function: str
    since: float
    state: PlaceState = PlaceState.IDLE
    leases: dict[int, Lease] = field(default_factory=dict)
    running: int | None = None
    job: Job | None = None
    is_stale: bool = False
    start_s: float = 0.0
    retiring: bool = False
    looks: bool = False
    owner: str = field(init=False)

    def __post_init__(self) -> None:
        self.owner = owner_of(self.function)

    @property
    def slice_end(self) -> float:
        """From when on it is to give its place up if something waits."""
        return self.since + max(SLICE_S, 10 * self.start_s)


@dataclass(slots=True, eq=False)
class Pool:
    """What is kept per function.

    Attributes:
        ready: leases that wait for a worker, as they are to be granted; longest waiting first.
        jobs: what is to be run once, for somebody who waits.
        deaths: of its workers, since a batch was settled.
        not_before: no worker of it is started before this.
        is_missing: there is no such function at the moment.
        is_blocked: its leases wait until it may run: it is missing, or may run no time at once.
        looks: the pool of those of its leases whose records age meanwhile; None in that pool itself.
        name: of this pool.
        owner: the function without a qualifier: limits are its.
    """

    function: str
    ready: OrderedDict[UnitKey, Unit] = field(default_factory=OrderedDict)
    jobs: deque[Job] = field(default_factory=deque)
    deaths: int = 0
    not_before: float = 0.0
    is_missing: bool = False
    is_blocked: bool = False
    looks: Pool | None = None
    name: str = ""
    owner: str = field(init=False)

    def __post_init__(self) -> None:
        self.owner = owner_of(self.function)
        if not self.name:
            self.name = self.function
            self.looks = Pool(self.function, name=f"{self.function} looks")

    @property
    def waits_since(self) -> float:
        """Since when the first of its waiting leases waits."""
        return next(iter(self.ready.values()))[0].ready_since

    def died(self, now: float, *, in_job: bool = False) -> None:
        """A worker ended other than as it was asked to: the next one starts later, and soon where somebody waits."""
        most_s = JOB_BACKOFF_S if in_job else BACKOFF_S[1]
        self.not_before = now + min(BACKOFF_S[0] * 2 ** min(self.deaths, 16), most_s)
        self.deaths += 1


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Start a worker for a function; it is an idle place at once, and grants may be sent to it before it lives."""

    worker: int
    function: str


@dataclass(frozen=True, slots=True)
class GrantLease:
    """Send a grant.

    Attributes:
        leases: lanes of one shard, at least one.
        spare: how many of those that have a batch the worker is to leave to others at once.
        throttled: nothing may be run: records that are too old are given up, and the rest waits.
    """

    worker: int
    leases: tuple[Lease, ...]
    spare: int = 0
    throttled: bool = False


@dataclass(frozen=True, slots=True)
class SendJob:
    """Have a worker run a job."""

    worker: int
    job: Job


@dataclass(frozen=True, slots=True)
class RefuseJob:
    """Tell who waits that a job is not run: no place was free in time."""

    job: Job


@dataclass(frozen=True, slots=True)
class RetireLease:
    """Ask a busy worker to return a lease at the end of the attempt."""

    worker: int
    lease: int
    generation: int


@dataclass(frozen=True, slots=True)
class StopWorker:
    """Ask an idle worker to end."""

    worker: int


Action = StartWorker | GrantLease | SendJob | RefuseJob | RetireLease | StopWorker
