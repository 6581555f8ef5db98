"""What handlers print, and what they did, are read by the APIs of CloudWatch; what is put there outlives a kill."""

from __future__ import annotations

import datetime as dt
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deadline import eventually
from tests.project import Project
from tests.served import Served, served

GROUP = "/aws/lambda/bill"
CODE = """
    import logging
    from kflow import on_stream

    @on_stream("orders", maximum_retry_attempts=0, batch_size=1)
    def bill(event, context):
        data = event["Records"][0]["kinesis"]["partitionKey"]
        print("charging", data)
        logging.warning("two\\nlines")
        note(stream=context.log_stream_name, group=context.log_group_name)
        if data == "bad":
            raise ValueError("no\\nmoney")
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("logs"))
    try:
        project.handler(CODE)
        project.start()
        kinesis = project.client("kinesis")
        kinesis.put_record(StreamName="orders", Data=b"x", PartitionKey="good")
        project.wait_for(lambda: len(project.seen()) == 1)
        kinesis.put_record(StreamName="orders", Data=b"x", PartitionKey="bad")
        project.wait_for(lambda: len(project.seen()) == 2)
        yield project
    finally:
        project.close()


def messages(project: Project, **given: Any) -> list[str]:
    events = project.client("logs").filter_log_events(logGroupName=GROUP, **given)["events"]
    return [each["message"] for each in events]


def ended(project: Project) -> bool:
    return sum(each.startswith("REPORT") for each in messages(project)) == 2


def test_the_output_of_a_handler_is_a_log_stream(running: Project) -> None:
    eventually(lambda: ended(running))
    first, second = running.seen()
    assert first["group"] == GROUP
    assert first["stream"] == second["stream"]
    logs = running.client("logs")
    (stream,) = logs.describe_log_streams(logGroupName=GROUP)["logStreams"]
    assert stream["logStreamName"] == first["stream"]
    events = logs.get_log_events(logGroupName=GROUP, logStreamName=first["stream"], startFromHead=True)["events"]
    kinds = [each["message"].split(" ")[0].split("\t")[0] for each in events]
    once = ["START", "charging", "[WARNING]"]
    assert kinds == [*once, "END", "REPORT", *once, "[ERROR]", "END", "REPORT"]
    assert events[2]["message"].endswith("two\nlines\n")
    assert events[8]["message"].startswith("[ERROR] ValueError: no\nmoney\nTraceback (most recent call last):\n")
    assert events[8]["message"].count("\n") > 3
    assert abs(events[0]["timestamp"] / 1000 - dt.datetime.now(dt.UTC).timestamp()) < 300
    assert [each["timestamp"] for each in events] == sorted(each["timestamp"] for each in events)


def test_events_are_found_by_patterns(running: Project) -> None:
    eventually(lambda: ended(running))
    assert messages(running, filterPattern="charging") == ["charging good\n", "charging bad\n"]
    assert messages(running, filterPattern='"charging bad"') == ["charging bad\n"]
    assert len(messages(running, filterPattern="?START ?END")) == 4


def test_who_follows_a_log_gets_each_event_once(running: Project) -> None:
    """As `aws logs tail --follow` does: from the time of the last event on, without those that it has."""
    eventually(lambda: ended(running))
    logs = running.client("logs")
    seen: dict[str, str] = {}
    begin = 0

    def follow() -> bool:
        nonlocal begin
        given: dict[str, Any] = {"logGroupName": GROUP, "startTime": begin, "filterPattern": "charging"}
        for page in logs.get_paginator("filter_log_events").paginate(**given):
            for event in page["events"]:
                seen.setdefault(event["eventId"], event["message"])
                begin = max(begin, event["timestamp"])
        return "charging followed\n" in seen.values()

    assert not follow()
    running.client("kinesis").put_record(StreamName="orders", Data=b"x", PartitionKey="followed")
    eventually(follow)
    assert sorted(seen.values()) == ["charging bad\n", "charging followed\n", "charging good\n"]


def test_what_runs_is_measured(running: Project) -> None:
    cloudwatch = running.client("cloudwatch")
    now = dt.datetime.now(dt.UTC)
    when = {"StartTime": now - dt.timedelta(hours=1), "EndTime": now + dt.timedelta(hours=1)}

    def total(namespace: str, name: str, dimension: str, value: str, stat: str = "Sum") -> float:
        metric = {"Namespace": namespace, "MetricName": name, "Dimensions": [{"Name": dimension, "Value": value}]}
        queries = [{"Id": "m", "MetricStat": {"Metric": metric, "Period": 7200, "Stat": stat}}]
        (found,) = cloudwatch.get_metric_data(MetricDataQueries=queries, **when)["MetricDataResults"]
        return sum(found["Values"])

    eventually(lambda: total("AWS/Lambda", "Invocations", "FunctionName", "bill") >= 2, seconds=30)
    eventually(lambda: total("AWS/Lambda", "Errors", "FunctionName", "bill") == 1, seconds=30)
    eventually(lambda: total("AWS/Kinesis", "IncomingRecords", "StreamName", "orders") >= 2, seconds=30)
    assert total("AWS/Kinesis", "PutRecord.Success", "StreamName", "orders") >= 2
    assert total("AWS/Lambda", "Duration", "FunctionName", "bill", "p50") > 0
    names = {each["MetricName"] for each in cloudwatch.list_metrics(Namespace="AWS/Lambda")["Metrics"]}
    assert {"Invocations", "Errors", "Duration", "IteratorAge"} <= names


def test_the_same_is_there_as_prometheus_text_and_on_a_page(running: Project) -> None:
    def get(path: str) -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{running.url}{path}", timeout=30) as answer:
            text: str = answer.read().decode()
            return text

    eventually(
        lambda: (
            'kflow_failed_invocations_total{function="bill",stream="orders",shard="0"} 1\n' in get("/_kflow/metrics")
        )
    )
    assert 'kflow_function_errors_total{function="bill"} 1\n' in get("/_kflow/metrics")
    assert "kflow_up 1\n" in get("/_kflow/metrics")
    page = get("/_kflow/")
    assert "<td>bill</td><td>stream orders</td>" in page
    assert "app.py:" in page


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("served")) as made:
        yield made


def test_what_is_put_outlives_a_kill(endpoint: Served) -> None:
    logs, cloudwatch = endpoint.client(service="logs"), endpoint.client(service="cloudwatch")
    now = dt.datetime.now(dt.UTC)
    logs.create_log_group(logGroupName="app")
    logs.put_retention_policy(logGroupName="app", retentionInDays=3)
    logs.create_log_stream(logGroupName="app", logStreamName="one")
    event = {"timestamp": int(now.timestamp() * 1000), "message": json.dumps({"level": "ERROR", "ms": 7})}
    logs.put_log_events(logGroupName="app", logStreamName="one", logEvents=[event])
    cloudwatch.put_metric_data(Namespace="App", MetricData=[{"MetricName": "n", "Value": 3.5}] * 1000)
    endpoint.kill()
    endpoint.start()
    logs, cloudwatch = endpoint.client(service="logs"), endpoint.client(service="cloudwatch")
    assert logs.describe_log_groups()["logGroups"][0]["retentionInDays"] == 3
    found = logs.filter_log_events(logGroupName="app", filterPattern='{ $.level = "ERROR" && $.ms > 5 }')["events"]
    assert [each["message"] for each in found] == [event["message"]]
    when = {"StartTime": now - dt.timedelta(hours=1), "EndTime": now + dt.timedelta(hours=1)}
    (point,) = cloudwatch.get_metric_statistics(
        Namespace="App", MetricName="n", Period=7200, Statistics=["Sum", "SampleCount"], **when
    )["Datapoints"]
    assert (point["Sum"], point["SampleCount"]) == (3500, 1000)


def test_refusals_are_read_by_sdks(endpoint: Served) -> None:
    from botocore.exceptions import ClientError

    logs, cloudwatch = endpoint.client(service="logs"), endpoint.client(service="cloudwatch")
    with pytest.raises(logs.exceptions.ResourceNotFoundException, match="The specified log group does not exist"):
        logs.filter_log_events(logGroupName="none")
    with pytest.raises(logs.exceptions.InvalidParameterException, match="1 validation error detected"):
        logs.create_log_group(logGroupName="no spaces")
    with pytest.raises(ClientError, match=r"\(InvalidParameterValue\).*The value AWS/ for parameter Namespace"):
        cloudwatch.put_metric_data(Namespace="AWS/X", MetricData=[{"MetricName": "n", "Value": 1}])
    with pytest.raises(ClientError, match=r"kflow does not perform cloudwatch\.DescribeAlarms"):
        cloudwatch.describe_alarms()


@pytest.mark.parametrize("protocol", ["smithy-rpc-v2-cbor", "query", "json"])
def test_cloudwatch_speaks_all_its_protocols(endpoint: Served, protocol: str) -> None:
    import botocore.session

    session = botocore.session.get_session()
    loader = session.get_component("data_loader")
    load = loader.load_service_model

    def only(service: str, kind: str, api_version: str | None = None) -> Any:
        found = load(service, kind, api_version)
        if (service, kind) == ("cloudwatch", "service-2"):
            found["metadata"] |= {"protocol": protocol, "protocols": [protocol]}
        return found

    loader.load_service_model = only
    given = {"region_name": "us-east-1", "aws_access_key_id": "t", "aws_secret_access_key": "t"}
    cloudwatch = session.create_client("cloudwatch", endpoint_url=endpoint.url, **given)
    assert cloudwatch.meta.service_model.resolved_protocol == protocol
    now = dt.datetime.now(dt.UTC)
    data = [{"MetricName": f"m{n}", "Dimensions": [{"Name": "a", "Value": "b" * 40}], "Value": 2.5} for n in range(200)]
    cloudwatch.put_metric_data(Namespace=protocol, MetricData=data)  # large enough to be compressed
    metrics = cloudwatch.list_metrics(Namespace=protocol)["Metrics"]
    assert len(metrics) == 200
    when = {"StartTime": now - dt.timedelta(hours=1), "EndTime": now + dt.timedelta(hours=1)}
    (point,) = cloudwatch.get_metric_statistics(**metrics[0], Period=7200, Statistics=["Sum"], **when)["Datapoints"]
    assert (point["Sum"], point["Unit"]) == (2.5, "None")
    assert point["Timestamp"].tzinfo is not None
    with pytest.raises(cloudwatch.exceptions.InvalidParameterValueException, match=r"\(InvalidParameterValue\)"):
        cloudwatch.put_metric_data(Namespace="AWS/X", MetricData=data[:1])


def test_a_data_folder_of_which_nobody_asked_for_metrics_has_none(tmp_path: Path) -> None:
    with served(tmp_path) as made:
        assert made.client().list_streams()["StreamNames"] == []
        assert not (made.data_dir / "metrics.db").exists()
        assert not (made.data_dir / "logs" / "cloudwatch.db").exists()
