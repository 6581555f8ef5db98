"""Functions that are subscribed: what one is invoked with.

Source: documented: Lambda Developer Guide, Using AWS Lambda with Amazon SNS.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kflow.clock import utc_text_ms

if TYPE_CHECKING:
    from kflow.messaging.messages import Message
    from kflow.messaging.topics import Subscription, Topic

PROTOCOL: Final = "lambda"
_FUNCTION: Final = re.compile(
    r"arn:aws[-a-z]*:lambda:[a-z0-9-]+:[0-9]{12}:function:[A-Za-z0-9_-]{1,64}(?::(?:\$LATEST|[A-Za-z0-9_-]{1,128}))?"
)


def is_function(endpoint: str) -> bool:
    """Whether an ARN is that of a function, or of a version or an alias of one."""
    return _FUNCTION.fullmatch(endpoint) is not None


def invocation(
    message: Message, subscription: Subscription, topic: Topic, now_ms: int, base_url: str, signature: str
) -> dict[str, Any]:
    """The parameters of Invoke, but for the function.

    Args:
        message: what is published.
        subscription: to whom.
        topic: from where.
        now_ms: milliseconds since the epoch.
        base_url: where the endpoint is.
        signature: in base64.
    """
    notification = {
        "Type": "Notification",
        "MessageId": message.id,
        "TopicArn": topic.arn,
        "Subject": message.subject or None,
        "Message": message.entry(PROTOCOL),
        "Timestamp": utc_text_ms(now_ms),
        "SignatureVersion": topic.attributes.get("SignatureVersion", "1"),
        "Signature": signature,
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
