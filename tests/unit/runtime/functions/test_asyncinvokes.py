"""Asynchronous invocations over a file, stepped by hand: what runs when, what is told, and what a kill leaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kflow.broker.folder import DataFolder
from kflow.clock import ManualClock
from kflow.errors import Damaged, KflowError, StorageFull
from kflow.interfaces import FunctionError
from kflow.lambda_.asynchronous import Policy
from kflow.lambda_.destined import Delivery
from kflow.lambda_.errors import ResourceNotFound, TooManyRequests
from kflow.lambda_.fleet import Interrupted, Replied, Reply, Request
from kflow.messaging.errors import NotFound
from kflow.runtime.functions.asyncinvokes import AT_ONCE, AsyncInvokes
from tests.looping import SteppedLoop

BILL = "arn:aws:lambda:us-east-1:123456789012:function:bill"
QUEUE = "arn:aws:sqs:us-east-1:123456789012:told"
OK = Reply(payload=b'{"ok":1}')
FAILED = Reply(payload=b'{"errorMessage":"no"}', error=FunctionError(type="ValueError", message="no"))


class Node(SteppedLoop):
    """A host, a fleet, the functions and the destinations, all in one."""

    def __init__(self, path: Path) -> None:
        super().__init__(ManualClock())
        self.folder = DataFolder.open(path, create=True)
        self.transition_s = 0.0
        self.notices: list[str] = []
        self.running: list[tuple[str, Request, Replied]] = []
        self.policies: dict[str, Policy] = {}
        self.sent: list[Delivery] = []
        self.refusals: list[KflowError] = []
        self.told: list[Any] = []
        self.have("bill")
        self.begin()

    def begin(self, scale: float = 1.0) -> None:
        """As after a start of the node."""
        self.forget()
        self.running.clear()
        self.events = AsyncInvokes(self, self, self, self.send, scale)  # type: ignore[arg-type]  # what is needed
        self.events.start()
        self.run()

    def kill(self, scale: float = 1.0) -> None:
        """Its file is closed by the kernel."""
        assert self.close()
        self.begin(scale)

    def close(self) -> bool:
        """The file, and nothing is kept beforehand; whether there is one."""
        file = self.events._turns._file  # nobody else may close it
        if file is not None:
            file.close()
        return file is not None

    def have(self, name: str, **options: Any) -> None:
        arn = f"arn:aws:lambda:us-east-1:123456789012:function:{name}"
        self.policies[arn] = Policy(key=name, arn=arn, version="$LATEST")._replace(**options)

    def policy(self, function: str, qualifier: str) -> Policy:
        del qualifier
        if function not in self.policies:
            raise ResourceNotFound(f"Function not found: {function}")
        return self.policies[function]

    def invoke(self, key: str, request: Request, replied: Replied) -> None:
        self.running.append((key, request, replied))

    def send(self, delivery: Delivery, told: Callable[[KflowError | None], object]) -> None:
        self.sent.append(delivery)
        told(self.refusals.pop(0) if self.refusals else None)

    def notice(self, level: str, text: str) -> None:
        self.notices.append(f"{level}: {text}")

    # what tests do

    def accept(self, *payloads: bytes, function: str = BILL) -> None:
        for payload in payloads:
            self.events.accept(function, "", payload.ljust(16, b"-"), payload, self.told.append)
        self.run()

    def reply(self, reply: Reply | KflowError, index: int = 0) -> None:
        self.running.pop(index)[2](reply)
        self.run()

    @property
    def payloads(self) -> list[bytes]:
        return [request.payload for _, request, _ in self.running]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "data")
    yield made
    made.close()


def test_an_event_is_run_when_it_is_durable_and_dropped_when_it_was(node: Node) -> None:
    node.events.accept(BILL, "", b"1" * 16, b'{"id":1}', node.told.append)
    assert (node.told, node.running) == ([], [])

    node.run()
    assert node.told == [None]
    ((key, request, _),) = node.running
    assert (key, request.request_id, request.payload, request.arn) == ("bill", b"1" * 16, b'{"id":1}', BILL)

    node.reply(OK)
    node.kill()
    assert (node.running, node.timers, node.sent) == ([], 0, [])


def test_a_failure_is_tried_twice_more_with_the_same_request_id(node: Node) -> None:
    node.accept(b"1")
    ids = []
    for wait_ms in (60_000, 120_000):
        ids.append(node.running[0][1].request_id)
        node.reply(FAILED)
        node.advance(wait_ms - 1)
        assert node.running == []
        node.advance(5)
    ids.append(node.running[0][1].request_id)
    node.reply(FAILED)

    assert set(ids) == {b"1".ljust(16, b"-")}
    node.advance(10_000_000)
    assert (node.running, node.timers) == ([], 0)


def test_an_event_that_ran_when_the_node_was_killed_is_run_again(node: Node) -> None:
    node.accept(b"1", b"2")
    node.reply(OK)
    node.kill()

    assert node.payloads == [b"2"]
    assert node.running[0][1].request_id == b"2".ljust(16, b"-")


def test_a_retry_keeps_its_time_and_its_count_over_a_restart(node: Node) -> None:
    node.have("bill", retries=1)
    node.accept(b"1")
    node.reply(FAILED)
    node.kill()
    assert node.running == []

    node.advance(60_001)
    node.reply(FAILED)
    node.advance(10_000_000)
    assert node.running == []


def test_so_many_run_at_once_and_the_others_follow_in_order(node: Node) -> None:
    payloads = [b"%03d" % number for number in range(AT_ONCE + 5)]
    node.accept(*payloads)
    assert node.payloads == payloads[:AT_ONCE]

    node.reply(OK)
    assert node.payloads == payloads[1 : AT_ONCE + 1]
    while node.running:
        node.reply(OK)
    assert node.events.is_there
    node.kill()
    assert node.running == []


def test_reserved_concurrency_bounds_them_and_others_do_not_wait(node: Node) -> None:
    node.have("bill", most=2)
    node.have("ship")
    node.accept(b"1", b"2", b"3")
    node.accept(b"4", function=BILL.replace("bill", "ship"))

    assert node.payloads == [b"1", b"2", b"4"]


def test_what_is_throttled_is_tried_again_and_costs_no_attempt(node: Node) -> None:
    node.have("bill", retries=0)
    node.accept(b"1")
    for wait_ms in (1_000, 2_000, 4_000):
        node.reply(TooManyRequests() if wait_ms < 4_000 else Interrupted("ended"))
        node.advance(wait_ms - 2)
        assert node.running == []
        node.advance(5)
    assert node.payloads == [b"1"]
    node.reply(OK)
    assert node.timers == 0


def test_what_it_came_to_is_told(node: Node) -> None:
    node.have("bill", on_success=QUEUE)
    node.accept(b'{"id":1}')
    node.reply(OK)

    (delivery,) = node.sent
    assert delivery.target == QUEUE
    found = json.loads(delivery.body)
    assert found["requestContext"]["condition"] == "Success"
    assert (found["requestPayload"], found["responsePayload"]) == ({"id": 1}, {"ok": 1})
    node.kill()
    assert (len(node.sent), node.running) == (1, [])


def test_a_failure_is_told_to_the_destination_and_the_dead_letter_queue(node: Node) -> None:
    node.have("bill", retries=0, on_failure="arn:aws:s3:::failures", dead_letter=QUEUE)
    node.accept(b'{"id":1}')
    node.reply(FAILED)

    record, letter = node.sent
    assert record.target == "arn:aws:s3:::failures"
    assert record.key.startswith("aws/lambda/async/bill/2023/11/14/2023-11-14T22.13.20-")
    assert json.loads(record.body)["requestContext"]["condition"] == "RetriesExhausted"
    assert (letter.target, letter.body) == (QUEUE, '{"id":1}')
    assert letter.attributes["ErrorMessage"] == ("String", "no")


def test_what_could_not_be_told_is_told_by_the_next_node(node: Node) -> None:
    node.have("bill", retries=0, on_failure=QUEUE, dead_letter=QUEUE)
    node.refusals = [NotFound("no"), StorageFull("full")]
    node.accept(b"{}")
    node.reply(FAILED)
    assert len(node.sent) == 2
    node.kill()
    node.advance(1_000)

    assert [each.body == "{}" for each in node.sent] == [False, True, True]
    assert node.running == []
    assert [text for text in node.notices if "told" in text] == [
        f"warning: what invocations of {BILL} come to is not told to {QUEUE}: no"
    ]


def test_it_is_not_told_for_ever_to_what_does_not_answer(node: Node) -> None:
    node.have("bill", on_success=QUEUE)
    node.refusals = [StorageFull("full") for _ in range(100)]
    node.accept(b"{}")
    node.reply(OK)
    node.advance(1_000_000)

    assert (len(node.sent), node.timers) == (6, 0)
    assert node.notices == [f"warning: what invocations of {BILL} come to is not told to {QUEUE}: full"]


def test_events_of_a_function_that_may_not_run_are_told_of_at_once(node: Node) -> None:
    node.have("bill", most=0, on_failure=QUEUE)
    node.accept(b"{}")

    assert node.running == []
    assert json.loads(node.sent[0].body)["requestContext"]["condition"] == "ZeroReservedConcurrency"


def test_an_event_that_is_too_old_is_told_of_with_what_it_came_to_last(node: Node) -> None:
    node.have("bill", age_s=60, on_failure=QUEUE)
    node.accept(b"{}")
    node.reply(FAILED)
    node.kill()
    node.advance(60_001)

    found = json.loads(node.sent[0].body)
    assert found["requestContext"]["condition"] == "EventAgeExceeded"
    assert found["requestContext"]["approximateInvokeCount"] == 1
    assert found["responsePayload"] == {"errorMessage": "no"}
    assert node.running == []


def test_events_of_a_function_that_is_gone_are_dropped_and_people_told_once(node: Node) -> None:
    node.accept(b"1", b"2")
    node.policies.clear()
    node.reply(ResourceNotFound("Function not found: bill"))
    node.reply(ResourceNotFound("Function not found: bill"))
    node.accept(b"3")

    assert (node.running, node.timers) == ([], 0)
    assert node.notices == [f"warning: events for {BILL} are dropped: Function not found: bill"]


def test_who_sends_is_refused_where_the_disk_is_full_and_what_runs_is_settled_later(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.accept(b"1")
    file = node.events._turns._file  # to break it
    assert file is not None

    def full(*_: object) -> None:
        raise StorageFull("no room")

    with monkeypatch.context() as patch:
        patch.setattr(file, "take", full)
        node.accept(b"2")
        assert [str(each) for each in node.told] == ["None", "no room"]
        node.reply(OK)
        node.advance(5_000)
        assert node.notices == ["error: asynchronous invocations wait for the storage: no room"]
    node.advance(2_000)
    assert node.notices[1:] == ["info: asynchronous invocations go on, the storage works again"]
    node.kill()
    assert node.running == []


def test_a_file_that_is_damaged_refuses_who_sends_and_is_not_looked_at_in_between(node: Node) -> None:
    node.accept(b"{}")
    node.reply(OK)
    file = node.folder.path / "lambda/events.db"
    done: list[bool] = []
    node.events.close(lambda: done.append(True))
    node.run()
    assert done
    file.write_bytes(b"no database" * 1000)
    node.told.clear()
    node.begin()

    node.events.accept(BILL, "", bytes(16), b"{}", node.told.append)
    node.accept(b"{}")
    node.accept(b"{}")
    assert [type(each) for each in node.told] == [Damaged, Damaged, Damaged]
    looks = node.submitted
    node.advance(60_000)
    assert node.submitted == looks
    node.events.close(lambda: done.append(True))
    node.run()
    assert len(done) == 2


def test_a_node_that_ends_keeps_what_is_known_and_runs_nothing_more(node: Node) -> None:
    node.accept(*[b"%03d" % number for number in range(AT_ONCE + 1)])
    closed: list[int] = []
    node.running.pop(0)[2](OK)
    node.events.close(lambda: closed.append(1))
    node.run()
    assert closed == [1]
    assert len(node.running) == AT_ONCE - 1

    node.begin()
    assert node.payloads == [b"%03d" % number for number in range(1, AT_ONCE + 1)]


def test_all_of_it_can_be_forgotten(node: Node) -> None:
    done: list[int] = []
    node.accept(b"1", b"2")
    node.events.clear(lambda: done.append(1))
    node.run()
    assert done == [1]
    node.reply(FAILED)
    node.kill()
    node.advance(1_000_000)
    assert node.running == []


def test_nothing_is_made_where_nobody_ever_sent_anything(node: Node) -> None:
    assert not node.events.is_there
    assert not (node.folder.path / "lambda").exists()
    assert node.submitted == 0
    done: list[int] = []
    node.events.clear(lambda: done.append(1))
    node.events.close(lambda: done.append(2))
    assert done == [1, 2]
