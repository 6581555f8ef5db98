"""A message that is published: what it must be, and what of it is delivered.

Source: documented: SNS API reference, Publish; SNS Developer Guide, message formats, raw message delivery.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, NamedTuple

from kflow.clock import utc_text_ms
from kflow.messaging.errors import InvalidParameter, SnsError
from kflow.messaging.topics import LAMBDA, Subscription, Topic

MESSAGE_BYTES: Final = 262_144
"""The longest message with its attributes, and the longest batch in all."""
BATCH: Final = 10
_NAME: Final = re.compile(r"(?!\.)(?!.*\.\.)[A-Za-z0-9_.-]{1,256}(?<!\.)")
_KIND: Final = re.compile(r"(String|Number|Binary)(\.[^\s]{1,248})?")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_SUBJECT: Final = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,99}")
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9!-/:-@\[-`{-~]{1,128}")
NOT_SIGNED: Final = base64.b64encode(b"not signed").decode()


class Attribute(NamedTuple):
    """A message attribute: its type, and text or bytes."""

    kind: str
    value: str | bytes

    @property
    def text(self) -> str:
        """The value; bytes in base64."""
        return base64.b64encode(self.value).decode() if isinstance(self.value, bytes) else self.value


class Message:
    """One message, checked.

    Attributes:
        id: of the message, a UUID.
        body: what subscribers of SQS are told.
        subject: or empty.
        attributes: by name.
        group: message group, or None.
        duplicate: what tells it from others of a FIFO topic, or None.
        sequence: its number in a FIFO topic, or empty.
        size: bytes that count.

    Raises:
        SnsError: it is none.
    """

    def __init__(
        self,
        topic: Topic,
        *,
        text: str,
        subject: str | None = None,
        structure: str | None = None,
        attributes: Mapping[str, Attribute] | None = None,
        group: str | None = None,
        duplicate: str | None = None,
    ) -> None:
        if not text:
            raise InvalidParameter("Empty message")
        if subject is not None and not _SUBJECT.fullmatch(subject):
            raise InvalidParameter("Subject")
        self.id = str(uuid.uuid4())
        self.subject = subject or ""
        self.attributes = dict(attributes or {})
        self.sequence = ""
        self.size = len(text.encode(errors="replace"))
        for name, each in self.attributes.items():
            _check_attribute(name, each)
            value = each.value if isinstance(each.value, bytes) else each.value.encode(errors="replace")
            self.size += len(name) + len(each.kind.encode(errors="replace")) + len(value)
        if self.size > MESSAGE_BYTES:
            raise InvalidParameter("Message too long")
        self._entries = None if structure is None else _structured(text, structure)
        self.body = text if self._entries is None else self._entries.get("sqs", self._entries["default"])
        self.group = group
        self.duplicate = duplicate
        self._check_order(topic)

    def _check_order(self, topic: Topic) -> None:
        for name, value in (("MessageGroupId", self.group), ("MessageDeduplicationId", self.duplicate)):
            if value is not None and not _IDENTIFIER.fullmatch(value):
                raise InvalidParameter(name)
        if not topic.is_fifo:
            if self.duplicate is not None:
                reason = "The request includes MessageDeduplicationId parameter that is not valid for this topic type"
                raise InvalidParameter("MessageDeduplicationId", reason)
            return
        if self.group is None:
            raise InvalidParameter("The MessageGroupId parameter is required for FIFO topics")
        if self.duplicate is None:
            if topic.attributes.get("ContentBasedDeduplication", "false") != "true":
                raise InvalidParameter(
                    "The topic should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided "
                    "explicitly"
                )
            self.duplicate = hashlib.sha256(self.body.encode(errors="replace")).hexdigest()

    @cached_property
    def parsed(self) -> Any:
        """The body as JSON; None where it is none, which has no fields."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def entry(self, protocol: str) -> str:
        """What subscribers of a protocol are told."""
        if self._entries is None or protocol == "sqs":
            return self.body
        return self._entries.get(protocol, self._entries["default"])

    def delivered(self, subscription: Subscription, topic: Topic, now_ms: int, base_url: str) -> dict[str, Any]:
        """The parameters of SendMessage, but for the queue. What functions get: `functions.invocation`.

        Args:
            subscription: to whom.
            topic: from where.
            now_ms: milliseconds since the epoch.
            base_url: where the endpoint is, for the link that ends the subscription.
        """
        found: dict[str, Any] = {}
        if subscription.is_raw:
            found["MessageBody"] = self.body
            if self.attributes:
                found["MessageAttributes"] = {
                    name: {
                        "DataType": each.kind,
                        "BinaryValue" if isinstance(each.value, bytes) else "StringValue": each.value,
                    }
                    for name, each in self.attributes.items()
                }
        else:
            found["MessageBody"] = self._envelope(subscription, topic, now_ms, base_url)
        if self.group is not None:
            found["MessageGroupId"] = self.group
        if self.duplicate is not None and subscription.endpoint.endswith(".fifo"):
            found["MessageDeduplicationId"] = self.duplicate
        return found

    def _envelope(self, subscription: Subscription, topic: Topic, now_ms: int, base_url: str) -> str:
        """The document of a notification, laid out as AWS's. Messages of FIFO topics are not signed there either."""
        fields: dict[str, str] = {"Type": "Notification", "MessageId": self.id}
        if self.sequence:
            fields["SequenceNumber"] = self.sequence
        fields["TopicArn"] = topic.arn
        if self.subject:
            fields["Subject"] = self.subject
        fields["Message"] = self.body
        fields["Timestamp"] = utc_text_ms(now_ms)
        if not self.sequence:
            fields["SignatureVersion"] = topic.attributes.get("SignatureVersion", "1")
            fields["Signature"] = NOT_SIGNED
            fields["SigningCertURL"] = f"{base_url}/SimpleNotificationService.pem"
        fields["UnsubscribeURL"] = f"{base_url}/?Action=Unsubscribe&SubscriptionArn={subscription.arn}"
        lines = [f"  {_json(name)} : {_json(value)}" for name, value in fields.items()]
        if self.attributes:
            inner = ",\n".join(
                f'    {_json(name)} : {{"Type":{_json(each.kind)},"Value":{_json(each.text)}}}'
                for name, each in self.attributes.items()
            )
            lines.append(f'  "MessageAttributes" : {{\n{inner}\n  }}')
        return "{\n" + ",\n".join(lines) + "\n}"


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _structured(text: str, structure: str) -> dict[str, str]:
    """What each protocol is told of a message that differs by protocol, with a `default`."""
    if structure != "json":
        raise InvalidParameter("MessageStructure")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidParameter("Message Structure - JSON message body failed to parse")
    if not isinstance(found.get("default"), str):
        raise InvalidParameter("Message Structure - No default entry in JSON message body")
    for protocol in ("sqs", LAMBDA):
        chosen = found.get(protocol, found["default"])
        if not isinstance(chosen, str) or not chosen:
            raise InvalidParameter(f"Message Structure - the entry for {protocol} is no text")
    return {name: each for name, each in found.items() if isinstance(each, str)}


