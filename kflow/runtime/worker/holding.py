"""What a worker does with a grant: run the lanes it holds, return each as soon as it has nothing to do now.

One lane: its engine is stepped until it waits for something, or the node wants the lease back.

Several lanes of one shard: all are looked at first. Those without a batch are returned at once, and so are as many of
the others as the node has places for; the rest run in turn, one batch each, the lane that is furthest behind first: so
none runs ahead of the others until it has to wait for them, and what one has read is still in memory for the next.
"""

from __future__ import annotations

import os
from typing import Final

import msgspec

from kflow.clock import Clock, Now
from kflow.interfaces import BatchResult
from kflow.lambda_.destinations import DROP
from kflow.lambda_.eventcounts import EventCounts
from kflow.lambda_.grants import Death, Step, StepKind
from kflow.lambda_.grants import Grant as EngineGrant
from kflow.lambda_.mapping import EventSourceMapping
from kflow.records import Position
from kflow.runtime.messages import Alive, Channel, Grant, LaneGrant, Returned, WorkerSpec
from kflow.runtime.worker.environments import ExecutionEnvironment
from kflow.runtime.worker.inbox import Inbox
from kflow.runtime.worker.live import Live

LOOK_MS: Final = 5
"""Between batches a worker looks for a message at most this often: a look is a system call."""
SIGN_MS: Final = 2_000
"""A sign of life between invocations at least this often: parking thousands of records one by one takes its time."""
STORAGE_MS: Final = 1_000
"""A shard that cannot be opened is tried again after this long."""
COUNT_MS: Final = 1_000
"""Where events are counted, the counts are told at least this often."""
DAMAGE_MS: Final = 1_000
"""A lease that met damage comes again after this long, or as soon as the writer has looked."""


class _Lane:
    """One lane that is held."""

    __slots__ = ("engine", "grant", "last", "position", "read_offset", "settled", "want_counter")

    def __init__(self, grant: LaneGrant, engine: EventSourceMapping) -> None:
        self.grant = grant
        self.engine = engine
        self.settled = False
        self.last = ""
        self.read_offset = 0
        self.position = Position(0, 0)
        self.want_counter = 0


