"""Who a batch belongs to, and what is said in its name: outcomes for people, entries for the parked store."""

from __future__ import annotations

import msgspec

from kflow.broker.checkpoints import Slot
from kflow.broker.parked import ParkCondition, ParkedBatch
from kflow.interfaces import BatchOutcome, BatchResult, FunctionError
from kflow.lambda_.pieces import Piece
from kflow.lambda_.responses import Verdict
from kflow.lambda_.shapes import Shape

_SAMPLE_BYTES = 200


class Consumer(msgspec.Struct, frozen=True, kw_only=True):
    """One function on one shard.

    Attributes:
        function: name of the function.
        stream: name of the stream.
        stream_id: its id.
        shard: index of the shard.
        shard_id: `shardId-` and twelve digits.
        attempts_allowed: `maximum_retry_attempts` + 1, or -1 for no end.
        shape: how records are shown to the handler.
    """

    function: str
    stream: str
    stream_id: int
    shard: int
    shard_id: str
    attempts_allowed: int
    shape: Shape

    def succeeded(self, piece: Piece, *, attempt: int, duration_us: int) -> BatchOutcome:
        """All records of the piece are settled."""
        return BatchOutcome(
            function=self.function,
            stream=self.stream,
            shard_id=self.shard_id,
            records=piece.count,
            succeeded=piece.count,
            result=BatchResult.OK,
            attempt=attempt,
            attempts_allowed=self.attempts_allowed,
            duration_us=duration_us,
        )

    def failed(
        self, result: BatchResult, piece: Piece, verdict: Verdict, *, attempt: int, duration_us: int
    ) -> BatchOutcome:
        """An attempt failed; names the record where it is known: the response did, or there is one only."""
        is_known = (verdict.is_partial and piece.count > 0) or piece.count == 1
        return BatchOutcome(
            function=self.function,
            stream=self.stream,
            shard_id=self.shard_id,
            records=piece.count,
            succeeded=verdict.done,
            result=result,
            attempt=attempt,
            attempts_allowed=self.attempts_allowed,
            duration_us=duration_us,
            error=verdict.error,
            failed_sequence_number=str(piece.number(verdict.done, self.shape)) if is_known else "",
            sample=piece.data(verdict.done)[:_SAMPLE_BYTES] if is_known else b"",
        )

    def parked(self, given_up: Piece, entry: ParkedBatch, *, duration_us: int) -> BatchOutcome:
        """Records were given up, and are kept."""
        expired = entry.condition is ParkCondition.RECORD_AGE_EXCEEDED
        is_one = given_up.count == 1
        return BatchOutcome(
            function=self.function,
            stream=self.stream,
            shard_id=self.shard_id,
            records=given_up.count,
            succeeded=0,
            result=BatchResult.EXPIRED if expired else BatchResult.PARKED,
            attempt=entry.attempts,
            attempts_allowed=self.attempts_allowed,
            duration_us=duration_us,
            error=entry.error,
            failed_sequence_number=str(given_up.number(0, self.shape)) if is_one else "",
            sample=given_up.data(0)[:_SAMPLE_BYTES] if is_one else b"",
            parked=entry.number,
        )

    def dropped(self, given_up: Piece, *, attempt: int, error: FunctionError | None, duration_us: int) -> BatchOutcome:
        """Records were given up, and are kept nowhere."""
        is_one = given_up.count == 1
        return BatchOutcome(
            function=self.function,
            stream=self.stream,
            shard_id=self.shard_id,
            records=given_up.count,
            succeeded=0,
            result=BatchResult.DROPPED,
            attempt=attempt,
            attempts_allowed=self.attempts_allowed,
            duration_us=duration_us,
            error=error,
            failed_sequence_number=str(given_up.number(0, self.shape)) if is_one else "",
            sample=given_up.data(0)[:_SAMPLE_BYTES] if is_one else b"",
        )

    def told(
        self, result: BatchResult, records: int, *, attempt: int = 0, error: FunctionError | None = None
    ) -> BatchOutcome:
        """What befell records that are not at hand."""
        return BatchOutcome(
            function=self.function,
            stream=self.stream,
            shard_id=self.shard_id,
            records=records,
            succeeded=0,
            result=result,
            attempt=attempt,
            attempts_allowed=self.attempts_allowed,
            error=error,
        )

    def entry(
        self, given_up: Piece, slot: Slot, condition: ParkCondition, error: FunctionError | None, *, now_ms: int
    ) -> ParkedBatch:
        """What the parked store is to keep of records that are given up."""
        return ParkedBatch(
            function=self.function,
            stream=self.stream,
            stream_id=self.stream_id,
            shard=self.shard,
            shard_id=self.shard_id,
            first_counter=given_up.counter,
            last_counter=given_up.end_counter - 1,
            start=given_up.start,
            end=given_up.end,
            records=given_up.stored(self.shape, self.shard_id),
            error=error,
            attempts=slot.attempt,
            condition=condition,
            parked_ms=now_ms,
            parked_before=slot.parked,
        )
