"""Where a queue is asked, on the loop: turns are taken by a thread, and who finds nothing waits here.

    ask --> due --turn in a thread--> told
                       |  nothing there, and it may wait
                       +--> waiting --news: an append, a record that becomes visible, a reshard--> due
                               +--its time is over--> told: nothing

One turn at a time, with all who are due: under load a transaction serves many. Nothing happens while nobody asks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from kflow.errors import KflowError
from kflow.interfaces import Cancellable
from kflow.kinesis.host import Host, Watch
from kflow.kinesis.queues.asking import Ask, Entry, Receive, Received, Reply, Settle, Terms, Verb
from kflow.kinesis.queues.turns import Turn, Turns

log = logging.getLogger(__name__)

Told = Callable[[Reply | KflowError], object]

IDLE_S: Final = 30.0
"""A queue that nobody asks for so long closes its files."""


class Asked:
    """One who asks. `cancel` it where nobody wants the answer any more: what it would have received is given back."""

    __slots__ = ("ask", "is_over", "may_wait", "timer", "told")

    def __init__(self, ask: Ask, told: Told, *, may_wait: bool) -> None:
        self.ask = ask
        self.told = told
        self.may_wait = may_wait
        self.is_over = False
        self.timer: Cancellable | None = None

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
        opened: opens the queue's files; in a thread.
        terms: what holds now; raises where the queue does not serve.
    """

    def __init__(self, host: Host, opened: Callable[[], Turns], terms: Callable[[], Terms]) -> None:
        self._host = host
        self._opened = opened
        self._terms = terms
        self._turns: Turns | None = None
        self._due: list[Asked] = []
        self._waiting: list[Asked] = []
        self._watches: dict[int, Watch] = {}
        self._is_busy = False
        self._is_news = False
        self._visible: Cancellable | None = None
        self._idle: Cancellable | None = None
        self._was_used = False
        self._may_wait = True
        self._closed: KflowError | None = None
        self._then: list[Callable[[], object]] = []

    def ask(self, ask: Ask, told: Told, *, wait_s: float = 0.0) -> Asked:
        """Ask something.

        Args:
            ask: what.
            told: told the answer once, on the loop; or why there is none.
            wait_s: how long a receive may wait for the first record, seconds.
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
        if asked in self._waiting:
            self._waiting.remove(asked)

    def changed(self) -> None:
        """The terms have changed, or there are other shards: look again for who waits."""
        self._is_news = True
        self._go()

    def close(self, error: KflowError, then: Callable[[], object]) -> None:
        """Refuse everybody from now on, and close the files.

        Args:
            error: why.
            then: called on the loop when no thread uses the files any more.
        """
        refused, self._due, self._waiting = self._due + self._waiting, [], []
        self._closed = error
        self._then.append(then)
        for asked in refused:
            _tell(asked, error)
        self._rest()
        if not self._is_busy:
            self._put_away()

    def send_home(self) -> None:
        """Nobody waits any more: who would is answered with nothing."""
        self._may_wait = False
        for asked in self._due + self._waiting:
            if asked.may_wait:
                _tell(asked, [])

    # ------------------------------------------------------------------ turns

    def _go(self) -> None:
        """Take a turn, where none is taken and somebody has a reason to hope."""
        if self._is_busy:
            return
        if self._closed is not None:
            refused, self._due = self._due, []
            for each in refused:
                _tell(each, self._closed)
            return
        asked = [each for each in self._due if not each.is_over]
        self._due = []
        if self._is_news:
            asked, self._waiting = self._waiting + asked, []
        self._is_news = False
        if not asked:
            return
        try:
            terms = self._terms()
            self._watch(terms)
        except KflowError as error:
            for each in asked:
                _tell(each, error)
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
                _tell(each, result)
        else:
            self._is_news = self._is_news or result.is_news
            for each, reply in zip(asked, result.replies, strict=True):
                self._reply(each, reply)
            self._expect(result.next_ms)
        if self._closed is not None:
            self._put_away()
            return
        self._go()
        if not self._is_busy and not self._waiting and self._idle is None:
            self._was_used = False
            self._idle = self._host.call_later(IDLE_S, self._look_idle)

    def _reply(self, asked: Asked, reply: Reply | KflowError) -> None:
        if isinstance(reply, KflowError):
            _tell(asked, reply)
        elif asked.is_over:
            if isinstance(asked.ask, Receive):
                self._give_back(asked.ask, reply)
        elif reply or not (asked.may_wait and self._may_wait):
            _tell(asked, reply)
        elif self._closed is not None:
            _tell(asked, self._closed)
        else:
            self._waiting.append(asked)

    def _give_back(self, ask: Receive, reply: Sequence[Any]) -> None:
        """Nobody took these records: others may have them at once."""
        entries = [Entry(each.delivery) for each in reply if isinstance(each, Received)]
        if entries:
            self._due.append(Asked(Settle(Verb.GIVE_BACK, entries, ask.dead), _told_nobody, may_wait=False))

    # ------------------------------------------------------------------ waiting

    def _time_is_over(self, asked: Asked) -> None:
        asked.timer = None
        asked.may_wait = False
        if asked in self._waiting:  # else it is in a turn, and is told when that is over
            self._waiting.remove(asked)
            _tell(asked, [])

    def _watch(self, terms: Terms) -> None:
        """Before anything is read, so that nothing is missed: appends to all open shards are news."""
        stream = terms.stream
        there = {shard.index for shard in stream.shards if shard.is_open}
        for index in there - self._watches.keys():
            self._watches[index] = self._host.watch(stream, index, self._news)
        for index in self._watches.keys() - there:
            self._watches.pop(index).close()

    def _news(self) -> None:
        self._is_news = True
        if self._waiting:
            self._go()

    def _expect(self, next_ms: int | None) -> None:
        """Somebody waits, and a record in flight becomes visible at a time."""
        if self._visible is not None:
            self._visible.cancel()
            self._visible = None
        if next_ms is not None and self._waiting:
            seconds = max(0, next_ms - self._host.now_ms()) / 1000 + 0.001
            self._visible = self._host.call_later(seconds, self._became_visible)

    def _became_visible(self) -> None:
        self._visible = None
        self._news()

    # ------------------------------------------------------------------ resting

    def _look_idle(self) -> None:
        self._idle = None
        if self._closed is not None or self._is_busy or self._waiting:
            return  # the end of what is under way looks again
        if self._was_used:
            self._was_used = False
            self._idle = self._host.call_later(IDLE_S, self._look_idle)
            return
        self._rest()
        self._put_away()

    def _rest(self) -> None:
        for watch in self._watches.values():
            watch.close()
        self._watches.clear()
        for timer in (self._visible, self._idle):
            if timer is not None:
                timer.cancel()
        self._visible = self._idle = None

    def _put_away(self) -> None:
        """Close the files in a thread, then tell who waits for that."""
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


def _tell(asked: Asked, reply: Reply | KflowError) -> None:
    if not asked.is_over:
        asked.end()
        asked.told(reply)


def _told_nobody(reply: Reply | KflowError) -> None:
    if isinstance(reply, KflowError):
        log.info("records of a closed call stay in flight until their timeout is over error=%s", reply)
