"""Polls a queue for one event source mapping: carries out what its engine says, on the node's loop.

What is received is filtered and written as records of the event by a thread.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kflow.broker.host import Host
from kflow.broker.messagequeues import Counts
from kflow.desk import Asked
from kflow.errors import KflowError
from kflow.interfaces import BatchOutcome, BatchResult, Cancellable, FunctionError
from kflow.lambda_ import eventcounts, queue_polling
from kflow.lambda_.errors import TooManyRequests
from kflow.lambda_.eventcounts import Counted, EventCounts
from kflow.lambda_.fleet import Fleet, Reply, Request
from kflow.lambda_.queue_mapping import QueueMapping
from kflow.lambda_.queue_polling import CancelReceive, Delete, GiveBack, Invoke, Item, Polling
from kflow.lambda_.queue_responses import Verdict, judge
from kflow.lambda_.requests import new_request_id
from kflow.runtime.feed import Totals
from kflow.runtime.mappings.queuebatches import Held, compiled, delivery_of, written
from kflow.sqs import asking
from kflow.sqs.asking import Delivered, Received
from kflow.sqs.directory import Queue
from kflow.sqs.errors import QueueDoesNotExist
from kflow.sqs.receipts import Delivery

if TYPE_CHECKING:
    from kflow.services.sqs.service import Sqs

log = logging.getLogger(__name__)

_HERE_BYTES: Final = 4096
"""A response up to this long is read on the loop, a longer one by a thread."""
_LARGE_BYTES: Final = 65_536
"""An event that is longer is put together by a thread."""
_SPARE_S: Final = 30
"""What is added where window and timeout exceed the visibility timeout. Source: documented: with-sqs."""
_GONE_S: Final = 1.0
"""A queue that is gone for so long is told of."""
_LOOK_S: Final = 0.1
"""In a drain, queues are looked at this often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What all pollers share.

    Attributes:
        host: loop, threads, and whom people hear from.
        fleet: runs functions.
        sqs: the queues; made when first asked for.
        timeout: of a function by its key, seconds; None: there is no such function.
        choose: key of what an invocation of a mapping runs: an alias may have weights.
        tell: told of each batch when its outcome is durable.
        most: batches of a mapping that run at once, where it does not say.
        backoff_scale: of all pauses.
        totals: by function, since the runtime started.
        counted: told what was counted of a mapping that asks for it.
    """

    host: Host
    fleet: Fleet
    sqs: Callable[[], Sqs]
    timeout: Callable[[str], int | None]
    choose: Callable[[QueueMapping], str]
    tell: Callable[[BatchOutcome], object]
    most: int
    backoff_scale: float = 1.0
    totals: dict[str, Totals] = field(default_factory=dict)
    counted: Callable[[Counted], object] = lambda _: None


class Poller:
    """One mapping's: its engine, and what it has under way.

    Attributes:
        mapping: see there.
        is_drained: whether its queue has been empty since a drain began.
    """

    def __init__(self, parts: Parts, mapping: QueueMapping) -> None:
        self.mapping = mapping
        self.is_drained = False
        self._totals = Totals()
        self._error: FunctionError | None = None  # of the last batch
        self._parts = parts
        self._host = parts.host
        self._engine = Polling(mapping.options, most=parts.most, backoff_scale=parts.backoff_scale)
        self._asked: tuple[Queue, Asked[Any]] | None = None
        self._receive = 0  # counts receives: what a cancelled one brought goes back
        self._timer: Cancellable | None = None
        self._is_stepping = False
        self._is_started = False
        self._is_missing = False
        self._settling = 0
        self._outcomes: dict[int, BatchOutcome] = {}  # of batches whose messages are being deleted
        self._over: list[Callable[[], object]] = []
        self._filters = compiled(mapping.options)
        self._counts: EventCounts | None = None
        if mapping.counts:
            self._counts = EventCounts(mapping.key, mapping.uuid, filters=bool(mapping.options.filters))

    def start(self) -> None:
        """Begin. Once."""
        self._is_started = True
        self._step()

    def stop(self, then: Callable[[], object]) -> None:
        """End; calls back when nothing of it is left. One that has not begun yet ends when it would begin."""
        self._over.append(then)
        self._engine.stop()
        self._step()

    def wake(self) -> None:
        """What it waits for may be there."""
        self._engine.wake()
        self._step()

    def report(self) -> dict[str, Any]:
        """How it is, as JSON holds it."""
        error = self._error
        return {
            "function": self.mapping.key,
            "queue": self.mapping.queue,
            "uuid": self.mapping.uuid,
            "state": self._engine.state,
            "running": self._engine.running,
            "processed": self._totals.processed,
            "redelivered": self._totals.redelivered,
            "error": None if error is None else {"type": error.type, "message": error.message, "file": error.file},
        }

    def drain(self, told: Callable[[], object]) -> None:
        """Look for the moment when the queue is empty."""
        self._engine.hurry()
        self._parts.sqs().directory.when_loaded(lambda _: self._look(told))
        self._step()

    def _look(self, told: Callable[[], object]) -> None:
        queue = self._queue()

        def counted(reply: Counts | KflowError) -> None:
            self.is_drained = reply == Counts(0, 0, 0) or isinstance(reply, QueueDoesNotExist)
            if self.is_drained:
                told()
            else:
                self._host.call_later(_LOOK_S, lambda: self._look(told))

        if queue is None:
            counted(QueueDoesNotExist())
        elif self._engine.is_idle and not self._settling:
            queue.desk.ask(asking.Count(), counted)
        else:
            self._host.call_later(_LOOK_S, lambda: self._look(told))

    # ------------------------------------------------------------------ the engine's words

    def _step(self) -> None:
        """Carry out what the engine says, until it says nothing; what is answered at once is heard in its next word."""
        if self._is_stepping or not self._is_started:
            return
        self._is_stepping = True
        try:
            while actions := self._engine.step(time.monotonic()):
                for action in actions:
                    self._carry_out(action)
        finally:
            self._is_stepping = False
        if self._counts is not None and (counted := self._counts.take()) is not None:
            self._parts.counted(counted)
        self._arm()
        if self._engine.is_over and not self._settling:
            over, self._over = self._over, []
            for then in over:
                then()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = time.monotonic()
        due = self._engine.next_due(now)
        if due is not None:
            self._timer = self._host.call_later(max(0.0, due - now), self._step)

    def _carry_out(self, action: queue_polling.Action) -> None:
        if isinstance(action, queue_polling.Receive):
            self._begin_receive(action)
        elif isinstance(action, CancelReceive):
            self._receive += 1
            if self._asked is not None:
                queue, asked = self._asked
                self._asked = None
                queue.desk.cancel(asked)
        elif isinstance(action, Invoke):
            self._invoke(action)
        else:
            self._settle(action)

    # ------------------------------------------------------------------ receiving

    def _begin_receive(self, action: queue_polling.Receive) -> None:
        self._receive += 1
        number = self._receive

        def loaded(failure: KflowError | None) -> None:
            if number != self._receive:
                return
            queue = None if failure is not None else self._queue()
            if queue is None:
                self._failed(failure or QueueDoesNotExist())
                self._step()
                return
            if self._parts.timeout(self.mapping.key) is None:  # its function is gone; who brings it wakes this
                self._engine.functionless()
                self._step()
                return
            self._is_missing = False
            needed_s = self._needed_s()
            ask = asking.Receive(action.limit, needed_s=needed_s, instead_s=needed_s + _SPARE_S)
            told = functools.partial(self._received, number, queue, needed_s)
            self._asked = (queue, queue.desk.ask(ask, told, wait_s=action.wait_s))

        self._parts.sqs().directory.when_loaded(loaded)

    def _needed_s(self) -> int:
        """How long messages must be hidden at least; 0: the queue knows best. Source: documented: with-sqs."""
        window_s = self.mapping.options.maximum_batching_window_in_seconds
        return window_s + (self._parts.timeout(self.mapping.key) or 0) if window_s else 0

    def _received(self, number: int, queue: Queue, needed_s: int, reply: Received | KflowError) -> None:
        if number == self._receive:
            self._asked = None
        if isinstance(reply, KflowError):
            if number == self._receive:
                self._failed(reply)
                self._step()
            return
        own_s = queue.facts.visibility_s
        visible_s = needed_s + _SPARE_S if own_s < needed_s else own_s
        if not reply.messages:
            if self._counts is not None:
                self._counts.polled(0, 0)
            self._take(number, queue, visible_s, ([], []))
            return
        self._settling += 1  # until they are taken, or given back
        write = functools.partial(written, self._parts.sqs(), queue, reply.messages, self._filters)
        self._host.submit(write, functools.partial(self._take, number, queue, visible_s, received=reply.messages))

    def _take(
        self,
        number: int,
        queue: Queue,
        visible_s: int,
        result: tuple[list[Item], list[Held]] | KflowError,
        received: Sequence[Delivered] = (),
    ) -> None:
        self._settling -= bool(received)
        if number != self._receive or isinstance(result, KflowError):
            self._give_back(queue, [delivery_of(each) for each in received])
        if number != self._receive:
            self._step()
            return
        if isinstance(result, KflowError):
            self._failed(result)
        else:
            if self._counts is not None and received:
                self._counts.polled(len(received), len(result[1]))
            self._engine.received(*result, time.monotonic(), visible_s)
        self._step()

    def _failed(self, error: KflowError) -> None:
        """Where the queue is gone, it waits for another one of the name; else it tries again in a moment."""
        is_gone = isinstance(error, QueueDoesNotExist)
        if is_gone:
            self._host.call_later(_GONE_S, self._say_gone)
        else:
            log.warning("queue=%s cannot be polled: %s", self.mapping.queue, error)
        self._engine.failed(time.monotonic(), is_gone=is_gone)

    def _say_gone(self) -> None:
        """Once, and not of one that was made anew at once."""
        if self._is_missing or self._engine.is_stopping or self._queue() is not None:
            return
        self._is_missing = True
        self._host.notice(
            "warning",
            f"{self.mapping.key} waits for the queue {self.mapping.queue}, which is not there: create it, or "
            "remove the mapping",
        )

    def _queue(self) -> Queue | None:
        return self._parts.sqs().directory.by_arn(self.mapping.queue_arn)

    # ------------------------------------------------------------------ running

    def _invoke(self, action: Invoke) -> None:
        items = action.items
        if sum(len(item.record) for item in items) > _LARGE_BYTES:
            self._host.submit(lambda: queue_polling.event(items), functools.partial(self._run, action))
        else:
            self._run(action, queue_polling.event(items))

    def _run(self, action: Invoke, payload: bytes | KflowError) -> None:
        told = functools.partial(self._replied, action.number, action.items)
        if isinstance(payload, KflowError):
            told(payload)
            return
        arn = self.mapping.function_arn
        request = Request(request_id=new_request_id(), payload=payload, arn=arn, until=action.until)
        self._parts.fleet.invoke(self._parts.choose(self.mapping), request, told)

    def _replied(self, number: int, items: Sequence[Item], reply: Reply | KflowError) -> None:
        now = time.monotonic()
        if self._counts is not None and isinstance(reply, KflowError):
            self._counts.invoked(len(items), len(items))
        if isinstance(reply, TooManyRequests):
            self._engine.throttled(number, now)
        elif isinstance(reply, KflowError):
            log.info("function=%s queue=%s nothing came of a batch: %s", self.mapping.key, self.mapping.queue, reply)
            self._engine.unknown(number, now)
        elif self.mapping.options.report_batch_item_failures and len(reply.payload) > _HERE_BYTES:
            told = functools.partial(self._judged, number, items, reply)
            self._host.submit(lambda: self._judge(items, reply), told)
            return
        else:
            self._judged(number, items, reply, self._judge(items, reply))
            return
        self._step()

    def _judge(self, items: Sequence[Item], reply: Reply) -> Verdict:
        reports = self.mapping.options.report_batch_item_failures
        return judge(reply, [item.id for item in items], report_batch_item_failures=reports)

    def _judged(self, number: int, items: Sequence[Item], reply: Reply, verdict: Verdict | KflowError) -> None:
        if isinstance(verdict, KflowError):
            self._engine.unknown(number, time.monotonic())
        else:
            outcome = self._outcome(items, reply, verdict)
            if self._counts is not None:
                self._counts.invoked(len(items), len(verdict.left))
            if outcome.succeeded:
                self._outcomes[number] = outcome
            else:
                self._parts.tell(outcome)
            self._engine.done(number, verdict.left)
        self._step()

    def _outcome(self, items: Sequence[Item], reply: Reply, verdict: Verdict) -> BatchOutcome:
        failed = [items[place] for place in sorted(verdict.left)]
        succeeded = len(items) - len(failed)
        result = BatchResult.OK if not failed else BatchResult.PARTIAL if succeeded else BatchResult.FAILED
        function = self.mapping.key
        redelivered = sum(item.receives > 1 for item in items)
        self._error = verdict.error
        for totals in (self._totals, self._parts.totals.setdefault(function, Totals())):
            totals.processed += succeeded
            totals.redelivered += redelivered
        queue = self._queue()
        most = 0 if queue is None else queue.facts.max_receives
        return BatchOutcome(
            function=function,
            stream=self.mapping.queue,
            shard_id="",
            records=len(items),
            succeeded=succeeded,
            result=result,
            attempt=max(item.receives for item in items),
            attempts_allowed=most,
            duration_us=reply.duration_us,
            error=verdict.error,
            failed_sequence_number=failed[0].id if failed and succeeded else "",
            sample=failed[0].sample if failed else b"",
        )

    # ------------------------------------------------------------------ settling

    def _settle(self, action: Delete | GiveBack) -> None:
        """In the queue that each message came from: another one of the name has others under the same numbers."""
        by_queue: dict[Queue, list[Delivery]] = {}
        for queue, delivery in action.deliveries:
            by_queue.setdefault(queue, []).append(delivery)
        if isinstance(action, GiveBack):
            for queue, deliveries in by_queue.items():
                self._give_back(queue, deliveries)
            return
        outcome = self._outcomes.pop(action.number, None)
        for queue, deliveries in by_queue.items():
            self._settling += 1
            queue.desk.ask(asking.Delete(deliveries), functools.partial(self._deleted, outcome))
            outcome = None

    def _deleted(self, outcome: BatchOutcome | None, reply: list[Any] | KflowError) -> None:
        self._settling -= 1
        refused = reply if isinstance(reply, KflowError) else next((each for each in reply if each is not None), None)
        if self._counts is not None:
            deleted = 0 if isinstance(reply, KflowError) else sum(each is None for each in reply)
            self._counts.add(eventcounts.DELETED, deleted)
        if refused is not None and not isinstance(refused, QueueDoesNotExist):
            log.warning("queue=%s messages that are done come again: %s", self.mapping.queue, refused)
        if outcome is not None:
            self._parts.tell(outcome)
        self._step()

    def _give_back(self, queue: Queue, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        self._settling += 1

        def settled(reply: object) -> None:
            self._settling -= 1
            if isinstance(reply, KflowError):
                log.info("queue=%s messages come again later: %s", self.mapping.queue, reply)
            self._step()

        queue.desk.ask(asking.GiveBack(deliveries), settled)
