"""Attributes of topics and of subscriptions: which there are, and what they may be.

What SNS has for other protocols, or for what is not here (delivery logs, archives), is refused and not passed over.
Source: documented: SNS API reference; recorded: the texts, but those marked chosen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from kflow.messaging.errors import InvalidParameter
from kflow.messaging.filters import ON_ATTRIBUTES, SCOPES, compile_policy
from kflow.messaging.topics import LAMBDA, Subscription, Topic, is_function

_BOOLEAN: Final = ("true", "false")
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "FifoTopic": _BOOLEAN,
    "ContentBasedDeduplication": _BOOLEAN,
    "FifoThroughputScope": ("Topic", "MessageGroup"),
    "SignatureVersion": ("1", "2"),
    "TracingConfig": ("PassThrough", "Active"),
}
_FIFO: Final = frozenset({"FifoTopic", "ContentBasedDeduplication", "FifoThroughputScope"})
_KEPT: Final = frozenset({"DisplayName", "Policy", "DeliveryPolicy", "KmsMasterKeyId"})
"""Shown, and without effect here: nothing is permitted, encrypted, or delivered by HTTP."""
_QUEUE: Final = re.compile(r"arn:aws[-a-z]*:sqs:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,80}(?:\.fifo)?")


def check_topic(attributes: Mapping[str, str], *, is_fifo: bool, is_new: bool) -> None:
    """Whether a topic can have these.

    Raises:
        InvalidParameter: it cannot.
    """
    for name, value in attributes.items():
        if name in _CHOICES:
            if value not in _CHOICES[name]:
                raise InvalidParameter("Attributes", f"Invalid value {value} for attribute {name}")  # chosen
        elif name not in _KEPT:
            raise InvalidParameter("AttributeName", f"kflow has no topic attribute {name}")
        elif name in {"Policy", "DeliveryPolicy"} and value and not _is_object(value):
            raise InvalidParameter(f"{name}: failed to parse JSON")  # chosen
        elif name == "DisplayName" and len(value) > 100:
            raise InvalidParameter("DisplayName", "must be at most 100 characters long")  # chosen
        if name in _FIFO and not is_fifo and value != "false":
            raise InvalidParameter("AttributeName", f"{name} is for FIFO topics")  # chosen
        if name == "FifoTopic" and not is_new:
            raise InvalidParameter("AttributeName")


def check_endpoint(topic: Topic, protocol: str, endpoint: str | None) -> str:
    """The ARN of the queue, or of the function, that a subscription is for.

    Raises:
        InvalidParameter: it is for something else, or for one that cannot have it.
    """
    if protocol in {"http", "https", "email", "email-json", "sms", "application", "firehose"}:
        raise InvalidParameter(
            "Protocol",
            f"kflow delivers to sqs and lambda only, and not to {protocol}: subscribe a queue, and read that",
        )
    if protocol == LAMBDA:
        if topic.is_fifo:
            raise InvalidParameter("Protocol", "FIFO topics deliver to queues only")  # chosen
        if endpoint is None or not is_function(endpoint):
            raise InvalidParameter("Lambda endpoint ARN")  # chosen
        return endpoint
    if protocol != "sqs":
        raise InvalidParameter(f"Amazon SNS does not support this protocol string: {protocol}")
    if endpoint is None or not _QUEUE.fullmatch(endpoint):
        raise InvalidParameter("SQS endpoint ARN")
    if endpoint.endswith(".fifo") and not topic.is_fifo:
        reason = "FIFO SQS Queues can not be subscribed to standard SNS topics"
        raise InvalidParameter("Invalid parameter: Endpoint", reason)
    return endpoint


def check_subscription(attributes: Mapping[str, str], endpoint: str) -> None:
    """Whether a subscription can have these, all together.

    Raises:
        InvalidParameter: it cannot.
    """
    for name, value in attributes.items():
        if name == "RawMessageDelivery":
            if value != "false" and is_function(endpoint):
                reason = "Delivery protocol [lambda] does not support raw message delivery."
                raise InvalidParameter("Attributes", reason)
            if value not in _BOOLEAN:
                raise InvalidParameter(
                    "Attributes", f"RawMessageDelivery: Invalid value [{value}]. Must be true or false."
                )
        elif name == "FilterPolicyScope":
            if value not in SCOPES:
                raise InvalidParameter(f"FilterPolicyScope: Invalid value [{value}]. Please use either MessageBody or "
                                       "MessageAttributes")  # fmt: skip
        elif name == "RedrivePolicy":
            dead_letters(value, is_fifo=endpoint.endswith(".fifo"))
        elif name != "FilterPolicy":
            raise InvalidParameter("AttributeName", f"kflow has no attribute {name} for a subscription")
    if "FilterPolicy" in attributes:
        compile_policy(attributes["FilterPolicy"], attributes.get("FilterPolicyScope", ON_ATTRIBUTES))


def dead_letters(policy: str, *, is_fifo: bool) -> str:
    """The ARN of the queue that a redrive policy names.

    Raises:
        InvalidParameter: it is none.
    """
    try:
        found = json.loads(policy)
    except (ValueError, RecursionError):
        raise InvalidParameter("RedrivePolicy: failed to parse JSON.") from None
    arn: Any = found.get("deadLetterTargetArn") if isinstance(found, dict) else None
    if not isinstance(arn, str) or not _QUEUE.fullmatch(arn):
        raise InvalidParameter("RedrivePolicy: deadLetterTargetArn is an invalid arn")
    if arn.endswith(".fifo") is not is_fifo:  # chosen
        raise InvalidParameter("RedrivePolicy: the dead-letter queue must be of the type of the subscribed queue")
    return arn


def shown_topic(topic: Topic) -> dict[str, str]:
    """All attributes of a topic."""
    _, _, _, region, account, name = topic.arn.split(":")
    policy = {
        "Version": "2008-10-17",
        "Id": "__default_policy_ID",
        "Statement": [
            {
                "Sid": "__default_statement_ID",
                "Effect": "Allow",
                "Principal": {"AWS": "*"},
                "Action": [
                    f"SNS:{each}"
                    for each in (
                        "GetTopicAttributes",
                        "SetTopicAttributes",
                        "AddPermission",
                        "RemovePermission",
                        "DeleteTopic",
                        "Subscribe",
                        "ListSubscriptionsByTopic",
                        "Publish",
                    )
                ],
                "Resource": f"arn:aws:sns:{region}:{account}:{name}",
                "Condition": {"StringEquals": {"AWS:SourceOwner": account}},
            }
        ],
    }
    found = {
        "TopicArn": topic.arn,
        "Owner": account,
        "DisplayName": "",
        "Policy": json.dumps(policy, separators=(",", ":")),
        "SubscriptionsConfirmed": str(len(topic.subscriptions)),
        "SubscriptionsPending": "0",
        "SubscriptionsDeleted": str(topic.deleted),
    }
    if topic.is_fifo:
        found |= {"FifoTopic": "true", "ContentBasedDeduplication": "false", "FifoThroughputScope": "Topic"}
    return found | {name: value for name, value in topic.attributes.items() if name != "FifoTopic"}


def shown_subscription(subscription: Subscription) -> dict[str, str]:
    """All attributes of a subscription."""
    found = {
        "SubscriptionArn": subscription.arn,
        "TopicArn": subscription.topic,
        "Protocol": subscription.protocol,
        "Endpoint": subscription.endpoint,
        "Owner": subscription.owner,
        "SubscriptionPrincipal": f"arn:aws:iam::{subscription.owner}:root",
        "ConfirmationWasAuthenticated": "true",
        "PendingConfirmation": "false",
        "RawMessageDelivery": "false",
        **subscription.attributes,
    }
    if "FilterPolicy" in found:
        found.setdefault("FilterPolicyScope", ON_ATTRIBUTES)
    return found


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
