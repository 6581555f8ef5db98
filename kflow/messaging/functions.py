"""Functions that are subscribed: what one is invoked with.

Source: documented: Lambda Developer Guide, Using AWS Lambda with Amazon SNS.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kflow.clock import utc_text_ms
from kflow.messaging.messages import NOT_SIGNED, Message
from kflow.messaging.topics import LAMBDA, Subscription, Topic


def invocation(
    message: Message, subscription: Subscription, topic: Topic, now_ms: int, base_url: str
) -> dict[str, Any]:
    """The parameters of Invoke, but for the function.

    Args:
        message: what is published.
        subscription: to whom.
        topic: from where.
        now_ms: milliseconds since the epoch.
        base_url: where the endpoint is.
    """
    notification = {
        "Type": "Notification",
        "MessageId": message.id,
        "TopicArn": topic.arn,
        "Subject": message.subject or None,
        "Message": message.entry(LAMBDA),
        "Timestamp": utc_text_ms(now_ms),
        "SignatureVersion": topic.attributes.get("SignatureVersion", "1"),
        "Signature": NOT_SIGNED,
        "SigningCertUrl": f"{base_url}/SimpleNotificationService.pem",
        "UnsubscribeUrl": f"{base_url}/?Action=Unsubscribe&SubscriptionArn={subscription.arn}",
        "MessageAttributes": {
            name: {"Type": each.kind, "Value": each.text} for name, each in message.attributes.items()
        },
    }
    record = {
        "EventSource": "aws:sns",
        "EventVersion": "1.0",
        "EventSubscriptionArn": subscription.arn,
        "Sns": notification,
    }
    return {"InvocationType": "Event", "Payload": msgspec.json.encode({"Records": [record]})}