def _check_attribute(name: str, attribute: Attribute) -> None:
    """Chosen: the texts, but for those of a missing type or value."""
    kind, value = attribute
    if not _NAME.fullmatch(name) or name.lower().startswith(("aws.", "amazon.")):
        raise _Value(f"The message attribute name '{name}' is invalid.")
    if not kind:
        raise _Value(f"The message attribute '{name}' must contain non-empty message attribute type.")
    if not _KIND.fullmatch(kind):
        raise _Value(
            f"The message attribute '{name}' has an invalid message attribute type, the set of supported type prefixes "
            "is Binary, Number, and String."
        )
    base = kind.partition(".")[0]
    if not value:
        raise _Value(f"The message attribute '{name}' must contain non-empty message attribute value for message "
                     f"attribute type '{base}'.")  # fmt: skip
    if isinstance(value, bytes) is not (base == "Binary"):
        field = "BinaryValue" if base == "Binary" else "StringValue"
        raise _Value(f"The message attribute '{name}' with type '{base}' must use field '{field}'.")
    if isinstance(value, bytes):
        return
    if base == "Number" and not _NUMBER.fullmatch(value):
        raise _Value(f"Could not cast message attribute '{name}' value to number.")
    if kind == "String.Array" and not _is_array(value):
        raise _Value(f"The message attribute '{name}' of type 'String.Array' must be a JSON array of texts, numbers, "
                     "true, false and null.")  # fmt: skip


def _is_array(text: str) -> bool:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, list) and not any(isinstance(each, (list, dict)) for each in found)


class _Value(SnsError):
    code = "ParameterValueInvalid"
