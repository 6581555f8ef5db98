"""CloudWatch Logs as the SDKs call it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kflow.clock import ManualClock
from kflow.errors import AwsError
from kflow.services.logs import Logs
from tests.monitoring import HOME, Desk, Host

NOW_MS = 1_790_000_000_000


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Desk]:
    host = Host(tmp_path / "data", ManualClock(epoch_ms=NOW_MS))
    service = Logs(host, HOME)
    yield Desk(host, service)
    service.close(lambda: None)
    host.run()


@pytest.fixture
def app(logs: Desk) -> Desk:
    logs.call("CreateLogGroup", logGroupName="app", tags={"team": "a"})
    logs.call("CreateLogStream", logGroupName="app", logStreamName="one")
    return logs


def put(logs: Desk, *texts: str, **given: Any) -> dict[str, Any]:
    events = [{"timestamp": NOW_MS + number, "message": text} for number, text in enumerate(texts)]
    return logs.call("PutLogEvents", **{"logGroupName": "app", "logStreamName": "one", "logEvents": events, **given})


def refused(logs: Desk, operation: str, **given: Any) -> tuple[str, str]:
    with pytest.raises(AwsError) as caught:
        logs.call(operation, **given)
    return caught.value.code, str(caught.value)


def test_a_group_is_described_as_on_aws(app: Desk) -> None:
    app.call("PutRetentionPolicy", logGroupName="app", retentionInDays=7)
    (group,) = app.call("DescribeLogGroups")["logGroups"]
    assert group == {
        "logGroupName": "app",
        "creationTime": NOW_MS,
        "retentionInDays": 7,
        "metricFilterCount": 0,
        "arn": "arn:aws:logs:us-east-1:123456789012:log-group:app:*",
        "storedBytes": 0,
        "logGroupClass": "STANDARD",
        "logGroupArn": "arn:aws:logs:us-east-1:123456789012:log-group:app",
        "deletionProtectionEnabled": False,
    }
    app.call("DeleteRetentionPolicy", logGroupName="app")
    assert "retentionInDays" not in app.call("DescribeLogGroups")["logGroups"][0]


def test_groups_come_in_pages_by_prefix_and_by_pattern(logs: Desk) -> None:
    for name in ("a/1", "a/2", "a/3", "B/1"):
        logs.call("CreateLogGroup", logGroupName=name)
    page = logs.call("DescribeLogGroups", logGroupNamePrefix="a/", limit=2)
    assert [each["logGroupName"] for each in page["logGroups"]] == ["a/1", "a/2"]
    rest = logs.call("DescribeLogGroups", logGroupNamePrefix="a/", limit=2, nextToken=page["nextToken"])
    assert [each["logGroupName"] for each in rest["logGroups"]] == ["a/3"]
    assert "nextToken" not in rest
    found = logs.call("DescribeLogGroups", logGroupNamePattern="b")["logGroups"]
    assert [each["logGroupName"] for each in found] == ["B/1"]


def test_events_that_are_put_are_got(app: Desk) -> None:
    assert "rejectedLogEventsInfo" not in put(app, "a", "b", "c")
    got = app.call("GetLogEvents", logGroupName="app", logStreamName="one", startFromHead=True, limit=2)
    assert got["events"] == [
        {"timestamp": NOW_MS, "message": "a", "ingestionTime": NOW_MS},
        {"timestamp": NOW_MS + 1, "message": "b", "ingestionTime": NOW_MS},
    ]
    given = {"logGroupName": "app", "logStreamName": "one"}
    more = app.call("GetLogEvents", **given, nextToken=got["nextForwardToken"])
    assert [each["message"] for each in more["events"]] == ["c"]
    end = app.call("GetLogEvents", **given, nextToken=more["nextForwardToken"])
    assert (end["events"], end["nextForwardToken"]) == ([], more["nextForwardToken"])
    back = app.call("GetLogEvents", **given, nextToken=more["nextBackwardToken"])
    assert [each["message"] for each in back["events"]] == ["a", "b"]
    last = app.call("GetLogEvents", **given, limit=1)
    assert [each["message"] for each in last["events"]] == ["c"]
    ended = app.call("GetLogEvents", **given, startTime=NOW_MS + 1, endTime=NOW_MS + 2)
    assert [each["message"] for each in ended["events"]] == ["b"]


def test_an_empty_stream_has_tokens_by_which_its_first_event_is_found(app: Desk) -> None:
    given = {"logGroupName": "app", "logStreamName": "one"}
    got = app.call("GetLogEvents", **given)
    assert got["events"] == []
    put(app, "a")
    later = app.call("GetLogEvents", **given, nextToken=got["nextForwardToken"])
    assert [each["message"] for each in later["events"]] == ["a"]


def test_events_are_filtered(app: Desk) -> None:
    put(app, "ERROR a", "INFO b", "ERROR c")
    found = app.call("FilterLogEvents", logGroupName="app", filterPattern="ERROR", limit=1)
    (event,) = found["events"]
    assert (event["logStreamName"], event["timestamp"], event["message"]) == ("one", NOW_MS, "ERROR a")
    assert len(event["eventId"]) == 56
    assert found["searchedLogStreams"] == []
    rest = app.call("FilterLogEvents", logGroupName="app", filterPattern="ERROR", nextToken=found["nextToken"])
    assert [each["message"] for each in rest["events"]] == ["ERROR c"]
    assert "nextToken" not in rest
    whole = app.call("FilterLogEvents", logGroupName="app", startTime=NOW_MS + 1, endTime=NOW_MS + 1)
    assert [each["message"] for each in whole["events"]] == ["INFO b"]
    latest = app.call("FilterLogEvents", logGroupName="app", startFromHead=False, limit=2)
    assert [each["message"] for each in latest["events"]] == ["ERROR c", "INFO b"]
    first = app.call("FilterLogEvents", logGroupName="app", nextToken=latest["nextToken"])
    assert [each["message"] for each in first["events"]] == ["ERROR a"]


def test_a_group_is_named_by_its_arn_too(app: Desk) -> None:
    put(app, "a")
    arn = "arn:aws:logs:us-east-1:123456789012:log-group:app"
    for each in (arn, "app"):
        assert app.call("FilterLogEvents", logGroupIdentifier=each)["events"]


def test_streams_are_described_by_name_or_by_their_last_event(app: Desk) -> None:
    app.call("CreateLogStream", logGroupName="app", logStreamName="two")
    put(app, "a")
    events = [{"timestamp": NOW_MS - 5, "message": "x"}]
    app.call("PutLogEvents", logGroupName="app", logStreamName="two", logEvents=events)
    found = app.call("DescribeLogStreams", logGroupName="app")["logStreams"]
    assert [each["logStreamName"] for each in found] == ["one", "two"]
    assert found[0]["firstEventTimestamp"] == found[0]["lastEventTimestamp"] == NOW_MS
    assert found[0]["arn"] == "arn:aws:logs:us-east-1:123456789012:log-group:app:log-stream:one"
    by_time = {"logGroupName": "app", "orderBy": "LastEventTime"}
    latest = app.call("DescribeLogStreams", **by_time, descending=True, limit=1)
    assert [each["logStreamName"] for each in latest["logStreams"]] == ["one"]
    rest = app.call("DescribeLogStreams", **by_time, descending=True, nextToken=latest["nextToken"])
    assert [each["logStreamName"] for each in rest["logStreams"]] == ["two"]


def test_tags_by_name_and_by_arn(app: Desk) -> None:
    arn = "arn:aws:logs:us-east-1:123456789012:log-group:app"
    app.call("TagLogGroup", logGroupName="app", tags={"a": "1"})
    app.call("TagResource", resourceArn=arn, tags={"b": "2"})
    app.call("UntagResource", resourceArn=arn, tagKeys=["team"])
    app.call("UntagLogGroup", logGroupName="app", tags=["a"])
    assert app.call("ListTagsForResource", resourceArn=arn)["tags"] == {"b": "2"}
    assert app.call("ListTagsLogGroup", logGroupName="app")["tags"] == {"b": "2"}


def test_what_is_deleted_is_gone(app: Desk) -> None:
    put(app, "a")
    app.call("DeleteLogStream", logGroupName="app", logStreamName="one")
    assert app.call("DescribeLogStreams", logGroupName="app")["logStreams"] == []
    app.call("PutLogGroupDeletionProtection", logGroupIdentifier="app", deletionProtectionEnabled=True)
    assert refused(app, "DeleteLogGroup", logGroupName="app")[0] == "InvalidParameterException"
    app.call("PutLogGroupDeletionProtection", logGroupIdentifier="app", deletionProtectionEnabled=False)
    app.call("DeleteLogGroup", logGroupName="app")
    assert app.call("DescribeLogGroups")["logGroups"] == []


def test_patterns_are_tried_on_messages(logs: Desk) -> None:
    found = logs.call("TestMetricFilter", filterPattern="ERROR", logEventMessages=["ok", "ERROR x"])
    assert found["matches"] == [{"eventNumber": 2, "eventMessage": "ERROR x", "extractedValues": {}}]


@pytest.mark.parametrize(
    ("operation", "given", "code", "text"),
    [
        ("CreateLogGroup", {"logGroupName": "app"}, "ResourceAlreadyExistsException", "log group already exists"),
        (
            "CreateLogStream",
            {"logGroupName": "app", "logStreamName": "one"},
            "ResourceAlreadyExistsException",
            "log stream already exists",
        ),
        ("DeleteLogGroup", {"logGroupName": "no"}, "ResourceNotFoundException", "log group does not exist"),
        (
            "GetLogEvents",
            {"logGroupName": "app", "logStreamName": "no"},
            "ResourceNotFoundException",
            "log stream does not exist",
        ),
        ("GetLogEvents", {"logStreamName": "one"}, "InvalidParameterException", "must be specified"),
        (
            "GetLogEvents",
            {"logGroupName": "app", "logStreamName": "one", "nextToken": "f/1"},
            "InvalidParameterException",
            "The specified nextToken is invalid.",
        ),
        ("FilterLogEvents", {"logGroupName": "app", "nextToken": "x"}, "InvalidParameterException", "nextToken"),
        (
            "FilterLogEvents",
            {"logGroupName": "app", "filterPattern": "a-b"},
            "InvalidParameterException",
            "Invalid filter pattern: Invalid character(s) in term 'a-b'",
        ),
        (
            "FilterLogEvents",
            {"logGroupName": "app", "logGroupIdentifier": "app"},
            "InvalidParameterException",
            "mutually exclusive",
        ),
        (
            "FilterLogEvents",
            {"logGroupName": "app", "logStreamNames": ["one"], "logStreamNamePrefix": "o"},
            "InvalidParameterException",
            "Only one of",
        ),
        (
            "PutRetentionPolicy",
            {"logGroupName": "app", "retentionInDays": 2},
            "InvalidParameterException",
            "Member must satisfy enum value set: [1, 3, 5,",
        ),
        (
            "DescribeLogStreams",
            {"logGroupName": "app", "orderBy": "LastEventTime", "logStreamNamePrefix": "o"},
            "InvalidParameterException",
            "Cannot order by LastEventTime with a logStreamNamePrefix.",
        ),
        (
            "DescribeLogGroups",
            {"logGroupNamePrefix": "a", "logGroupNamePattern": "a"},
            "InvalidParameterException",
            "mutually exclusive",
        ),
        ("DescribeLogGroups", {"includeLinkedAccounts": True}, "InvalidParameterException", "No accounts are linked"),
        (
            "ListTagsForResource",
            {"resourceArn": "arn:aws:logs:eu-west-1:123456789012:log-group:app"},
            "ResourceNotFoundException",
            "resource does not exist",
        ),
    ],
)
def test_what_is_refused(app: Desk, operation: str, given: dict[str, Any], code: str, text: str) -> None:
    found = refused(app, operation, **given)
    assert found[0] == code
    assert text in found[1]


def test_events_that_cannot_be_put_together(app: Desk) -> None:
    def events(*times: int, text: str = "x") -> list[dict[str, Any]]:
        return [{"timestamp": ms, "message": text} for ms in times]

    given = {"logGroupName": "app", "logStreamName": "one"}
    assert "chronological order" in refused(app, "PutLogEvents", **given, logEvents=events(2, 1))[1]
    assert "24 hours" in refused(app, "PutLogEvents", **given, logEvents=events(0, 86_400_001))[1]
    large = events(NOW_MS, text="x" * (1 << 20))
    assert "Upload too large: 1048602 bytes" in refused(app, "PutLogEvents", **given, logEvents=large)[1]
    rejected = app.call("PutLogEvents", **given, logEvents=events(NOW_MS, NOW_MS + 7_200_001))
    assert rejected["rejectedLogEventsInfo"] == {"tooNewLogEventStartIndex": 1}


def test_all_that_is_kept_is_forgotten(app: Desk) -> None:
    told: list[bool] = []
    app.service.clear(lambda: told.append(True))
    app.host.run()
    assert told == [True]
    assert app.call("DescribeLogGroups")["logGroups"] == []
