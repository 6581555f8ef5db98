"""Registered consumers: enhanced fan-out."""

from __future__ import annotations

from typing import Any, Final

from kflow.aws.calls import LATER, Answer, Call
from kflow.errors import InvalidArgument, ResourceInUse
from kflow.kinesis import describing, pages
from kflow.kinesis.registry import Status, Stream
from kflow.services.answering import answering
from kflow.services.kinesis.control import PAGE, Control

_CONSUMERS: Final = b"consumers"


class Consumers(Control):
    """Operations on registered consumers."""

    def register_stream_consumer(self, call: Call, given: Any) -> Answer:
        """Source: documented: RegisterStreamConsumer."""
        stream = self.by_arn(call, "RegisterStreamConsumer", given.StreamARN)
        answer: dict[str, Any] = {}
        made = self.fans.register(stream, given.ConsumerName, given.Tags or {}, answering(call, lambda _: answer))
        answer["Consumer"] = {**describing.consumer(stream, made, self.host.now_ms()), "ConsumerStatus": "CREATING"}
        return LATER

    def deregister_stream_consumer(self, call: Call, given: Any) -> Answer:
        """Source: documented: DeregisterStreamConsumer."""
        self.admit(call, "DeregisterStreamConsumer")
        account = call.context.place.account
        stream, found = self.fans.named(given.StreamARN, given.ConsumerName, given.ConsumerARN, account)
        self.fans.deregister(stream, found, answering(call))
        return LATER

    def describe_stream_consumer(self, call: Call, given: Any) -> Answer:
        """Source: documented: DescribeStreamConsumer."""
        self.admit(call, "DescribeStreamConsumer")
        account = call.context.place.account
        stream, found = self.fans.named(given.StreamARN, given.ConsumerName, given.ConsumerARN, account)
        described = describing.consumer(stream, found, self.host.now_ms())
        return {"ConsumerDescription": {**described, "StreamARN": stream.arn}}

    def list_stream_consumers(self, call: Call, given: Any) -> Answer:
        """Source: documented: ListStreamConsumers; a stream that was created anew has another token."""
        now_ms = self.host.now_ms()
        stream = self.by_arn(call, "ListStreamConsumers", given.StreamARN)
        self._check_creation(stream, given.StreamCreationTimestamp)
        if stream.status(now_ms) is Status.CREATING:
            raise ResourceInUse(
                f"Stream {stream.name} under account {stream.account} not ACTIVE, instead in state CREATING"
            )
        after = ""
        if given.NextToken is not None:
            stream_id, after = pages.said(self.parts.seal, _CONSUMERS, given.NextToken, now_ms)
            if stream_id != f"{stream.id:016x}":
                raise InvalidArgument(f"NextToken is not of stream {stream.name} as it is now: begin without it.")
        size = min(given.MaxResults or PAGE, PAGE)
        found = [each for each in stream.consumers(now_ms) if each.name > after]
        answer: dict[str, Any] = {"Consumers": [describing.consumer(stream, each, now_ms) for each in found[:size]]}
        if len(found) > size:
            last = found[size - 1].name
            answer["NextToken"] = pages.token(self.parts.seal, _CONSUMERS, now_ms, f"{stream.id:016x}", last)
        return answer

    def _check_creation(self, stream: Stream, given_ms: int | None) -> None:
        """Source: documented: StreamCreationTimestamp tells streams of one name apart, to the second."""
        if given_ms is not None and given_ms // 1000 != stream.created_ms // 1000:
            raise stream.not_found()
