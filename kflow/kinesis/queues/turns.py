"""The engine of one queue: who asks in one turn is served in one transaction.

    new in the log --receive--> in flight --time over--> visible --receive--> in flight ...
                                   |                        |
                                   +--acknowledge--> gone <-+--`max_receives`--> a dead letter, with the same states

Delivery is at least once, in no promised order. Records whose time is over come before new ones, which keep half of the
places: neither can starve the other. Runs in a thread, one turn of a queue at a time, and is told the time.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from typing import Final

from kflow import limits
from kflow.broker.recordqueues import Ledger, Row
from kflow.broker.streammap import StreamMap
from kflow.desk import Turn
from kflow.errors import KflowError, StorageError, Throttling
from kflow.kinesis.queues.asking import (
    Ask,
    Delivery,
    Entry,
    Receive,
    Received,
    Refusal,
    Reply,
    Settle,
    Terms,
    Verb,
)
from kflow.kinesis.queues.reading import Found, LogView
from kflow.records import Position

log = logging.getLogger(__name__)

_RECEIPTS: Final = 63


class Turns:
    """One queue.

    Args:
        ledger: what it keeps.
        view: what it reads.
        draw: draws the numbers of deliveries; by default at random.
    """

    def __init__(self, ledger: Ledger, view: LogView, draw: Callable[[], int] | None = None) -> None:
        self._ledger = ledger
        self._view = view
        self._draw = draw or (lambda: random.getrandbits(_RECEIPTS))  # what is sealed needs no secrets
        self._cursors = ledger.cursors()
        self._drained: set[int] = set()
        self._first = 0  # the shard that is looked at first: each in its turn
        self._new_first = False
        self._told = ""
        self._max_receives: int | None = None
        self._buried_ms = 0  # up to when it is known which rows are dead letters

    def take(self, terms: Terms, asked: Sequence[Ask], *, may_wait: bool = True) -> Turn[Reply]:
        """Serve all who ask; see `kflow.desk.Turns`.

        Raises:
            StorageError: the ledger cannot be written; nothing has happened.
        """
        cursors = dict(self._cursors)
        try:
            with self._ledger.turn():
                self._settle_time(terms)
                dry: set[bool] = set()
                replies: list[Reply | KflowError] = []
                is_news = False
                for each in asked:
                    if isinstance(each, Receive):
                        replies.append(self._serve(terms, each, dry))
                    else:
                        replies.append([self._settle(terms, each, entry) for entry in each.entries])
                        is_news = is_news or each.verb is not Verb.ACKNOWLEDGE
                        dry.clear()
                next_ms = self._ledger.next_visible_ms(terms.now_ms) if may_wait else None
                return Turn(replies, next_ms, is_news)
        except BaseException:
            self._cursors = cursors  # as they are in the ledger
            self._drained.clear()
            self._buried_ms = 0
            raise

    def close(self) -> None:
        """Close all files."""
        self._view.close()
        self._ledger.close()

    # ------------------------------------------------------------------ time

    def _settle_time(self, terms: Terms) -> None:
        """Let expire what has, and bury who was received too often."""
        now_ms = terms.now_ms
        self._ledger.expire(_oldest_ms(terms))
        before, self._max_receives = self._max_receives, terms.max_receives
        if before is not None and before != terms.max_receives:
            self._ledger.bury(min(self._buried_ms, now_ms), now_ms, before)  # they died under the old rule
        if before != terms.max_receives:
            self._buried_ms = 0
        if terms.max_receives is not None:
            self._ledger.bury(min(self._buried_ms, now_ms), now_ms, terms.max_receives)
        self._buried_ms = now_ms

    # ------------------------------------------------------------------ receiving

    def _serve(self, terms: Terms, asked: Receive, dry: set[bool]) -> Reply | KflowError:
        """One receive; where nothing is there, nothing is for who asks after it in the turn."""
        if asked.dead in dry:
            return []
        try:
            limit = self._places(terms, asked.limit)
            received = self._dead(terms, asked, limit) if asked.dead else self._alive(terms, asked, limit)
        except KflowError as error:
            return error
        if not received:
            dry.add(asked.dead)
        return received

    def _places(self, terms: Terms, limit: int) -> int:
        """How many records may be received.

        Raises:
            Throttling: too many are in flight. Source: documented: the number; chosen: the error.
        """
        most = limits.QUEUE_IN_FLIGHT
        if self._ledger.count + limit <= most:  # not all of them need be in flight: counting those costs
            return limit
        free = most - self._ledger.in_flight(terms.now_ms)
        if free <= 0:
            raise Throttling(
                f"{most} records of the queue are in flight, which is the most there may be. "
                "Acknowledge records, or wait until their visibility timeout is over."
            )
        return min(limit, free)

    def _dead(self, terms: Terms, asked: Receive, limit: int) -> list[Received]:
        return self._received_again(terms, asked, self._ledger.visible(terms.now_ms, limit, dead=True), limit)

    def _alive(self, terms: Terms, asked: Receive, limit: int) -> list[Received]:
        rows = self._ledger.visible(terms.now_ms, limit, dead=False)
        places = limit - len(rows)
        if rows:
            self._new_first = not self._new_first
            places = max(places, limit // 2 if limit > 1 else int(self._new_first))
        fresh, failure = self._received_new(terms, asked, places) if places else ([], None)
        budget = limits.GET_RECORDS_BYTES - sum(len(each.data) + len(each.key.encode()) for each in fresh)
        again = rows[: limit - len(fresh)]
        try:
            received = self._received_again(terms, asked, again, limit, budget, is_first=not fresh)
        except StorageError as error:  # they stay visible
            self._tell(terms, error)
            received, failure = [], error
        if failure is not None and not received and not fresh:
            raise failure
        return received + fresh

    def _received_again(
        self,
        terms: Terms,
        asked: Receive,
        rows: list[Row],
        limit: int,
        budget: int = limits.GET_RECORDS_BYTES,
        *,
        is_first: bool = True,
    ) -> list[Received]:
        """Receive rows that are visible; those whose record is gone go, and are made up for in the next call."""
        received: list[Received] = []
        changed: list[Row] = []
        for row, found in zip(rows[:limit], self._view.again(terms.stream, rows[:limit]), strict=True):
            if found is None:
                self._ledger.drop(row)
                continue
            budget -= found.size
            if budget < 0 and not (is_first and not received):
                break
            delivery = Delivery(row.shard, row.counter, self._draw(), asked.dead)
            receives = row.receives + 1
            changed.append(
                row._replace(receives=receives, visible_ms=_until_ms(terms, asked), receipt=delivery.receipt)
            )
            received.append(Received(delivery, found.key, found.data, found.arrival_ms, row.first_ms, receives))
        self._ledger.change(changed)
        return received

    def _received_new(self, terms: Terms, asked: Receive, places: int) -> tuple[list[Received], StorageError | None]:
        """Receive what nobody has received yet, shard after shard; one that cannot be read stops none of the others.

        Returns:
            The records, and why a shard could not be read.
        """
        received: list[Received] = []
        budget = limits.GET_RECORDS_BYTES
        failure: StorageError | None = None
        for shard in self._shards(terms.stream):
            if places <= len(received) or budget <= 0:
                break
            at = self._cursors.get(shard, _BEGIN)
            try:
                found, behind = self._view.fresh(
                    terms.stream,
                    shard,
                    at,
                    limit=places - len(received),
                    max_bytes=budget,
                    oldest_ms=_oldest_ms(terms),
                )
                if not found and self._view.is_drained(terms.stream, shard, behind):
                    self._drained.add(shard)
            except StorageError as error:
                self._tell(terms, error)
                failure = error
                continue
            if received and found and found[0].size > budget:
                break  # one record that is larger than what is left: it comes with the next call
            if behind != at:
                self._move(shard, behind)
            budget -= sum(each.size for each in found)
            received += self._add(terms, asked, shard, found)
        return received, failure

    def _tell(self, terms: Terms, error: StorageError) -> None:
        """Something cannot be read, and clients may never hear of it: others have records for them."""
        if str(error) != self._told:
            self._told = str(error)
            log.warning("queue passes over what it cannot read stream=%s error=%s", terms.stream.name, error)

    def _shards(self, stream: StreamMap) -> list[int]:
        """The shards that may have something new, another one first each time."""
        shards = [shard.index for shard in stream.shards if shard.index not in self._drained]
        if not shards:
            return shards
        self._first = (self._first + 1) % len(shards)
        return shards[self._first :] + shards[: self._first]

    def _move(self, shard: int, position: Position) -> None:
        self._ledger.move(shard, position)
        self._cursors[shard] = position

    def _add(self, terms: Terms, asked: Receive, shard: int, found: list[Found]) -> list[Received]:
        until_ms, now_ms = _until_ms(terms, asked), terms.now_ms
        rows: list[Row] = []
        received: list[Received] = []
        for each in found:
            delivery = Delivery(shard, each.counter, self._draw(), dead=False)
            where = (shard, each.counter, each.at, each.record, each.arrival_ms)
            rows.append(Row(*where, 1, now_ms, until_ms, delivery.receipt, 0))
            received.append(Received(delivery, each.key, each.data, each.arrival_ms, now_ms, 1))
        self._ledger.add(rows)
        return received

    # ------------------------------------------------------------------ settling

    def _settle(self, terms: Terms, asked: Settle, entry: Entry) -> Refusal | None:
        delivery, verb = entry.delivery, asked.verb
        if delivery.dead is not asked.dead:
            return Refusal.DEAD if delivery.dead else Refusal.NOT_DEAD
        row = self._ledger.find(delivery.shard, delivery.counter)
        if row is None or row.receipt != delivery.receipt or bool(row.dead) is not asked.dead:
            return Refusal.GONE
        if verb is Verb.ACKNOWLEDGE:
            self._ledger.drop(row)
        elif verb is Verb.HIDE:
            self._ledger.change([row._replace(visible_ms=terms.now_ms + entry.hide_ms)])
        elif verb is Verb.RESTORE:
            self._ledger.change([row._replace(dead=0, receives=0, visible_ms=terms.now_ms, receipt=self._draw())])
        else:
            taken = max(0, row.receives - 1)
            self._ledger.change([row._replace(receives=taken, visible_ms=terms.now_ms, receipt=self._draw())])
        return None


_BEGIN: Final = Position(0, 0)


def _oldest_ms(terms: Terms) -> int:
    """What arrived before has passed the stream's retention."""
    return terms.stream.trim_ms(terms.now_ms)


def _until_ms(terms: Terms, asked: Receive) -> int:
    hidden_ms = terms.visibility_ms if asked.visibility_ms is None else asked.visibility_ms
    return terms.now_ms + hidden_ms
