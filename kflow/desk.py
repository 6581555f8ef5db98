"""Where a queue is asked, on the loop: turns are taken by a thread, and who finds nothing waits here.

    ask --> due --turn in a thread--> told
                       |  nothing there, and it may wait
                       +--> waiting --news, or something becomes visible--> due
                               +--its time is over--> told: nothing

One turn at a time, with all who are due: under load a transaction serves many. Nothing happens while nobody asks. What
is news, and what a turn comes to, are the rules of each kind of queue. As with appends, a turn that is certain to be
short is taken by the loop itself, as long as the disk is quick: to wake a thread and to be woken by it costs more.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from time import perf_counter
from typing import Any, ClassVar, Final, Generic, NamedTuple, Protocol, TypeVar

from kflow.errors import KflowError
from kflow.interfaces import Cancellable, Loop

log = logging.getLogger(__name__)

TermsT = TypeVar("TermsT")
AskT = TypeVar("AskT")
ReplyT = TypeVar("ReplyT")
_TermsT_contra = TypeVar("_TermsT_contra", contravariant=True)
_AskT_contra = TypeVar("_AskT_contra", contravariant=True)

Told = Callable[[Any], object]
"""Called once, on the loop, with the reply or with the `KflowError` that says why there is none."""

SLOW_S: Final = 0.005
"""A queue whose last turn took longer is served by threads until one was quicker."""
IDLE_S: Final = 30.0
"""A queue that nobody asks for so long closes its files."""


class Turn(NamedTuple, Generic[ReplyT]):
    """What came of a turn.

    Attributes:
        replies: to each who asked, in their order.
        next_ms: when the next that is hidden becomes visible; None where nothing is hidden, or nobody waits for it.
        is_news: whether something may be visible that nobody who asked in this turn has received.
    """

    replies: list[ReplyT | KflowError]
    next_ms: int | None
    is_news: bool


class Turns(Protocol[_TermsT_contra, _AskT_contra, ReplyT]):
    """The files of a queue: used by one thread at a time, and by the loop's for turns that are certain to be short."""

    def take(self, terms: _TermsT_contra, asked: Sequence[_AskT_contra], /, *, may_wait: bool) -> Turn[ReplyT]:
        """Serve all who ask.

        Args:
            terms: what holds.
            asked: in their order.
            may_wait: whether somebody may wait when it is over; else nobody looks at `Turn.next_ms`.

        Raises:
            KflowError: nothing has happened.
        """
        ...

    def close(self) -> None:
        """Close the files."""
        ...


class Asked(Generic[AskT]):
    """One who asks. `cancel` it where nobody wants the answer any more: what it would have received is given back."""

    __slots__ = ("ask", "is_over", "may_wait", "timer", "told")

    def __init__(self, ask: AskT, told: Told, *, may_wait: bool) -> None:
        self.ask = ask
        self.told = told
        self.may_wait = may_wait
        self.is_over = False
        self.timer: Cancellable | None = None

    def tell(self, reply: object) -> None:
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


