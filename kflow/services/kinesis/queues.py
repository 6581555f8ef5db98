"""Queues of Kinesis Data Streams: records one by one, each delivered until it is acknowledged.

AWS's words for most refusals here are not known: queues are new, and nobody has published them. Those are chosen, after
the pattern of streams and consumers; codes and limits are the model's.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final

from kflow import limits
from kflow.aws.calls import LATER, Answer, Call, Later
from kflow.broker.streammap import StreamMode
from kflow.errors import InvalidArgument, KflowError, LimitExceeded, ValidationFailed
from kflow.kinesis import pages, tags
from kflow.kinesis.queues import receipts
from kflow.kinesis.queues.asking import Entry, Receive, Received, Refusal, Reply, Settle, Verb
from kflow.kinesis.queues.directory import Directory, Queue
from kflow.kinesis.queues.facts import Facts, Rules
from kflow.kinesis.registry import Stream
from kflow.kinesis.states import require_there
from kflow.services.answering import answering
from kflow.services.kinesis.control import PAGE, Control
from kflow.services.kinesis.parts import Parts

_TOKEN: Final = b"queues"
_WAIT_S: Final = 9
"""Source: documented: ReceiveQueueRecords, the default of WaitTimeSeconds."""
_RECEIVE: Final = 10
"""Source: documented: ReceiveQueueRecords, the default of Limit."""
_REFUSED: Final = {
    Refusal.GONE: (
        "ResourceNotFoundException",
        "The record is not there: it was acknowledged, is a dead letter, has expired, or was received again since.",
    ),
    Refusal.DEAD: (
        "InvalidArgumentException",
        "The receipt handle is of a dead-letter record: use the operations for dead-letter records.",
    ),
    Refusal.NOT_DEAD: (
        "InvalidArgumentException",
        "The receipt handle is not of a dead-letter record, received by ReceiveDeadLetterQueueRecords.",
    ),
}
_INVALID: Final = ("InvalidArgumentException", "The receipt handle is not valid for this queue.")


class Queues(Control):
    """Operations on queues.

    Attributes:
        queues: all of them.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.queues = Directory(parts.host, parts.registry)
        self.queues.load()

    # ------------------------------------------------------------------ queues

    def create_queue(self, call: Call, given: Any) -> Answer:
        """Source: documented: CreateQueue."""
        configurations = given.StreamConfigurationList
        if len(configurations) != 1:
            raise ValidationFailed(
                f"StreamConfigurationList must contain exactly one entry, and has {len(configurations)}: "
                "a queue delivers records from a single data stream."
            )
        stream = self.registry.by_arn(configurations[0].StreamARN)
        now_ms = self.host.now_ms()
        self._check_stream(call, stream, now_ms)
        position, asked_ms = _position(configurations[0].StartingPosition, now_ms)
        rules = _rules(given.QueueAttributes, Rules())
        tagged = tags.added(f"queue {given.QueueName}", stream.account, {}, given.Tags or {})
        self._check_room(stream, now_ms)
        queue = self.queues.create(
            stream,
            given.QueueName,
            answering(call, lambda _: {"QueueDescription": self._described(queue, "CREATING")}),
            rules=rules,
            position=position,
            asked_ms=asked_ms,
            tags=tagged,
        )
        return LATER

    def describe_queue(self, call: Call, given: Any) -> Answer:
        """Source: documented: DescribeQueue."""
        del call
        return {"QueueDescription": self._described(self.queues.find(given.QueueARN))}

    def list_queues(self, call: Call, given: Any) -> Answer:
        """Source: documented: ListQueues; chosen: the order, by name, and that a token's filter may be given again."""
        now_ms = self.host.now_ms()
        wanted = [(each.StreamARN, each.StreamCreationTimestamp) for each in given.StreamFilter or ()]
        after = ""
        if given.NextToken is not None:
            after, said = pages.said(self.parts.seal, _TOKEN, given.NextToken, now_ms)
            filtered = [(arn, created_ms) for arn, created_ms in said]
            if wanted and wanted != filtered:
                raise InvalidArgument(
                    "NextToken and StreamFilter disagree: give the filter of the first call, or none."
                )
            wanted = filtered
        found = [queue for queue in self.queues.of(call.context.place) if _is_on(queue, wanted)]
        found = [queue for queue in found if queue.facts.name > after]
        page = found[: min(given.MaxResults or PAGE, PAGE)]
        output: dict[str, Any] = {"QueueSummaries": [_summary(queue, now_ms) for queue in page]}
        if len(found) > len(page):
            output["NextToken"] = pages.token(self.parts.seal, _TOKEN, now_ms, page[-1].facts.name, wanted)
        return output

    def update_queue(self, call: Call, given: Any) -> Answer:
        """Source: documented: UpdateQueue."""
        queue = self.queues.find(given.QueueARN)
        rules = _rules(given.QueueAttributes, queue.facts.rules)
        told = answering(call, lambda _: {"QueueDescription": self._described(queue, "UPDATING")})
        self.queues.update(queue, told, rules)
        return LATER

    def delete_queue(self, call: Call, given: Any) -> Answer:
        """Source: documented: DeleteQueue."""
        self.queues.delete(self.queues.find(given.QueueARN), answering(call))
        return LATER

    # ------------------------------------------------------------------ records

    def receive_queue_records(self, call: Call, given: Any) -> Answer:
        """Source: documented: ReceiveQueueRecords."""
        return self._receive(call, given, dead=False)

    def receive_dead_letter_queue_records(self, call: Call, given: Any) -> Answer:
        """Source: documented: ReceiveDeadLetterQueueRecords."""
        return self._receive(call, given, dead=True)

    def acknowledge_queue_records(self, call: Call, given: Any) -> Answer:
        """Source: documented: AcknowledgeQueueRecords."""
        return self._settle(call, given, Verb.ACKNOWLEDGE, dead=False)

    def acknowledge_dead_letter_queue_records(self, call: Call, given: Any) -> Answer:
        """Source: documented: AcknowledgeDeadLetterQueueRecords."""
        return self._settle(call, given, Verb.ACKNOWLEDGE, dead=True)

    def update_queue_records_visibility(self, call: Call, given: Any) -> Answer:
        """Source: documented: UpdateQueueRecordsVisibility."""
        return self._settle(call, given, Verb.HIDE, dead=False)

    def update_dead_letter_queue_records_visibility(self, call: Call, given: Any) -> Answer:
        """Source: documented: UpdateDeadLetterQueueRecordsVisibility."""
        return self._settle(call, given, Verb.HIDE, dead=True)

    def restore_dead_letter_queue_records(self, call: Call, given: Any) -> Answer:
        """Source: documented: RestoreDeadLetterQueueRecords."""
        return self._settle(call, given, Verb.RESTORE, dead=True)

    # ------------------------------------------------------------------ inside

    def _receive(self, call: Call, given: Any, *, dead: bool) -> Later:
        queue = self.queues.serving(given.QueueARN)
        visibility_s = given.VisibilityTimeoutSeconds
        ask = Receive(
            limit=given.Limit or _RECEIVE,
            visibility_ms=None if visibility_s is None else visibility_s * 1000,
            dead=dead,
        )

        def told(reply: Reply | KflowError) -> None:
            if isinstance(reply, KflowError):
                call.refuse(reply)
                return
            records = [self._record(queue, each) for each in reply if isinstance(each, Received)]
            call.answer({"QueueRecords": records})

        asked = queue.desk.ask(ask, told, wait_s=given.WaitTimeSeconds or _WAIT_S)
        call.on_close = functools.partial(queue.desk.cancel, asked)
        return LATER

    def _settle(self, call: Call, given: Any, verb: Verb, *, dead: bool) -> Later:
        queue = self.queues.serving(given.QueueARN)
        handles = [each.ReceiptHandle for each in given.Entries]
        said = [receipts.delivery_of(self.parts.seal, queue.facts.id, handle) for handle in handles]
        hide_ms = [each.VisibilityTimeoutSeconds * 1000 if verb is Verb.HIDE else 0 for each in given.Entries]
        entries = [Entry(each, hide) for each, hide in zip(said, hide_ms, strict=True) if each is not None]

        def told(reply: Reply | KflowError) -> None:
            if isinstance(reply, KflowError):
                call.refuse(reply)
                return
            answers = iter(reply)
            call.answer(_settled(handles, [_INVALID if each is None else _failure(next(answers)) for each in said]))

        queue.desk.ask(Settle(verb, entries, dead), told)
        return LATER

    def _check_stream(self, call: Call, stream: Stream, now_ms: int) -> None:
        """Whether a stream can have a queue.

        Source: documented: CreateQueue: on-demand only; chosen: the texts, and that the stream is the caller's own.
        """
        if stream.place != call.context.place:
            raise InvalidArgument(
                f"{stream.arn} is not a stream of account {call.context.place.account} in {call.context.place.region}: "
                "a queue and its stream belong to one account and region."
            )
        require_there(stream, now_ms)
        if stream.mode is not StreamMode.ON_DEMAND:
            raise ValidationFailed(
                f"Request is invalid. Stream {stream.name} under account {stream.account} is in Provisioned mode: "
                "queues are supported only on data streams in On-Demand mode."
            )

    def _check_room(self, stream: Stream, now_ms: int) -> None:
        """Queues count as consumers of their stream. Source: documented: CreateQueue; chosen: the text."""
        there = len(stream.consumers(now_ms)) + self.queues.count_on(stream.id)
        is_advantage = self.accounts.is_advantage(stream.place, now_ms)
        most = limits.CONSUMERS_ADVANTAGE if is_advantage else limits.CONSUMERS
        if there >= most:
            raise LimitExceeded(
                f"Stream {stream.name} under account {stream.account} has {there} registered consumers and queues, "
                f"which is the most it may have. Limit: {most}."
            )

    def _described(self, queue: Queue, status: str | None = None) -> dict[str, Any]:
        """A `QueueDescription`.

        Args:
            queue: of which.
            status: what to say; None as it is.
        """
        facts = queue.facts
        status = status or queue.status(self.host.now_ms())
        # Documented: while it is CREATING the position is what was asked for, and its effective time after that.
        at_ms = facts.asked_ms if status == "CREATING" else facts.begins_ms
        position = {"Type": facts.position, "Timestamp": at_ms}
        return {
            "QueueName": facts.name,
            "QueueARN": queue.arn,
            "QueueStatus": status,
            "QueueCreationTimestamp": facts.created_ms,
            "StreamConfigurationList": [{"StreamARN": queue.stream_arn, "StartingPosition": _without_none(position)}],
            "QueueAttributes": _attributes(facts),
        }

    def _record(self, queue: Queue, received: Received) -> dict[str, Any]:
        """A `QueueRecord`."""
        delivery = received.delivery
        record = {
            "ReceiptHandle": receipts.handle(self.parts.seal, queue.facts.id, delivery),
            "RecordId": receipts.record_id(queue.stream_id, delivery.shard, delivery.counter),
            "PartitionKey": received.key or None,
            "Data": received.data,
            "ApproximateArrivalTimestamp": received.arrival_ms,
            "FirstReceiveTimestamp": received.first_ms,
            "ReceiveCount": received.receives,
        }
        return _without_none(record)


