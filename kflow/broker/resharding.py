"""Resharding as file work: children made, parents made durable, the new map published, the parents closed.

            prepare                                   seal                                 finish
    NEW ------------> PREPARED ---------------------------------------> PUBLISHED --------------> DONE
     |                    |     the caller holds the parents' appends
     +-------- abandon ---+---> ABANDONED

The replacement of the map is the one moment at which it happens. A crash before it leaves child folders that no map
names, which the next start removes; a crash after it leaves parents that the map says are closed, and their control
pages follow at the next start. Whoever carries a plan out holds `writer.lock`; what to do is planned by `reshardplan`.

Source: documented: SplitShard, MergeShards, UpdateShardCount; recorded: numbers of parents and children.
"""

from __future__ import annotations

import enum
import logging
import os
from collections.abc import Iterable

from kflow.broker import streammap, streams
from kflow.broker.ctl import ARRIVAL, CLOSED, DIRTY, POISONED, Ctl
from kflow.broker.files import storage_error
from kflow.broker.log import Log
from kflow.broker.reshardplan import Plan, merge, parsed, scale, split
from kflow.broker.streammap import StreamMap
from kflow.broker.sync import SyncTask, not_held, run_all
from kflow.clock import Clock, SystemClock
from kflow.errors import KflowError, StaleMap, StorageError

__all__ = ["Phase", "Plan", "Reshard", "carry_out", "merge", "parsed", "scale", "split"]

log = logging.getLogger(__name__)


class Phase(enum.Enum):
    """How far it is; drawn in the module's docstring."""

    NEW = "new"
    PREPARED = "prepared"
    PUBLISHED = "published"
    DONE = "done"
    ABANDONED = "abandoned"


