"""Where a queue is asked: a desk that looks for who waits when an ask may bring a message, and moves dead letters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from kflow import desk
from kflow.broker.host import Host
from kflow.broker.messagequeues import Message
from kflow.desk import Asked
from kflow.errors import KflowError
from kflow.sqs.asking import Ask, Drop, GiveBack, Receive, Received, Reply, Return, Terms
from kflow.sqs.receipts import Delivery
from kflow.sqs.turns import FIRST_ASIDE, Turns, may_bring

Move = Callable[[Sequence[Message], Callable[[bool], object]], object]
"""Brings messages that were set aside elsewhere, or back; calls back when either is done: whether they are there."""
AGAIN_S: Final = 1.0
"""Who waits, and met dead letters that could not be moved, looks again after so long."""


class Desk(desk.Desk[Terms, Ask, Reply]):
    """One queue's. Belongs to the loop's thread.

    Args:
        host: loop and threads.
        opened: opens the queue's file; in a thread.
        terms: what holds now.
        move: takes dead letters where they belong.
        is_crowded: whether more files are open than should be: then this one is not kept open.
    """

    _TURN = 1000
    _WAITERS = 64  # most find nothing
    _QUICK = 8

    def __init__(
        self,
        host: Host,
        opened: Callable[[], Turns],
        terms: Callable[[], Terms],
        move: Move,
        is_crowded: Callable[[], bool],
    ) -> None:
        super().__init__(host, opened, terms, Received())
        self._move = move
        self._are_many_open = is_crowded
        self._moving = 0
        self._aside = 0
        self.counted: Callable[[Ask, Reply | KflowError], object] = lambda _ask, _reply: None
        """Told what came of each that was asked, but of those that wait on."""

    def _is_hope(self, asks: Iterable[Ask]) -> bool:
        """A send, a group that is freed."""
        terms = self._terms()
        return any(may_bring(terms, each) for each in asks)

    def _is_quick(self, terms: Terms, asked: Sequence[Asked[Ask]]) -> bool:
        turns = self._turns
        return (
            len(asked) <= self._QUICK
            and isinstance(turns, Turns)
            and turns.is_quick(terms, [each.ask for each in asked])
        )

    def _tend(self) -> None:
        if isinstance(self._turns, Turns):
            self._turns.tend()

    @property
    def _is_needed(self) -> bool:
        """Who waits needs no open files: they are opened again with what brings something.

        What is set aside does: it comes back when they are opened.
        """
        return self._is_busy or self._moving > 0 or self._aside > 0

    def _is_crowded(self) -> bool:
        return self._are_many_open()

    def _reply(self, asked: Asked[Ask], reply: Reply | KflowError) -> None:
        if isinstance(reply, Received):
            self._aside += len(reply.aside)
        elif isinstance(asked.ask, Drop | Return) and reply is None:
            self._aside -= len(asked.ask.numbers)
        if not (asked.may_wait and isinstance(reply, Received) and not reply.messages):
            self.counted(asked.ask, reply)
        if not isinstance(asked.ask, Receive) or not isinstance(reply, Received):
            asked.tell(reply)
        elif reply.aside:
            self._moving += 1
            self._move(reply.aside, lambda is_there: self._moved(asked, reply, is_there=is_there))
        else:
            self._received(asked, reply, is_something=bool(reply.messages))

    def _moved(self, asked: Asked[Ask], reply: Received, *, is_there: bool) -> None:
        """Dead letters are where they belong, or back: only now its answer may be seen."""
        self._moving -= 1
        if reply.messages or self._closed is not None:
            self._received(asked, reply, is_something=bool(reply.messages))
        elif is_there and (asked.may_wait or len(reply.aside) <= FIRST_ASIDE):  # there may be more behind them
            self._due.append(asked)
        else:
            self._received(asked, reply, is_something=False)
            if self._waiting:
                self._host.call_later(AGAIN_S, self.changed)
        self._go()

    def _back(self, reply: Reply) -> Ask | None:
        assert isinstance(reply, Received)
        states = [each.message.state for each in reply.messages]
        return GiveBack([Delivery(state.number, state.receives) for state in states]) if states else None
