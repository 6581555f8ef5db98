"""All queues of a data folder: made, changed and deleted here, each with the desk where it is asked.

    create: name taken --a thread: where the records begin, ledger, then the queue's file--> there
    delete: DELETING --gone_ms, a thread: the queue's file, then its ledger--> gone

What changes of a queue is kept as `kflow.broker.keeping` says. What a kill interrupts is finished at the next start: a
ledger without a queue's file goes, and so does what is past its `gone_ms`.
"""

from __future__ import annotations

import logging
import os
import re
import uuid
from collections.abc import Callable
from typing import Any, Final

import msgspec

from kflow import limits
from kflow.aws.calls import Place
from kflow.broker import keeping, tablefile
from kflow.broker.recordqueues import Ledger, ledger_path
from kflow.broker.streammap import StreamMap
from kflow.errors import KflowError, LimitExceeded, ResourceInUse, ResourceNotFound, StorageError
from kflow.interfaces import Done
from kflow.kinesis.host import Host
from kflow.kinesis.queues import facts as files
from kflow.kinesis.queues.asking import Terms
from kflow.kinesis.queues.desk import Desk
from kflow.kinesis.queues.facts import Facts, Rules
from kflow.kinesis.queues.reading import LogView
from kflow.kinesis.queues.turns import Turns
from kflow.kinesis.registry import Registry, Stream

log = logging.getLogger(__name__)

_ARN: Final = re.compile(r"arn:aws[^:]*:kinesis:([^:]*):(\d{12}):queue/([0-9a-f]{32})")


class Queue:
    """One queue; the same object for as long as it exists. Belongs to the loop's thread.

    Attributes:
        state: what is kept of it; changed by the directory alone.
        place: account and region.
        arn: its ARN.
        desk: where it is asked.
        is_made: whether it is kept; before that only its name is taken.
        is_gone: whether it does not exist any more.
        removers: who wants it away while it is being made; told when it is.
    """

    __slots__ = ("arn", "desk", "is_gone", "is_made", "place", "removers", "state")

    def __init__(self, state: keeping.Kept[Facts], place: Place, *, is_made: bool) -> None:
        self.state = state
        self.place = place
        self.is_made = is_made
        self.arn = f"arn:aws:kinesis:{place.region}:{place.account}:queue/{state.value.id}"
        self.is_gone = False
        self.removers: list[Callable[[], object]] = []
        self.desk: Desk

    @property
    def facts(self) -> Facts:
        """What is kept of it, as it is now."""
        return self.state.value

    @property
    def stream_id(self) -> int:
        """Id of its stream."""
        return int(self.facts.stream_id, 16)

    @property
    def stream_arn(self) -> str:
        """ARN of its stream."""
        return f"arn:aws:kinesis:{self.place.region}:{self.place.account}:stream/{self.facts.stream_name}"

    def status(self, now_ms: int) -> str:
        """Its state."""
        return self.facts.status(now_ms)


