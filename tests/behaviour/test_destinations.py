"""What a mapping gives up goes to its destination as AWS's document, and stays parked with its records."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.project import Project, project

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
DOCUMENT = (
    rf'\{{"requestContext":\{{"requestId":"{UUID}",'
    r'"functionArn":"arn:aws:lambda:us-east-1:123456789012:function:FUNCTION",'
    r'"condition":"RetryAttemptsExhausted","approximateInvokeCount":2\},'
    r'"responseContext":\{"statusCode":200,"executedVersion":"\$LATEST","functionError":"Unhandled"\},'
    rf'"version":"1\.0","timestamp":"{TIME}","KinesisBatchInfo":\{{"shardId":"shardId-000000000000",'
    r'"startSequenceNumber":"FIRST","endSequenceNumber":"LAST",'
    rf'"approximateArrivalOfFirstRecord":"{TIME}","approximateArrivalOfLastRecord":"{TIME}",'
    r'"batchSize":3,"streamArn":"arn:aws:kinesis:us-east-1:123456789012:stream/orders"\}'
)
ABSENT = "arn:aws:sqs:us-east-1:123456789012:absent"


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    yield from project(tmp_path, transition_ms=0)


def failing(*destinations: str) -> str:
    """Handlers, one a destination, that fail always."""
    return "from kflow import on_stream\n" + "".join(
        f"""
@on_stream("orders", maximum_retry_attempts=1, on_failure="{destination}")
def f{index}(event, context):
    raise ValueError("never")
