"""Polls queues for event source mappings: carries out what their engines say, on the node's loop.

A mapping that has nothing to do waits at its queue's desk, or for its queue to be made, and costs nothing. What is
received is filtered and written as an event by a thread.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kflow.broker.messagequeues import Counts
from kflow.declarations import QueueOptions
from kflow.desk import Asked
from kflow.errors import KflowError
from kflow.interfaces import BatchOutcome, BatchResult, Cancellable
from kflow.lambda_ import queue_polling
from kflow.lambda_.errors import InvalidParameterValue, TooManyRequests
from kflow.lambda_.fleet import Fleet, Reply, Request
from kflow.lambda_.queue_mapping import QueueMapping
from kflow.lambda_.queue_polling import CancelReceive, Delete, GiveBack, Invoke, Item, Polling
from kflow.lambda_.queue_responses import Verdict, judge
from kflow.runtime.feed import Totals
from kflow.sqs import asking
from kflow.sqs.asking import Delivered, Received
from kflow.sqs.directory import Queue
from kflow.sqs.errors import QueueDoesNotExist
from kflow.sqs.host import Host
from kflow.sqs.receipts import Delivery

if TYPE_CHECKING:
    from kflow.events.queue_patterns import MessageFilters
    from kflow.services.sqs.service import Sqs

log = logging.getLogger(__name__)

_HERE_BYTES: Final = 4096
"""A response up to this long is read on the loop, a longer one by a thread."""
_SPARE_S: Final = 30
"""What is added where window and timeout exceed the visibility timeout. Source: documented: with-sqs."""
_LOOK_S: Final = 0.1
"""In a drain, queues are looked at this often."""
_SAMPLE_BYTES: Final = 200


class QueuePolling:
    """A `kflow.lambda_.queue_mapping.Queues`. Belongs to the loop's thread.

    Args:
        host: loop, threads, and whom people hear from.
        fleet: runs functions.
        sqs: the queues; made when first asked for.
        timeout: of a function by its key, seconds; None: there is no such function.
        tell: told of each batch when its outcome is durable.
        most: batches of a mapping that run at once, where it does not say.
        backoff_scale: of all pauses.
    """

    def __init__(
        self,
        host: Host,
        fleet: Fleet,
        sqs: Callable[[], Sqs],
        *,
        timeout: Callable[[str], int | None],
        tell: Callable[[BatchOutcome], object],
        most: int,
        backoff_scale: float = 1.0,
    ) -> None:
        self.host = host
        self.fleet = fleet
        self.timeout = timeout
        self.tell = tell
        self.most = most
        self.backoff_scale = backoff_scale
        self.totals: dict[str, Totals] = {}
        self._make_sqs = sqs
        self._sqs: Sqs | None = None
        self._pollers: dict[str, Poller] = {}

    @property
    def sqs(self) -> Sqs:
        """The queues."""
        if self._sqs is None:
            self._sqs = self._make_sqs()
            self._sqs.directory.made = self._made
        return self._sqs

    @property
    def mappings(self) -> Sequence[QueueMapping]:
        """What is polled."""
        return [poller.mapping for poller in self._pollers.values()]

    # ------------------------------------------------------------------ mappings

    def check(self, mapping: QueueMapping, timeout_s: int, told: Callable[[KflowError | None], object]) -> None:
        """Whether a mapping may be made of a queue.

        Source: recorded: the text of a queue that is not there; chosen: that of a visibility timeout.
        """

        def loaded(failure: KflowError | None) -> None:
            queue = None if failure is not None else self.sqs.directory.by_arn(mapping.queue_arn)
            if failure is not None:
                told(failure)
            elif queue is None:
                told(
                    InvalidParameterValue(
                        "Error occurred while ReceiveMessage. "
                        "SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. "
                        "SQS Error Message: The specified queue does not exist."
                    )
                )
            elif queue.facts.visibility_s < timeout_s:
                told(
                    InvalidParameterValue(
                        f"Queue visibility timeout: {queue.facts.visibility_s} seconds is less than Function timeout: "
                        f"{timeout_s} seconds"
                    )
                )
            else:
                told(None)

        self.sqs.directory.when_loaded(loaded)

    def start(self, mapping: QueueMapping) -> None:
        """Poll from now on."""
        before = self._pollers.get(mapping.uuid)
        made = self._pollers[mapping.uuid] = Poller(self, mapping)
        if before is None:
            made.start()
        else:
            before.stop(made.start)

    def stop(self, uuid: str, then: Callable[[], object]) -> None:
        """Poll no more."""
        poller = self._pollers.get(uuid)
        if poller is None:
            then()
            return

        def over() -> None:
            if self._pollers.get(uuid) is poller:
                del self._pollers[uuid]
            then()

        poller.stop(over)

    def last_result(self, uuid: str) -> str:
        """What the last batch came to."""
        poller = self._pollers.get(uuid)
        return "" if poller is None else poller.last_result

    def function_changed(self, key: str) -> None:
        """A function is there, or may run more often than before: look again at once.

        Args:
            key: its key; without a qualifier: all its keys.
        """
        for poller in self._pollers.values():
            if key in {poller.mapping.key, poller.mapping.key.partition(":")[0]}:
                poller.wake()

    def drain(self, told: Callable[[], object]) -> None:
        """Work off what is there: a queue is drained once it has been empty, with nothing in flight or delayed."""
        for poller in self._pollers.values():
            poller.drain(told)

    def undrained(self) -> list[str]:
        """What is not, for people."""
        return [f"{each.mapping.key} {each.mapping.queue}" for each in self._pollers.values() if not each.is_drained]

    def close(self, then: Callable[[], object]) -> None:
        """Poll nothing more; calls back when what runs has ended and is settled."""
        left = len(self._pollers) + 1

        def over() -> None:
            nonlocal left
            left -= 1
            if not left:
                then()

        for each in list(self._pollers):
            self.stop(each, over)
        over()

    def _made(self, queue: Queue) -> None:
        for poller in self._pollers.values():
            if poller.mapping.queue_arn == queue.arn:
                poller.wake()

    def count(self, function: str, *, processed: int, redelivered: int) -> None:
        """Add to a function's totals."""
        totals = self.totals.setdefault(function, Totals())
        totals.processed += processed
        totals.redelivered += redelivered


