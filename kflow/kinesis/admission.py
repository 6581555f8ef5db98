"""Who may subscribe: one live subscription for a consumer and shard, and the rules by which another one takes over.

    free ── admit ──> admitted ── granted ──> live ── 5 s later: admit, granted ──> the next one; this one fails
                         └── refused ──> as before

Source: documented: SubscribeToShard; recorded: the text of the refusal.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from kflow.errors import KflowError, LimitExceeded, ResourceInUse

_SWEPT: Final = 8
TAKEOVER_MS: Final = 5_000
"""Source: documented: within 5 seconds of a successful call another one is refused, later it takes over."""
CALL_MS: Final = 1_000
"""Source: documented: one call a second for a consumer and shard."""


class Key(NamedTuple):
    """What may be subscribed to once.

    Attributes:
        stream_id: of the stream; one that is made anew has another, though its consumers may have the same ARNs.
        consumer_arn: of the consumer; one registered anew has another.
        shard: index of the shard.
    """

    stream_id: int
    consumer_arn: str
    shard: int


class Ending(Protocol):
    """A subscription, as far as it can be taken over."""

    def fail(self, error: KflowError) -> None:
        """End with an error."""
        ...


class Seat:
    """One call that was admitted; call `granted` or `refused` once.

    Attributes:
        key: what it is for.
        since_ms: when it was admitted.
        matters: whether a subscription lives here, or may yet.
    """

    __slots__ = ("_admission", "_before", "_error", "_holder", "_taker", "key", "matters", "since_ms")

    def __init__(
        self, admission: Admission, key: Key, error: ResourceInUse, since_ms: int, before: Seat | None
    ) -> None:
        self.key = key
        self.since_ms = since_ms
        self.matters = True
        self._admission = admission
        self._error = error
        self._before = before
        self._holder: Ending | None = None
        self._taker: KflowError | None = None

    def granted(self, holder: Ending) -> None:
        """It has its subscription: the one before ends. Where it was taken over itself meanwhile, this one does."""
        before, self._before = self._before, None
        if before is not None:
            before.give_up(self._error)
        if self._taker is not None:
            holder.fail(self._taker)
        else:
            self._holder = holder

    def refused(self) -> None:
        """It came to nothing: all is as before the call."""
        self.matters = False
        self._admission.undo(self, self._before)
        self._before = None

    def over(self) -> None:
        """Its subscription has ended."""
        self.matters = False
        self._holder = None

    def give_up(self, error: KflowError) -> None:
        """Another one has it now."""
        self.matters = False
        self._taker = error
        holder, self._holder = self._holder, None
        before, self._before = self._before, None
        if holder is not None:
            holder.fail(error)
        if before is not None:
            before.give_up(error)


class Admission:
    """All seats. Belongs to the loop.

    Args:
        is_limited: whether more than a call a second is refused, too.
    """

    def __init__(self, *, is_limited: bool = False) -> None:
        self._seats: dict[Key, Seat] = {}
        self._tried: dict[Key, int] = {}
        self._is_limited = is_limited

    def admit(self, key: Key, label: str, now_ms: int) -> Seat:
        """Admit a call.

        Args:
            key: what it wants to subscribe to.
            label: the same for people: `account:stream:shard:consumer`.
            now_ms: milliseconds since the epoch.

        Raises:
            ResourceInUse: the last successful call is less than five seconds old.
            LimitExceeded: the last call is less than a second old.
        """
        self._sweep(now_ms)
        error = ResourceInUse(f"Another active subscription exists for this consumer: {label}")
        before = self._seats.pop(key, None)
        tried_ms = self._tried.pop(key, None)
        if before is not None and 0 <= now_ms - before.since_ms < TAKEOVER_MS:
            self._seats[key] = before
            self._note(key, now_ms)
            raise error
        if tried_ms is not None and 0 <= now_ms - tried_ms < CALL_MS:
            if before is not None:
                self._seats[key] = before
            self._tried[key] = tried_ms  # a call that is refused for this does not count, or retries would never pass
            raise LimitExceeded(f"Rate exceeded for consumer and shard {label}.")
        self._note(key, now_ms)
        seat = self._seats[key] = Seat(self, key, error, now_ms, before)
        return seat

    def undo(self, seat: Seat, before: Seat | None) -> None:
        """A seat came to nothing."""
        if self._seats.get(seat.key) is seat:
            del self._seats[seat.key]
            if before is not None:
                self._seats[seat.key] = before

    def __len__(self) -> int:
        return len(self._seats)

    def _note(self, key: Key, now_ms: int) -> None:
        if self._is_limited:
            self._tried[key] = now_ms

    def _sweep(self, now_ms: int) -> None:
        """Forget some of what decides nothing any more: what stands first, which then goes to the end."""
        for key, seat in list(self._seats.items())[:_SWEPT]:
            del self._seats[key]
            if seat.matters or 0 <= now_ms - seat.since_ms < TAKEOVER_MS:
                self._seats[key] = seat
        for key, tried_ms in list(self._tried.items())[:_SWEPT]:
            del self._tried[key]
            if 0 <= now_ms - tried_ms < CALL_MS:
                self._tried[key] = tried_ms