class Directory:
    """Belongs to the loop's thread. Sets `registry.queues_on`, and listens to the registry.

    Args:
        host: whose folder, loop and threads it uses.
        registry: the streams.
    """

    def __init__(self, host: Host, registry: Registry) -> None:
        self._host = host
        self._registry = registry
        self._folder = os.fspath(host.folder.path / files.FOLDER)
        self._files = host.folder.files
        self._sync = host.folder.syncs
        self._by_id: dict[str, Queue] = {}
        registry.queues_on = self.count_on
        registry.watch(self._stream_changed)

    def load(self) -> None:
        """At the start, before the loop runs: read what is kept, and finish what a kill interrupted.

        Raises:
            StorageError: something cannot be read.
        """
        damaged: set[str] = set()
        for queue_id, found in files.load_all(self._folder, self._files):
            if found is None:
                damaged.add(queue_id)
                text = f"queue {queue_id} cannot be read and is not served: its file and its twin are damaged"
                self._host.notice("error", f"{text} ({files.path_of(self._folder, queue_id)})")
            else:
                self._add(found, is_made=True)
                files.settle(self._folder, queue_id, self._files, sync=self._sync)
        files.sweep(self._folder, self._by_id.keys() | damaged, self._files)
        for queue in list(self._by_id.values()):
            if queue.facts.gone_ms is not None:
                self._remove_later(queue, lambda: None)

    # ------------------------------------------------------------------ finding

    def find(self, arn: str) -> Queue:
        """The queue of an ARN, in whatever state.

        Raises:
            ResourceNotFound: there is none.
        """
        match = _ARN.fullmatch(arn)
        queue = self._by_id.get(match[3]) if match else None
        if queue is None or queue.arn != arn or not queue.is_made or queue.is_gone:
            raise not_found(arn)
        return queue

    def serving(self, arn: str) -> Queue:
        """The queue of an ARN, where it delivers records.

        Raises:
            ResourceNotFound: there is none, or it is being made or deleted. Source: documented: the states; chosen: the
                error, which is the only one that the operations have for it.
        """
        queue = self.find(arn)
        status = queue.status(self._host.now_ms())
        if status not in ("ACTIVE", "UPDATING"):
            raise ResourceNotFound(f"Queue {arn} is not ACTIVE, instead in state {status}")
        return queue

    def of(self, place: Place) -> list[Queue]:
        """The queues of a place, by name."""
        found = (each for each in self._by_id.values() if each.place == place and each.is_made and not each.is_gone)
        return sorted(found, key=lambda each: each.facts.name)

    def on(self, stream_id: int) -> list[Queue]:
        """The queues on a stream."""
        return [each for each in self._by_id.values() if each.stream_id == stream_id and not each.is_gone]

    def count_on(self, stream_id: int) -> int:
        """How many queues there are on a stream, in whatever state."""
        return len(self.on(stream_id))

    # ------------------------------------------------------------------ changing

    def create(
        self,
        stream: Stream,
        name: str,
        done: Done,
        *,
        rules: Rules,
        position: str,
        asked_ms: int | None,
        tags: dict[str, str],
    ) -> Queue:
        """Make a queue; records that are put after this are delivered, wherever it begins.

        Args:
            stream: its stream.
            name: its name.
            done: told when it is kept.
            rules: its attributes.
            position: where it begins.
            asked_ms: the time stamp for `AT_TIMESTAMP`.
            tags: its tags.

        Raises:
            ResourceInUse: the name is taken.
            LimitExceeded: too many are being made or deleted.
        """
        now_ms = self._host.now_ms()
        place, stream_map = stream.place, stream.map
        there = [each for each in self._by_id.values() if not each.is_gone]
        if any(each.place == place and each.facts.name == name for each in there):
            raise ResourceInUse(f"Queue {name} under account {place.account} already exists.")
        moving = sum(
            each.status(now_ms) in ("CREATING", "DELETING") for each in there if each.place.account == place.account
        )
        if moving >= limits.QUEUES_MOVING:
            raise LimitExceeded(
                "This request would have exceed the limit on the number of queues that can simultaneously be in "
                f"CREATING or DELETING for the account {place.account}. Limit: {limits.QUEUES_MOVING}."
            )
        earliest_ms = max(stream.created_ms, stream_map.trim_ms(now_ms))
        begins_ms = now_ms if position == "LATEST" else max(earliest_ms, asked_ms or 0)
        made = Facts(
            id=uuid.uuid4().hex,
            name=name,
            account=stream_map.account,
            region=stream_map.region,
            stream_id=f"{stream_map.id:016x}",
            stream_name=stream_map.name,
            stream_created_ms=stream.created_ms,
            created_ms=now_ms,
            active_ms=now_ms + self._transition_ms,
            position=position,
            asked_ms=asked_ms,
            begins_ms=begins_ms,
            rules=rules,
            tags=tags,
        )
        queue = self._add(made, is_made=False)

        def told(failure: KflowError | None) -> None:
            queue.is_made = failure is None
            if failure is not None:
                self._forget(queue, failure)
            done(failure)
            for each in queue.removers:
                self._remove(queue, each)

        self._host.submit(lambda: self._make(made, stream_map), told)
        return queue

    def change(self, queue: Queue, done: Done, /, **changes: Any) -> None:
        """Change what is kept: in memory now, on the disk by a thread.

        Args:
            queue: which.
            done: told when it is kept.
            changes: new values of `Facts`, by name.

        Raises:
            ResourceNotFound: it is gone.
        """
        if queue.is_gone:
            raise not_found(queue.arn)
        queue.state.set(msgspec.structs.replace(queue.facts, **changes), done)

    def update(self, queue: Queue, done: Done, rules: Rules) -> None:
        """Change its attributes; new ones hold once it is ACTIVE again.

        Raises:
            ResourceInUse: it is not ACTIVE. Source: documented: UpdateQueue, its errors; chosen: the text.
        """
        now_ms = self._host.now_ms()
        status = queue.status(now_ms)
        if status != "ACTIVE":
            raise ResourceInUse(
                f"Queue {queue.facts.name} under account {queue.place.account} not ACTIVE, instead in state {status}"
            )
        before = queue.facts.holds(now_ms)
        self.change(queue, done, rules=rules, before=before, updated_ms=now_ms + self._transition_ms)
        self._host.call_later(self._host.transition_s, queue.desk.changed)

    def delete(self, queue: Queue, done: Done) -> None:
        """Delete it: from now on it delivers nothing, and a moment later it is gone.

        Deleting one that is being deleted does nothing. Source: chosen.
        """
        if queue.facts.gone_ms is not None:
            done(None)
            return
        now_ms = self._host.now_ms()

        def told(failure: KflowError | None) -> None:
            if failure is not None:
                done(failure)
            elif self._transition_ms:
                self._remove_later(queue, lambda: None)
                done(None)
            else:  # where no time is set, it has happened when the answer comes
                self._remove_later(queue, lambda: done(None))

        self.change(queue, told, gone_ms=now_ms + self._transition_ms)

    def clear(self, done: Callable[[], object]) -> None:
        """Remove all queues at once, for whoever empties the folder. `done` is called when nothing of them is left."""
        left = list(self._by_id.values())
        if not left:
            done()
            return
        remaining = len(left)

        def gone() -> None:
            nonlocal remaining
            remaining -= 1
            if not remaining:
                done()

        for queue in left:
            self._remove(queue, gone)

    def close(self, done: Callable[[], object]) -> None:
        """Stop serving: who waits is answered with nothing, and all files are closed; `done` is called then."""
        remaining = len(self._by_id)
        if not remaining:
            done()
            return

        def closed() -> None:
            nonlocal remaining
            remaining -= 1
            if not remaining:
                done()

        for queue in self._by_id.values():
            queue.desk.send_home()
            queue.desk.close(StorageError("the queue is closed, for kflow stops: try again when it runs"), closed)

    # ------------------------------------------------------------------ inside

    @property
    def _transition_ms(self) -> int:
        return int(self._host.transition_s * 1000)

    def _add(self, facts: Facts, *, is_made: bool) -> Queue:
        home = self._registry.home
        place = Place(facts.account or home.account, facts.region or home.region)
        state = keeping.Kept(facts, self._store, self._host, lambda _: queue.desk.changed())
        queue = Queue(state, place, is_made=is_made)
        queue.desk = Desk(self._host, lambda: self._opened(facts.id), lambda: self._terms(queue))
        self._by_id[facts.id] = queue
        return queue

    def _terms(self, queue: Queue) -> Terms:
        now_ms = self._host.now_ms()
        stream = self._registry.by_id(queue.stream_id)
        if stream is None:
            raise ResourceNotFound(
                f"Stream {queue.facts.stream_name} under account {queue.place.account} not found: "
                "it is gone, and its queue delivers nothing any more. Delete the queue."
            )
        if queue.facts.gone_ms is not None:
            raise not_found(queue.arn)
        rules = queue.facts.holds(now_ms)
        return Terms(now_ms, stream.map, rules.visibility_s * 1000, rules.max_receives)

    def _opened(self, queue_id: str) -> Turns:
        """In a thread."""
        ledger = Ledger(ledger_path(self._folder, queue_id), fsync=self._host.folder.fsync)
        return Turns(ledger, LogView(self._host.folder))

    def _make(self, facts: Facts, stream: StreamMap) -> None:
        """In a thread: everything of a new queue; its file comes last."""
        self._files.make_folder(self._folder, sync=self._sync)
        path = ledger_path(self._folder, facts.id)
        try:
            view = LogView(self._host.folder)
            ledger = Ledger(path, fsync=self._host.folder.fsync, create=True)
            try:
                with ledger.turn():
                    for shard in stream.shards:
                        if facts.position == "LATEST":
                            ledger.move(shard.index, view.end(stream, shard.index))
                        elif facts.position == "AT_TIMESTAMP":
                            ledger.move(shard.index, view.at_time(stream, shard.index, facts.begins_ms))
            finally:
                view.close()
                ledger.close()  # which syncs it: a ledger that forgot where it begins would deliver everything
            self._store(facts)
        except BaseException:
            tablefile.remove(path, self._files)
            raise

    def _store(self, facts: Facts) -> None:
        """In a thread."""
        files.store(self._folder, facts, self._files, sync=self._sync)

    def _remove_later(self, queue: Queue, done: Callable[[], object]) -> None:
        queue.desk.close(not_found(queue.arn), lambda: None)
        left_ms = max(0, (queue.facts.gone_ms or 0) - self._host.now_ms())
        # No longer than it would be from now on: the clock may have been set back.
        self._host.call_later(min(left_ms / 1000, self._host.transition_s), lambda: self._remove(queue, done))

    def _remove(self, queue: Queue, done: Callable[[], object]) -> None:
        """Take it away for good; `done` is called when that is over, well or not."""
        if queue.is_gone:
            done()
            return
        if not queue.is_made:  # a thread writes its files just now
            queue.removers.append(done)
            return

        def told(failure: KflowError | None) -> None:
            if failure is not None:
                self._host.notice("error", f"queue {queue.facts.name} is deleted, and its files are not: {failure}")
            self._by_id.pop(queue.facts.id, None)
            done()

        def work() -> None:
            files.remove(self._folder, queue.facts.id, self._files, sync=self._sync)
            tablefile.remove(ledger_path(self._folder, queue.facts.id), self._files)

        # The last change of all: when it is over, nothing writes the queue's file any more.
        self.change(
            queue,
            lambda _: queue.desk.close(not_found(queue.arn), lambda: self._host.submit(work, told)),
            gone_ms=queue.facts.gone_ms or self._host.now_ms(),
        )
        queue.is_gone = True

    def _forget(self, queue: Queue, failure: KflowError) -> None:
        """It was not made after all."""
        queue.is_gone = True
        self._by_id.pop(queue.facts.id, None)
        queue.desk.close(failure, lambda: None)

    def _stream_changed(self, stream: Stream) -> None:
        """Other shards, another retention; or the stream was deleted by somebody who asks nobody: its queues go too."""
        for queue in self.on(stream.id):
            if not stream.is_gone:
                queue.desk.changed()
            else:
                text = f"queue {queue.facts.name} goes with its stream {queue.facts.stream_name}, which was deleted"
                self._host.notice("warning", text)
                self._remove(queue, lambda: None)


def not_found(arn: str) -> ResourceNotFound:
    """The refusal of a queue that does not exist. Source: chosen: AWS's text is not known."""
    account = arn.split(":")[4] if arn.count(":") >= 5 else ""
    return ResourceNotFound(f"Queue {arn} under account {account} not found.")
