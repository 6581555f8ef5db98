"""CloudWatch as the SDKs call it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kflow.aws.calls import Place
from kflow.clock import ManualClock
from kflow.errors import AwsError
from kflow.monitoring import metricqueries
from kflow.monitoring.measures import Measures
from kflow.services import cloudwatch
from kflow.services.cloudwatch import CloudWatch
from tests.monitoring import Desk, Host

NOW_S = 1_790_000_040
NOW = dt.datetime.fromtimestamp(NOW_S, dt.UTC)
MINUTE = dt.timedelta(minutes=1)
SHOP = [{"Name": "shop", "Value": "b"}]
WHEN = {"StartTime": NOW - 5 * MINUTE, "EndTime": NOW + 5 * MINUTE}


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[Desk]:
    host = Host(tmp_path / "data", ManualClock(epoch_ms=NOW_S * 1000))
    measures = Measures(host.folder, lambda: NOW_S)
    yield Desk(host, CloudWatch(host, measures))
    measures.close()


def put(metrics: Desk, *data: dict[str, Any], namespace: str = "App") -> None:
    metrics.call("PutMetricData", Namespace=namespace, MetricData=list(data))


def datum(value: float, minutes: int = 0, **given: Any) -> dict[str, Any]:
    return {"MetricName": "n", "Dimensions": SHOP, "Value": value, "Timestamp": NOW + minutes * MINUTE, **given}


def statistics(metrics: Desk, *names: str, **given: Any) -> list[dict[str, Any]]:
    whole = {"Namespace": "App", "MetricName": "n", "Dimensions": SHOP, "Period": 60, **WHEN, **given}
    if names:
        whole["Statistics"] = list(names)
    answer = metrics.call("GetMetricStatistics", **whole)
    assert answer["Label"] == "n"
    found: list[dict[str, Any]] = answer["Datapoints"]
    return sorted(found, key=lambda each: (each["Timestamp"], each["Unit"]))


def query(id_: str = "m1", stat: str = "Sum", **given: Any) -> dict[str, Any]:
    metric = {"Namespace": "App", "MetricName": "n", "Dimensions": SHOP}
    return {"Id": id_, "MetricStat": {"Metric": metric, "Period": 60, "Stat": stat}, **given}


def data(metrics: Desk, *queries: dict[str, Any], **given: Any) -> dict[str, Any]:
    return metrics.call("GetMetricData", **{"MetricDataQueries": list(queries), **WHEN, **given})


def refused(metrics: Desk, operation: str, **given: Any) -> tuple[str, str]:
    with pytest.raises(AwsError) as caught:
        metrics.call(operation, **given)
    return caught.value.code, str(caught.value)


def test_values_that_are_put_are_summed_up_by_the_minute(metrics: Desk) -> None:
    put(metrics, datum(1, Unit="Count"), datum(3, Unit="Count"), datum(8, 1, Unit="Count"))
    assert statistics(metrics, "Sum", "Average", "SampleCount", "Minimum", "Maximum") == [
        {"Timestamp": NOW, "Unit": "Count", "Sum": 4, "Average": 2, "SampleCount": 2, "Minimum": 1, "Maximum": 3},
        {
            "Timestamp": NOW + MINUTE,
            "Unit": "Count",
            "Sum": 8,
            "Average": 8,
            "SampleCount": 1,
            "Minimum": 8,
            "Maximum": 8,
        },
    ]
    (whole,) = statistics(metrics, "Sum", Period=600)
    assert (whole["Timestamp"], whole["Sum"]) == (NOW - 5 * MINUTE, 12)


def test_values_come_in_lists_and_as_statistics(metrics: Desk) -> None:
    put(
        metrics,
        {"MetricName": "n", "Dimensions": SHOP, "Values": [1, 5], "Counts": [3, 1]},
        {
            "MetricName": "n",
            "Dimensions": SHOP,
            "StatisticValues": {"SampleCount": 2, "Sum": 4, "Minimum": 0, "Maximum": 4},
        },
    )
    (found,) = statistics(metrics, "Sum", "SampleCount", "Minimum", "Maximum")
    assert (found["Sum"], found["SampleCount"], found["Minimum"], found["Maximum"]) == (12, 6, 0, 5)


def test_percentiles_are_there_where_the_values_are_known(metrics: Desk) -> None:
    put(metrics, datum(1), datum(2), datum(3))
    (found,) = statistics(metrics, ExtendedStatistics=["p50", "p100"])
    assert found["ExtendedStatistics"] == {"p50": 2, "p100": 3}
    put(metrics, datum(0, Value=None, StatisticValues={"SampleCount": 2, "Sum": 4, "Minimum": 0, "Maximum": 4}))
    assert statistics(metrics, ExtendedStatistics=["p50"]) == []


def test_units_are_datapoints_of_their_own(metrics: Desk) -> None:
    put(metrics, datum(1, Unit="Bytes"), datum(2))
    assert [(each["Unit"], each["Sum"]) for each in statistics(metrics, "Sum")] == [("Bytes", 1), ("None", 2)]
    assert [each["Sum"] for each in statistics(metrics, "Sum", Unit="Bytes")] == [1]


def test_a_resolution_of_a_second_is_read_by_the_second(metrics: Desk) -> None:
    second = dt.timedelta(seconds=1)
    put(metrics, datum(1, StorageResolution=1), datum(2, StorageResolution=1, Timestamp=NOW + second))
    assert [each["Sum"] for each in statistics(metrics, "Sum", Period=1)] == [1, 2]
    assert [each["Sum"] for each in statistics(metrics, "Sum")] == [3]


def test_metrics_are_listed_in_pages_and_by_what_they_are(metrics: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloudwatch, "_LISTED", 2)
    for name in "abc":
        put(metrics, {"MetricName": name, "Value": 1, "Dimensions": [{"Name": "shop", "Value": name}]})
    put(metrics, {"MetricName": "d", "Value": 1}, namespace="Other")
    page = metrics.call("ListMetrics", Namespace="App")
    assert page["Metrics"][0] == {
        "Namespace": "App",
        "MetricName": "a",
        "Dimensions": [{"Name": "shop", "Value": "a"}],
    }
    rest = metrics.call("ListMetrics", Namespace="App", NextToken=page["NextToken"])
    assert [each["MetricName"] for each in page["Metrics"] + rest["Metrics"]] == ["a", "b", "c"]
    assert "NextToken" not in rest
    assert [each["Namespace"] for each in metrics.call("ListMetrics", MetricName="d")["Metrics"]] == ["Other"]
    of = metrics.call("ListMetrics", Dimensions=[{"Name": "shop", "Value": "b"}])["Metrics"]
    assert [each["MetricName"] for each in of] == ["b"]
    assert len(metrics.call("ListMetrics", Dimensions=[{"Name": "shop"}])["Metrics"]) == 2
    assert metrics.call("ListMetrics", Dimensions=[{"Name": "shop", "Value": "z"}])["Metrics"] == []
    assert len(metrics.call("ListMetrics", MetricName="a", RecentlyActive="PT3H")["Metrics"]) == 1
    assert metrics.call("ListMetrics", place=Place("123456789012", "eu-west-1"))["Metrics"] == []


def test_statistics_and_expressions_are_answered_together(metrics: Desk) -> None:
    put(metrics, datum(1), datum(3), datum(8, 1))
    found = data(
        metrics,
        query(),
        query("m2", "Average", ReturnData=False),
        {"Id": "e1", "Expression": "m1 / m2", "Label": "how often"},
    )
    assert found["MetricDataResults"] == [
        {"Id": "m1", "Label": "n", "Timestamps": [NOW + MINUTE, NOW], "Values": [8, 4], "StatusCode": "Complete"},
        {
            "Id": "e1",
            "Label": "how often",
            "Timestamps": [NOW + MINUTE, NOW],
            "Values": [1, 2],
            "StatusCode": "Complete",
        },
    ]
    assert found["Messages"] == []
    upwards = data(metrics, query(), ScanBy="TimestampAscending")
    assert upwards["MetricDataResults"][0]["Values"] == [4, 8]


def test_a_metric_without_values_is_answered_with_none(metrics: Desk) -> None:
    (found,) = data(metrics, query())["MetricDataResults"]
    assert (found["Values"], found["StatusCode"]) == ([], "Complete")


def test_an_array_is_answered_as_several_results(metrics: Desk) -> None:
    put(metrics, datum(1))
    found = data(metrics, query(), query("m2"), {"Id": "e", "Expression": "METRICS() * 2"})["MetricDataResults"]
    assert [(each["Id"], each["Values"]) for each in found] == [("m1", [1]), ("m2", [1]), ("e", [2]), ("e", [2])]


def test_many_values_come_in_pages(metrics: Desk) -> None:
    put(metrics, *(datum(value, minute) for minute, value in enumerate((1, 2, 3))))
    asked = (query(), query("m2", "Maximum"))
    values: list[tuple[str, list[float], str]] = []
    token: dict[str, str] = {}
    while True:
        page = data(metrics, *asked, MaxDatapoints=2, **token)
        values += [(each["Id"], each["Values"], each["StatusCode"]) for each in page["MetricDataResults"]]
        if "NextToken" not in page:
            break
        token = {"NextToken": page["NextToken"]}
    assert [each for each in values if each[1]] == [
        ("m1", [3, 2], "PartialData"),
        ("m1", [1], "Complete"),
        ("m2", [3], "PartialData"),
        ("m2", [2, 1], "Complete"),
    ]


@pytest.mark.parametrize(
    ("given", "code", "text"),
    [
        ({"Namespace": "AWS/Lambda"}, "InvalidParameterValueException", "The value AWS/ for parameter Namespace"),
        ({"MetricData": []}, "MissingRequiredParameterException", "The parameter MetricData is required."),
        ({"MetricData": [{"MetricName": "n"}]}, "MissingRequiredParameterException", "MetricData.member.1.Value"),
        (
            {"MetricData": [datum(1, Values=[1.0])]},
            "InvalidParameterCombinationException",
            "MetricData.member.1.Value and MetricData.member.1.Values are mutually exclusive",
        ),
        ({"MetricData": [datum(float("nan"))]}, "InvalidParameterValueException", "The value nan for parameter"),
        ({"MetricData": [datum(float("inf"))]}, "InvalidParameterValueException", "The value inf for parameter"),
        ({"MetricData": [datum(2.0**361)]}, "InvalidParameterValueException", "is invalid"),
        ({"MetricData": [datum(1, -15 * 1440)]}, "InvalidParameterValueException", "two weeks in the past"),
        ({"MetricData": [datum(1), datum(1, 121)]}, "InvalidParameterValueException", "member.2.Timestamp"),
        ({"MetricData": [datum(1, StorageResolution=5)]}, "InvalidParameterValueException", "must be 1 or 60"),
        ({"MetricData": [datum(1, Dimensions=SHOP * 2)]}, "InvalidParameterValueException", "twice"),
        ({"MetricData": [datum(1, Counts=[1.0])]}, "InvalidParameterCombinationException", "goes with"),
        (
            {"MetricData": [{"MetricName": "n", "Values": [1.0, 2.0], "Counts": [1.0]}]},
            "InvalidParameterValueException",
            "must have the same size",
        ),
        (
            {"MetricData": [{"MetricName": "n", "Values": [1.0], "Counts": [0.0]}]},
            "InvalidParameterValueException",
            "The value 0 for parameter MetricData.member.1.Counts.member.1",
        ),
        ({"MetricData": [{"MetricName": "n", "Values": []}]}, "InvalidParameterValueException", "must not be empty"),
        (
            {"MetricData": [{"MetricName": "n", "Values": [1.0] * 151}]},
            "InvalidParameterValueException",
            "greater than 150",
        ),
        (
            {
                "MetricData": [
                    {
                        "MetricName": "n",
                        "StatisticValues": {"SampleCount": 1, "Sum": 1, "Minimum": 2, "Maximum": 1},
                    }
                ]
            },
            "InvalidParameterValueException",
            "cannot be those of values",
        ),
    ],
)
def test_what_is_not_put(metrics: Desk, given: dict[str, Any], code: str, text: str) -> None:
    found = refused(metrics, "PutMetricData", **{"Namespace": "App", "MetricData": [datum(1)], **given})
    assert found[0] == code
    assert text in found[1]
    assert metrics.call("ListMetrics")["Metrics"] == []


def test_entities_bring_metrics_too(metrics: Desk) -> None:
    metrics.call("PutMetricData", Namespace="App", EntityMetricData=[{"MetricData": [datum(5)]}])
    assert [each["Sum"] for each in statistics(metrics, "Sum")] == [5]


@pytest.mark.parametrize(
    ("given", "code", "text"),
    [
        ({}, "InvalidParameterCombinationException", "At least one of the parameters Statistics"),
        ({"Statistics": ["Sum"], "Period": 90}, "InvalidParameterValueException", "must be a multiple of 60"),
        (
            {"Statistics": ["Sum"], "EndTime": NOW - 5 * MINUTE},
            "InvalidParameterValueException",
            "StartTime must be less than the parameter EndTime",
        ),
        (
            {"Statistics": ["Sum"], "StartTime": NOW - 2000 * MINUTE},
            "InvalidParameterCombinationException",
            "You have requested up to 2,005 datapoints, which exceeds the limit of 1,440.",
        ),
        ({"ExtendedStatistics": ["IQM"]}, "InvalidParameterValueException", "is not supported: kflow computes"),
    ],
)
def test_statistics_that_are_refused(metrics: Desk, given: dict[str, Any], code: str, text: str) -> None:
    whole = {"Namespace": "App", "MetricName": "n", "Period": 60, **WHEN, **given}
    found = refused(metrics, "GetMetricStatistics", **whole)
    assert found[0] == code
    assert text in found[1]


@pytest.mark.parametrize(
    ("queries", "given", "text"),
    [
        ([], {}, "The parameter MetricDataQueries is required."),
        ([query(), query()], {}, "are not unique"),
        ([query("M1")], {}, "is not matching the expected pattern ^[a-z][a-zA-Z0-9_]*$."),
        ([{"Id": "e1"}], {}, "Exactly one of the parameters MetricStat and Expression"),
        ([{"Id": "e1", "Expression": "e1 + 1"}], {}, "e1 needs itself"),
        ([{"Id": "e1", "Expression": "m9 + 1"}], {}, "there is no query with the id m9"),
        ([{"Id": "e1", "Expression": "1 + 1"}], {}, "it is no time series"),
        ([query(Label="${MAX}")], {}, "no dynamic labels"),
        ([query(AccountId="999999999999")], {}, "is not linked"),
        ([query()], {"EndTime": NOW - 6 * MINUTE}, "StartTime must be less"),
        ([query()], {"MaxDatapoints": 0}, "MaxDatapoints must be between 1 and 100800"),
        ([query()], {"StartTime": NOW - 200_000 * MINUTE}, "more than 100,800 datapoints"),
    ],
)
def test_queries_that_are_refused(
    metrics: Desk, queries: list[dict[str, Any]], given: dict[str, Any], text: str
) -> None:
    found = refused(metrics, "GetMetricData", **{"MetricDataQueries": queries, **WHEN, **given})
    assert found[0] == "ValidationException"
    assert text in found[1]


def test_a_token_that_nobody_gave_out(metrics: Desk) -> None:
    assert refused(metrics, "ListMetrics", NextToken="x")[0] == "InvalidParameterValueException"
    found = refused(metrics, "GetMetricData", MetricDataQueries=[query()], NextToken="x", **WHEN)
    assert found[0] == "InvalidNextToken"
    assert metricqueries.QUERIES == 500


def test_all_is_forgotten(metrics: Desk) -> None:
    put(metrics, datum(1))
    told: list[bool] = []
    metrics.service.clear(lambda: told.append(True))
    metrics.host.run()
    assert told == [True]
    assert metrics.call("ListMetrics")["Metrics"] == []