def _position(given: Any, now_ms: int) -> tuple[str, int | None]:
    """Where a queue begins, and the time stamp if one is needed.

    Source: documented: QueueStartingPosition; chosen: the texts, and that a time to come is refused as it is for
    iterators.
    """
    if given is None:
        return "LATEST", None
    if given.Type != "AT_TIMESTAMP":
        if given.Timestamp is not None:
            raise ValidationFailed(f"StartingPosition of Type {given.Type} takes no Timestamp; AT_TIMESTAMP does.")
        return given.Type, None
    if given.Timestamp is None:
        raise ValidationFailed("StartingPosition of Type AT_TIMESTAMP needs a Timestamp.")
    if given.Timestamp > now_ms:
        raise InvalidArgument(
            "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. "
            f"timestampInMillis: {given.Timestamp}, currentTimestampInMillis: {now_ms}"
        )
    return "AT_TIMESTAMP", given.Timestamp


def _rules(given: Any, rules: Rules) -> Rules:
    """A queue's attributes; what is not given stays as it is.

    Source: documented: QueueAttributes, DeadLetterConfiguration; chosen: the texts.
    """
    if given is None:
        return rules
    visibility_s, max_receives = rules.visibility_s, rules.max_receives
    if given.VisibilityTimeoutSeconds is not None:
        visibility_s = given.VisibilityTimeoutSeconds
    letters = given.DeadLetterConfiguration
    if letters is not None:
        if letters.TargetType == "BUILT_IN" and letters.MaxReceiveCount is None:
            raise ValidationFailed("DeadLetterConfiguration with TargetType BUILT_IN needs a MaxReceiveCount.")
        if letters.TargetType != "BUILT_IN" and letters.MaxReceiveCount is not None:
            raise ValidationFailed("DeadLetterConfiguration with TargetType NONE takes no MaxReceiveCount.")
        max_receives = letters.MaxReceiveCount
    return Rules(visibility_s=visibility_s, max_receives=max_receives)


