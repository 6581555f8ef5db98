"""Operations on messages: send, receive, delete and hide them, one or a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kflow.aws.calls import LATER, Answer, Call
from kflow.errors import KflowError
from kflow.events.sqs import SqsEventRecord, event_record
from kflow.services.answering import answering
from kflow.services.sqs.parts import Base, operation
from kflow.sqs import checks, digests, limits
from kflow.sqs.asking import Delete, Delivered, Entry, Hide, Receive, Received, Send, Sent
from kflow.sqs.attributes import unknown
from kflow.sqs.digests import Value
from kflow.sqs.directory import Queue
from kflow.sqs.errors import (
    InvalidParameterValue,
    MissingParameter,
    ReceiptHandleIsInvalid,
    SqsError,
    UnsupportedOperation,
    invalid,
)
from kflow.sqs.receipts import Delivery

_SYSTEM = (
    "All",
    "SenderId",
    "SentTimestamp",
    "ApproximateReceiveCount",
    "ApproximateFirstReceiveTimestamp",
    "SequenceNumber",
    "MessageDeduplicationId",
    "MessageGroupId",
    "AWSTraceHeader",
    "DeadLetterQueueSourceArn",
)
_VISIBILITY = f"Must be between 0 and {limits.VISIBILITY_S}, if provided."


class Messages(Base):
    """Operations on messages."""

    @operation
    def send_message(self, call: Call, given: Any) -> Answer:
        """Source: documented: SendMessage."""
        queue = self.queue(call, given.QueueUrl)
        send = Send([_entry(given)], _sender(call))

        def told(reply: Any) -> None:
            sent = reply if isinstance(reply, KflowError) else reply[0]
            if isinstance(sent, KflowError):
                call.refuse(sent)
            else:
                call.answer(_sent(queue, sent))

        queue.desk.ask(send, told)
        return LATER

    @operation
    def send_message_batch(self, call: Call, given: Any) -> Answer:
        """Source: documented: SendMessageBatch; recorded: which mistakes fail the whole call."""
        queue = self.queue(call, given.QueueUrl)
        rows = given.Entries or ()
        ids = [each.Id for each in rows]
        checks.check_batch(ids, "SendMessageBatchRequestEntry")
        refused: dict[str, SqsError] = {}
        entries: list[Entry] = []
        for row in rows:
            try:
                entries.append(_entry(row))
            except SqsError as error:
                refused[row.Id] = error
        sending = [each for each in ids if each not in refused]

        def output(reply: Sequence[Sent | SqsError]) -> Mapping[str, Any]:
            by_id: dict[str, Sent | SqsError] = dict(zip(sending, reply, strict=True))
            return _both([(each, by_id.get(each) or refused[each]) for each in ids], functools.partial(_sent, queue))

        queue.desk.ask(Send(entries, _sender(call), is_batch=True), answering(call, output))
        return LATER

    @operation
    def receive_message(self, call: Call, given: Any) -> Answer:
        """Source: documented: ReceiveMessage."""
        queue = self.queue(call, given.QueueUrl)
        most, wait_s = given.MaxNumberOfMessages, given.WaitTimeSeconds
        reason = f"Must be between 1 and {limits.BATCH}, if provided."
        checks.check_number(most, "MaxNumberOfMessages", 1, limits.BATCH, reason)
        reason = f"Must be >= 0 and <= {limits.WAIT_S}, if provided."
        checks.check_number(wait_s, "WaitTimeSeconds", 0, limits.WAIT_S, reason)
        checks.check_number(given.VisibilityTimeout, "VisibilityTimeout", 0, limits.VISIBILITY_S, _VISIBILITY)
        checks.check_identifier(given.ReceiveRequestAttemptId, "ReceiveRequestAttemptId")
        system = {*(given.AttributeNames or ()), *(given.MessageSystemAttributeNames or ())}
        for name in system:
            if name not in _SYSTEM:
                raise unknown(name)
        shows = _shows(given.MessageAttributeNames or ())

        def output(reply: Received) -> Mapping[str, Any]:
            return {"Messages": [self._shown(queue, each, system, shows) for each in reply.messages] or None}

        ask = Receive(most or 1, given.VisibilityTimeout, given.ReceiveRequestAttemptId or "")
        asked = queue.desk.ask(ask, answering(call, output), wait_s=queue.facts.wait_s if wait_s is None else wait_s)
        call.on_close = functools.partial(queue.desk.cancel, asked)
        return LATER

    @operation
    def delete_message(self, call: Call, given: Any) -> Answer:
        """Source: documented: DeleteMessage."""
        queue = self.queue(call, given.QueueUrl)
        queue.desk.ask(Delete([self._delivery(queue, given.ReceiptHandle)]), _single(call))
        return LATER

    @operation
    def change_message_visibility(self, call: Call, given: Any) -> Answer:
        """Source: documented: ChangeMessageVisibility."""
        queue = self.queue(call, given.QueueUrl)
        seconds = _visibility(given)
        queue.desk.ask(Hide([(self._delivery(queue, given.ReceiptHandle), seconds)]), _single(call))
        return LATER

    @operation
    def delete_message_batch(self, call: Call, given: Any) -> Answer:
        """Source: documented: DeleteMessageBatch."""

        def ask(found: list[tuple[Delivery, Any]]) -> Delete:
            return Delete([delivery for delivery, _ in found])

        self._settle(call, given, "DeleteMessageBatchRequestEntry", lambda _: None, ask)
        return LATER

    @operation
    def change_message_visibility_batch(self, call: Call, given: Any) -> Answer:
        """Source: documented: ChangeMessageVisibilityBatch."""
        self._settle(call, given, "ChangeMessageVisibilityBatchRequestEntry", _visibility, Hide)
        return LATER

    def event_record(self, queue: Queue, delivered: Delivered) -> SqsEventRecord:
        """A message as Lambda's event has it. From any thread."""
        message, more, md5 = delivered
        state = message.state
        return event_record(
            message_id=message_id(message.id),
            receipt_handle=self.receipts.handle(queue.facts.id, state.number, state.receives),
            body=message.body,
            attributes=system_attributes(queue, delivered),
            message_attributes=more.attributes,
            md5_of_message_attributes=(
                digests.of_attributes({name: Value(*each) for name, each in more.attributes.items()})
                if more.attributes
                else ""
            ),
            md5_of_body=md5,
            arn=queue.arn,
            region=queue.place.region,
        )

    # ------------------------------------------------------------------ inside

    def _delivery(self, queue: Queue, handle: str | None) -> Delivery:
        if not handle:
            raise MissingParameter("ReceiptHandle")
        found = self.receipts.delivery(queue.facts.id, handle)
        if found is None:
            raise ReceiptHandleIsInvalid(handle)
        return found

    def _settle(
        self,
        call: Call,
        given: Any,
        entry: str,
        read: Callable[[Any], Any],
        ask: Callable[[list[tuple[Delivery, Any]]], Delete | Hide],
    ) -> None:
        """A batch of deliveries; what is wrong with one fails that one."""
        queue = self.queue(call, given.QueueUrl)
        rows = given.Entries or ()
        checks.check_batch([each.Id for each in rows], entry)
        failed: dict[str, SqsError] = {}
        found: dict[str, tuple[Delivery, Any]] = {}
        for row in rows:
            try:
                found[row.Id] = (self._delivery(queue, row.ReceiptHandle), read(row))
            except SqsError as error:
                failed[row.Id] = error

        def output(reply: Sequence[SqsError | None]) -> Mapping[str, Any]:
            by_id: dict[str, SqsError | None] = {**failed, **dict(zip(found, reply, strict=True))}
            return _both([(row.Id, by_id[row.Id]) for row in rows], lambda _: {})

        queue.desk.ask(ask(list(found.values())), answering(call, output))

    def _shown(
        self, queue: Queue, delivered: Delivered, system: set[str], shows: Callable[[str], bool]
    ) -> dict[str, Any]:
        """A Message."""
        message, more, md5 = delivered
        state = message.state
        shown: dict[str, Any] = {
            "MessageId": message_id(message.id),
            "ReceiptHandle": self.receipts.handle(queue.facts.id, state.number, state.receives),
            "MD5OfBody": md5,
            "Body": message.body,
        }
        if system:
            found = system_attributes(queue, delivered)
            shown["Attributes"] = {k: value for k, value in found.items() if "All" in system or k in system} or None
        attributes = {name: Value(*value) for name, value in more.attributes.items() if shows(name)}
        if attributes:
            shown["MD5OfMessageAttributes"] = digests.of_attributes(attributes)
            shown["MessageAttributes"] = {name: _written(value) for name, value in attributes.items()}
        return shown


