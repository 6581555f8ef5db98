"""What a worker tells people of its batches, over a socket that may lose it: the node is never waited for."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from kflow.interfaces import BatchOutcome, BatchResult
from kflow.lambda_.eventcounts import Counted
from kflow.runtime import messages
from kflow.runtime.worker.invoking import check_descriptors, identities


class Live:
    """Outcomes for people, over a socket that may lose them: the node is never waited for."""

    def __init__(self, sock: socket.socket, sum_ms: int, *, guarded: Iterable[int] = ()) -> None:
        """Tell over a socket.

        Args:
            sock: where to.
            sum_ms: successes within this time are told as one; 0 tells of each.
            guarded: descriptors that user code must not have touched; looked at before each message, which is less
                often than after each batch.
        """
        self._socket = sock
        self._guarded = identities(guarded)
        self._sum_ms = sum_ms
        self._sum: BatchOutcome | None = None
        self._since = 0
        self._dropped = 0

    def tell(self, outcome: BatchOutcome, now_ms: int) -> None:
        """Tell of an outcome, or add it to a sum of successes that is told soon."""
        if outcome.result is not BatchResult.OK or outcome.attempt > 1:
            self.flush()
            self._send(outcome)
            return
        total = self._sum
        if total is not None and (total.shard_id, total.stream) == (outcome.shard_id, outcome.stream):
            self._sum = add(total, outcome)
        else:
            self.flush()
            self._sum, self._since = outcome, now_ms
        if now_ms - self._since >= self._sum_ms:
            self.flush()

    def flush(self) -> None:
        """Send the sum."""
        if self._sum is not None:
            self._send(self._sum)
            self._sum = None

    def count(self, counted: Counted) -> None:
        """Tell what was counted of a mapping."""
        self._send(counted)

    def take_dropped(self) -> int:
        """How many were lost since this was asked last."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    def _send(self, outcome: BatchOutcome | Counted) -> None:
        check_descriptors(self._guarded)
        try:
            self._socket.send(messages.encode(outcome), socket.MSG_DONTWAIT)
        except OSError:  # full, or the node is gone: the slot holds what matters
            self._dropped += 1


def add(first: BatchOutcome, second: BatchOutcome) -> BatchOutcome:
    """Two successes of one shard as one."""
    return BatchOutcome(
        function=first.function,
        stream=first.stream,
        shard_id=first.shard_id,
        records=first.records + second.records,
        succeeded=first.succeeded + second.succeeded,
        result=BatchResult.OK,
        duration_us=first.duration_us + second.duration_us,
        attempts_allowed=first.attempts_allowed,
        batches=first.batches + second.batches,
    )