def _attributes(facts: Facts) -> dict[str, Any]:
    rules = facts.rules
    letters: dict[str, Any] = {"TargetType": "NONE"}
    if rules.max_receives is not None:
        letters = {"TargetType": "BUILT_IN", "MaxReceiveCount": rules.max_receives}
    return {"VisibilityTimeoutSeconds": rules.visibility_s, "DeadLetterConfiguration": letters}


def _summary(queue: Queue, now_ms: int) -> dict[str, Any]:
    facts = queue.facts
    return {
        "QueueName": facts.name,
        "QueueARN": queue.arn,
        "QueueStatus": queue.status(now_ms),
        "QueueCreationTimestamp": facts.created_ms,
        "Streams": [{"StreamARN": queue.stream_arn, "StreamCreationTimestamp": facts.stream_created_ms}],
    }


def _is_on(queue: Queue, wanted: Sequence[tuple[str, int | None]]) -> bool:
    """Whether a filter lets a queue through: an empty one does, else one entry must."""
    created_s = queue.facts.stream_created_ms // 1000
    return not wanted or any(
        queue.stream_arn == arn and (created_ms is None or created_ms // 1000 == created_s)
        for arn, created_ms in wanted
    )


def _failure(answer: Any) -> tuple[str, str] | None:
    return None if answer is None else _REFUSED[answer]


def _settled(handles: Sequence[str], failures: Sequence[tuple[str, str] | None]) -> dict[str, Any]:
    """What each entry came to."""
    both = list(zip(handles, failures, strict=True))
    return {
        "Successful": [{"ReceiptHandle": handle} for handle, failure in both if failure is None],
        "Failed": [
            {"ReceiptHandle": handle, "ErrorCode": failure[0], "ErrorMessage": failure[1]}
            for handle, failure in both
            if failure is not None
        ],
    }


def _without_none(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
