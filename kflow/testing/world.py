"""The world of a simulation: one machine with a disk, a clock, a node, its workers, a producer; and whose turn it is.

Everything runs in one thread. While a function runs, others go on: its invocation is a call in which the world plays
further turns, so a worker can be killed in the middle of one. A killed process is gone at once for everybody else; its
own frames unwind, unable to touch anything, when the turn comes back to them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

from kflow.broker import streammap
from kflow.broker.checkpoints import Slot
from kflow.broker.ctl import SEGMENT
from kflow.broker.folder import DataFolder
from kflow.broker.streammap import StreamMap
from kflow.clock import ManualClock
from kflow.declarations import Handler, HandlerForm, StreamTrigger
from kflow.errors import KflowError
from kflow.settings import Settings
from kflow.settings.model import StreamSettings
from kflow.testing.disk import Disk
from kflow.testing.ending import nobody_sleeps
from kflow.testing.functions import Functions
from kflow.testing.happening import Happening
from kflow.testing.ledger import Consumer, Ledger
from kflow.testing.process import Killed, ProcessFiles
from kflow.testing.putting import Producer
from kflow.testing.script import Move, SimOptions
from kflow.testing.simnode import Handle, SimNode
from kflow.testing.simworker import SimWorker
from kflow.testing.truth import Truth
from kflow.testing.view import View

STREAM: Final = "orders"
_DEEPEST: Final = 3
"""So many functions run inside of each other, at most."""
_LONG_MS: Final = 2_000
"""Over such a time processes get their turns; over a shorter one they may be slow to get one."""

_worlds = itertools.count(1)


class World:
    """One simulation under way.

    Attributes:
        options: the setting.
        clock: the machine's.
        disk: the machine's.
        path: of the data folder.
        view: what lies on the disk, for an onlooker.
        epoch: of the node.
        node: the node, while one is there.
        workers: those that live.
        truth: what was put.
        ledger: what must be true of what became of it.
        producer: puts records.
        functions: what they do.
        random: decides what is left open, for the move that is played.
        stale: the last messages of workers, as (worker, message).
        depth: how many functions run inside of each other.
        healed: nothing fails any more.
        full: the disk is.
        trace: what happened, in words.
        counts: how often each kind of thing happened.
    """

    def __init__(self, options: SimOptions) -> None:
        self.options = options
        self.clock = ManualClock()
        self.disk = Disk()
        self.path = f"/simulation-{next(_worlds)}/data"
        self.epoch = 0
        self.node: SimNode | None = None
        self.trace: list[str] = []
        self.counts: dict[str, int] = {}
        names = tuple(f"f{number}" for number in range(options.functions))
        self.handlers = [_handler(name, options) for name in names]
        self.settings = Settings(
            project=None, file=None, data_dir=Path(self.path), streams={STREAM: StreamSettings(shards=options.shards)}
        )
        files = self.process()
        self.view = View(self.path, files)
        self.truth = Truth(
            options.mapping.parallelization_factor,
            wanted=(lambda data: b"true" in data) if options.mapping.filters else None,
            read=self.view.read,
        )
        self.ledger = Ledger(options.mapping, names, self.truth)
        self.producer = Producer(self)
        self.functions = Functions(self)
        self.workers: list[SimWorker] = []
        self.random = Random(0)  # noqa: S311  # repeatable, no secret
        self.stale: list[tuple[int, object]] = []
        self.depth = 0
        self.healed = False
        self.full = False
        self._happening = Happening(self)
        self._reports: list[Handle] = []
        self._pids = itertools.count(1_000)
        DataFolder.open(self.path, create=True, fsync=options.fsync, files=files)
        self.start_node(clean=True)

    # ------------------------------------------------------------------ what the others ask for

    def process(self) -> ProcessFiles:
        """File calls for a new process."""
        return ProcessFiles(self.disk)

    def new_pid(self) -> int:
        """A number that no process had before."""
        return next(self._pids)

    def decode(self, text: bytes) -> StreamMap:
        """A map as a message holds it."""
        return streammap.decode(text)

    def note(self, text: str) -> None:
        """Add to the trace."""
        self.trace.append(f"{self.clock.monotonic_ms - 1_000_000:>9} {text}")

    def known_stream(self) -> StreamMap:
        """The map as a producer knows it."""
        assert self.view.stream is not None
        return self.view.stream if self.node is None else self.node.stream

    def start_worker(self, number: int, function: str, maps: Iterable[StreamMap], *, clean: bool) -> SimWorker:
        """Start a worker process."""
        worker = SimWorker(self, number, function, maps, self.epoch, clean=clean)
        self.workers.append(worker)
        self.note(f"worker {number} of {function} starts, pid {worker.pid}")
        return worker

    def exited(self, worker: SimWorker) -> None:
        """A worker ends as it was asked to."""
        self.end(worker, "ends")

    def kill(self, worker: SimWorker, why: str) -> None:
        """A worker is killed."""
        if worker.alive:
            self.count("worker killed")
            self.end(worker, f"is killed ({why})")

    def stored(self, consumer: Consumer, slot: Slot) -> None:
        """A slot was stored."""
        before = consumer.slot
        end = self.view.reader(consumer.shard.index).tail
        if slot.checkpoint.offset > end:  # behind a loss that reaches the tail it waits where the shard goes on
            end = max(end, self.view.words(consumer.shard.index)[SEGMENT])
        self.ledger.stored(consumer, slot, readable_end=end)
        if slot is not before:
            self.note(
                f"{consumer.name}: {slot.state.name} checkpoint {slot.checkpoint_counter} "
                f"count {slot.count} attempt {slot.attempt}"
            )

    def resharded(self, new: StreamMap) -> None:
        """A new map was published."""
        self.view.stream = new
        self._learn_shards()
        self.note(f"shards: {[(shard.index, shard.parents, shard.is_open) for shard in new.shards]}")

    @property
    def is_deep(self) -> bool:
        """Whether no more functions may take their time: each of them runs inside of the one before."""
        return self.depth >= _DEEPEST

    def meanwhile(self, worker: SimWorker, duration_ms: int) -> None:
        """Others go on for a while, or until the worker is killed."""
        end_ms = self.clock.monotonic_ms + duration_ms
        self.depth += 1
        try:
            while worker.alive:
                self.work(self.random.randint(1, 6))
                if self.clock.monotonic_ms >= end_ms:
                    break
                self.pass_time(min(end_ms - self.clock.monotonic_ms, self.random.choice((10, 300, 1_000))), worker)
        finally:
            self.depth -= 1

    # ------------------------------------------------------------------ what happens

    def play(self, move: Move) -> None:
        """One move."""
        self.random = Random(move.seed)  # noqa: S311  # repeatable, no secret
        self.note(f"-- {move.kind} {move.size}")
        self.count(move.kind)
        self._happening.play(move)

    # ------------------------------------------------------------------ turns

    def work(self, turns: int) -> bool:
        """Some turns of whoever has something to do. Returns whether anybody had."""
        random = self.random
        did = False
        for _ in range(turns):
            choices = self._runnable()
            if not choices:
                if self.depth == 0:
                    nobody_sleeps(self)
                return did
            did = True
            random.choice(choices)()
            if random.random() < 0.3:
                self.clock.advance(random.choice((0, 1, 5)))
        return did

    def _runnable(self) -> list[Callable[[], None]]:
        choices: list[Callable[[], None]] = [each.play for each in self.workers if each.can_run]
        node = self.node
        if node is None:
            if not choices or self.random.random() < 0.3:
                choices.append(lambda: self.start_node(clean=False))
            return choices
        choices += [partial(self._hear, handle) for handle in node.handles.values() if handle.worker.outbox]
        if self._reports:
            choices += [partial(self._report, handle) for handle in self._reports]
        if self.producer.resends:
            choices.append(lambda: self.in_node(self.producer.resend))
        due = node.timer
        if due is not None and due <= node.now():
            choices.append(self.on_time)
        if node.has_waiting or self.random.random() < 0.02:
            choices.append(self.sync)
        return choices

    def on_time(self) -> None:
        """The node's timer fires."""
        if self.node is not None:
            self.in_node(self.node.on_time)

    def turn(self, worker: SimWorker) -> None:
        """A worker does one thing."""
        try:
            worker.turn()
        except Killed:
            if worker.alive:
                self.kill(worker, "in the middle of a write")

    def in_node(self, call: Callable[[], object]) -> None:
        """Something is done by the node, and may be the death of it."""
        node = self.node
        try:
            call()
        except Killed:
            if self.node is node:
                self.node_died()

    def news(self, index: int) -> None:
        """The node looks where a shard ends."""
        if self.node is not None:
            self.node.news(index)

    def _hear(self, handle: Handle) -> None:
        message = handle.worker.outbox[0]
        self.stale = [*self.stale[-3:], (handle.worker.id, message)]
        self.in_node(lambda: self.node.hear(handle) if self.node else None)

    def _report(self, handle: Handle) -> None:
        self._reports.remove(handle)
        self.in_node(lambda: self.node.reported(handle) if self.node else None)

    def sync(self) -> None:
        """The node syncs what is due."""

        def go() -> None:
            try:
                if self.node is not None:
                    self.node.sync()
            except KflowError as error:
                self.note(f"not synced: {error}")

        self.in_node(go)

    def end(self, worker: SimWorker, how: str) -> None:
        """A worker is gone."""
        self.note(f"worker {worker.id} {how}")
        worker.alive = False
        worker.files.kill()
        if worker.consumer is not None:
            self.ledger.died(worker.consumer, counted=False)
        self.workers.remove(worker)
        handle = None if self.node is None else self.node.handles.get(worker.id)
        if handle is not None and handle.worker is worker:
            self._reports.append(handle)

    def node_died(self, *, clean: bool = False) -> None:
        """The node is gone."""
        node, self.node = self.node, None
        if node is None:
            return
        self.count("node stopped" if clean else "node killed")
        self.note("the node is gone")
        node.files.kill()
        self._reports.clear()
        self.stale.clear()
        self.producer.lost_node()

    def start_node(self, *, clean: bool, fuse: int = 0, restore: dict[int, int] | None = None) -> None:
        """Start a node; it may not get through its start.

        Args:
            clean: whether the one before was stopped.
            fuse: it dies at so many changes from now; 0: it does not.
            restore: the machine was started anew: by shard, up to where it was durable.
        """
        for worker in list(self.workers):
            self.end(worker, "is killed by the next node")
        self._reports.clear()
        self.epoch += 1
        files = self.process()
        files.fuse = fuse
        try:
            node = SimNode(self, files, clean=clean)
        except (Killed, KflowError) as error:
            files.kill()
            self.note(f"a node does not get through its start: {type(error).__name__} {error}")
            if self.healed and isinstance(error, KflowError):
                raise
            return
        self.note(f"node {node.epoch} starts")
        self.view.stream = node.stream
        self._learn_shards()
        if restore is None:
            for index in self.truth.shards:
                self.truth.catch_up(index)
            # A settled shard gets no worker any more that would tell what the last one stored as it died.
            self.learn_slots()
        else:
            self._learn_loss(restore)
        self.node = node
        self.in_node(node.dispatch)

    def _learn_loss(self, durable: dict[int, int]) -> None:
        """Tell what the machine came back with."""
        always = self.options.fsync == "always"
        for index in self.truth.shards:
            horizon = self.view.reader(index).horizon
            lost = self.truth.lost_power(index, durable.get(index, 0), horizon, always=always)
            self.note(f"shard {index} lost {lost} records with the power")
        for consumer, slot, before in self._slots():
            self.ledger.restored(consumer, slot, before)

    def learn_slots(self) -> None:
        """Tell of all slots as they lie on the disk: also of what somebody stored who died in it."""
        for consumer, slot, _ in self._slots():
            self.stored(consumer, slot)

    def _slots(self) -> Iterator[tuple[Consumer, Slot, Slot | None]]:
        for handler in self.handlers if self.view.stream is not None else ():
            for shard, lane, slot, before in self.view.slots(handler.name):
                consumer = self.ledger.consumers.get((handler.name, shard, lane))
                if consumer is not None:  # else of a shard that was not published
                    yield consumer, slot, before

    def pass_time(self, milliseconds: int, busy: SimWorker | None) -> None:
        """Let time pass, with all that falls due on the way; until a worker that is waited for is killed."""
        end_ms = self.clock.monotonic_ms + milliseconds
        while True:
            if milliseconds > _LONG_MS:
                self.work(100)
            node = self.node
            due = None if node is None else node.timer
            stop_ms = end_ms if due is None else min(end_ms, max(self.clock.monotonic_ms, int(due * 1000) + 1))
            self.clock.advance(max(0, stop_ms - self.clock.monotonic_ms))
            if node is not None and due is not None and due <= node.now():
                self.in_node(node.on_time)
            if self.clock.monotonic_ms >= end_ms or (busy is not None and not busy.alive):
                return
            if due is not None and not self.work(3) and self.node is node and node is not None:
                again = node.timer
                if again is not None and again <= node.now():
                    self.clock.advance(1)

    def _learn_shards(self) -> None:
        if self.view.stream is not None:
            for shard in self.view.stream.shards:
                self.ledger.add_shard(shard.index, shard.parents)

    def count(self, what: str) -> None:
        """Count what happened."""
        self.counts[what] = self.counts.get(what, 0) + 1


def _handler(name: str, options: SimOptions) -> Handler:
    trigger = StreamTrigger(stream=STREAM, options=options.mapping)
    return Handler(
        name=name, file="", line=1, root="", module="", qualname=name, form=HandlerForm.BATCH, triggers=(trigger,)
    )
