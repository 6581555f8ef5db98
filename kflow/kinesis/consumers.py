"""Registered consumers: enhanced fan-out. Their states follow from the time alone.

    register --> CREATING --time--> ACTIVE --deregister--> DELETING --time--> gone

Source: documented: RegisterStreamConsumer, DeregisterStreamConsumer; recorded: what is not ACTIVE; chosen: other texts.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from kflow import limits
from kflow.broker.attributes import Consumer, lasts
from kflow.broker.streammap import StreamMode
from kflow.errors import InvalidArgument, KflowError, LimitExceeded, ResourceInUse
from kflow.interfaces import Done
from kflow.kinesis import tags
from kflow.kinesis.accounts import Accounts
from kflow.kinesis.host import Host
from kflow.kinesis.registry import Registry, Status, Stream, no_consumer
from kflow.kinesis.states import require_there


def status(consumer: Consumer, now_ms: int) -> Status:
    """Its state; it must not be gone."""
    if consumer.gone_ms is not None:
        return Status.DELETING
    return Status.CREATING if lasts(consumer.active_ms, now_ms) else Status.ACTIVE


def require_active(stream: Stream, consumer: Consumer, now_ms: int) -> None:
    """Refuse to use a consumer that is being made or deleted.

    Raises:
        ResourceInUse: it is not ACTIVE.
    """
    if status(consumer, now_ms) is not Status.ACTIVE:
        raise ResourceInUse(
            f"Consumer {consumer.name} with creation timestamp {consumer.created_s} under stream: {stream.name} , "
            f"account {stream.account} is not in ACTIVE status."
        )


class Consumers:
    """Belongs to the loop's thread.

    Args:
        host: tells the time.
        registry: the streams.
        accounts: how many consumers a stream may have.
    """

    def __init__(self, host: Host, registry: Registry, accounts: Accounts) -> None:
        self._host = host
        self._registry = registry
        self._accounts = accounts

    def resume(self) -> None:
        """At the start: consumers that went, or were going when the last node ended, are gone."""
        for stream in self._registry.everywhere():
            for each in stream.attributes.consumers:
                if each.gone_ms is not None:
                    self._forget_at(stream, each.gone_ms)

    def named(
        self, stream_arn: str | None, name: str | None, consumer_arn: str | None, account: str
    ) -> tuple[Stream, Consumer]:
        """The consumer that an input names: by its ARN, by its stream's ARN and its name, or by all three.

        Raises:
            InvalidArgument: not enough is given, or it does not agree.
            ResourceNotFound: there is no such stream or consumer.
        """
        now_ms = self._host.now_ms()
        if consumer_arn is not None:
            stream, found = self._registry.by_consumer_arn(consumer_arn, now_ms)
            if stream_arn not in (None, stream.arn) or name not in (None, found.name):
                raise InvalidArgument(
                    f"StreamARN {stream_arn} and ConsumerName {name} do not name the consumer {consumer_arn}."
                )
            return stream, found
        if stream_arn is None or name is None:
            raise InvalidArgument("Either ConsumerARN, or both StreamARN and ConsumerName must be provided.")
        stream = self._registry.by_arn(stream_arn)
        for each in stream.consumers(now_ms):
            if each.name == name:
                return stream, each
        raise no_consumer(name, account)

    def register(self, stream: Stream, name: str, given: Mapping[str, str], told: Done) -> Consumer:
        """Register a consumer; `told` when it is kept.

        Raises:
            ResourceInUse: there is one of that name, or the stream is being made or deleted.
            LimitExceeded: the stream has as many as it may have, or too many are CREATING.
            InvalidArgument: tags that are not acceptable.
        """
        now_ms = self._host.now_ms()
        require_there(stream, now_ms)
        there = stream.consumers(now_ms)
        where = f"under stream {stream.name}"
        if any(each.name == name for each in there):
            raise ResourceInUse(f"Consumer {name} {where} already exists for account {stream.account}.")
        limit = self._limit(stream, now_ms)
        if len(there) + self._registry.queues_on(stream.id) >= limit:
            raise LimitExceeded(f"Stream {stream.name} under account {stream.account} has {limit} consumers already.")
        if sum(status(each, now_ms) is Status.CREATING for each in there) >= limits.CONSUMERS_CREATING:
            raise LimitExceeded(
                f"No more than {limits.CONSUMERS_CREATING} consumers {where}, account {stream.account} can be CREATING "
                "at the same time."
            )
        made = Consumer(
            name=name,
            created_s=max(now_ms // 1000, stream.attributes.seconds.get(name, 0) + 1),
            active_ms=now_ms + self._transition_ms,
            tags=tags.added(f"consumer {name}", stream.account, {}, given),
        )
        self._registry.change(stream, told, consumers=(*stream.attributes.consumers, made))
        return made

    def deregister(self, stream: Stream, consumer: Consumer, told: Done) -> None:
        """Deregister a consumer; `told` when it is DELETING for certain, or gone where that takes no time.

        Raises:
            ResourceInUse: it is not ACTIVE.
        """
        now_ms = self._host.now_ms()
        require_active(stream, consumer, now_ms)
        going = msgspec.structs.replace(consumer, gone_ms=now_ms + self._transition_ms)

        def kept(failure: KflowError | None) -> None:
            if failure is None:
                self._forget_at(stream, now_ms + self._transition_ms)
            told(failure)

        self.replace(stream, consumer, going, kept)

    def replace(self, stream: Stream, before: Consumer, after: Consumer, told: Done) -> None:
        """Keep something else of a consumer."""
        everyone = tuple(after if each is before else each for each in stream.attributes.consumers)
        self._registry.change(stream, told, consumers=everyone)

    def _limit(self, stream: Stream, now_ms: int) -> int:
        is_advantage = stream.map.mode is StreamMode.ON_DEMAND and self._accounts.is_advantage(stream.place, now_ms)
        return limits.CONSUMERS_ADVANTAGE if is_advantage else limits.CONSUMERS

    @property
    def _transition_ms(self) -> int:
        return round(self._host.transition_s * 1000)

    def _forget_at(self, stream: Stream, when_ms: int) -> None:
        """Once it is gone, forget it: whoever watches is told by that."""
        delay_s = max(0, when_ms - self._host.now_ms()) / 1000
        self._host.call_later(min(delay_s, self._host.transition_s), lambda: self._forget(stream))

    def _forget(self, stream: Stream) -> None:
        if stream.is_going:
            return
        now_ms, kept = self._host.now_ms(), stream.attributes
        there = tuple(each for each in kept.consumers if not each.is_gone(now_ms))
        gone = [each for each in kept.consumers if each.is_gone(now_ms)]
        if not gone:
            return
        now_s = now_ms // 1000
        seconds = {name: second for name, second in kept.seconds.items() if second >= now_s}
        seconds.update((each.name, each.created_s) for each in gone if each.created_s >= now_s)
        self._registry.change(stream, self._told(stream), consumers=there, seconds=seconds)

    def _told(self, stream: Stream) -> Done:
        def told(failure: KflowError | None) -> None:
            if failure is not None and not stream.is_going:
                self._host.notice("error", f"consumers of stream {stream.name} that went are still kept: {failure}")

        return told
