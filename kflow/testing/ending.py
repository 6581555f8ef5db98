"""How a simulation ends: nothing fails any more, and all that was put is settled; and who may sleep until then."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

from kflow.broker.parked import ParkedStore
from kflow.runtime.plan.lease import LeaseState
from kflow.testing.disk import CAPACITY_BYTES
from kflow.testing.truth import Violation

if TYPE_CHECKING:
    from kflow.testing.world import World

_LONGEST_WAIT_S: Final = 90
_QUIET_ROUNDS: Final = 4_000


def finish(world: World) -> None:
    """Nothing fails any more: everything is settled, and nobody sleeps while there is work."""
    world.random = Random(1)  # noqa: S311  # repeatable, no secret
    world.note("-- finish")
    world.healed = True
    world.full = False
    world.disk.capacity_bytes = CAPACITY_BYTES
    for worker in world.workers:
        worker.files.fuse = 0
    if world.node is not None:
        world.node.files.fuse = world.node.files.failing_syncs = 0
        world.node_died(clean=True)  # a shard whose sync failed takes records again after a restart
    for _ in range(_QUIET_ROUNDS):
        if world.work(50):
            continue
        if not world.ledger.unsettled() and not world.producer.pending:
            break
        _wait_for_what_is_due(world)
    else:
        raise Violation(f"no end in sight: {world.ledger.unsettled()}")
    world.sync()
    for index in world.truth.shards:
        world.truth.compare(index, world.view.reader(index).horizon)
    world.ledger.kept(ParkedStore(world.path, world.process(), world.options.fsync).list())
    world.ledger.totals()


def _wait_for_what_is_due(world: World) -> None:
    node = world.node
    dues = [worker.due_ms / 1000 for worker in world.workers if worker.due_ms is not None]
    due = None if node is None else node.timer
    dues += [] if due is None else [due]
    now = world.clock.monotonic_ms / 1000
    if not dues or min(dues) - now > _LONGEST_WAIT_S:
        leases = [] if node is None else node.table.leases.values()
        states = [f"{each.function}/{each.shard}/{each.lane} {each.state.value} {each.reason}" for each in leases]
        raise Violation(f"everybody sleeps, and {world.ledger.unsettled()}; leases: {states}")
    world.clock.advance(max(1, int((min(dues) - now) * 1000) + 1))


def nobody_sleeps(world: World) -> None:
    """No lease may wait for news that is there."""
    node = world.node
    if node is None:
        return
    for lease in node.table.leases.values():
        if lease.state is LeaseState.NEWS:
            end = world.view.reader(lease.shard).tail
            if end > lease.read_offset:
                raise Violation(
                    f"{lease.function} on shard {lease.shard} lane {lease.lane} waits for news at "
                    f"{lease.read_offset}, and the shard ends at {end}"
                )
