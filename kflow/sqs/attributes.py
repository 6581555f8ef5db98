"""Attributes of queues: texts both ways, checked here. Pure.

Source: recorded, but for texts marked chosen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from kflow.sqs import limits
from kflow.sqs.checks import ILLEGAL
from kflow.sqs.errors import (
    InvalidAttributeName,
    InvalidAttributeValue,
    InvalidParameterValue,
    QueueNameExists,
    SqsError,
    invalid,
)
from kflow.sqs.facts import FIFO, Facts

COUNTS: Final = {
    "ApproximateNumberOfMessages": "visible",
    "ApproximateNumberOfMessagesNotVisible": "in_flight",
    "ApproximateNumberOfMessagesDelayed": "delayed",
}
"""Attributes that are counted, by their place in `Counts`."""
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")
_ARN: Final = re.compile(r"arn:aws[-a-z]*:sqs:([-a-z0-9]+):([0-9]{12}):([A-Za-z0-9_-]{1,80}(?:\.fifo)?)")
_INTEGER: Final = re.compile(r"[0-9]{1,10}")


class _Number(NamedTuple):
    field: str
    least: int
    most: int


_NUMBERS: Final = {
    "VisibilityTimeout": _Number("visibility_s", 0, limits.VISIBILITY_S),
    "MessageRetentionPeriod": _Number("retention_s", 60, 1_209_600),
    "DelaySeconds": _Number("delay_s", 0, limits.DELAY_S),
    "ReceiveMessageWaitTimeSeconds": _Number("wait_s", 0, limits.WAIT_S),
    "MaximumMessageSize": _Number("max_bytes", 1024, limits.MESSAGE_BYTES),
}
_FIFO_CHOICES: Final = {
    "DeduplicationScope": ("scope", ("queue", "messageGroup")),
    "FifoThroughputLimit": ("throughput", ("perQueue", "perMessageGroupId")),
}
_BOOLEANS: Final = {"true": True, "false": False}

NAMES: Final = frozenset(
    {
        "All",
        *COUNTS,
        *_NUMBERS,
        *_FIFO_CHOICES,
        "QueueArn",
        "CreatedTimestamp",
        "LastModifiedTimestamp",
        "SqsManagedSseEnabled",
        "FifoQueue",
        "ContentBasedDeduplication",
        "RedrivePolicy",
        "RedriveAllowPolicy",
        "Policy",
        "KmsMasterKeyId",
        "KmsDataKeyReusePeriodSeconds",
    }
)


class Name(NamedTuple):
    """Of a queue, as an ARN says it."""

    region: str
    account: str
    name: str


Find = Callable[[Name], Facts | None]
"""The facts of a queue; None: there is none."""


def arn(region: str, account: str, name: str) -> str:
    """The ARN of a queue. Source: documented: Amazon SQS resource types."""
    return f"arn:aws:sqs:{region}:{account}:{name}"


def parse_arn(text: str) -> Name | None:
    """What an ARN names; None: it is none of a queue."""
    match = _ARN.fullmatch(text)
    return None if match is None else Name(match[1], match[2], match[3])


def check_name(name: str, attributes: Mapping[str, str]) -> None:
    """Whether a queue may have a name.

    Raises:
        InvalidParameterValue: it may not. Chosen: the text.
    """
    is_fifo = attributes.get("FifoQueue") == "true"
    stem = name.removesuffix(FIFO) if is_fifo else name
    if is_fifo and (stem == name or len(name) > 80 or not _NAME.fullmatch(stem)):
        raise InvalidParameterValue(
            "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, must end with "
            ".fifo suffix and be 1 to 80 in length."
        )
    if not is_fifo and not _NAME.fullmatch(name):
        raise InvalidParameterValue(
            "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"
        )


def changed(facts: Facts, own: Name, given: Mapping[str, str], find: Find, *, is_new: bool = False) -> Facts:
    """The facts with these attributes set.

    Args:
        facts: as they are.
        own: what the queue is called.
        given: attributes by name.
        find: looks for the dead-letter queue.
        is_new: whether the queue is being made.

    Raises:
        SqsError: one cannot be set.
    """
    changes: dict[str, Any] = {}
    for name, value in given.items():
        changes.update(_change(facts, own, name, value, find, is_new=is_new))
    key = changes.get("kms_key")
    if key and given.get("SqsManagedSseEnabled") == "true":
        raise InvalidAttributeName(
            "You can use one type of server-side encryption (SSE) at one time. You can either enable KMS SSE or SQS "
            "SSE."
        )
    if key:
        changes["is_encrypted"] = False
    elif given.get("SqsManagedSseEnabled") == "true":
        changes["kms_key"] = ""
    made = msgspec.structs.replace(facts, **changes)
    if made.throughput == "perMessageGroupId" and made.scope != "messageGroup":
        raise InvalidAttributeValue(
            "Invalid value for the parameter FifoThroughputLimit. Reason: The perMessageGroupId value is allowed only "
            "when the value for DeduplicationScope is messageGroup."
        )
    return made


def _change(facts: Facts, own: Name, name: str, value: str, find: Find, *, is_new: bool) -> dict[str, Any]:
    """What one attribute changes."""
    if name in NAMES and ILLEGAL.search(value):
        raise _bad(name)
    if name in _NUMBERS:
        return {_NUMBERS[name].field: _number(name, value)}
    if name == "SqsManagedSseEnabled":
        return {"is_encrypted": _boolean(name, value)}
    if name in _FIFO_CHOICES:
        if not facts.is_fifo:
            raise InvalidAttributeName(f"You can specify the {name} only when FifoQueue is set to true.")
        field, choices = _FIFO_CHOICES[name]
        if value not in choices:
            raise _bad(name)
        return {field: value}
    match name:
        case "FifoQueue":
            return _fifo(facts, value, is_new=is_new)
        case "ContentBasedDeduplication" if facts.is_fifo:
            return {"is_content_based": _boolean(name, value)}
        case "RedrivePolicy":
            return _redrive(facts, own, value, find)
        case "RedriveAllowPolicy":
            return {"allow": _allow(value)}
        case "Policy":
            if value and not isinstance(_json(value), dict):
                raise _bad(name)
            return {"policy": value}
        case "KmsMasterKeyId":
            return {"kms_key": value}
        case "KmsDataKeyReusePeriodSeconds":
            if value and not (_INTEGER.fullmatch(value) and 60 <= int(value) <= 86_400):
                raise _bad(name)
            return {"kms_reuse_s": value}
    raise unknown(name)


def unknown(name: str) -> InvalidAttributeName:
    """There is no such attribute."""
    return InvalidAttributeName(f"Unknown Attribute {name}.")


def _bad(name: str) -> InvalidAttributeValue:
    return InvalidAttributeValue(f"Invalid value for the parameter {name}.")


def _number(name: str, value: str) -> int:
    _, least, most = _NUMBERS[name]
    if not _INTEGER.fullmatch(value) or not least <= int(value) <= most:
        raise _bad(name)
    return int(value)


def _boolean(name: str, value: str) -> bool:
    found = _BOOLEANS.get(value.lower())
    if found is None:
        raise _bad(name)
    return found


def _fifo(facts: Facts, value: str, *, is_new: bool) -> dict[str, Any]:
    wanted = _boolean("FifoQueue", value)
    if not wanted and not facts.is_fifo:
        raise unknown("FifoQueue")
    if wanted is not facts.is_fifo and not is_new:
        raise InvalidAttributeValue(
            "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported."
        )
    return {}


def _redrive(facts: Facts, own: Name, value: str, find: Find) -> dict[str, Any]:
    """A RedrivePolicy. Chosen: what follows `Reason:`."""
    if not value:
        return {"redrive": "", "dead_arn": "", "max_receives": 0}

    def bad(reason: str) -> SqsError:
        return invalid(value, "RedrivePolicy", reason)

    policy = _json(value)
    if not isinstance(policy, dict):
        raise bad("Redrive policy is not a valid JSON map.")
    for name in ("deadLetterTargetArn", "maxReceiveCount"):
        if policy.get(name) in (None, ""):
            raise bad(f"Redrive policy does not contain mandatory attribute: {name}.")
    count = str(policy["maxReceiveCount"])
    if not _INTEGER.fullmatch(count) or not 1 <= int(count) <= limits.RECEIVES:
        raise bad(
            f"Invalid value for maxReceiveCount: {count}, valid values are from 1 to {limits.RECEIVES} both inclusive."
        )
    target = str(policy["deadLetterTargetArn"])
    named = parse_arn(target)
    if named is None:
        raise bad("Invalid value for deadLetterTargetArn.")
    if (named.region, named.account) != (own.region, own.account):
        raise bad("Dead-letter target owner should be same as the source.")
    if named.name == own.name:  # a message that is dead there would be dead at once again
        raise bad("The dead-letter queue must be another queue than the source.")
    found = find(named)
    if found is None:
        raise bad("Dead letter target does not exist.")
    if found.is_fifo is not facts.is_fifo:
        raise bad("Dead-letter queue must be same type of queue as the source.")
    if not _is_allowed(found.allow, arn(*own)):
        raise bad("The dead-letter queue's RedriveAllowPolicy does not let this queue use it.")
    return {"redrive": value, "dead_arn": target, "max_receives": int(count)}


def _is_allowed(policy: str, source: str) -> bool:
    """Whether a RedriveAllowPolicy lets a queue be a source."""
    if not policy:
        return True
    found = _json(policy)
    permission = found["redrivePermission"]
    return bool(permission == "allowAll" or (permission == "byQueue" and source in found["sourceQueueArns"]))


def _allow(value: str) -> str:
    """A RedriveAllowPolicy. Chosen: what follows `Reason:`."""
    if not value:
        return ""

    def bad(reason: str) -> SqsError:
        return invalid(value, "RedriveAllowPolicy", reason)

    policy = _json(value)
    if not isinstance(policy, dict):
        raise bad("Redrive allow policy is not a valid JSON map.")
    permission = policy.get("redrivePermission")
    if not isinstance(permission, str) or permission not in {"allowAll", "denyAll", "byQueue"}:
        raise bad("redrivePermission must be allowAll, denyAll or byQueue.")
    sources = policy.get("sourceQueueArns")
    if (sources is not None) is not (permission == "byQueue"):
        raise bad("sourceQueueArns belongs to redrivePermission byQueue, and to no other.")
    if sources is not None:
        is_list = isinstance(sources, list) and 1 <= len(sources) <= limits.SOURCES
        if not is_list or not all(isinstance(each, str) and parse_arn(each) for each in sources):
            raise bad(f"sourceQueueArns must be a list of 1 to {limits.SOURCES} ARNs of queues.")
    return value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def described(facts: Facts, own_arn: str) -> dict[str, str]:
    """All attributes that are not counted, as `All` shows them."""
    shown = {name: str(getattr(facts, number.field)) for name, number in _NUMBERS.items()}
    shown |= {
        "QueueArn": own_arn,
        "CreatedTimestamp": str(facts.created_ms // 1000),
        "LastModifiedTimestamp": str(facts.changed_ms // 1000),
        "SqsManagedSseEnabled": str(facts.is_encrypted).lower(),
    }
    if facts.is_fifo:
        shown |= {
            "FifoQueue": "true",
            "ContentBasedDeduplication": str(facts.is_content_based).lower(),
            "DeduplicationScope": facts.scope,
            "FifoThroughputLimit": facts.throughput,
        }
    optional = {
        "RedrivePolicy": facts.redrive,
        "RedriveAllowPolicy": facts.allow,
        "Policy": facts.policy,
        "KmsMasterKeyId": facts.kms_key,
        "KmsDataKeyReusePeriodSeconds": facts.kms_reuse_s,
    }
    return shown | {name: value for name, value in optional.items() if value}


def check_same(facts: Facts, given: Mapping[str, str]) -> None:
    """Whether a queue that is there is the one that somebody wants to make: what is not given does not matter.

    Raises:
        QueueNameExists: it has another value of an attribute.
    """
    there = described(facts, "")
    for name, value in given.items():
        if not _is_same(name, there.get(name, ""), value):
            raise QueueNameExists(name)


def _is_same(name: str, there: str, value: str) -> bool:
    if there == value:
        return True
    if name in _NUMBERS:
        return _INTEGER.fullmatch(value) is not None and int(there) == int(value)
    if name == "RedrivePolicy":
        policies = [_json(each) for each in (there, value)]
        if all(isinstance(each, dict) for each in policies):
            first, second = ({key: str(part) for key, part in each.items()} for each in policies)
            return first == second
        return False
    if name in {"RedriveAllowPolicy", "Policy"}:
        return bool(there and value) and _json(there) == _json(value)
    return there == value.lower() and there in _BOOLEANS
