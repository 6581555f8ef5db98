"""Splits, merges and scalings while producers append and handlers run: who waits for what, and for how long.

    asked --checks--> queued --> children made (a thread) --> parents held --nothing under way--> published (a thread)
                                                                                                        |
    answered <-- catalogue (a thread) <-- parents' producers told to route again <-- readers told <-----+

Only the parents' appends wait, from the hold to the publication: one sync of what they got last, and one of the map.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from kflow.broker.log import Log
from kflow.broker.resharding import Plan, Reshard
from kflow.broker.reshardplan import Planner
from kflow.broker.sequence import shard_id
from kflow.broker.streammap import StreamMap
from kflow.errors import KflowError, ResourceInUse
from kflow.runtime.errands import Errands, attempt, guarded

log = logging.getLogger(__name__)

T = TypeVar("T")
Told = Callable[[dict[str, Any] | KflowError], None]
Changed = Callable[[StreamMap, StreamMap], None]


class Threads(Protocol):
    """Does work off the loop. `kflow.runtime.upkeep.Upkeep` is one."""

    def submit(self, work: Callable[[], T], then: Callable[[T | KflowError], object]) -> None:
        """Do `work` in a thread; `then` is called on the loop with what it returned, or with the error it raised."""
        ...


class Holding(Protocol):
    """What appends, as far as resharding concerns it. `kflow.runtime.intake.appender.Appender` is one."""

    def hold(self, stream: StreamMap, indexes: Sequence[int], then: Callable[[], None]) -> None:
        """Append nothing more to these shards; call `then` once nothing is under way there."""
        ...

    def release(self, stream: StreamMap, indexes: Sequence[int], *, closed: bool) -> None:
        """Go on with them; where they are closed, what waited is answered as stale."""
        ...


class Resharding:
    """The changes of shards in one node. Belongs to the loop's thread.

    Args:
        store: the log.
        appends: what appends to it.
        threads: do the file work.
        errands: the queue that all administration shares.
        changed: told of each published map, as (old, new), before anything can be appended to a child; from its return
            on, blocks that name the old map are refused.
    """

    def __init__(self, store: Log, appends: Holding, threads: Threads, errands: Errands, changed: Changed) -> None:
        self._log = store
        self._appends = appends
        self._threads = threads
        self._errands = errands
        self._changed = changed
        self._updating: set[int] = set()

    def change(self, stream: StreamMap, planner: Planner, told: Told) -> None:
        """Change the shards of a stream, when the errands before this one are done.

        Args:
            stream: a map of it.
            planner: makes the plan out of the map as it is then; raises what AWS refuses with.
            told: called on the loop with what was done, or why it was not.

        Raises:
            ResourceNotFound: there is no such stream.
            ResourceInUse: its shards are being changed.

        Source: recorded: SplitShard while UPDATING; chosen: the answer comes when it is done, not at once.
        """
        folder = self._log.folder
        if stream.id in self._updating:
            account, _ = folder.place_of(stream)
            raise ResourceInUse(f"Stream {stream.name} under account {account} not ACTIVE, instead in state UPDATING")
        self._updating.add(stream.id)

        def begin(over: Callable[[], None]) -> None:
            def end(result: dict[str, Any] | KflowError) -> None:
                self._updating.discard(stream.id)
                told(result)
                over()

            plan = attempt(lambda: planner(folder.current(stream)))
            if isinstance(plan, KflowError):
                end(plan)
            else:
                _Change(Reshard(self._log, plan), self._appends, self._threads, self._changed, end).prepare()

        self._errands.add(begin)


class _Change:
    """One change on its way through the steps of the module's docstring."""

    def __init__(self, reshard: Reshard, appends: Holding, threads: Threads, changed: Changed, end: Told) -> None:
        self._reshard = reshard
        self._appends = appends
        self._submit = threads.submit
        self._changed = changed
        self._end = end
        self._old = reshard.plan.stream
        self._parents = reshard.plan.closing

    def prepare(self) -> None:
        self._submit(guarded(self._reshard.prepare), self._prepared)

    def _prepared(self, failure: KflowError | None) -> None:
        if failure is not None:
            self._abandon(failure)
            return
        seal = guarded(self._reshard.seal)
        self._appends.hold(self._old, self._parents, lambda: self._submit(seal, self._sealed))

    def _sealed(self, new: StreamMap | KflowError) -> None:
        if isinstance(new, KflowError):
            self._appends.release(self._old, self._parents, closed=False)
            self._abandon(new)
            return
        try:
            self._changed(self._old, new)
        except KflowError as error:  # it happened all the same: who was not told finds it at the next start
            log.error("not everybody knows the new shards stream=%s error=%s", new.name, error)  # noqa: TRY400  # enough
        self._appends.release(self._old, self._parents, closed=True)
        self._submit(guarded(self._reshard.finish), self._finished)

    def _finished(self, failure: KflowError | None) -> None:
        if failure is not None:
            log.error("resharded, but not tidied up stream=%s error=%s", self._old.name, failure)
        self._end(summary(self._reshard.plan))

    def _abandon(self, error: KflowError) -> None:
        self._submit(guarded(self._reshard.abandon), lambda _: self._end(error))


def summary(plan: Plan) -> dict[str, Any]:
    """What a tool is told: `{"stream", "closed": [shard ids], "opened": [shard ids], "open_shards": int}`."""
    before = len(plan.stream.open_shards)
    return {
        "stream": plan.stream.name,
        "closed": [shard_id(index) for index in plan.closing],
        "opened": [shard_id(index) for index in plan.opening],
        "open_shards": before - len(plan.closing) + len(plan.opening),
    }