def message_id(drawn: bytes) -> str:
    """A UUID as text. The standard library's takes it apart first, which costs ten times as much."""
    text = drawn.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _sender(call: Call) -> str:
    """SenderId. Chosen: the access key, else the account."""
    return call.context.access_key or call.context.place.account


def system_attributes(queue: Queue, delivered: Delivered) -> dict[str, str]:
    """The attributes that SQS itself gives a message, in the order of Lambda's event."""
    message, more, _ = delivered
    state = message.state
    is_fifo = queue.facts.is_fifo
    found = {
        "ApproximateReceiveCount": str(state.receives),
        "AWSTraceHeader": more.trace,
        "SentTimestamp": str(state.sent_ms),
        "SequenceNumber": _sequence(state.number) if is_fifo else "",
        "MessageGroupId": more.group,
        "SenderId": more.sender,
        "MessageDeduplicationId": more.duplicate if is_fifo else "",
        "ApproximateFirstReceiveTimestamp": str(state.first_ms),
        "DeadLetterQueueSourceArn": more.source,
    }
    return {name: value for name, value in found.items() if value}


def _sequence(number: int) -> str:
    return str(limits.SEQUENCE + number)


def _sent(queue: Queue, sent: Sent) -> dict[str, Any]:
    shown: dict[str, Any] = {"MessageId": message_id(sent.id), "MD5OfMessageBody": sent.md5_body}
    if sent.md5_attributes:
        shown["MD5OfMessageAttributes"] = sent.md5_attributes
    if sent.md5_trace:
        shown["MD5OfMessageSystemAttributes"] = sent.md5_trace
    if queue.facts.is_fifo:
        shown["SequenceNumber"] = _sequence(sent.number)
    return shown


