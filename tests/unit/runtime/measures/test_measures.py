"""What the node's own metrics of functions, streams and queues are made of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kflow.aws.calls import Place
from kflow.broker.folder import DataFolder
from kflow.broker.messagequeues import Counts
from kflow.broker.metricpoints import of
from kflow.errors import StorageError
from kflow.interfaces import BatchOutcome, BatchResult, FunctionError
from kflow.kinesis.tallies import Tallies
from kflow.monitoring.measures import Measures
from kflow.runtime.endpoint.overview import tables
from kflow.runtime.measures.kinesis import KinesisMeasures
from kflow.runtime.measures.lambda_ import LambdaMeasures
from kflow.runtime.measures.sqs import SqsMeasures
from kflow.sqs.asking import Count, Delete, Entry, Hide, Receive, Received, Send, Sent
from kflow.sqs.errors import QueueDoesNotExist

HOME = ("123456789012", "us-east-1")
NOW_S = 1_790_000_040
ERROR = FunctionError(type="ValueError", message="bad")


class Seen:
    """Measures, and what is in them."""

    def __init__(self, path: Path) -> None:
        self.measures = Measures(DataFolder.open(path, create=True, region=HOME[1], account=HOME[0]), lambda: NOW_S)

    def all(self, place: tuple[str, str] = HOME) -> dict[tuple[str, ...], tuple[float, float, float]]:
        """Sum, count and greatest by name and dimensions' values."""
        found = {}
        for series in self.measures.metrics(*place):
            (row,) = self.measures.rows(series, 0, 2 * NOW_S)
            values = tuple(value for _, value in series.dimensions)
            found[series.name, *values] = (row.point.sum, row.point.count, row.point.most)
        return found


@pytest.fixture
def seen(tmp_path: Path) -> Any:
    made = Seen(tmp_path / "data")
    yield made
    made.measures.close()


def outcome(
    result: BatchResult, *, error: FunctionError | None = None, shard: str = "shardId-000000000000", **given: Any
) -> BatchOutcome:
    whole = {"function": "bill", "stream": "orders", "records": 1, "succeeded": 0, "duration_us": 2000, **given}
    return BatchOutcome(shard_id=shard, result=result, error=error, **whole)


def test_outcomes_of_batches_are_invocations(seen: Seen) -> None:
    functions = LambdaMeasures(seen.measures)
    functions.outcome(outcome(BatchResult.OK, batches=3, duration_us=6000))
    functions.outcome(outcome(BatchResult.FAILED, error=ERROR))
    functions.outcome(outcome(BatchResult.PARTIAL, error=FunctionError(type="x", message="", reported=True)))
    found = seen.all()
    assert found["Invocations", "bill"] == found["Invocations",] == (5, 5, 1)
    assert found["Errors", "bill"] == (1, 5, 1)
    assert found["Duration", "bill"] == (10, 5, 2)
    totals = functions.totals["bill"]
    assert (totals.invocations, totals.errors, totals.duration_us) == (5, 1, 10_000)


def test_records_that_are_given_up_without_an_attempt_are_no_invocation(seen: Seen) -> None:
    functions = LambdaMeasures(seen.measures)
    for result in (BatchResult.EXPIRED, BatchResult.DROPPED, BatchResult.LOST):
        functions.outcome(outcome(result, duration_us=0))
    functions.outcome(outcome(BatchResult.OK, shard=""))  # of a queue: told as what it invoked
    assert seen.all() == {}
    functions.outcome(outcome(BatchResult.DROPPED, error=ERROR))
    assert seen.all()["Errors", "bill"] == (1, 1, 1)


def test_a_qualifier_is_a_resource_and_a_function_elsewhere_is_measured_there(seen: Seen) -> None:
    functions = LambdaMeasures(seen.measures)
    functions.invoked("bill:3", 1000, None)
    functions.throttled("bill@999999999999.eu-west-1")
    assert ("Invocations", "bill", "bill:3") in seen.all()
    assert seen.all(("999999999999", "eu-west-1")) == {("Throttles",): (1, 1, 1), ("Throttles", "bill"): (1, 1, 1)}
    assert functions.totals["bill@999999999999.eu-west-1"].throttles == 1


def test_what_comes_into_a_shard_is_what_it_holds_more_than_before(seen: Seen) -> None:
    streams = KinesisMeasures(seen.measures)
    streams.shard("orders", 0, 100, 5000, is_first=True)
    assert seen.all() == {}
    streams.shard("orders", 0, 103, 5060, is_first=True)
    streams.shard("orders", 1, 2, 40, is_first=False)
    assert seen.all() == {("IncomingRecords", "orders"): (5, 2, 3), ("IncomingBytes", "orders"): (100, 2, 60)}
    streams.forget("orders", 1)
    streams.shard("orders", 1, 1, 20, is_first=False)
    assert seen.all()["IncomingRecords", "orders"] == (6, 3, 3)


def test_calls_of_kinesis_are_counted_by_stream(seen: Seen) -> None:
    begun: list[bool] = []
    tallies = Tallies(lambda: begun.append(True))
    stream: Any = SimpleNamespace(id=7, name="orders", place=Place(*HOME))
    tally = tallies.of(stream)
    assert tallies.of(stream) is tally
    tally.put_calls, tally.put_bytes = 2, 30
    tally.puts_calls, tally.puts_records, tally.puts_failed, tally.puts_bytes = 1, 10, 4, 100
    tally.read(5, 50, 1000)
    tally.read(0, 0, 0)
    tally.read_throttled = 1
    KinesisMeasures(seen.measures).take(tallies)
    assert begun == [True]
    found = seen.all()
    assert found["PutRecord.Success", "orders"] == (2, 2, 1)
    assert found["PutRecord.Bytes", "orders"] == (30, 2, 15)
    assert found["PutRecords.FailedRecords", "orders"] == (4, 1, 4)
    assert found["PutRecords.SuccessfulRecords", "orders"] == (6, 1, 6)
    assert found["GetRecords.Records", "orders"] == (5, 2, 2.5)
    assert found["GetRecords.IteratorAgeMilliseconds", "orders"] == (1000, 2, 1000)
    assert found["ReadProvisionedThroughputExceeded", "orders"] == (1, 1, 1)
    assert ("WriteProvisionedThroughputExceeded", "orders") not in found
    assert tallies.take() == []
    assert tallies.of(stream) is not tally
    assert begun == [True, True]


