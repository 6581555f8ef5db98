"""The functions of a simulation: they succeed, fail, hang or die, as the seed will have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from kflow.interfaces import FunctionError, Invocation, Outcome
from kflow.testing.ledger import Consumer
from kflow.testing.process import Killed

if TYPE_CHECKING:
    from kflow.testing.simworker import SimWorker
    from kflow.testing.world import World

TIMEOUT_MS: Final = 3_000


class Functions:
    """All functions of a simulation."""

    def __init__(self, world: World) -> None:
        self._world = world

    def invoke(self, worker: SimWorker, consumer: Consumer, invocation: Invocation) -> Outcome:
        """Run a function once, and let others go on meanwhile."""
        world = self._world
        datas = [record.data for record in invocation.records]
        window = invocation.window
        world.ledger.invoked(consumer, datas, invocation.attempt, ends_window=window is not None and window.is_final)
        worker.consumer = consumer
        worker.announce(invocation.request_id, TIMEOUT_MS)
        begin_ms = world.clock.monotonic_ms
        behaviour, place = self._behaviour(datas)
        world.note(f"{consumer.name}: attempt {invocation.attempt} at {len(datas)} in worker {worker.id}: {behaviour}")
        if behaviour == "hang":
            world.meanwhile(worker, 20_000)
        elif not world.is_deep and world.random.random() < 0.2:
            world.meanwhile(worker, world.random.choice((0, 1, 50, 1_000, 2_900)))
        if not worker.alive or behaviour in {"hang", "die"}:
            world.kill(worker, behaviour)
            raise Killed
        worker.consumer = None
        duration_us = (world.clock.monotonic_ms - begin_ms) * 1000
        return self._outcome(consumer, invocation, behaviour, place, duration_us)

    def _behaviour(self, datas: Sequence[bytes]) -> tuple[str, int]:
        world = self._world
        if world.healed:
            return "ok", 0
        poison = world.options.poison
        if poison and any(int(data.split(b" ", 2)[1]) % poison == 7 % poison for data in datas):
            return "raise", 0
        random = world.random
        if random.random() * 100 >= world.options.failing:
            return "ok", 0
        kinds = ["raise", "raise", "raise", "die", "die" if world.is_deep else "hang"]
        if world.options.mapping.report_batch_item_failures and datas:
            kinds += ["partial", "partial", "partial", "partial", "first", "invalid"]
        return random.choice(kinds), random.randrange(max(1, len(datas)))

    def _outcome(
        self, consumer: Consumer, invocation: Invocation, behaviour: str, place: int, duration_us: int
    ) -> Outcome:
        world = self._world
        count = len(invocation.records)
        if behaviour == "raise":
            world.ledger.ended(consumer, 0, failed=True)
            error = FunctionError(type="ValueError", message="simulated")
            return Outcome(error=error, duration_us=duration_us)
        response: dict[str, object] = {}
        if behaviour in {"partial", "first", "invalid"}:
            failed = 0 if behaviour == "first" else place
            number = invocation.records[failed].sequence_number if behaviour != "invalid" else 1
            response["batchItemFailures"] = [{"itemIdentifier": str(number)}]
            world.ledger.ended(consumer, failed if behaviour == "partial" else 0, failed=True)
        else:
            world.ledger.ended(consumer, count, failed=False)
        if invocation.window is not None:
            response["state"] = world.ledger.window(consumer, invocation.window, count)
        return Outcome(response=response or None, duration_us=duration_us)