class Poller:
    """One mapping's: its engine, and what it has under way.

    Attributes:
        mapping: see there.
        last_result: what the last batch came to; empty: none was yet.
        is_drained: whether its queue has been empty since a drain began.
    """

    def __init__(self, polling: QueuePolling, mapping: QueueMapping) -> None:
        self.mapping = mapping
        self.last_result = ""
        self.is_drained = False
        self._polling = polling
        self._host = polling.host
        self._engine = Polling(mapping.options, most=polling.most, backoff_scale=polling.backoff_scale)
        self._asked: tuple[Queue, Asked[Any]] | None = None
        self._receive = 0  # counts receives: what a cancelled one brought goes back
        self._timer: Cancellable | None = None
        self._is_stepping = False
        self._is_started = False
        self._is_missing = False
        self._settling = 0
        self._outcomes: dict[int, BatchOutcome] = {}  # of batches whose messages are being deleted
        self._over: list[Callable[[], object]] = []
        self._filters = _compiled(mapping.options)

    def start(self) -> None:
        """Begin, unless it was stopped meanwhile."""
        self._is_started = True
        self._step()

    def stop(self, then: Callable[[], object]) -> None:
        """End; calls back when nothing of it is left."""
        self._over.append(then)
        self._engine.stop()
        self._is_started = True
        self._step()

    def wake(self) -> None:
        """What it waits for may be there."""
        self._engine.wake()
        self._step()

    def drain(self, told: Callable[[], object]) -> None:
        """Look for the moment when the queue is empty."""
        self._engine.hurry()
        self._look(told)
        self._step()

    def _look(self, told: Callable[[], object]) -> None:
        queue = self._polling.sqs.directory.by_arn(self.mapping.queue_arn)

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
            queue = None if failure is not None else self._polling.sqs.directory.by_arn(self.mapping.queue_arn)
            if queue is None:
                self._failed(failure or QueueDoesNotExist())
                return
            if self._polling.timeout(self.mapping.key) is None:  # its function is gone; nothing is received meanwhile
                self._engine.failed(time.monotonic())
                return
            self._is_missing = False
            needed_s = self._needed_s()
            ask = asking.Receive(action.limit, needed_s=needed_s, instead_s=needed_s + _SPARE_S)
            told = functools.partial(self._received, number, queue, needed_s)
            self._asked = (queue, queue.desk.ask(ask, told, wait_s=action.wait_s))

        self._polling.sqs.directory.when_loaded(loaded)

    def _needed_s(self) -> int:
        """How long messages must be hidden at least; 0: the queue knows best. Source: documented: with-sqs."""
        window_s = self.mapping.options.maximum_batching_window_in_seconds
        return window_s + (self._polling.timeout(self.mapping.key) or 0) if window_s else 0

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
            self._take(number, queue, visible_s, ([], []))
            return
        write = functools.partial(_written, self._polling.sqs, queue, reply.messages, self._filters)
        self._host.submit(write, functools.partial(self._take, number, queue, visible_s, received=reply.messages))

    def _take(
        self,
        number: int,
        queue: Queue,
        visible_s: int,
        result: tuple[list[Item], list[Delivery]] | KflowError,
        received: Sequence[Delivered] = (),
    ) -> None:
        if number != self._receive or isinstance(result, KflowError):
            self._give_back(queue, [_delivery(each) for each in received])
        if number != self._receive:
            return
        if isinstance(result, KflowError):
            self._failed(result)
        else:
            self._engine.received(*result, time.monotonic(), visible_s)
        self._step()

    def _failed(self, error: KflowError) -> None:
        """Where the queue is gone, it waits for another one of the name; else it tries again in a moment."""
        if not isinstance(error, QueueDoesNotExist):
            log.warning("queue=%s cannot be polled: %s", self.mapping.queue, error)
        elif not self._is_missing:
            self._is_missing = True
            self._host.notice(
                "warning",
                f"{self.mapping.key} waits for the queue {self.mapping.queue}, which is not there: create it, or "
                "remove the mapping",
            )
        self._engine.failed(time.monotonic(), is_gone=isinstance(error, QueueDoesNotExist))

    # ------------------------------------------------------------------ running

    def _invoke(self, action: Invoke) -> None:
        payload = queue_polling.event(action.items)
        request = Request(request_id=os.urandom(16), payload=payload, arn=self.mapping.function_arn)
        told = functools.partial(self._replied, action.number, action.items)
        self._polling.fleet.invoke(self.mapping.key, request, told)

    def _replied(self, number: int, items: Sequence[Item], reply: Reply | KflowError) -> None:
        now = time.monotonic()
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
            self.last_result = "OK" if verdict.error is None else "PROBLEM: Function call failed"
            outcome = self._outcome(items, reply, verdict)
            if outcome.succeeded:
                self._outcomes[number] = outcome
            else:
                self._polling.tell(outcome)
            self._engine.done(number, verdict.left)
        self._step()

    def _outcome(self, items: Sequence[Item], reply: Reply, verdict: Verdict) -> BatchOutcome:
        failed = [items[place] for place in sorted(verdict.left)]
        succeeded = len(items) - len(failed)
        result = BatchResult.OK if not failed else BatchResult.PARTIAL if succeeded else BatchResult.FAILED
        function = self.mapping.key
        redelivered = sum(item.receives > 1 for item in items)
        self._polling.count(function, processed=succeeded, redelivered=redelivered)
        queue = self._polling.sqs.directory.by_arn(self.mapping.queue_arn)
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
        queue = self._polling.sqs.directory.by_arn(self.mapping.queue_arn)
        outcome = self._outcomes.pop(action.number, None) if isinstance(action, Delete) else None
        if queue is None:  # and its messages with it
            if outcome is not None:
                self._polling.tell(outcome)
        elif isinstance(action, GiveBack):
            self._give_back(queue, action.deliveries)
        else:
            self._settling += 1
            queue.desk.ask(asking.Delete(action.deliveries), functools.partial(self._deleted, outcome))

    def _deleted(self, outcome: BatchOutcome | None, reply: list[Any] | KflowError) -> None:
        self._settling -= 1
        refused = reply if isinstance(reply, KflowError) else next((each for each in reply if each is not None), None)
        if refused is not None:
            log.warning("queue=%s messages that are done come again: %s", self.mapping.queue, refused)
        if outcome is not None:
            self._polling.tell(outcome)
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


def _compiled(options: QueueOptions) -> MessageFilters | None:
    if not options.filters:
        return None
    # Only for mappings that filter.
    from kflow.events.queue_patterns import compile_message_filters

    return compile_message_filters(options.filters)


def _written(
    sqs: Sqs, queue: Queue, messages: Sequence[Delivered], filters: MessageFilters | None
) -> tuple[list[Item], list[Delivery]]:
    """In a thread: the messages as records of the event, and those that do not pass."""
    items: list[Item] = []
    filtered: list[Delivery] = []
    for each in messages:
        record: Mapping[str, Any] = sqs.event_record(queue, each)
        delivery = _delivery(each)
        if filters is not None and not filters.passes(record):
            filtered.append(delivery)
            continue
        items.append(
            Item(
                delivery,
                record["messageId"],
                msgspec.json.encode(record),
                each.more.group if queue.facts.is_fifo else "",
                each.message.state.receives,
                each.message.body[:_SAMPLE_BYTES].encode()[:_SAMPLE_BYTES],
            )
        )
    return items, filtered


def _delivery(delivered: Delivered) -> Delivery:
    state = delivered.message.state
    return Delivery(state.number, state.receives)