class Desk(ABC, Generic[TermsT, AskT, ReplyT]):
    """One queue's. Belongs to the loop's thread.

    Args:
        host: loop and threads.
        opened: opens the queue's files; in a thread.
        terms: what holds now; raises where the queue does not serve.
        nothing: the reply to who waited in vain.
    """

    _TURN: ClassVar[int | None] = None
    """So many are served in one turn: the first of them waits for the last. None: all."""
    _WAITERS: ClassVar[int | None] = None
    """So many of those who wait are looked at in one turn. None: all."""

    def __init__(
        self,
        host: Loop,
        opened: Callable[[], Turns[TermsT, AskT, ReplyT]],
        terms: Callable[[], TermsT],
        nothing: ReplyT,
    ) -> None:
        self._host = host
        self._opened = opened
        self._terms = terms
        self._nothing = nothing
        self._turns: Turns[TermsT, AskT, ReplyT] | None = None
        self._due: deque[Asked[AskT]] = deque()
        self._backs: list[Asked[AskT]] = []  # give back what nobody took
        self._waiting: dict[Asked[AskT], None] = {}
        self._is_busy = False
        self._is_news = False
        self._visible: Cancellable | None = None
        self._visible_ms = 0  # when it fires
        self._idle: Cancellable | None = None
        self._was_used = False
        self._was_slow = False
        self._may_wait = True
        self._closed: KflowError | None = None
        self._then: list[Callable[[], object]] = []

    @property
    def is_open(self) -> bool:
        """Whether its files are open, about."""
        return self._turns is not None

    def ask(self, ask: AskT, told: Told, *, wait_s: float = 0.0) -> Asked[AskT]:
        """Ask something.

        Args:
            ask: what.
            told: told the answer once, on the loop; or why there is none.
            wait_s: how long a receive may wait for the first that it receives, seconds.
        """
        asked = Asked(ask, told, may_wait=wait_s > 0)
        if asked.may_wait:
            asked.timer = self._host.call_later(wait_s, lambda: self._time_is_over(asked))
        self._due.append(asked)
        self._was_used = True
        self._go()
        return asked

    def cancel(self, asked: Asked[AskT]) -> None:
        """Nobody waits for this answer any more."""
        asked.end()
        self._waiting.pop(asked, None)

    def changed(self) -> None:
        """What holds has changed, or there is news: look again for who waits."""
        self._is_news = True
        self._go()

    def close(self, error: KflowError, then: Callable[[], object]) -> None:
        """Refuse everybody from now on, and close the files.

        Args:
            error: why.
            then: called on the loop when no thread uses the files any more.
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
            self._end()

    def send_home(self) -> None:
        """Nobody waits any more: who would is answered with nothing."""
        self._may_wait = False
        for asked in [*self._due, *self._waiting]:
            if asked.may_wait:
                asked.tell(self._nothing)
        self._waiting.clear()

    # ------------------------------------------------------------------ each kind's own rules

    def _is_hope(self, asks: Iterable[AskT]) -> bool:
        """Whether the turn that is about to be taken may bring something to those who wait."""
        del asks
        return False

    def _is_quick(self, terms: TermsT, asked: Sequence[Asked[AskT]]) -> bool:
        """Whether a turn is certain to be short. On the loop, while none is taken, with open files."""
        del terms, asked
        return False

    def _tend(self) -> None:
        """What the files need now and then; in a thread, after a turn, whether it failed or not. Raises nothing."""

    @abstractmethod
    def _reply(self, asked: Asked[AskT], reply: ReplyT | KflowError) -> None:
        """A turn's reply: `tell` it, or where it is a receive's see who is there by `_received`."""

    @abstractmethod
    def _back(self, reply: ReplyT) -> AskT | None:
        """What gives back what was received and nobody took: as if it had not been. None: nothing was."""

    @property
    def _is_needed(self) -> bool:
        """Whether something is under way whose end looks again."""
        return self._is_busy or bool(self._waiting)

    def _is_crowded(self) -> bool:
        """Whether the files are not to be kept open."""
        return False

    # ------------------------------------------------------------------ turns

    def _go(self) -> None:
        """Take a turn, where none is taken and somebody has a reason to hope."""
        if self._is_busy:
            return
        if self._closed is not None:
            while self._due:
                self._due.popleft().tell(self._closed)
        asked = self._called()
        if not asked:
            return
        try:
            terms = self._terms()
        except KflowError as error:
            for each in asked:
                each.tell(error)
            return
        self._is_busy = True
        if self._turns is not None and not self._was_slow and self._is_quick(terms, asked):
            self._host.at_once(partial(self._take, terms, asked), partial(self._over, asked))
        else:
            self._host.submit(partial(self._take_in_thread, terms, asked), partial(self._over, asked))

    def _called(self) -> list[Asked[AskT]]:
        """Who is served in the next turn: those who have waited come first, and what goes back before them."""
        asked: list[Asked[AskT]] = []
        backs, self._backs = self._backs, []
        if self._closed is not None:
            return backs if self._turns is not None else asked
        while self._due and (self._TURN is None or len(asked) < self._TURN):
            each = self._due.popleft()
            if not each.is_over:
                asked.append(each)
        if self._waiting and (self._is_news or self._is_hope(each.ask for each in (*backs, *asked))):
            called = list(islice(self._waiting, self._WAITERS))
            for each in called:
                del self._waiting[each]
            asked = called + asked
        self._is_news = False
        return backs + asked

    def _take_in_thread(self, terms: TermsT, asked: Sequence[Asked[AskT]]) -> Turn[ReplyT]:
        """While the desk is busy."""
        if self._turns is None:
            self._turns = self._opened()
        try:
            return self._take(terms, asked)
        finally:
            self._tend()

    def _take(self, terms: TermsT, asked: Sequence[Asked[AskT]]) -> Turn[ReplyT]:
        turns = self._turns
        assert turns is not None, "they are open"
        may_wait = bool(self._waiting) or any(each.may_wait for each in asked)
        begin = perf_counter()
        try:
            return turns.take(terms, [each.ask for each in asked], may_wait=may_wait)
        finally:
            self._was_slow = perf_counter() - begin > SLOW_S

    def _over(self, asked: list[Asked[AskT]], result: Turn[ReplyT] | KflowError) -> None:
        try:  # what those who are told ask is for the next turn, when all who wait on are known to wait
            if isinstance(result, KflowError):
                for each in asked:
                    each.tell(result)
            else:
                self._is_news = self._is_news or result.is_news
                for each, reply in zip(asked, result.replies, strict=True):
                    self._reply(each, reply)
                self._expect(result.next_ms)
        finally:
            self._is_busy = False
        if self._closed is not None:
            self._end()
            return
        self._go()
        if self._is_needed:
            return
        if self._is_crowded():
            self._rest()
            self._put_away()
        elif self._idle is None:
            self._was_used = False
            self._idle = self._host.call_later(IDLE_S, self._look_idle)

    def _received(self, asked: Asked[AskT], reply: ReplyT, *, is_something: bool) -> None:
        """What a receive came to."""
        if asked.is_over:
            back = self._back(reply)
            if back is not None:
                self._backs.append(Asked(back, _told_nobody, may_wait=False))
        elif is_something or not (asked.may_wait and self._may_wait):
            asked.tell(reply)
        elif self._closed is not None:
            asked.tell(self._closed)
        else:
            self._waiting[asked] = None

    # ------------------------------------------------------------------ waiting

    def _time_is_over(self, asked: Asked[AskT]) -> None:
        asked.timer = None
        asked.may_wait = False
        if asked in self._waiting:  # else it is in a turn, and is told when that is over
            del self._waiting[asked]
            asked.tell(self._nothing)

    def _expect(self, next_ms: int | None) -> None:
        """Somebody waits, and something becomes visible at a time.

        A timer that fires before that stays, and fires in vain: one that is cancelled is kept until it would have
        fired, and messages may be hidden for hours.
        """
        if next_ms is None or not self._waiting:
            return
        if self._visible is not None:
            if self._visible_ms <= next_ms:
                return
            self._visible.cancel()
        self._visible_ms = next_ms
        seconds = max(0, next_ms - self._host.now_ms()) / 1000 + 0.001
        self._visible = self._host.call_later(seconds, self._became_visible)

    def _became_visible(self) -> None:
        self._visible = None
        if self._waiting or self._is_busy:
            self.changed()

    # ------------------------------------------------------------------ resting

    def _look_idle(self) -> None:
        self._idle = None
        if self._closed is not None or self._is_needed:
            return
        if self._was_used:
            self._was_used = False
            self._idle = self._host.call_later(IDLE_S, self._look_idle)
            return
        self._rest()
        self._put_away()

    def _rest(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._visible is not None and not self._waiting:
            self._visible.cancel()
            self._visible = None

    def _end(self) -> None:
        """It is closed: give back what nobody took, then close the files."""
        self._go()
        if not self._is_busy:
            self._put_away()

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


def _told_nobody(reply: object) -> None:
    if isinstance(reply, KflowError):
        log.info("what a closed call received stays in flight until its timeout is over error=%s", reply)
