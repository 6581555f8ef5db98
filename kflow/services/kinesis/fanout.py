"""SubscribeToShard: enhanced fan-out. Records are pushed to the client as they come, over one answer that goes on."""

from __future__ import annotations

from typing import Any

from kflow.aws.calls import LATER, Answer, Call
from kflow.broker.attributes import Consumer
from kflow.broker.reader import ShardReader
from kflow.broker.sequence import shard_id
from kflow.errors import DryRunOperation, KflowError
from kflow.kinesis.admission import Admission, Key, Seat
from kflow.kinesis.consumers import require_active
from kflow.kinesis.iterators import start_of
from kflow.kinesis.pushing import Live, Pusher
from kflow.kinesis.registry import Stream, no_consumer, no_stream
from kflow.kinesis.shards import absent, child_shards, index_of, is_expired
from kflow.kinesis.subscriptions import Start, Subscription
from kflow.records import Position
from kflow.services.kinesis.parts import Base, Parts


class Fanout(Base):
    """The operation on consumers that reads; the others are in `consumers`."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._admission = Admission(is_limited=parts.enforce_limits)
        self._pusher = Pusher(parts.host, parts.reading, children=child_shards, gone=_gone)
        parts.registry.watch(self._changed)

    def subscribe_to_shard(self, call: Call, given: Any) -> Answer:
        """Push the records of a shard for five minutes, from a starting position on.

        One subscription lives for a consumer and shard: for five seconds it stands, then the next call takes it over.

        Source: documented: SubscribeToShard; recorded: texts.
        """
        now_ms = self.host.now_ms()
        stream, consumer = self.registry.by_consumer_arn(given.ConsumerARN, now_ms)
        if not stream.serves(now_ms):
            raise stream.not_found()
        require_active(stream, consumer, now_ms)
        index = index_of(stream.name, stream.account, given.ShardId)
        if not stream.map.knows(index) or is_expired(stream.map.shards[index], stream.map, now_ms):
            raise absent(stream.name, stream.account, index)
        shard = stream.map.shards[index]
        wanted = given.StartingPosition
        start = start_of(stream, shard, wanted.Type, wanted.SequenceNumber, wanted.Timestamp, now_ms)
        label = f"{stream.account}:{stream.name}:{shard_id(index)}:{consumer.name}"
        seat = self._admission.admit(Key(stream.id, stream.consumer_arn(consumer), index), label, now_ms)
        if given.DryRun:
            seat.refused()
            raise DryRunOperation("The request would have succeeded, but the DryRun parameter was specified.")
        counter = 0

        def look(reader: ShardReader) -> Position:
            nonlocal counter
            counter = reader.next_counter
            return start.look(reader)

        def found(position: Position | KflowError) -> None:
            if isinstance(position, KflowError) or call.is_closed:
                seat.refused()
                if isinstance(position, KflowError):
                    call.refuse(no_stream(stream.name, stream.account) if stream.is_gone else position)
                return
            self._begin(call, stream, consumer, seat, Start(position, counter))

        self.parts.reading.find(stream.map, index, look, found)
        return LATER

    def end_subscriptions(self) -> None:
        """End all subscriptions without an error: the endpoint stops, and clients subscribe again later."""
        self._pusher.end_all()

    def _begin(self, call: Call, stream: Stream, consumer: Consumer, seat: Seat, start: Start) -> None:
        """Everything was checked: answer, and push from now on."""
        refusal = self._refusal(stream, consumer)
        if refusal is not None:  # it went while the position was looked up
            seat.refused()
            call.refuse(refusal)
            return
        index = seat.key.shard
        out = call.stream()
        now_ms = self.host.now_ms()
        subscription = Subscription(stream.map.shards[index], start, out, now_ms, is_paced=self.parts.enforce_limits)
        live = self._pusher.start(
            subscription, out, stream.map, index, consumer_arn=seat.key.consumer_arn, on_over=seat.over
        )
        seat.granted(live)

    def _refusal(self, stream: Stream, consumer: Consumer) -> KflowError | None:
        if stream.is_gone:
            return no_stream(stream.name, stream.account)
        return self._consumer_gone(stream, stream.consumer_arn(consumer))

    def _consumer_gone(self, stream: Stream, consumer_arn: str) -> KflowError | None:
        for each in stream.attributes.consumers:
            if stream.consumer_arn(each) == consumer_arn and each.gone_ms is None:
                return None
        return no_consumer(consumer_arn, stream.account)

    def _changed(self, stream: Stream) -> None:
        """Consumers may have been deregistered; their subscriptions end. Chosen: with ResourceNotFoundException."""
        if stream.is_gone:
            return  # the news of that comes to each of them
        for live in self._pusher.of_stream(stream.id):
            error = self._consumer_gone(stream, live.consumer_arn)
            if error is not None:
                live.fail(error)


def _gone(live: Live) -> KflowError:
    """The stream of a subscription is gone."""
    account, _, name = live.consumer_arn.split(":", 4)[4].partition(":stream/")
    return no_stream(name.partition("/")[0], account)