"""
        for index, destination in enumerate(destinations)
    )


def put(shop: Project, count: int = 3) -> tuple[str, str]:
    """Put records at once; the first and the last sequence number."""
    entries = [{"Data": b"%d" % number, "PartitionKey": "k"} for number in range(count)]
    answer = shop.client("kinesis").put_records(StreamName="orders", Records=entries)
    return answer["Records"][0]["SequenceNumber"], answer["Records"][-1]["SequenceNumber"]


def received(sqs: Any, queue: str) -> list[str]:
    """The next message of a queue, waited for; removed."""
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    found = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20).get("Messages", [])
    for each in found:
        sqs.delete_message(QueueUrl=url, ReceiptHandle=each["ReceiptHandle"])
    return [each["Body"] for each in found]


def pattern(function: str, numbers: tuple[str, str]) -> str:
    return DOCUMENT.replace("FUNCTION", function).replace("FIRST", numbers[0]).replace("LAST", numbers[1])


def parked(shop: Project) -> dict[str, dict[str, Any]]:
    return {each["function"]: each for each in shop.json("parked", "list")}


def test_a_queue_a_topic_and_a_bucket_get_the_document_and_the_records_stay(shop: Project) -> None:
    shop.handler(failing("sqs:dead", "sns:alerts", "s3:graves"))
    shop.start()
    sqs, sns = shop.client("sqs"), shop.client("sns")
    shop.wait_for(lambda: "made the topic alerts: on_failure of f1" in shop.output())
    heard = sqs.create_queue(QueueName="heard")["QueueUrl"]
    assert heard.endswith("/heard")
    sns.subscribe(
        TopicArn="arn:aws:sns:us-east-1:123456789012:alerts",
        Protocol="sqs",
        Endpoint="arn:aws:sqs:us-east-1:123456789012:heard",
        Attributes={"RawMessageDelivery": "true"},
    )

    numbers = put(shop)

    (queued,) = received(sqs, "dead")
    assert re.fullmatch(pattern("f0", numbers) + r"\}", queued)
    (published,) = received(sqs, "heard")
    assert re.fullmatch(pattern("f1", numbers) + r"\}", published)
    (path,) = shop.wait_for(lambda: [*(shop.data_dir / "s3" / "graves" / "aws").rglob("*T*")], "the object")
    assert re.fullmatch(
        rf"aws/lambda/{UUID}/shardId-000000000000/\d{{4}}/\d\d/\d\d/\d{{4}}-\d\d-\d\dT\d\d\.\d\d\.\d\d-{UUID}",
        str(path.relative_to(shop.data_dir / "s3" / "graves")),
    )
    content = path.read_text()
    assert re.fullmatch(pattern("f2", numbers) + r',"payload":".*"\}', content)
    event = json.loads(json.loads(content)["payload"])
    assert [record["kinesis"]["data"] for record in event["Records"]] == ["MA==", "MQ==", "Mg=="]

    shop.wait_for(lambda: [each["sent"] for each in parked(shop).values()] == [True] * 3, "all to be sent")
    found = parked(shop)
    assert {name: (each["destination"], each["records"]) for name, each in found.items()} == {
        "f0": ("sqs:dead", 3),
        "f1": ("sns:alerts", 3),
        "f2": ("s3:graves", 3),
    }
    number = found["f0"]["number"]
    assert json.loads(queued) == shop.json("parked", "show", str(number))["document"]
    assert "failure document: sent to sqs:dead" in shop.run("parked", "show", str(number)).stdout
    assert "sent to s3:graves" in shop.run("parked", "list").stdout


def test_what_cannot_be_sent_stays_parked_and_is_sent_after_the_next_start(shop: Project) -> None:
    shop.handler(failing(ABSENT, "sqs:dead"))
    first = shop.start()
    shop.wait_for(lambda: "made the queue dead" in shop.output())
    assert f"on_failure of f0: there is no queue absent ({ABSENT}): failure documents for it are kept" in shop.output()
    sqs = shop.client("sqs")

    numbers = put(shop)

    assert len(received(sqs, "dead")) == 1, "one destination that is missing keeps no other back"
    shop.wait_for(lambda: "of f0 could not be sent" in shop.output())
    entry = shop.wait_for(lambda: parked(shop)["f0"]["trouble"] and parked(shop)["f0"])
    assert (entry["sent"], entry["trouble"]) == (False, "QueueDoesNotExist: The specified queue does not exist")
    shown = shop.run("parked", "show", str(entry["number"])).stdout
    assert f"failure document: not sent to {ABSENT}: QueueDoesNotExist: The specified queue does not exist" in shown

    sqs.create_queue(QueueName="absent")
    assert shop.stop(first) == 130
    shop.start()
    (queued,) = received(shop.client("sqs"), "absent")
    assert re.fullmatch(pattern("f0", numbers) + r"\}", queued)
    shop.wait_for(lambda: parked(shop)["f0"]["sent"], "it to be noted")
    assert parked(shop)["f0"]["trouble"] is None


def test_a_drain_sends_what_it_gives_up(shop: Project) -> None:
    shop.handler(failing("sqs:dead", "s3:graves"))
    shop.run("streams", "create", "orders")
    shop.run("put", "orders", "--key", "k", "1", "2", "3")

    shop.run("run", "--drain", "--timeout", "50")

    assert [each["sent"] for each in shop.json("parked", "list")] == [True, True]
    assert len([*(shop.data_dir / "s3" / "graves" / "aws").rglob("*T*")]) == 1


def test_a_mapping_that_the_api_made_names_itself_in_its_objects(shop: Project) -> None:
    shop.handler(failing("sqs:dead"))
    shop.start("--allow-reset")
    kinesis, functions, sqs = (shop.client(service) for service in ("kinesis", "lambda", "sqs"))
    (shop.data_dir / "s3" / "graves").mkdir(parents=True)
    kinesis.create_stream(StreamName="returns", ShardCount=1)
    arn = kinesis.describe_stream_summary(StreamName="returns")["StreamDescriptionSummary"]["StreamARN"]
    mapping = functions.create_event_source_mapping(
        EventSourceArn=arn,
        FunctionName="f0",
        StartingPosition="TRIM_HORIZON",
        MaximumRetryAttempts=0,
        DestinationConfig={"OnFailure": {"Destination": "arn:aws:s3:::graves"}},
        MetricsConfig={"Metrics": ["EventCount"]},
    )
    kinesis.put_record(StreamName="returns", Data=b"x", PartitionKey="k")
    folder = shop.data_dir / "s3" / "graves" / "aws" / "lambda"
    (path,) = shop.wait_for(lambda: [*folder.rglob("*T*")], "the object")
    assert path.relative_to(folder).parts[0] == mapping["UUID"]
    assert json.loads(path.read_text())["KinesisBatchInfo"]["streamArn"] == arn
    cloudwatch = shop.client("cloudwatch")

    def counts() -> dict[str, int]:
        whose = [{"Name": "EventSourceMappingUUID", "Value": mapping["UUID"]}]
        when = {"Period": 7200, "StartTime": time.time() - 3600, "EndTime": time.time() + 3600}
        found = {}
        for each in cloudwatch.list_metrics(Namespace="AWS/Lambda", Dimensions=whose)["Metrics"]:
            points = cloudwatch.get_metric_statistics(**each, **when, Statistics=["Sum"])["Datapoints"]
            found[each["MetricName"]] = sum(int(point["Sum"]) for point in points)
        return found

    expected = {
        "PolledEventCount": 1,
        "InvokedEventCount": 1,
        "FailedInvokeEventCount": 1,
        "OnFailureDestinationDeliveredEventCount": 1,
    }
    shop.wait_for(lambda: counts() == expected, "the counts")

    request = urllib.request.Request(shop.url + "/_kflow/reset", method="POST")
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30).close()
    assert not (shop.data_dir / "s3").exists()
    assert sqs.list_queues().get("QueueUrls", []) == []
    put(shop)
    shop.wait_for(lambda: sqs.list_queues().get("QueueUrls"), "the queue to be made again")
    assert len(received(sqs, "dead")) == 1


def test_a_dropped_batch_and_a_parked_one_have_no_destination(shop: Project) -> None:
    shop.handler("""
        from kflow import on_stream
        @on_stream("orders", maximum_retry_attempts=0)
        def parks(event, context): raise ValueError
        @on_stream("orders", maximum_retry_attempts=0, on_failure="drop")
        def drops(event, context): raise ValueError
    """)
    shop.run("streams", "create", "orders")
    shop.run("put", "orders", "--key", "k", "1")
    shop.run("run", "--drain", "--timeout", "50")
    (entry,) = shop.json("parked", "list")
    assert (entry["function"], entry["destination"], entry["sent"]) == ("parks", None, None)
    assert "document" not in shop.run("parked", "list").stdout
    assert not (shop.data_dir / "queues").exists()
    assert not (shop.data_dir / "s3").exists()