class Queue:
    """A queue, as far as it is needed."""

    facts = SimpleNamespace(name="jobs", is_fifo=False)
    place = Place(*HOME)
    asked: tuple[Any, Any] | None = None

    @property
    def desk(self) -> Any:
        def ask(ask: Any, told: Any) -> None:
            self.asked = ask, told

        return SimpleNamespace(ask=ask)


def queue() -> Any:
    return Queue()


def test_turns_of_queues_are_counted(seen: Seen) -> None:
    touched: list[bool] = []
    seen.measures.changed = lambda: touched.append(True)
    later: list[Any] = []
    counted = SqsMeasures(seen.measures, lambda _, call: later.append(call))
    jobs = queue()
    entries = [Entry("12345"), Entry("123"), Entry("1")]
    counted.turn(jobs, Send(entries, "me"), [Sent(b"", 1, "", "", ""), Sent(b"", 2, "", "", ""), QueueDoesNotExist()])
    message: Any = object()
    counted.turn(jobs, Receive(10), Received([message, message]))
    counted.turn(jobs, Receive(10), Received())
    counted.turn(jobs, Receive(10), StorageError("disk"))
    counted.turn(jobs, Delete([]), [None, None, QueueDoesNotExist()])
    counted.turn(jobs, Hide([]), [None])
    assert seen.all() == {
        ("NumberOfMessagesSent", "jobs"): (2, 1, 2),
        ("SentMessageSize", "jobs"): (8, 2, 5),
        ("NumberOfMessagesReceived", "jobs"): (2, 1, 2),
        ("NumberOfEmptyReceives", "jobs"): (1, 1, 1),
        ("NumberOfMessagesDeleted", "jobs"): (2, 1, 2),
    }
    assert touched[0]
    (count,) = later
    count()
    assert jobs.asked[0] == Count()
    jobs.asked[1](Counts(visible=3, in_flight=0, delayed=1))
    found = seen.all()
    assert found["ApproximateNumberOfMessagesVisible", "jobs"] == (3, 1, 3)
    assert found["ApproximateNumberOfMessagesNotVisible", "jobs"] == (0, 1, 0)
    assert found["ApproximateNumberOfMessagesDelayed", "jobs"] == (1, 1, 1)
    counted.turn(jobs, Count(), Counts(1, 2, 3))
    assert len(later) == 1
    jobs.asked[1](QueueDoesNotExist())
    counted.turn(jobs, Receive(1), Received())
    assert len(later) == 2


def test_what_became_of_an_event_is_counted_where_its_function_is(seen: Seen) -> None:
    functions = LambdaMeasures(seen.measures)
    functions.event("arn:aws:lambda:us-east-1:123456789012:function:bill", "AsyncEventsReceived")
    functions.event("arn:aws:lambda:eu-west-1:999999999999:function:pay", "DeadLetterErrors")
    assert seen.all()["AsyncEventsReceived", "bill"] == (1, 1, 1)
    assert seen.all(("999999999999", "eu-west-1"))["DeadLetterErrors", "pay"] == (1, 1, 1)


def test_the_page_lists_functions_mappings_and_queues() -> None:
    trigger = SimpleNamespace(stream="orders", enabled=True, options=SimpleNamespace(batch_size=100))
    asleep = SimpleNamespace(stream="clicks", enabled=False, options=SimpleNamespace(batch_size=10))
    here = SimpleNamespace(package=None, place="app.py:5", triggers=(trigger, asleep))
    package = SimpleNamespace(runtime="nodejs22.x", entry="index.handler")
    there = SimpleNamespace(package=package, triggers=())
    gone = SimpleNamespace(package=None, place="", triggers=(trigger,))
    plan = {"timeout_s": 3, "memory_mb": 128}
    functions: Any = {
        "bill": SimpleNamespace(handler=here, exists=True, **plan),
        "node:1": SimpleNamespace(handler=there, exists=True, **plan),
        "lost": SimpleNamespace(handler=gone, exists=False, **plan),
    }
    polled: Any = [SimpleNamespace(key="bill", queue="jobs", options=SimpleNamespace(batch_size=5))]
    made = {table.kind: list(table.rows) for table in tables(functions, {"bill": 2}, polled, [queue()])}
    assert made == {
        "function": [
            ("bill", "kflow", "app.py:5", "128 MB", "3 s", 2),
            ("node:1", "nodejs22.x", "index.handler", "128 MB", "3 s", 0),
        ],
        "mapping of": [
            ("bill", "queue jobs", 5, "Enabled"),
            ("bill", "stream clicks", 10, "Disabled"),
            ("bill", "stream orders", 100, "Enabled"),
            ("lost", "stream orders", 100, "Enabled, waits for its function"),
        ],
        "queue": [("jobs", "us-east-1", "123456789012", "standard")],
    }


def test_a_key_that_is_none_is_passed_over(seen: Seen) -> None:
    LambdaMeasures(seen.measures).note("", "Errors", of(1))
    assert seen.all() == {}
