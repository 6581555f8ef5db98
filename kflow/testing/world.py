"""The world of a simulation: one machine with a disk, a clock, a node, its workers, a producer; and what befalls them.

Everything runs in one thread. While a function runs, others go on: its invocation is a call in which the world plays
further turns, so a worker can be killed in the middle of one. A killed process is gone at once for everybody else; its
own frames unwind, unable to touch anything, when the turn comes back to them.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

from kflow import limits
from kflow.broker import reshardplan, streammap
from kflow.broker.checkpoints import Slot, SlotFile
from kflow.broker.ctl import DURABLE, SEGMENT, Ctl
from kflow.broker.folder import DataFolder
from kflow.broker.parked import ParkedStore
from kflow.broker.reader import ShardReader
from kflow.broker.streammap import StreamMap
from kflow.clock import ManualClock
from kflow.declarations import Handler, HandlerForm, StreamTrigger
from kflow.errors import KflowError
from kflow.interfaces import FunctionError, Invocation, Outcome
from kflow.runtime.lease import LeaseState
from kflow.settings import Settings
from kflow.settings.model import StreamSettings
from kflow.testing.disk import Disk
from kflow.testing.ledger import Consumer, Ledger, Violation
from kflow.testing.process import Killed, ProcessFiles
from kflow.testing.putting import Producer
from kflow.testing.script import Move, SimOptions
from kflow.testing.simnode import Handle, SimNode
from kflow.testing.simworker import SimWorker

STREAM: Final = "orders"
TIMEOUT_MS: Final = 3_000
_DEEPEST: Final = 3
_LONG_MS: Final = 2_000
"""Over such a time processes get their turns; over a shorter one they may be slow to get one."""
_LONGEST_WAIT_S: Final = 90
_QUIET_ROUNDS: Final = 4_000
_HOUR_MS: Final = 3_600_000

_worlds = itertools.count(1)


class World:
    """One simulation under way.

    Attributes:
        options: the setting.
        clock: the machine's.
        path: of the data folder.
        epoch: of the node.
        node: the node, while one is there.
        ledger: what must be true.
        producer: puts records.
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
        self.functions = tuple(f"f{number}" for number in range(options.functions))
        self.handlers = [_handler(name, options) for name in self.functions]
        self.settings = Settings(
            project=None, file=None, data_dir=Path(self.path), streams={STREAM: StreamSettings(shards=options.shards)}
        )
        self.ledger = Ledger(options.mapping, self.functions, wanted=lambda data: b"true" in data, read=self._read)
        self.producer = Producer(self)
        self._files = self.process()
        self._workers: list[SimWorker] = []
        self._reports: list[Handle] = []
        self._random = Random(0)  # noqa: S311  # repeatable, no secret
        self._depth = 0
        self._pids = itertools.count(1_000)
        self._records = 0
        self._healed = False
        self._full = False
        self._stream: StreamMap | None = None
        self._folder: DataFolder | None = None
        self._readers: dict[int, ShardReader] = {}
        self._stale: list[tuple[int, object]] = []
        DataFolder.open(self.path, create=True, fsync=options.fsync, files=self._files)
        self._start_node(clean=True)

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

    def tail(self, index: int) -> int:
        """Where a shard ends."""
        return self._reader(index).tail

    def start_worker(self, number: int, function: str, maps: Iterable[StreamMap], *, clean: bool) -> SimWorker:
        """Start a worker process."""
        worker = SimWorker(self, number, function, maps, self.epoch, clean=clean)
        self._workers.append(worker)
        self.note(f"worker {number} of {function} starts, pid {worker.pid}")
        return worker

    def exited(self, worker: SimWorker) -> None:
        """A worker ends as it was asked to."""
        self._end(worker, "ends")

    def kill(self, worker: SimWorker, why: str) -> None:
        """A worker is killed."""
        if worker.alive:
            self._count("worker killed")
            self._end(worker, f"is killed ({why})")

    def stored(self, consumer: Consumer, slot: Slot) -> None:
        """A slot was stored."""
        before = consumer.slot
        end = self._reader(consumer.shard.index).tail
        if slot.checkpoint.offset > end:  # behind a loss that reaches the tail it waits where the shard goes on
            end = max(end, self._words(consumer.shard.index)[SEGMENT])
        self.ledger.stored(consumer, slot, readable_end=end)
        if slot is not before:
            self.note(
                f"{consumer.name}: {slot.state.name} checkpoint {slot.checkpoint_counter} "
                f"count {slot.count} attempt {slot.attempt}"
            )

    def resharded(self, new: StreamMap) -> None:
        """A new map was published."""
        self._stream = new
        self._learn_shards()
        self.note(f"shards: {[(shard.index, shard.parents, shard.is_open) for shard in new.shards]}")

    # ------------------------------------------------------------------ the function

    def invoke(self, worker: SimWorker, consumer: Consumer, invocation: Invocation) -> Outcome:
        """Run a function once, and let others go on meanwhile."""
        datas = [record.data for record in invocation.records]
        self.ledger.invoked(consumer, datas, invocation.attempt)
        worker.consumer = consumer
        worker.announce(invocation.request_id, TIMEOUT_MS)
        begin_ms = self.clock.monotonic_ms
        behaviour, place = self._behaviour(datas)
        self.note(f"{consumer.name}: attempt {invocation.attempt} at {len(datas)} in worker {worker.id}: {behaviour}")
        if behaviour == "hang":
            self._meanwhile(worker, 20_000)
        elif self._random.random() < 0.2:
            self._meanwhile(worker, self._random.choice((0, 1, 50, 1_000, 2_900)))
        if not worker.alive or behaviour in {"hang", "die"}:
            self.kill(worker, behaviour)
            raise Killed
        worker.consumer = None
        duration_us = (self.clock.monotonic_ms - begin_ms) * 1000
        return self._outcome(consumer, invocation, behaviour, place, duration_us)

    def _behaviour(self, datas: Sequence[bytes]) -> tuple[str, int]:
        if self._healed:
            return "ok", 0
        poison = self.options.poison
        if poison and any(int(data.split(b" ", 2)[1]) % poison == 7 % poison for data in datas):
            return "raise", 0
        random = self._random
        if random.random() * 100 >= self.options.failing:
            return "ok", 0
        kinds = ["raise", "raise", "raise", "die", "hang"]
        if self.options.mapping.report_batch_item_failures and datas:
            kinds += ["partial", "partial", "partial", "partial", "first", "invalid"]
        return random.choice(kinds), random.randrange(max(1, len(datas)))

    def _outcome(
        self, consumer: Consumer, invocation: Invocation, behaviour: str, place: int, duration_us: int
    ) -> Outcome:
        count = len(invocation.records)
        if behaviour == "raise":
            self.ledger.ended(consumer, 0, failed=True)
            error = FunctionError(type="ValueError", message="simulated")
            return Outcome(error=error, duration_us=duration_us)
        response: dict[str, object] = {}
        if behaviour in {"partial", "first", "invalid"}:
            failed = 0 if behaviour == "first" else place
            number = invocation.records[failed].sequence_number if behaviour != "invalid" else 1
            response["batchItemFailures"] = [{"itemIdentifier": str(number)}]
            self.ledger.ended(consumer, failed if behaviour == "partial" else 0, failed=True)
        else:
            self.ledger.ended(consumer, count, failed=False)
        if invocation.window is not None:
            response["state"] = self.ledger.window(consumer, invocation.window, count)
        return Outcome(response=response or None, duration_us=duration_us)

    def _meanwhile(self, worker: SimWorker, duration_ms: int) -> None:
        """Others go on for a while, or until the worker is killed."""
        end_ms = self.clock.monotonic_ms + duration_ms
        if self._depth >= _DEEPEST:
            self._pass_time(duration_ms, worker)
            return
        self._depth += 1
        try:
            while worker.alive:
                self._work(self._random.randint(1, 6))
                if self.clock.monotonic_ms >= end_ms:
                    break
                self._pass_time(min(end_ms - self.clock.monotonic_ms, self._random.choice((10, 300, 1_000))), worker)
        finally:
            self._depth -= 1

    # ------------------------------------------------------------------ what happens

    def play(self, move: Move) -> None:
        """One move."""
        self._random = Random(move.seed)  # noqa: S311  # repeatable, no secret
        self.note(f"-- {move.kind} {move.size}")
        self._count(move.kind)
        getattr(self, f"_move_{move.kind.replace(' ', '_')}")(move)

    def _move_put(self, move: Move) -> None:
        keys, datas = [], []
        random = self._random
        padding = random.choice((b"", b"", b" " + b"x" * 80))
        for _ in range(move.size):
            self._records += 1
            wanted = b"true" if not self.options.mapping.filters or random.random() < 0.6 else b"false"
            data = b'{"n": %d ,"wanted":%s}%s' % (self._records, wanted, b" " * len(padding))
            self.ledger.serial(data, self._records)
            datas.append(data)
            keys.append(f"k{random.randrange(self.options.keys)}")
        if datas and self._stream is not None:
            self._in_node(lambda: self.producer.put(self._known_stream(), keys, datas))

    def _known_stream(self) -> StreamMap:
        assert self._stream is not None
        return self._stream if self.node is None else self.node.stream

    def _move_work(self, move: Move) -> None:
        self._work(move.size)

    def _move_wait(self, move: Move) -> None:
        self._pass_time(move.size, None)
        self._work(5)

    def _move_wake(self, move: Move) -> None:
        """Duplicate wake-ups: news that is none, plans without a reason."""
        node = self.node
        if node is None:
            return
        for _round in range(1 + move.size % 3):
            for shard in node.stream.shards:
                self._in_node(partial(self._news, shard.index))
            self._in_node(lambda: self.node.on_time() if self.node else None)

    def _news(self, index: int) -> None:
        if self.node is not None:
            self.node.news(index)

    def _move_stale(self, _: Move) -> None:
        """A message comes twice: of a generation that was given back."""
        for worker_id, message in self._stale:
            handle = None if self.node is None else self.node.handles.get(worker_id)
            if handle is not None:
                handle.worker.outbox.append(message)
        self._stale.clear()

    def _move_sync(self, _: Move) -> None:
        self._sync()

    def _move_expire(self, _: Move) -> None:
        if self.node is None:
            return
        self.producer.give_up()
        for pause_ms in (25 * _HOUR_MS, _HOUR_MS + 60_000):
            self._work(100)
            self.clock.advance(pause_ms)
            self._in_node(lambda: self.node.log.retain(self.clock.now()) if self.node else None)
        for index, shard in self.ledger.shards.items():
            place = bisect_right(shard.ends, self._reader(index).horizon)
            self.ledger.expired(index, shard.counters[place] if place < len(shard.counters) else shard.highest + 1)

    def _move_kill_worker(self, _: Move) -> None:
        alive = [worker for worker in self._workers if worker.alive]
        if alive:
            self.kill(self._random.choice(alive), "SIGKILL")

    def _move_kill_node(self, _: Move) -> None:
        self._node_died()

    def _move_fuse_worker(self, move: Move) -> None:
        alive = [worker for worker in self._workers if worker.alive]
        if alive:
            self._random.choice(alive).files.fuse = 1 + move.size
        self._work(10)

    def _move_fuse_node(self, move: Move) -> None:
        if self.node is not None:
            self.node.files.fuse = 1 + move.size
        else:
            self._start_node(clean=False, fuse=1 + move.size * 3)

    def _move_restart(self, _: Move) -> None:
        """The node stops as it was asked to, and is started again."""
        node = self.node
        if node is None:
            return
        node.table.stopping = True
        self._in_node(node.dispatch)
        for _round in range(200):
            if self.node is None or not node.handles:
                break
            if not self._work(20):
                self._pass_time(1_000, None)
        if self.node is node and not node.handles:
            self._node_died(clean=True)
            self._start_node(clean=True)

    def _move_power(self, _: Move) -> None:
        """The machine loses its power: all that was not synced may be gone."""
        if self.options.fsync == "none" or self._depth:
            return
        random = self._random
        durable = {index: self._words(index)[DURABLE] for index in self.ledger.shards}
        for worker in self._workers:
            if worker.alive:
                self._end(worker, "loses its power")
        self._node_died()
        self._look_at_slots(self.stored)  # also what somebody stored who died in it
        self.disk = self.disk.image(random)
        self.disk.capacity_bytes = 1 << 40
        self._full = False
        self._files = self.process()
        self._folder = None
        self._readers.clear()
        self.producer.lost_power()
        while self.node is None:
            self._start_node(clean=False, restore=durable)

    def _move_skew(self, move: Move) -> None:
        self.clock.epoch_ms += self._random.choice((-1, 1)) * move.size

    def _move_full(self, _: Move) -> None:
        self._full = not self._full
        self.disk.capacity_bytes = self.disk.used_bytes if self._full else 1 << 40

    def _move_sync_fails(self, _: Move) -> None:
        if self.node is not None:
            self.node.files.failing_syncs = 1
            self._sync()

    def _move_reshard(self, _: Move) -> None:
        node = self.node
        if node is None or self._depth:
            return
        account, region = node.folder.account, node.folder.region
        shards = [shard.index for shard in node.stream.open_shards]
        if len(node.stream.shards) > 16:
            return
        random = self._random

        def go() -> None:
            try:
                if random.random() < 0.5:
                    plan = reshardplan.split(node.stream, random.choice(shards), None, account=account, region=region)
                elif random.random() < 0.6 and len(shards) > 1:
                    ordered = sorted(node.stream.open_shards, key=lambda shard: shard.start)
                    at = random.randrange(len(ordered) - 1)
                    plan = reshardplan.merge(node.stream, ordered[at].index, ordered[at + 1].index, account=account)
                else:
                    target = max(1, len(shards) + random.choice((-1, 1)))
                    plan = reshardplan.scale(node.stream, target, account=account, region=region)
                node.reshard(plan)
            except KflowError as error:
                self.note(f"not resharded: {error}")

        self._in_node(go)

    # ------------------------------------------------------------------ turns

    def _work(self, turns: int) -> bool:
        """Some turns of whoever has something to do. Returns whether anybody had."""
        random = self._random
        did = False
        for _ in range(turns):
            choices = self._runnable()
            if not choices:
                if self._depth == 0:
                    self._nobody_sleeps()
                return did
            did = True
            random.choice(choices)()
            if random.random() < 0.3:
                self.clock.advance(random.choice((0, 1, 5)))
        return did

    def _runnable(self) -> list[Callable[[], None]]:
        choices: list[Callable[[], None]] = [partial(self._turn, each) for each in self._workers if each.can_run]
        node = self.node
        if node is None:
            if not choices or self._random.random() < 0.3:
                choices.append(lambda: self._start_node(clean=False))
            return choices
        choices += [partial(self._hear, handle) for handle in node.handles.values() if handle.worker.outbox]
        choices += [partial(self._report, handle) for handle in self._reports]
        if self.producer.resends:
            choices.append(lambda: self._in_node(self.producer.resend))
        due = node.timer
        if due is not None and due <= node.now():
            choices.append(lambda: self._in_node(lambda: self.node.on_time() if self.node else None))
        if node.has_waiting or self._random.random() < 0.02:
            choices.append(self._sync)
        return choices

    def _turn(self, worker: SimWorker) -> None:
        try:
            worker.turn()
        except Killed:
            if worker.alive:
                self.kill(worker, "in the middle of a write")

    def _in_node(self, call: Callable[[], object]) -> None:
        node = self.node
        try:
            call()
        except Killed:
            if self.node is node:
                self._node_died()

    def _hear(self, handle: Handle) -> None:
        message = handle.worker.outbox[0]
        self._stale = [*self._stale[-3:], (handle.worker.id, message)]
        self._in_node(lambda: self.node.hear(handle) if self.node else None)

    def _report(self, handle: Handle) -> None:
        self._reports.remove(handle)
        self._in_node(lambda: self.node.reported(handle) if self.node else None)

    def _sync(self) -> None:
        def go() -> None:
            try:
                if self.node is not None:
                    self.node.sync()
            except KflowError as error:
                self.note(f"not synced: {error}")

        self._in_node(go)

    def _end(self, worker: SimWorker, how: str) -> None:
        self.note(f"worker {worker.id} {how}")
        worker.alive = False
        worker.files.kill()
        if worker.consumer is not None:
            self.ledger.died(worker.consumer, counted=False)
        self._workers.remove(worker)
        handle = None if self.node is None else self.node.handles.get(worker.id)
        if handle is not None and handle.worker is worker:
            self._reports.append(handle)

    def _node_died(self, *, clean: bool = False) -> None:
        node, self.node = self.node, None
        if node is None:
            return
        self._count("node stopped" if clean else "node killed")
        self.note("the node is gone")
        node.files.kill()
        self._reports.clear()
        self._stale.clear()
        self.producer.lost_node()

    def _start_node(self, *, clean: bool, fuse: int = 0, restore: dict[int, int] | None = None) -> None:
        for worker in list(self._workers):
            self._end(worker, "is killed by the next node")
        self._reports.clear()
        self.epoch += 1
        files = self.process()
        files.fuse = fuse
        try:
            node = SimNode(self, files, clean=clean)
        except (Killed, KflowError) as error:
            files.kill()
            self.note(f"a node does not get through its start: {type(error).__name__} {error}")
            if self._healed and isinstance(error, KflowError):
                raise
            return
        self.note(f"node {node.epoch} starts")
        self._stream = node.stream
        self._learn_shards()
        for index in self.ledger.shards:
            if restore is None:
                self.ledger.catch_up(index)
            else:
                reader = self._reader(index)
                lost = self.ledger.lost_power(
                    index, restore.get(index, 0), reader.horizon, always=self.options.fsync == "always"
                )
                self.note(f"shard {index} lost {lost} records with the power")
        if restore is not None:
            self._look_at_slots(self.ledger.restored)
        self.node = node
        self._in_node(node.dispatch)

    def _look_at_slots(self, told: Callable[[Consumer, Slot], None]) -> None:
        """Tell of all slots as they lie on the disk."""
        if self._stream is None:
            return
        for function in self.functions:
            slots = SlotFile.open(self.path, function, self._stream.id, files=self._files)
            known = set(slots.keys())
            for (name, index, lane), consumer in self.ledger.consumers.items():
                if name == function and (index, lane) in known:
                    told(consumer, slots.load(index, lane))
            slots.close()

    def _pass_time(self, milliseconds: int, busy: SimWorker | None) -> None:
        """Let time pass, with all that falls due on the way; until a worker that is waited for is killed."""
        end_ms = self.clock.monotonic_ms + milliseconds
        while True:
            if milliseconds > _LONG_MS:
                self._work(100)
            node = self.node
            due = None if node is None else node.timer
            stop_ms = end_ms if due is None else min(end_ms, max(self.clock.monotonic_ms, int(due * 1000) + 1))
            self.clock.advance(max(0, stop_ms - self.clock.monotonic_ms))
            if node is not None and due is not None and due <= node.now():
                self._in_node(node.on_time)
            if self.clock.monotonic_ms >= end_ms or (busy is not None and not busy.alive):
                return
            if due is not None and not self._work(3) and self.node is node and node is not None:
                again = node.timer
                if again is not None and again <= node.now():
                    self.clock.advance(1)

    # ------------------------------------------------------------------ the log, as it is

    def _open_folder(self) -> DataFolder:
        if self._folder is None:
            self._folder = DataFolder.open(self.path, files=self._files)
        return self._folder

    def _reader(self, index: int) -> ShardReader:
        reader = self._readers.get(index)
        if reader is None:
            assert self._stream is not None
            reader = self._readers[index] = ShardReader(self._open_folder(), self._stream, index)
        return reader

    def _words(self, index: int) -> memoryview:
        assert self._stream is not None
        path = self._open_folder().shard_dir(self._stream, index)
        return Ctl.open(str(path), self._files, write=False).words

    def _read(self, index: int, offset: int) -> list[tuple[int, int, list[bytes], list[str]]]:
        reader = self._reader(index)
        found = []
        while blocks := reader.read(offset):
            found += [(block.first_counter, block.end, *block.columns()) for block in blocks if block.count]
            if blocks[-1].end <= offset:
                break
            offset = blocks[-1].end
        return found

    def _learn_shards(self) -> None:
        if self._stream is not None:
            for shard in self._stream.shards:
                self.ledger.add_shard(shard.index, shard.parents)

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    # ------------------------------------------------------------------ the end

    def finish(self) -> None:
        """Nothing fails any more: everything is settled, and nobody sleeps while there is work."""
        self._random = Random(1)  # noqa: S311  # repeatable, no secret
        self.note("-- finish")
        self._healed = True
        self._full = False
        self.disk.capacity_bytes = 1 << 40
        for worker in self._workers:
            worker.files.fuse = 0
        if self.node is not None:
            self.node.files.fuse = self.node.files.failing_syncs = 0
            self._node_died(clean=True)  # a shard whose sync failed takes records again after a restart
        for _ in range(_QUIET_ROUNDS):
            if self._work(50):
                continue
            if not self.ledger.unsettled() and not self.producer.pending:
                break
            self._wait_for_what_is_due()
        else:
            raise Violation(f"no end in sight: {self.ledger.unsettled()}")
        self._sync()
        for index in self.ledger.shards:
            self.ledger.compare(index, self._reader(index).horizon)
        self.ledger.kept(ParkedStore(self.path, self._files, self.options.fsync).list())
        self.ledger.totals()

    def _wait_for_what_is_due(self) -> None:
        node = self.node
        dues = [worker.due_ms / 1000 for worker in self._workers if worker.due_ms is not None]
        due = None if node is None else node.timer
        dues += [] if due is None else [due]
        now = self.clock.monotonic_ms / 1000
        if not dues or min(dues) - now > _LONGEST_WAIT_S:
            states = (
                []
                if node is None
                else [
                    f"{lease.function}/{lease.shard}/{lease.lane} {lease.state.value} {lease.reason}"
                    for lease in node.table.leases.values()
                ]
            )
            raise Violation(f"everybody sleeps, and {self.ledger.unsettled()}; leases: {states}")
        self.clock.advance(max(1, int((min(dues) - now) * 1000) + 1))

    def _nobody_sleeps(self) -> None:
        """No lease may wait for news that is there."""
        node = self.node
        if node is None:
            return
        for lease in node.table.leases.values():
            if lease.state is LeaseState.NEWS:
                end = self._reader(lease.shard).tail
                if end > lease.read_offset:
                    raise Violation(
                        f"{lease.function} on shard {lease.shard} lane {lease.lane} waits for news at "
                        f"{lease.read_offset}, and the shard ends at {end}"
                    )


def _handler(name: str, options: SimOptions) -> Handler:
    trigger = StreamTrigger(stream=STREAM, options=options.mapping)
    return Handler(
        name=name, file="", line=1, root="", module="", qualname=name, form=HandlerForm.BATCH, triggers=(trigger,)
    )


def smaller_segments(segment_bytes: int) -> int:
    """Have segments roll at this size. Returns the size before, to be set again."""
    before = limits.SEGMENT_BYTES
    limits.SEGMENT_BYTES = segment_bytes  # type: ignore[misc]  # the log asks for it each time
    return before
