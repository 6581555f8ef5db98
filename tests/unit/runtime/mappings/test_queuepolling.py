"""Queues polled for mappings: real queues, stepped by hand, and functions that answer when they are told to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kflow.aws.calls import Place
from kflow.declarations import QueueOptions
from kflow.errors import KflowError
from kflow.interfaces import BatchOutcome, FunctionError
from kflow.lambda_.errors import TooManyRequests
from kflow.lambda_.eventcounts import Counted
from kflow.lambda_.fleet import Interrupted, Replied, Reply, Request
from kflow.lambda_.queue_mapping import QueueMapping
from kflow.runtime.mappings.queuepoller import Parts
from kflow.runtime.mappings.queuepolling import QueuePolling
from tests.sqsing import HOME, World

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:work"
OK = Reply(payload=b"null")


class Functions:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.running: list[tuple[Request, Replied]] = []
        self.throttles = False

    def invoke(self, key: str, request: Request, replied: Replied) -> None:
        assert key == "work"
        if self.throttles:
            replied(TooManyRequests())
        else:
            self.running.append((request, replied))

    def bodies(self) -> list[list[str]]:
        """Of each batch that runs."""
        return [[each["body"] for each in json.loads(request.payload)["Records"]] for request, _ in self.running]

    def answer(self, reply: Reply | KflowError = OK) -> None:
        """The one that runs longest."""
        self.running.pop(0)[1](reply)


class Polled:
    """A world with a poller in it."""

    def __init__(self, path: Path) -> None:
        self.world = World(path)
        self.functions = Functions()
        self.told: list[BatchOutcome] = []
        self.counted: list[Counted] = []
        self.timeouts: dict[str, int] = {"work": 3}
        self.polling = self.make()

    def make(self) -> QueuePolling:
        return QueuePolling(
            Parts(
                host=self.world.host,
                fleet=self.functions,  # type: ignore[arg-type]  # what is asked of a fleet here
                sqs=lambda: self.world.service,
                timeout=self.timeouts.get,
                choose=lambda mapping: mapping.key,
                tell=self.told.append,
                most=2,
                counted=self.counted.append,
            )
        )

    def start(self, queue: str = "jobs", uuid: str = "u", *, counts: bool = False, **options: Any) -> None:
        arn = f"arn:aws:sqs:{HOME.region}:{HOME.account}:{queue}"
        mapping = QueueMapping(
            uuid=uuid,
            key="work",
            function_arn=FUNCTION,
            queue_arn=arn,
            options=QueueOptions(**options),
            counts=counts,
        )
        self.polling.start(mapping)
        self.world.host.run()

    def stopped(self, uuid: str = "u") -> list[bool]:
        over: list[bool] = []
        self.polling.stop(uuid, lambda: over.append(True))
        self.world.host.run()
        return over

    def answer(self, reply: Reply | KflowError = OK) -> None:
        self.functions.answer(reply)
        self.world.host.run()


@pytest.fixture
def polled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Polled]:
    made = Polled(tmp_path)
    monkeypatch.setattr(
        "kflow.runtime.mappings.queuepoller.time.monotonic", lambda: made.world.host.clock.monotonic_ms / 1000
    )
    yield made
    over: list[bool] = []
    made.polling.close(lambda: over.append(True))
    while made.functions.running:
        made.answer()
    made.world.stop()
    assert over


def test_a_message_runs_and_is_deleted_and_told_of_when_that_is_kept(polled):
    url = polled.world.create()
    polled.start()
    sent = polled.world.send(url, "a")
    ((request, _),) = polled.functions.running
    (record,) = json.loads(request.payload)["Records"]
    assert (request.arn, record["messageId"], record["body"]) == (FUNCTION, sent["MessageId"], "a")
    polled.functions.answer(Reply(payload=b"null", duration_us=7))
    assert polled.told == []
    polled.world.host.run()
    assert polled.world.counts(url) == (0, 0, 0)
    (outcome,) = polled.told
    assert (outcome.function, outcome.stream, outcome.shard_id) == ("work", "jobs", "")
    assert (outcome.records, outcome.succeeded, outcome.result, outcome.duration_us) == (1, 1, "ok", 7)


def test_events_are_counted_where_the_mapping_asks_for_it(polled):
    def totals() -> dict[str, int]:
        found: dict[str, int] = {}
        for each in polled.counted:
            assert (each.function, each.uuid) == ("work", "u")
            for name, count in each.counts.items():
                found[name] = found.get(name, 0) + count
        return found

    url = polled.world.create()
    polled.start(counts=True, filters=('{"body":["a","b"]}',), report_batch_item_failures=True)
    polled.world.send(url, "c")
    assert totals() == {"PolledEventCount": 1, "FilteredOutEventCount": 1, "DeletedEventCount": 1}
    polled.world.send(url, "a")
    polled.answer()
    failed = polled.world.send(url, "b")["MessageId"]
    polled.answer(Reply(payload=json.dumps({"batchItemFailures": [{"itemIdentifier": failed}]}).encode()))
    assert totals() == {
        "PolledEventCount": 3,
        "FilteredOutEventCount": 1,
        "InvokedEventCount": 2,
        "FailedInvokeEventCount": 1,
        "DeletedEventCount": 2,
    }
    polled.counted.clear()
    polled.stopped()
    polled.start()
    polled.world.send(url, "a")
    polled.answer()
    assert polled.counted == []


def test_nothing_happens_while_there_is_nothing_and_files_are_closed(polled):
    url = polled.world.create()
    polled.start()
    polled.world.host.advance(61_000)
    submitted = polled.world.host.submitted
    polled.world.host.advance(600_000)
    assert polled.world.host.submitted == submitted
    assert not any(queue.desk.is_open for queue in polled.world.service.directory.everywhere())
    polled.world.send(url, "a")
    assert polled.functions.bodies() == [["a"]]


def test_a_failure_deletes_nothing_and_says_so(polled):
    url = polled.world.create(VisibilityTimeout="5")
    polled.start()
    polled.world.send(url, "a")
    polled.answer(Reply(payload=b"{}", error=FunctionError(type="ValueError", message="no")))
    assert polled.world.counts(url) == (0, 1, 0)
    assert (polled.told[0].result, polled.told[0].error.type, polled.told[0].sample) == ("failed", "ValueError", b"a")
    polled.world.host.advance(5_100)
    assert polled.functions.bodies() == [["a"]]
    ((request, _),) = polled.functions.running
    assert json.loads(request.payload)["Records"][0]["attributes"]["ApproximateReceiveCount"] == "2"


def test_a_partial_response_leaves_those_that_it_names(polled):
    url = polled.world.create()
    ids = [polled.world.send(url, body)["MessageId"] for body in "abc"]
    polled.start(report_batch_item_failures=True)
    answer = json.dumps({"batchItemFailures": [{"itemIdentifier": ids[1]}]}).encode()
    polled.answer(Reply(payload=answer))
    assert polled.world.counts(url) == (0, 1, 0)
    (outcome,) = polled.told
    assert (outcome.succeeded, outcome.result, outcome.failed_sequence_number) == (2, "partial", ids[1])
    assert outcome.sample == b"b"


def test_a_long_response_is_read_by_a_thread(polled):
    url = polled.world.create()
    polled.world.send(url, "a")
    polled.start(report_batch_item_failures=True)
    polled.functions.answer(Reply(payload=json.dumps({"x": "y" * 5000}).encode()))
    polled.world.host.run()
    assert polled.world.counts(url) == (0, 0, 0)


def test_a_throttled_batch_waits_and_runs(polled):
    url = polled.world.create()
    polled.functions.throttles = True
    polled.start()
    polled.world.send(url, "a")
    assert polled.world.counts(url) == (0, 1, 0)
    polled.functions.throttles = False
    polled.world.host.advance(999)
    assert polled.functions.bodies() == []
    polled.world.host.advance(1)
    assert polled.functions.bodies() == [["a"]]
    polled.answer()
    assert polled.world.counts(url) == (0, 0, 0)


def test_a_function_that_may_run_again_is_tried_at_once(polled):
    url = polled.world.create()
    polled.functions.throttles = True
    polled.start()
    polled.world.send(url, "a")
    polled.functions.throttles = False
    polled.polling.function_changed("work")
    assert polled.functions.bodies() == [["a"]]


def test_an_interruption_counts_as_no_receive(polled):
    url = polled.world.create()
    polled.start()
    polled.world.send(url, "a")
    polled.answer(Interrupted("the runtime ended it"))
    assert polled.world.counts(url) == (1, 0, 0)
    assert polled.told == []
    polled.world.host.advance(1_000)
    ((request, _),) = polled.functions.running
    assert json.loads(request.payload)["Records"][0]["attributes"]["ApproximateReceiveCount"] == "1"


def test_nothing_is_received_while_there_is_no_function(polled):
    url = polled.world.create()
    del polled.timeouts["work"]
    polled.start()
    polled.world.send(url, "a")
    assert polled.world.counts(url) == (1, 0, 0)
    work = polled.world.host.submitted
    polled.world.host.advance(3_600_000)
    assert polled.world.host.submitted <= work + 1  # the queue closes its file
    polled.timeouts["work"] = 3
    polled.polling.function_changed("work")
    polled.world.host.run()
    assert polled.functions.bodies() == [["a"]]


def test_filtered_messages_are_deleted_and_reach_nobody(polled):
    url = polled.world.create()
    for body in ("no", '{"a": 1}', '{"a": 2}'):
        polled.world.send(url, body)
    polled.start(filters=('{"body": {"a": [1]}}',))
    assert polled.functions.bodies() == [['{"a": 1}']]
    assert polled.world.counts(url) == (0, 1, 0)


def test_a_window_that_is_longer_than_the_visibility_timeout_makes_that_longer(polled):
    url = polled.world.create(VisibilityTimeout="3")
    polled.start(batch_size=20, maximum_batching_window_in_seconds=10)
    polled.world.send(url, "a")
    polled.world.host.advance(10_000)
    assert polled.functions.bodies() == [["a"]]
    polled.world.host.advance(13_000 + 30_000 - 10_000 - 1)
    assert polled.functions.bodies() == [["a"]]  # hidden for 10 + 3 + 30 s
    polled.world.host.advance(11_000)
    assert polled.functions.bodies() == [["a"], ["a"]]


def test_a_stop_waits_for_what_runs_and_settles_it(polled):
    url = polled.world.create()
    polled.start()
    polled.world.send(url, "a")
    over = polled.stopped()
    assert over == []
    polled.answer()
    assert (over, polled.world.counts(url)) == ([True], (0, 0, 0))
    polled.world.send(url, "b")
    assert polled.functions.bodies() == []


def test_a_stop_gives_back_what_is_gathered(polled):
    url = polled.world.create()
    polled.start(batch_size=20, maximum_batching_window_in_seconds=300)
    polled.world.send(url, "a")
    assert polled.world.counts(url) == (0, 1, 0)
    assert polled.stopped() == [True]
    assert polled.world.counts(url) == (1, 0, 0)
    assert polled.world.receive(url, AttributeNames=["All"])[0]["Attributes"]["ApproximateReceiveCount"] == "1"


def test_what_comes_in_while_it_is_stopped_goes_back(polled):
    url = polled.world.create()
    polled.start()
    polled.world.begin("SendMessage", QueueUrl=url, MessageBody="a")
    for _ in range(20):
        if polled.world.host.errands and not polled.stopped():
            break
        polled.world.host.step()
    polled.world.host.run()
    while polled.functions.running:
        polled.answer()
    assert sum(polled.world.counts(url)) == 1 or polled.told


def test_whenever_the_runtime_stops_what_was_received_and_not_run_is_there_for_the_next(tmp_path):
    for steps in range(30):
        polled = Polled(tmp_path / str(steps))
        url = polled.world.create()
        polled.start()
        polled.world.begin("SendMessage", QueueUrl=url, MessageBody="a")
        for _ in range(steps):
            polled.world.host.step()
        if polled.functions.running:
            break
        ended: list[bool] = []
        polled.polling.close(partial(polled.world.service.close, partial(ended.append, True)))
        polled.world.host.run()
        assert ended
        polled.world.start()
        assert polled.world.counts(url)[1] == 0, f"in flight for nobody, after {steps} steps"
        polled.world.stop()
    assert steps == 2
    polled.world.stop()


def test_another_one_of_the_same_uuid_begins_when_the_first_has_ended(polled):
    url = polled.world.create()
    polled.start()
    polled.world.send(url, "a")
    polled.start(batch_size=1)
    polled.world.send(url, "b")
    assert polled.functions.bodies() == [["a"]]
    polled.answer()
    assert polled.functions.bodies() == [["b"]]
    assert len(polled.polling.mappings) == 1


def test_a_mapping_waits_for_its_queue_and_says_so_once(polled):
    polled.start()
    polled.world.host.advance(1_000)
    (notice,) = polled.world.host.notices
    assert notice == (
        "warning",
        "work waits for the queue jobs, which is not there: create it, or remove the mapping",
    )
    polled.world.host.advance(60_000)
    assert polled.world.host.timers == 0
    url = polled.world.create()
    polled.world.send(url, "a")
    assert polled.functions.bodies() == [["a"]]
    polled.answer()
    polled.world.call("DeleteQueue", QueueUrl=url)
    polled.world.create()
    polled.world.host.advance(1_000)
    assert len(polled.world.host.notices) == 1
    polled.world.call("DeleteQueue", QueueUrl=url)
    polled.world.host.advance(1_000)
    assert len(polled.world.host.notices) == 2


def test_what_is_done_is_deleted_in_the_queue_that_it_came_from_and_in_no_other_of_the_name(polled):
    url = polled.world.create()
    polled.start()
    polled.world.send(url, "a")
    polled.world.call("DeleteQueue", QueueUrl=url)
    url = polled.world.create()
    polled.world.send(url, "b")
    assert polled.functions.bodies() == [["a"], ["b"]]
    polled.answer()
    assert polled.world.counts(url) == (0, 1, 0)
    polled.answer(Interrupted("ended"))
    assert polled.world.counts(url) == (1, 0, 0)


def test_an_end_waits_for_a_mapping_that_was_replaced(polled):
    url = polled.world.create()
    polled.start()
    polled.world.send(url, "a")
    polled.start(batch_size=1)
    over: list[bool] = []
    polled.polling.close(lambda: over.append(True))
    polled.world.host.run()
    assert over == []
    polled.answer()
    assert (over, polled.world.counts(url)) == ([True], (0, 0, 0))


def test_unknown_mappings_are_stopped_already(polled):
    assert polled.stopped("nobody") == [True]


def check(polled: Polled, timeout_s: int, queue: str = "jobs") -> KflowError | None:
    told: list[KflowError | None] = []
    arn = f"arn:aws:sqs:{HOME.region}:{HOME.account}:{queue}"
    mapping = QueueMapping(uuid="u", key="work", function_arn=FUNCTION, queue_arn=arn, options=QueueOptions())
    polled.polling.check(mapping, timeout_s, told.append)
    polled.world.host.run()
    (found,) = told
    return found


def test_a_mapping_of_a_queue_that_is_not_there_is_refused_in_the_words_of_aws(polled):
    polled.world.create(VisibilityTimeout="5")
    assert check(polled, 5) is None
    assert str(check(polled, 3, "others")) == (
        "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. "
        "SQS Error Message: The specified queue does not exist."
    )
    refused = check(polled, 6)
    assert isinstance(refused, KflowError)
    assert str(refused) == "Queue visibility timeout: 5 seconds is less than Function timeout: 6 seconds"


def test_dead_letters_are_the_queues_business(polled):
    url, dead = polled.world.pair(2, VisibilityTimeout="1")
    polled.start()
    polled.world.send(url, "a")
    failed = Reply(payload=b"{}", error=FunctionError(type="ValueError", message="no"))
    polled.answer(failed)
    polled.world.host.advance(1_100)
    polled.answer(failed)
    polled.world.host.advance(1_100)
    assert (polled.world.counts(url), polled.world.counts(dead)) == ((0, 0, 0), (1, 0, 0))
    assert [(each.attempt, each.attempts_allowed) for each in polled.told] == [(1, 2), (2, 2)]


def test_a_drain_tells_of_each_queue_that_is_empty(polled):
    url = polled.world.create()
    polled.world.send(url, "a")
    polled.start(batch_size=20, maximum_batching_window_in_seconds=300)
    told: list[bool] = []
    polled.polling.drain(lambda: told.append(True))
    polled.world.host.run()
    assert (polled.functions.bodies(), polled.polling.undrained(), told) == ([["a"]], ["work jobs"], [])
    polled.answer()
    polled.world.host.advance(100)
    assert (polled.polling.undrained(), told) == ([], [True])


def test_a_drain_that_begins_before_the_queues_are_known_waits_for_them(polled):
    url = polled.world.create()
    polled.world.send(url, "a")
    polled.world.restart()
    polled.polling = polled.make()
    arn = f"arn:aws:sqs:{HOME.region}:{HOME.account}:jobs"
    polled.polling.start(
        QueueMapping(uuid="u", key="work", function_arn=FUNCTION, queue_arn=arn, options=QueueOptions())
    )
    told: list[bool] = []
    polled.polling.drain(lambda: told.append(True))
    assert polled.polling.undrained() == ["work jobs"]
    polled.world.host.run()
    assert (polled.functions.bodies(), told) == ([["a"]], [])
    polled.answer()
    polled.world.host.advance(100)
    assert told == [True]


def test_a_queue_of_another_place_is_polled_by_its_arn(polled):
    place = Place("999999999999", "eu-west-1")
    url = polled.world.create("jobs", place)
    mapping = QueueMapping(
        uuid="u",
        key="work",
        function_arn=FUNCTION,
        queue_arn="arn:aws:sqs:eu-west-1:999999999999:jobs",
        options=QueueOptions(),
    )
    polled.polling.start(mapping)
    polled.world.call("SendMessage", place, QueueUrl=url, MessageBody="a")
    ((request, _),) = polled.functions.running
    assert json.loads(request.payload)["Records"][0]["awsRegion"] == "eu-west-1"


def test_the_report_says_how_a_mapping_is(polled):
    url = polled.world.create()
    polled.start()
    assert polled.polling.report() == [
        {
            "function": "work",
            "queue": "jobs",
            "uuid": "u",
            "state": "idle",
            "running": 0,
            "processed": 0,
            "redelivered": 0,
            "error": None,
        }
    ]
    polled.world.send(url, "a")
    (found,) = polled.polling.report()
    assert (found["state"], found["running"]) == ("running", 1)
    polled.answer()
    polled.world.send(url, "b")
    polled.answer(Reply(payload=b"{}", error=FunctionError(type="ValueError", message="no")))
    (found,) = polled.polling.report()
    assert (found["processed"], found["error"]["type"]) == (1, "ValueError")
    assert polled.polling.totals["work"].processed == 1
