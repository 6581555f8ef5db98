"""Where a queue is asked, on the loop: turns are taken by a thread, and who finds nothing waits here.

    ask --> due --turn in a thread--> told
                       |  nothing there, and it may wait
                       +--> waiting --a send, a message that becomes visible, a group that is freed--> due
                               +--its time is over--> told: nothing

One turn at a time, with all who are due: under load a transaction serves many. Nothing happens while nobody asks.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from kflow.broker.messagequeues import Message
from kflow.errors import KflowError
from kflow.interfaces import Cancellable
from kflow.sqs.asking import Ask, GiveBack, Receive, Received, Reply, Terms
from kflow.sqs.host import Host
from kflow.sqs.receipts import Delivery
from kflow.sqs.turns import Turn, Turns, may_bring

log = logging.getLogger(__name__)

Told = Callable[[Any], object]
"""Called once, on the loop, with the reply or with the `KflowError` that says why there is none."""

Move = Callable[[Sequence[Message], Callable[[], object]], object]
"""Brings messages that were set aside elsewhere, or back; calls back when either is done."""

IDLE_S: Final = 30.0
"""A queue that nobody asks for so long closes its file."""
_TURN: Final = 1000
"""So many are served in one turn: the first of them waits for the last."""
_WAITERS: Final = 64
"""So many of those who wait are looked at in one turn: most find nothing."""


class Asked:
    """One who asks. `cancel` it where nobody wants the answer any more: what it would have received is given back."""

    __slots__ = ("ask", "is_over", "may_wait", "timer", "told")

    def __init__(self, ask: Ask, told: Told, *, may_wait: bool) -> None:
        self.ask = ask
        self.told = told
        self.may_wait = may_wait
        self.is_over = False
        self.timer: Cancellable | None = None

    def tell(self, reply: Reply | KflowError) -> None:
        """The answer; nothing where it has been told, or nobody waits for it."""
        if not self.is_over:
            self.end()
            self.told(reply)

    def end(self) -> None:
        """It is answered, or needs no answer."""
        self.is_over = True
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Desk:
    """One queue's. Belongs to the loop's thread.

    Args:
        host: loop and threads.
        opened: opens the queue's file; in a thread.
        terms: what holds now.
        move: takes dead letters where they belong.
        is_crowded: whether more files are open than should be: then this one is not kept open.
    """

    def __init__(
        self,
        host: Host,
        opened: Callable[[], Turns],
        terms: Callable[[], Terms],
        move: Move,
        is_crowded: Callable[[], bool],
    ) -> None:
        self._host = host
        self._opened = opened
        self._terms = terms
        self._move = move
        self._is_crowded = is_crowded
        self._turns: Turns | None = None
        self._due: deque[Asked] = deque()
        self._waiting: dict[Asked, None] = {}
        self._is_busy = False
        self._is_news = False
        self._moving = 0
        self._visible: Cancellable | None = None
        self._idle: Cancellable | None = None
        self._was_used = False
        self._may_wait = True
        self._closed: KflowError | None = None
        self._then: list[Callable[[], object]] = []

    @property
    def is_open(self) -> bool:
        """Whether its file is open, about."""
        return self._turns is not None

    def ask(self, ask: Ask, told: Told, *, wait_s: float = 0.0) -> Asked:
        """Ask something.

        Args:
            ask: what.
            told: told the answer once, on the loop; or why there is none.
            wait_s: how long a receive may wait for the first message, seconds.
        """
        asked = Asked(ask, told, may_wait=wait_s > 0)
        if asked.may_wait:
            asked.timer = self._host.call_later(wait_s, lambda: self._time_is_over(asked))
        self._due.append(asked)
        self._was_used = True
        self._go()
        return asked

    def cancel(self, asked: Asked) -> None:
        """Nobody waits for this answer any more."""
        asked.end()
        self._waiting.pop(asked, None)

    def changed(self) -> None:
        """What holds has changed: look again for who waits."""
        self._is_news = True
        self._go()

    def close(self, error: KflowError, then: Callable[[], object]) -> None:
        """Refuse everybody from now on, and close the file.

        Args:
            error: why.
            then: called on the loop when no thread uses the file any more.
        """
        refused = [*self._due, *self._waiting]
        self._due.clear()
        self._waiting.clear()
        self._closed = error
        self._then.append(then)
        for asked in refused:
            asked.tell(error)
        self._rest()
        if not self._is_busy:
            self._put_away()

    def send_home(self) -> None:
        """Nobody waits any more: who would is answered with nothing."""
        self._may_wait = False
        for asked in [*self._due, *self._waiting]:
            if asked.may_wait:
                asked.tell(Received())
        self._waiting.clear()

    # ------------------------------------------------------------------ turns

    def _go(self) -> None:
        """Take a turn, where none is taken and somebody has a reason to hope."""
        if self._is_busy:
            return
        if self._closed is not None:
            while self._due:
                self._due.popleft().tell(self._closed)
            return
        asked: list[Asked] = []
        is_hope, terms = self._is_news, self._terms()
        while self._due and len(asked) < _TURN:
            each = self._due.popleft()
            if not each.is_over:
                asked.append(each)
                is_hope = is_hope or may_bring(terms, each.ask)
        if is_hope and self._waiting:
            called = list(self._waiting)[:_WAITERS]
            for each in called:
                del self._waiting[each]
            asked = called + asked
        self._is_news = False
        if not asked:
            return
        self._is_busy = True
        asks = [each.ask for each in asked]
        self._host.submit(lambda: self._take(terms, asks), lambda result: self._over(asked, result))

    def _take(self, terms: Terms, asks: Sequence[Ask]) -> Turn:
        """In a thread, while the desk is busy."""
        if self._turns is None:
            self._turns = self._opened()
        return self._turns.take(terms, asks)

    def _over(self, asked: list[Asked], result: Turn | KflowError) -> None:
        self._is_busy = False
        if isinstance(result, KflowError):
            for each in asked:
                each.tell(result)
        else:
            self._is_news = self._is_news or result.is_news
            for each, reply in zip(asked, result.replies, strict=True):
                self._reply(each, reply)
            self._expect(result.next_ms)
        if self._closed is not None:
            self._put_away()
            return
        self._go()
        if self._is_busy or self._waiting or self._moving:
            return
        if self._is_crowded():
            self._rest()
            self._put_away()
        elif self._idle is None:
            self._was_used = False
            self._idle = self._host.call_later(IDLE_S, self._look_idle)

    def _reply(self, asked: Asked, reply: Reply | KflowError) -> None:
        if not isinstance(asked.ask, Receive) or not isinstance(reply, Received):
            asked.tell(reply)
        elif reply.aside:
            self._moving += 1
            self._move(reply.aside, lambda: self._moved(asked, reply))
        else:
            self._received(asked, reply)

    def _moved(self, asked: Asked, reply: Received) -> None:
        """Dead letters are where they belong: only now its answer may be seen."""
        self._moving -= 1
        if reply.messages or not asked.may_wait or self._closed is not None:
            self._received(asked, reply)
        else:  # there may be more behind them
            self._due.append(asked)
        self._go()

    def _received(self, asked: Asked, reply: Received) -> None:
        if asked.is_over:
            self._give_back(reply)
        elif reply.messages or not (asked.may_wait and self._may_wait):
            asked.tell(reply)
        elif self._closed is not None:
            asked.tell(self._closed)
        else:
            self._waiting[asked] = None

    def _give_back(self, reply: Received) -> None:
        """Nobody took these messages: others may have them at once."""
        states = [each.message.state for each in reply.messages]
        if states and self._closed is None:
            back = GiveBack([Delivery(state.number, state.receives) for state in states])
            self._due.append(Asked(back, _told_nobody, may_wait=False))

    # ------------------------------------------------------------------ waiting

    def _time_is_over(self, asked: Asked) -> None:
        asked.timer = None
        asked.may_wait = False
        if asked in self._waiting:  # else it is in a turn, and is told when that is over
            del self._waiting[asked]
            asked.tell(Received())

    def _expect(self, next_ms: int | None) -> None:
        """Somebody waits, and a message becomes visible at a time."""
        if self._visible is not None:
            self._visible.cancel()
            self._visible = None
        if next_ms is not None and self._waiting:
            seconds = max(0, next_ms - self._host.now_ms()) / 1000 + 0.001
            self._visible = self._host.call_later(seconds, self._became_visible)

    def _became_visible(self) -> None:
        self._visible = None
        self.changed()

    # ------------------------------------------------------------------ resting

    def _look_idle(self) -> None:
        self._idle = None
        if self._closed is not None or self._is_busy or self._waiting or self._moving:
            return  # the end of what is under way looks again
        if self._was_used:
            self._was_used = False
            self._idle = self._host.call_later(IDLE_S, self._look_idle)
            return
        self._rest()
        self._put_away()

    def _rest(self) -> None:
        for timer in (self._visible, self._idle):
            if timer is not None:
                timer.cancel()
        self._visible = self._idle = None

    def _put_away(self) -> None:
        """Close the file in a thread, then tell who waits for that."""
        turns, self._turns = self._turns, None
        if turns is None:
            self._away(None)
            return
        self._is_busy = True
        self._host.submit(turns.close, self._away)

    def _away(self, failure: KflowError | None) -> None:
        if failure is not None:
            log.warning("queue not closed cleanly error=%s", failure)
        self._is_busy = False
        told, self._then = self._then, []
        for then in told:
            then()
        self._go()


def _told_nobody(reply: Any) -> None:
    if isinstance(reply, KflowError):
        log.info("messages of a closed call stay in flight until their timeout is over error=%s", reply)