class Reshard:
    """One plan on its way. Each step runs in any thread, one after the other; between two of them anything may die.

    Attributes:
        plan: what is to be done.
        phase: how far it is.
        new: the map, once it is published.
    """

    def __init__(self, store: Log, plan: Plan, *, clock: Clock | None = None) -> None:
        self.plan = plan
        self.phase = Phase.NEW
        self.new: StreamMap | None = None
        self._log = store
        self._folder = store.folder
        self._files = store.folder.files
        self._clock = clock or SystemClock()
        self._created_s = 0
        self._path = os.fspath(self._folder.stream_dir(plan.stream))
        self._what = f"change the shards of stream {plan.stream.name}"

    def prepare(self) -> None:
        """Make the children's folders; parents go on taking records meanwhile.

        Raises:
            ResourceNotFound: the stream is gone.
            StaleMap: its shards have changed since the plan was made.
            StorageError: something could not be written; `abandon` it.
        """
        plan, files = self.plan, self._files
        self._check_current()
        try:
            self._reserve()
            for birth in plan.births:
                path = f"{self._path}/{birth.index}"
                streams.remove_unborn(files, path)  # a process may have died here before
                files.mkdir(path)
                Ctl.create(
                    path, files, stream_id=plan.stream.id, shard=birth.index, sync=self._folder.fsync == "always"
                )
            if self._folder.syncs:
                files.sync_folder(self._path)
        except OSError as error:
            raise storage_error(error, self._what) from error
        self.phase = Phase.PREPARED

    def seal(self) -> StreamMap:
        """Publish. From before this until it returns the caller lets nobody append to the parents.

        Everything that the parents hold is durable before the map is replaced (unless the policy is `none`): no record
        of a child outlives one before it.

        Returns:
            The new map; on return it is what everybody reads, and parents are closed.

        Raises:
            ResourceNotFound, StaleMap: as in `prepare`.
            StorageError: the old map stands; `abandon` it.
        """
        plan = self.plan
        self._check_current()
        try:
            self._recover_parents()
            self._sync_parents()
            close_ms = self._hand_arrivals_down()
            if self._created_s <= close_ms // 1000:  # children are created after their parents' close
                self._reserve(after=close_ms // 1000)
            new = plan.published(self._created_s, close_ms)
            self._publish(new)
        except OSError as error:
            raise storage_error(error, self._what) from error
        self.new = new
        self.phase = Phase.PUBLISHED
        log.info(
            "resharded stream=%s generation=%d closed=%s opened=%s",
            new.name,
            new.generation,
            plan.closing,
            plan.opening,
        )
        try:
            self._close_parents()
        except StorageError as error:  # `finish` tries again, and the next start does
            log.warning("parents not closed yet error=%s", error)
        return new

    def finish(self) -> None:
        """What nobody waits for: the catalogue, and parents that could not be closed at once.

        Raises:
            StorageError: a parent's control page cannot be written; consumers wait at its end until the next start.
        """
        self._close_parents()
        streams.write_catalogue(self._folder)
        self.phase = Phase.DONE

    def abandon(self) -> None:
        """Undo what is not published. What cannot be removed now is removed at the next start."""
        self.phase = Phase.ABANDONED
        try:
            self._check_current()
        except KflowError as error:  # never remove what a map may name
            log.warning("what was begun is left to the next start error=%s", error)
            return
        for birth in self.plan.births:
            try:
                streams.remove_unborn(self._files, f"{self._path}/{birth.index}")
            except (OSError, StorageError) as error:
                log.warning("unpublished shard not removed yet shard=%d error=%s", birth.index, error)

    def step(self) -> bool:
        """Take the next step; for whoever holds the parents' appends all the time. Returns whether there is another."""
        if self.phase is Phase.NEW:
            self.prepare()
        elif self.phase is Phase.PREPARED:
            self.seal()
        elif self.phase is Phase.PUBLISHED:
            self.finish()
        return self.phase in (Phase.PREPARED, Phase.PUBLISHED)

    def _check_current(self) -> None:
        stream = self.plan.stream
        if self._folder.current(stream).generation != stream.generation:
            raise StaleMap(f"the shards of stream {stream.name} have changed meanwhile: try again")

    def _reserve(self, after: int | None = None) -> None:
        """Take creation seconds for the children: at best the next second, as a close takes place in this one."""
        if after is None:
            after = self._clock.now().epoch_ms // 1000
        self._created_s = streams.reserve_seconds(self._folder, self._clock, count=self.plan.rounds, after=after)

    def _recover_parents(self) -> None:
        """Cut what a failed append left past a parent's tail; a shard that lost a sync must not be closed with it."""
        for index in self.plan.closing:
            shard = self._log.shard(self.plan.stream, index)  # recovers what a crash left
            words = self._words(index)
            if words[DIRTY]:
                shard.recover()
            if words[POISONED]:
                raise StorageError(
                    f"cannot {self._what}: a sync of shard {index} failed; look at the disk, then restart kflow"
                )

    def _sync_parents(self) -> None:
        if not self._folder.syncs:
            return
        name = self.plan.stream.name
        run_all(
            [
                SyncTask(
                    f"{self._path}/{index}", not_held, self._files, f"shard {index} of stream {name}", lambda: False
                )
                for index in self.plan.closing
            ]
        )

    def _hand_arrivals_down(self) -> int:
        """Let each child begin at the greatest arrival of its parents, and close those that none will write to.

        Returns:
            When the parents are closed, milliseconds since the epoch: now, or the last arrival where that is later.
        """
        arrivals = {index: words[ARRIVAL] for index, words in self._parents()}
        close_ms = max(self._clock.now().epoch_ms, *arrivals.values())
        open_ones = set(self.plan.opening)
        for birth in self.plan.births:
            # Never 0: a child's page that says so was made anew after a loss of power (`streams.arrival_floor_ms`).
            arrivals[birth.index] = max(arrivals[parent] for parent in birth.parents) or close_ms // 1000 * 1000
            words = self._words(birth.index)
            words[ARRIVAL] = arrivals[birth.index]
            if birth.index not in open_ones:
                words[CLOSED] = 1
        return close_ms

    def _publish(self, new: StreamMap) -> None:
        """Replace the map. An error after the replacement comes too late: others may have read the new one."""
        try:
            streammap.store(f"{self._path}/{streammap.FILE_NAME}", new, self._files, sync=self._folder.syncs)
        except StorageError as error:
            if self._folder.current(self.plan.stream).generation != new.generation:
                raise
            log.error("the new map is in place, and may not be durable error=%s", error)  # noqa: TRY400  # says it all

    def _close_parents(self) -> None:
        for _, words in self._parents():
            words[CLOSED] = 1

    def _parents(self) -> Iterable[tuple[int, memoryview]]:
        """Index and control page of each parent, one at a time: a thousand are never mapped at once."""
        for index in self.plan.closing:
            yield index, self._words(index)

    def _words(self, index: int) -> memoryview:
        return self._ctl(index).words

    def _ctl(self, index: int) -> Ctl:
        try:
            return Ctl.open(f"{self._path}/{index}", self._files, owner=(self.plan.stream.id, index), write=True)
        except OSError as error:
            raise storage_error(error, self._what) from error


def carry_out(store: Log, plan: Plan, *, clock: Clock | None = None) -> StreamMap:
    """Carry a plan out at once, for whoever holds the writer lock and appends nothing meanwhile.

    Returns:
        The new map.

    Raises:
        KflowError: it did not happen, and nothing is left of it.
    """
    reshard = Reshard(store, plan, clock=clock)
    try:
        reshard.prepare()
        new = reshard.seal()
    except KflowError:
        reshard.abandon()
        raise
    try:
        reshard.finish()
    except StorageError as error:  # it did happen; consumers wait at the parents' end until the next start
        log.error("parents not closed yet error=%s", error)  # noqa: TRY400  # the text says it all
    return new