def _both(replies: Sequence[tuple[str, Any]], shown: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """What each entry of a batch came to. Source: recorded: an empty `Failed` is left out."""
    done = [{"Id": each, **shown(reply)} for each, reply in replies if not isinstance(reply, SqsError)]
    failed = [
        {"Id": each, "SenderFault": True, "Code": reply.query_code, "Message": str(reply)}
        for each, reply in replies
        if isinstance(reply, SqsError)
    ]
    return {"Successful": done, "Failed": failed or None}


def _single(call: Call) -> Callable[[Any], None]:
    """Answers a call of one delivery."""

    def told(reply: Any) -> None:
        failure = reply if isinstance(reply, KflowError) else reply[0]
        if failure is None:
            call.answer(None)
        else:
            call.refuse(failure)

    return told


def _visibility(given: Any) -> int:
    seconds: int | None = given.VisibilityTimeout
    if seconds is None:
        raise MissingParameter("VisibilityTimeout")
    checks.check_number(seconds, "VisibilityTimeout", 0, limits.VISIBILITY_S, _VISIBILITY)
    return seconds


def _entry(given: Any) -> Entry:
    """A message as the caller gave it; its attributes are checked here, all else by the queue."""
    attributes = {name: _value(name, each) for name, each in (given.MessageAttributes or {}).items()}
    checks.check_attributes(attributes)
    trace = None
    for name, each in (given.MessageSystemAttributes or {}).items():
        if name != "AWSTraceHeader":
            raise invalid(name, "MessageSystemAttributeName", "Only AWSTraceHeader can be sent.")
        if each.DataType != "String" or not each.StringValue:
            text = f"Message (system) attribute '{name}' must contain a non-empty value of type 'String'."
            raise InvalidParameterValue(text)
        checks.check_text(each.StringValue, name)
        trace = each.StringValue
    return Entry(
        given.MessageBody, given.DelaySeconds, attributes, trace, given.MessageDeduplicationId, given.MessageGroupId
    )


def _value(name: str, given: Any) -> Value:
    if given.StringListValues or given.BinaryListValues:
        raise UnsupportedOperation("Message attribute list values in SendMessage operation are not supported.")
    if given.StringValue is not None and given.BinaryValue is not None:
        raise InvalidParameterValue(f"Message (user) attribute '{name}' has multiple values.")
    kind = given.DataType or ""
    value = given.BinaryValue if given.BinaryValue is not None else given.StringValue
    if value is None:
        value = b"" if kind.startswith("Binary") else ""
    return Value(kind, value)


def _written(value: Value) -> dict[str, Any]:
    field = "BinaryValue" if isinstance(value.value, bytes) else "StringValue"
    return {field: value.value, "DataType": value.kind}


def _shows(names: Sequence[str]) -> Callable[[str], bool]:
    """Which message attributes are asked for. Source: documented: ReceiveMessage; recorded."""
    if not names:
        return lambda _: False
    if "All" in names or ".*" in names:
        return lambda _: True
    exact = frozenset(names)
    prefixes = tuple(name.removesuffix(".*") for name in names if name.endswith(".*"))
    return lambda name: name in exact or name.startswith(prefixes)
