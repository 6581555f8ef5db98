"""What befalls the world of a simulation: one method for each kind of move."""

from __future__ import annotations

from bisect import bisect_right
from functools import partial
from typing import TYPE_CHECKING, Final

from kflow.broker import reshardplan
from kflow.broker.ctl import DURABLE
from kflow.errors import KflowError
from kflow.testing.disk import CAPACITY_BYTES
from kflow.testing.script import Move

if TYPE_CHECKING:
    from kflow.testing.simnode import SimNode
    from kflow.testing.world import World

_HOUR_MS: Final = 3_600_000
_MOST_SHARDS: Final = 16


class Happening:
    """Plays moves in a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._records = 0

    def play(self, move: Move) -> None:
        """One move."""
        getattr(self, f"_{move.kind.replace(' ', '_')}")(move)

    def _put(self, move: Move) -> None:
        world = self._world
        keys, datas = [], []
        random = world.random
        padding = random.choice((b"", b"", b" " + b"x" * 80))
        for _ in range(move.size):
            self._records += 1
            wanted = b"true" if not world.options.mapping.filters or random.random() < 0.6 else b"false"
            data = b'{"n": %d ,"wanted":%s}%s' % (self._records, wanted, b" " * len(padding))
            world.truth.serial(data, self._records)
            datas.append(data)
            keys.append(f"k{random.randrange(world.options.keys)}")
        if datas and world.view.stream is not None:
            world.in_node(lambda: world.producer.put(world.known_stream(), keys, datas))

    def _work(self, move: Move) -> None:
        self._world.work(move.size)

    def _wait(self, move: Move) -> None:
        world = self._world
        world.pass_time(move.size, None)
        world.work(5)

    def _wake(self, move: Move) -> None:
        """Duplicate wake-ups: news that is none, plans without a reason."""
        world = self._world
        node = world.node
        if node is None:
            return
        for _round in range(1 + move.size % 3):
            for shard in node.stream.shards:
                world.in_node(partial(world.news, shard.index))
            world.on_time()

    def _stale(self, _: Move) -> None:
        """A message comes twice: of a generation that was given back."""
        world = self._world
        for worker_id, message in world.stale:
            handle = None if world.node is None else world.node.handles.get(worker_id)
            if handle is not None:
                handle.worker.outbox.append(message)
        world.stale.clear()

    def _sync(self, _: Move) -> None:
        self._world.sync()

    def _expire(self, _: Move) -> None:
        world = self._world
        if world.node is None:
            return
        world.producer.give_up()
        for pause_ms in (25 * _HOUR_MS, _HOUR_MS + 60_000):
            world.work(100)
            world.clock.advance(pause_ms)
            world.in_node(self._retain)
        for index, shard in world.truth.shards.items():
            place = bisect_right(shard.ends, world.view.reader(index).horizon)
            world.truth.expired(index, shard.counters[place] if place < len(shard.counters) else shard.highest + 1)

    def _retain(self) -> None:
        world = self._world
        if world.node is None:
            return
        try:
            world.node.log.retain(world.clock.now())
        except KflowError as error:
            world.note(f"not expired: {error}")

    def _kill_worker(self, _: Move) -> None:
        world = self._world
        alive = [worker for worker in world.workers if worker.alive]
        if alive:
            world.kill(world.random.choice(alive), "SIGKILL")

    def _kill_node(self, _: Move) -> None:
        self._world.node_died()

    def _fuse_worker(self, move: Move) -> None:
        world = self._world
        alive = [worker for worker in world.workers if worker.alive]
        if alive:
            world.random.choice(alive).files.fuse = 1 + move.size
        world.work(10)

    def _fuse_node(self, move: Move) -> None:
        world = self._world
        if world.node is not None:
            world.node.files.fuse = 1 + move.size
        else:
            world.start_node(clean=False, fuse=1 + move.size * 3)

    def _restart(self, _: Move) -> None:
        """The node stops as it was asked to, and is started again."""
        world = self._world
        node = world.node
        if node is None:
            return
        node.table.stopping = True
        world.in_node(node.dispatch)
        for _round in range(200):
            if world.node is None or not node.handles:
                break
            if not world.work(20):
                world.pass_time(1_000, None)
        if world.node is node and not node.handles:
            world.node_died(clean=True)
            world.start_node(clean=True)

    def _power(self, _: Move) -> None:
        """The machine loses its power: all that was not synced may be gone."""
        world = self._world
        if world.options.fsync == "none" or world.depth:
            return
        random = world.random
        durable = {index: world.view.words(index)[DURABLE] for index in world.truth.shards}
        for worker in world.workers:
            if worker.alive:
                world.end(worker, "loses its power")
        world.node_died()
        world.learn_slots()  # also what somebody stored who died in it
        world.disk = world.disk.image(random)
        world.disk.capacity_bytes = CAPACITY_BYTES
        world.full = False
        world.view.look_anew(world.process())
        world.producer.lost_power()
        while world.node is None:
            world.start_node(clean=False, restore=durable)

    def _skew(self, move: Move) -> None:
        world = self._world
        world.clock.epoch_ms += world.random.choice((-1, 1)) * move.size

    def _full(self, _: Move) -> None:
        world = self._world
        world.full = not world.full
        world.disk.capacity_bytes = world.disk.used_bytes if world.full else CAPACITY_BYTES

    def _sync_fails(self, _: Move) -> None:
        world = self._world
        if world.node is not None:
            world.node.files.failing_syncs = 1
            world.sync()

    def _reshard(self, _: Move) -> None:
        world = self._world
        node = world.node
        if node is None or world.depth:
            return
        if len(node.stream.shards) <= _MOST_SHARDS:
            world.in_node(partial(self._change_shards, node))

    def _change_shards(self, node: SimNode) -> None:
        world = self._world
        random = world.random
        account, region = node.folder.account, node.folder.region
        shards = [shard.index for shard in node.stream.open_shards]
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
            world.note(f"not resharded: {error}")
