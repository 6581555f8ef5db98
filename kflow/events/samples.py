"""Sample events, by the service that would send them: for trying a function without the service.

Shapes and the order of keys are AWS's. Source: documented: Lambda Developer Guide, the page of each service; recorded:
events of streams and queues.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from kflow import arn
from kflow.clock import utc_text, utc_text_ms
from kflow.events.kinesis import event_records
from kflow.events.sqs import event_record
from kflow.events.windows import window_members
from kflow.records import Window

_FIRST: Final = 49590338271490256608559692538361571095921575989136588898
"""A sequence number; AWS's documentation has it."""
_SHARD: Final = "shardId-000000000000"
_WINDOW_S: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a sample is of.

    Attributes:
        data: what was sent, one a record; for what has but one, the first.
        name: of the stream, queue, topic, bucket or log group; empty: a usual one.
        region: of it.
        account: of it, twelve digits.
        now_ms: when it was sent, milliseconds since the epoch.
    """

    data: Sequence[str]
    name: str
    region: str
    account: str
    now_ms: int

    def arn(self, service: str, prefix: str, default: str) -> str:
        """Of what sends it."""
        return f"arn:aws:{service}:{self.region}:{self.account}:{prefix}{self.name or default}"


def kinesis(sample: Sample) -> dict[str, Any]:
    """A batch of a stream."""
    records = event_records(
        [each.encode() for each in sample.data],
        [f"key-{number}" for number in range(len(sample.data))],
        range(_FIRST, _FIRST + len(sample.data)),
        shard_id=_SHARD,
        arrival_ms=sample.now_ms,
        arn=arn.stream_arn(sample.region, sample.account, sample.name or "orders"),
        region=sample.region,
        role=arn.role_arn(sample.account, "lambda-role"),
    )
    return {"Records": records}


def kinesis_window(sample: Sample) -> dict[str, Any]:
    """A batch of a stream within a tumbling window."""
    start_s = sample.now_ms // 1000 // _WINDOW_S * _WINDOW_S
    source = arn.stream_arn(sample.region, sample.account, sample.name or "orders")
    return {
        **kinesis(sample),
        **window_members(Window(start_s=start_s, end_s=start_s + _WINDOW_S, source_arn=source), _SHARD),
    }


def sqs(sample: Sample) -> dict[str, Any]:
    """A batch of a queue."""
    return _messages(sample, sample.arn("sqs", "", "jobs"), is_fifo=False)


def sqs_fifo(sample: Sample) -> dict[str, Any]:
    """A batch of a queue that keeps an order."""
    name = sample.arn("sqs", "", "jobs.fifo").removesuffix(".fifo") + ".fifo"
    return _messages(sample, name, is_fifo=True)


def _messages(sample: Sample, queue: str, *, is_fifo: bool) -> dict[str, Any]:
    records = []
    for number, body in enumerate(sample.data):
        attributes = {
            "ApproximateReceiveCount": "1",
            "SentTimestamp": str(sample.now_ms),
            "SenderId": "AIDAIENQZJOLO23YVJ4VO",
            "ApproximateFirstReceiveTimestamp": str(sample.now_ms + 1),
        }
        if is_fifo:
            attributes |= {
                "SequenceNumber": str(18849496460467696128 + number),
                "MessageGroupId": "group-1",
                "MessageDeduplicationId": hashlib.sha256(body.encode()).hexdigest(),
            }
        records.append(
            event_record(
                message_id=str(uuid.uuid4()),
                receipt_handle=base64.b64encode(os.urandom(48)).decode(),
                body=body,
                attributes=attributes,
                message_attributes={},
                md5_of_message_attributes="",
                md5_of_body=hashlib.md5(body.encode(), usedforsecurity=False).hexdigest(),
                arn=queue,
                region=sample.region,
            )
        )
    return {"Records": records}


def sns(sample: Sample) -> dict[str, Any]:
    """A message of a topic: one a record; on AWS there is one record an event."""
    topic = sample.arn("sns", "", "news")
    host = f"https://sns.{sample.region}.amazonaws.com"
    subscription = f"{topic}:{uuid.uuid4()}"
    return {
        "Records": [
            {
                "EventSource": "aws:sns",
                "EventVersion": "1.0",
                "EventSubscriptionArn": subscription,
                "Sns": {
                    "Type": "Notification",
                    "MessageId": str(uuid.uuid4()),
                    "TopicArn": topic,
                    "Subject": None,
                    "Message": message,
                    "Timestamp": utc_text_ms(sample.now_ms),
                    "SignatureVersion": "1",
                    "Signature": "EXAMPLE",
                    "SigningCertUrl": f"{host}/SimpleNotificationService.pem",
                    "UnsubscribeUrl": f"{host}/?Action=Unsubscribe&SubscriptionArn={subscription}",
                    "MessageAttributes": {},
                },
            }
            for message in sample.data
        ]
    }


def firehose(sample: Sample) -> dict[str, Any]:
    """A batch that a delivery stream has transformed, of records put to it directly."""
    return {
        "invocationId": str(uuid.uuid4()),
        "deliveryStreamArn": sample.arn("firehose", "deliverystream/", "delivery"),
        "region": sample.region,
        "records": [
            {
                "recordId": f"{_FIRST + number}000000",
                "approximateArrivalTimestamp": sample.now_ms,
                "data": base64.b64encode(each.encode()).decode(),
            }
            for number, each in enumerate(sample.data)
        ],
    }


def firehose_kinesis(sample: Sample) -> dict[str, Any]:
    """The same of a delivery stream that reads a stream."""
    event = firehose(sample)
    records = event.pop("records")
    region = event.pop("region")
    event["sourceKinesisStreamArn"] = arn.stream_arn(sample.region, sample.account, "orders")
    for number, record in enumerate(records):
        record["kinesisRecordMetadata"] = {
            "shardId": _SHARD,
            "partitionKey": f"key-{number}",
            "approximateArrivalTimestamp": sample.now_ms,
            "sequenceNumber": str(_FIRST + number),
            "subsequenceNumber": 0,
        }
    return {**event, "region": region, "records": records}


def s3(sample: Sample) -> dict[str, Any]:
    """Objects that were created; data are their keys."""
    bucket = sample.name or "uploads"
    return {
        "Records": [
            {
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "awsRegion": sample.region,
                "eventTime": utc_text_ms(sample.now_ms),
                "eventName": "ObjectCreated:Put",
                "userIdentity": {"principalId": "EXAMPLE"},
                "requestParameters": {"sourceIPAddress": "127.0.0.1"},
                "responseElements": {"x-amz-request-id": "EXAMPLE123456789", "x-amz-id-2": "EXAMPLE123/abcdefgh"},
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": "on-created",
                    "bucket": {
                        "name": bucket,
                        "ownerIdentity": {"principalId": "EXAMPLE"},
                        "arn": f"arn:aws:s3:::{bucket}",
                    },
                    "object": {
                        "key": quote(key, safe="/").replace("%20", "+"),
                        "size": 1024,
                        "eTag": hashlib.md5(key.encode(), usedforsecurity=False).hexdigest(),
                        "sequencer": "0A1B2C3D4E5F678901",
                    },
                },
            }
            for key in sample.data
        ]
    }


def eventbridge(sample: Sample) -> dict[str, Any]:
    """An event of a bus; its detail is the first of the data, where that is JSON."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "example",
        "source": sample.name or "com.example",
        "account": sample.account,
        "time": utc_text(sample.now_ms // 1000),
        "region": sample.region,
        "resources": [],
        "detail": _value(sample.data[0]),
    }


