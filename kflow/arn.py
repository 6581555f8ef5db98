"""Amazon Resource Names of what kflow keeps."""

from __future__ import annotations

import re

_STREAM = re.compile(r"arn:aws[-a-z0-9]*:kinesis:([-a-z0-9]*):(\d{12}):stream/([a-zA-Z0-9_.-]{1,128})(/consumer/.+)?")
_CONSUMER = re.compile(
    r"arn:aws[-a-z0-9]*:kinesis:[-a-z0-9]*:\d{12}:stream/[a-zA-Z0-9_.-]{1,128}/consumer/([a-zA-Z0-9_.-]{1,128}):\d+"
)
_QUEUE = re.compile(r"arn:aws[-a-z]*:sqs:[-a-z0-9]+:[0-9]{12}:([A-Za-z0-9_-]{1,80}(?:\.fifo)?)")


def stream_arn(region: str, account: str, name: str) -> str:
    """The ARN of a stream. Source: documented: Kinesis Data Streams, resource ARNs."""
    return f"arn:aws:kinesis:{region}:{account}:stream/{name}"


def consumer_arn(stream: str, name: str, created_s: int) -> str:
    """The ARN of a registered consumer of the stream with ARN `stream`. Source: documented: RegisterStreamConsumer."""
    return f"{stream}/consumer/{name}:{created_s}"


def consumer_name(text: str) -> str | None:
    """The consumer's name out of a consumer ARN; None where it is none."""
    match = _CONSUMER.fullmatch(text)
    return match[1] if match else None


def stream_name(name_or_arn: str) -> str:
    """The stream's name out of a name, a stream ARN or a consumer ARN; text that is no ARN comes back unchanged."""
    match = _STREAM.fullmatch(name_or_arn)
    return match[3] if match else name_or_arn


def queue_arn(region: str, account: str, name: str) -> str:
    """The ARN of a queue. Source: documented: Amazon SQS resource types."""
    return f"arn:aws:sqs:{region}:{account}:{name}"


def queue_name(name_or_arn: str) -> str:
    """The queue's name out of a name or an ARN; text that is no ARN comes back unchanged."""
    match = _QUEUE.fullmatch(name_or_arn)
    return match[1] if match else name_or_arn


def function_arn(region: str, account: str, name: str) -> str:
    """The unqualified ARN of a function. Source: documented: Lambda Developer Guide, function ARNs."""
    return f"arn:aws:lambda:{region}:{account}:function:{name}"


def role_arn(account: str, name: str) -> str:
    """The ARN of a role; local functions have one so that events look as they do on AWS."""
    return f"arn:aws:iam::{account}:role/{name}"
