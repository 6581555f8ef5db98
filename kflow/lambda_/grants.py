"""What an engine and the host that holds its lease say to each other: grants in, steps out."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from kflow.broker.checkpoints import Slot
from kflow.broker.parked import ParkedBatch
from kflow.interfaces import BatchOutcome, FunctionError
from kflow.records import Position


class StepKind(enum.StrEnum):
    """What the host does next."""

    AGAIN = "again"
    """Call `step` again."""
    IDLE = "idle"
    """All is read and settled: return the lease until something is appended past `read_offset`."""
    WAIT = "wait"
    """Return the lease until `due_in_ms` has passed."""
    HOLD = "hold"
    """Keep the lease, and the engine: an outcome could not be written. Call `step` again after `due_in_ms`."""


class Death(NamedTuple):
    """How the worker that last held the lease died, as its parent reported it.

    Attributes:
        worker_pid: the process.
        request_id: set where the node killed it: only the invocation that it timed out counts.
        error: what the attempt failed with.
    """

    worker_pid: int
    request_id: bytes | None
    error: FunctionError


class Grant(NamedTuple):
    """What the node says when it hands out the lease. A grant also says that what was waited for is over.

    Attributes:
        epoch: the node's epoch.
        worker_pid: the process that holds the lease now.
        since_completion_ms: monotonic time since the last settled batch of this lease, else since it was made.
        death: how the last holder died, where that may count as an attempt; handed over with one grant only.
        window_over: batching windows end at once, all of them: a drain.
        window_due: the window that was waited for is over: the first batch is delivered as it is.
        alone: nothing else runs while this lease is held.
        previous_epoch_clean: whether the node before this one stopped of its own accord.
        last_error: what the batch failed with last, in full, where the node still knows: a slot keeps its beginning.
        throttled: the function may not run now: what is too old is given up, and nothing is attempted.
    """

    epoch: int
    worker_pid: int
    since_completion_ms: int = 0
    death: Death | None = None
    window_over: bool = False
    window_due: bool = False
    alone: bool = False
    previous_epoch_clean: bool = True
    last_error: FunctionError | None = None
    throttled: bool = False


class Step(NamedTuple):
    """What one call of `step` came to.

    Attributes:
        kind: what to do next.
        due_in_ms: for WAIT and HOLD, from the time that `step` was told.
        reason: `backoff`, `window`, `tumbling` (a window is open, and all there is has been read), `look-ahead` (other
            lanes of the shard are too far behind), `suspect`, `storage`, `damage`, `alone` (a suspect batch is
            through: others may run), or `throttled` (a batch is at hand, and the function may not run); else empty.
        position: everything before it is settled.
        read_offset: logical offset up to which the shard was read.
        want_counter: in a window, the next counter of the shard at which the batch is full, in an open tumbling window
            at which there is something to read; 0 elsewhere.
        outcomes: what has become durable, for people.
        detail: for `storage` and `damage`, what failed.
        damaged_at: for `damage`, the logical offset that cannot be read; else -1.
    """

    kind: StepKind
    due_in_ms: int | None
    reason: str
    position: Position
    read_offset: int
    want_counter: int
    outcomes: tuple[BatchOutcome, ...]
    detail: str = ""
    damaged_at: int = -1


class Slots(Protocol):
    """Durable state of leases. `kflow.broker.checkpoints.SlotFile` is one."""

    def load(self, shard: int, lane: int = 0) -> Slot:
        """The slot as it was last stored; the same object where nothing has changed."""
        ...

    def store(self, shard: int, lane: int, slot: Slot) -> None:
        """Make it durable, or raise."""
        ...

    def before(self, shard: int, lane: int = 0) -> Slot | None:
        """The slot as it was before that; None where it is not known."""
        ...


class Windows(Protocol):
    """States of tumbling windows. `kflow.broker.windows.WindowStore` is one."""

    def put(self, function: str, stream_id: int, shard: int, number: int, state: bytes) -> None:
        """Keep a state under a number, durably, or raise."""
        ...

    def get(self, function: str, stream_id: int, shard: int, number: int) -> bytes | None:
        """The state of a number; None where there is none."""
        ...

    def prune(self, function: str, stream_id: int, shard: int, keep: Iterable[int]) -> None:
        """Forget all of a shard's states but those of some numbers."""
        ...


class Parking(Protocol):
    """Where records go that are given up. `kflow.broker.parked.ParkedStore` is one."""

    def park(self, entry: ParkedBatch) -> int:
        """Keep it, and say under which number."""
        ...

    def find(self, function: str, stream_id: int, shard: int, from_counter: int) -> ParkedBatch | None:
        """The first of a consumer's shard at or after a counter."""
        ...