def cloudwatch_logs(sample: Sample) -> dict[str, Any]:
    """Lines of a log group that a subscription filter has chosen."""
    content = {
        "messageType": "DATA_MESSAGE",
        "owner": sample.account,
        "logGroup": sample.name or "/aws/lambda/delays",
        "logStream": f"{utc_text(sample.now_ms // 1000)[:10].replace('-', '/')}/[$LATEST]{uuid.uuid4().hex}",
        "subscriptionFilters": ["example"],
        "logEvents": [
            {"id": str(10**55 + number), "timestamp": sample.now_ms, "message": line}
            for number, line in enumerate(sample.data)
        ],
    }
    packed = gzip.compress(json.dumps(content, ensure_ascii=False).encode())
    return {"awslogs": {"data": base64.b64encode(packed).decode()}}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


KINDS: Final[Mapping[str, Callable[[Sample], dict[str, Any]]]] = {
    "kinesis": kinesis,
    "kinesis-window": kinesis_window,
    "sqs": sqs,
    "sqs-fifo": sqs_fifo,
    "firehose": firehose,
    "firehose-kinesis": firehose_kinesis,
    "sns": sns,
    "s3": s3,
    "eventbridge": eventbridge,
    "cloudwatch-logs": cloudwatch_logs,
}
"""What makes an event, by the service that sends it."""