class Holding:
    """The lanes of one grant, until all have been returned.

    Attributes:
        holds: whether a lane was returned with records of it in memory.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        grant: Grant,
        engines: list[EventSourceMapping],
        *,
        environment: ExecutionEnvironment,
        channel: Channel,
        inbox: Inbox,
        live: Live,
        clock: Clock,
    ) -> None:
        """Take a grant over.

        Args:
            spec: of the worker.
            grant: the grant.
            engines: one for each of its lanes.
            environment: runs the function.
            channel: to the node.
            inbox: from the node.
            live: to people.
            clock: the time.
        """
        self.holds = False
        self._spare = grant.spare
        self._environment = environment
        self._channel = channel
        self._inbox = inbox
        self._live = live
        self._clock = clock
        self._returns: list[Returned] = []
        self._read: Now | None = None
        self._signed = self._looked = clock.now().monotonic_ms
        self._counts = _counts(spec, grant.trigger)
        self._counted = self._signed
        self._lanes = [_Lane(lane, engine) for lane, engine in zip(grant.lanes, engines, strict=True)]
        for lane, engine in zip(grant.lanes, engines, strict=True):
            death = lane.death
            engine.resume(
                EngineGrant(
                    epoch=spec.epoch,
                    worker_pid=os.getpid(),
                    since_completion_ms=lane.since_completion_ms,
                    death=None if death is None else Death(death.worker_pid, death.request_id, death.error),
                    window_over=grant.window_over,
                    window_due=lane.window_due,
                    alone=lane.alone,
                    previous_epoch_clean=spec.previous_epoch_clean,
                    last_error=lane.last_error,
                    throttled=grant.throttled,
                )
            )

    def run(self) -> None:
        """Run until everything has been returned, or the node is gone."""
        if len(self._lanes) == 1:
            self._run_one(self._lanes[0])
        else:
            self._run_several()
        self._send_returns()

    def _run_one(self, lane: _Lane) -> None:
        self._enter(lane)
        while self._step(lane):
            pass

    def _run_several(self) -> None:
        found = [lane for lane in self._lanes if self._has_batch(lane)]
        for _ in range(min(self._spare, len(found) - 1)):
            self._give_back(found.pop(), "lane", 0)
        self._send_returns()
        while len(found) > 1:
            lane = min(found, key=_behind)
            self._enter(lane)
            found.remove(lane)
            if self._has_batch(lane) and self._step(lane):
                found.append(lane)
            self._send_returns()
        for last in found:
            if self._has_batch(last):
                self._run_one(last)

    # ------------------------------------------------------------------ steps

    def _has_batch(self, lane: _Lane) -> bool:
        """Whether the lane's next step is an attempt; where it is not, the lane has been returned."""
        if self._environment.broken or self._inbox.wants_back(lane.grant.lease, lane.grant.generation):
            self._give_back(lane, "unread", 0)
            return False
        while True:
            step = lane.engine.look(self._now(lane))
            if step is None:
                return True
            if not self._after(lane, step):
                return False

    def _step(self, lane: _Lane) -> bool:
        """One step; with several lanes it is an attempt. Whether the lane is still held."""
        return self._after(lane, lane.engine.step(self._now(lane)))

    def _after(self, lane: _Lane, step: Step) -> bool:
        """What follows from a step. Whether the lane is still held, and to be stepped again."""
        while True:
            now = self._read = self._clock.now()
            if self._counts is not None:
                self._count(self._counts, lane, step, now.monotonic_ms)
            for outcome in step.outcomes:
                self._live.tell(outcome, now.monotonic_ms)
                lane.settled = lane.settled or outcome.succeeded > 0 or outcome.result is not BatchResult.FAILED
                lane.last = "ok" if outcome.result is BatchResult.OK else "failed"
            lane.read_offset, lane.position = step.read_offset, step.position
            lane.want_counter = step.want_counter
            if step.kind is not StepKind.HOLD:
                break
            if not self._hold(lane, step):
                return False
            step = lane.engine.step(self._now(lane))
        if step.kind is StepKind.AGAIN:
            if not self._environment.broken and not self._wanted_back(lane, now.monotonic_ms):
                return True
            self._give_back(lane, "retired", 0, step.detail)
        elif step.kind is StepKind.IDLE:
            self._give_back(lane, "idle", None, step.detail)
        elif step.reason == "damage":
            self._give_back(lane, "damage", step.due_in_ms or DAMAGE_MS, step.detail, step.damaged_at)
        else:
            self._give_back(lane, step.reason, step.due_in_ms or 0, step.detail)
        return False

    def _count(self, counts: EventCounts, lane: _Lane, step: Step, now_ms: int) -> None:
        polled, filtered = lane.engine.take_polled()
        if polled:
            counts.polled(polled, filtered)
        for outcome in step.outcomes:
            counts.outcome(outcome)
        if now_ms - self._counted >= COUNT_MS:
            self._counted = now_ms
            self._tell_counts(counts)

    def _tell_counts(self, counts: EventCounts) -> None:
        counted = counts.take()
        if counted is not None:
            self._live.count(counted)

    def _hold(self, lane: _Lane, step: Step) -> bool:
        """An outcome cannot be written: wait. Returns False where the node is gone: the slot says what is so."""
        grant = lane.grant
        self._channel.send(Alive(grant.generation, step.detail, grant.lease))
        self._inbox.wait((step.due_in_ms or 0) / 1000)
        self._read = None
        self._signed = self._clock.now().monotonic_ms
        return not self._inbox.closed

    def _enter(self, lane: _Lane) -> None:
        self._environment.enter_lease(lane.grant.lease, lane.grant.generation)

    def _now(self, lane: _Lane) -> Now:
        """The time; as it was read after the step before, if there was one: nothing has been waited for since."""
        now, self._read = self._read or self._clock.now(), None
        if now.monotonic_ms - self._signed > SIGN_MS:
            self._signed = now.monotonic_ms
            self._channel.send(Alive(lane.grant.generation, "", lane.grant.lease))
        return now

    # ------------------------------------------------------------------ giving back

    def _wanted_back(self, lane: _Lane, now_ms: int) -> bool:
        if now_ms - self._looked >= LOOK_MS:
            self._looked = now_ms
            self._inbox.look()
        return self._inbox.wants_back(lane.grant.lease, lane.grant.generation)

    def _give_back(self, lane: _Lane, reason: str, due_ms: int | None, detail: str = "", damaged_at: int = -1) -> None:
        grant = lane.grant
        self.holds = self.holds or reason != "idle"
        self._returns.append(
            Returned(
                lease=grant.lease,
                generation=grant.generation,
                reason=reason,
                due_ms=due_ms,
                read_offset=lane.read_offset,
                want_counter=lane.want_counter,
                settled=lane.settled,
                broken=self._environment.broken,
                last_error=lane.engine.last_error,
                detail=detail,
                settled_offset=lane.position.offset,
                damaged_at=damaged_at,
                last=lane.last,
            )
        )

    def _send_returns(self) -> None:
        """Return what is to be returned, in one system call; what people are to know of it is told before."""
        if not self._returns or self._inbox.closed:
            return
        self._live.flush()
        if self._counts is not None:
            self._tell_counts(self._counts)
        dropped = self._live.take_dropped()
        if dropped:
            self._returns[0] = msgspec.structs.replace(self._returns[0], dropped=dropped)
        self._channel.send(*self._returns)
        self._returns.clear()


def _counts(spec: WorkerSpec, trigger: int) -> EventCounts | None:
    """Where the mapping asks for it."""
    declared = spec.handler.triggers[trigger]
    if not declared.counts:
        return None
    options = declared.options
    return EventCounts(
        spec.handler.name,
        declared.uuid,
        filters=bool(options.filters),
        delivers=options.on_failure not in (None, DROP),
    )


def _behind(lane: _Lane) -> Position:
    return lane.position


def refused(grant: Grant, detail: str) -> list[Returned]:
    """The returns of a grant whose shard cannot be opened, for a reason that may pass."""
    return [Returned(lane.lease, lane.generation, "storage", STORAGE_MS, 0, detail=detail) for lane in grant.lanes]
