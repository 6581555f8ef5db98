"""`@on_queue` at the start: which queues are made, and what people are told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kflow.declarations import Handler, HandlerForm, QueueOptions, QueueTrigger
from kflow.runtime.feed import HandlerInfo
from kflow.runtime.mappings import queueinfo, queuetriggers
from kflow.runtime.mappings.queuepoller import Parts
from kflow.runtime.mappings.queuepolling import QueuePolling
from kflow.runtime.plan.functions import FunctionPlan
from tests.sqsing import HOME, World


class Nobody:
    """A fleet that runs nothing."""


class Node:
    """A world with what polls."""

    def __init__(self, path: Path) -> None:
        self.world = World(path)
        self.polling = QueuePolling(
            Parts(
                host=self.world.host,
                fleet=Nobody(),  # type: ignore[arg-type]  # nothing is invoked here
                sqs=lambda: self.world.service,
                timeout=lambda _: 3,
                choose=lambda mapping: mapping.key,
                tell=lambda _: None,
                most=1,
            )
        )

    def start(self, *plans: FunctionPlan, again: bool = False) -> list[HandlerInfo]:
        told: list[list[HandlerInfo]] = []
        queuetriggers.start(self.polling, HOME, plans, told.append, again=again)
        self.world.host.run()
        self.world.host.advance(0)
        (found,) = told
        return found

    def visibility(self, name: str) -> int:
        url = self.world.call("GetQueueUrl", QueueName=name)["QueueUrl"]
        found = self.world.call("GetQueueAttributes", QueueUrl=url, AttributeNames=["VisibilityTimeout"])
        return int(found["Attributes"]["VisibilityTimeout"])


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.polling.close(lambda: None)
    made.world.stop()


def plan(name: str, *queues: str, timeout_s: int = 3, enabled: bool = True, **options: Any) -> FunctionPlan:
    triggers = tuple(QueueTrigger(queue=queue, options=QueueOptions(**options), enabled=enabled) for queue in queues)
    handler = Handler(
        name=name, file="app.py", line=3, root="", module="app", qualname=name, form=HandlerForm.EVENT, queues=triggers
    )
    return FunctionPlan(handler=handler, maps=(), timeout_s=timeout_s, memory_mb=128, environment={})


def polled(node: Node) -> list[tuple[str, str]]:
    return [(each.key, each.queue) for each in node.polling.mappings]


def shown(infos: Sequence[HandlerInfo]) -> list[tuple[str, str, bool]]:
    return [(each.name, each.stream, each.created) for each in infos]


def test_queues_that_are_not_there_are_made_and_others_are_taken(node):
    node.world.create("old", VisibilityTimeout="77")
    infos = node.start(plan("a", "old", "new"), plan("b", "new", "turns.fifo"))
    assert shown(infos) == [("a", "old", False), ("a", "new", True), ("b", "new", True), ("b", "turns.fifo", True)]
    assert sorted(polled(node)) == [("a", "new"), ("a", "old"), ("b", "new"), ("b", "turns.fifo")]
    assert (node.visibility("old"), node.visibility("new"), node.visibility("turns.fifo")) == (77, 30, 30)
    assert node.world.host.notices == []


def test_the_visibility_timeout_of_a_new_queue_is_long_enough_for_the_function(node):
    node.start(
        plan("a", "slow", timeout_s=60, batch_size=20, maximum_batching_window_in_seconds=10),
        plan("b", "slowest", timeout_s=900, batch_size=20, maximum_batching_window_in_seconds=300),
    )
    assert (node.visibility("slow"), node.visibility("slowest")) == (370, 5700)


def test_a_visibility_timeout_that_aws_refuses_is_warned_of(node):
    node.world.create("jobs", VisibilityTimeout="5")
    node.start(plan("a", "jobs", timeout_s=6), plan("b", "jobs", timeout_s=5))
    assert node.world.host.notices == [
        (
            "warning",
            (
                "a may take 6 s, and messages of jobs come again after 5 s: AWS refuses such a mapping; set the "
                "queue's VisibilityTimeout to 36 s"
            ),
        )
    ]
    assert ("a", "jobs") in polled(node)


def test_a_disabled_one_is_made_and_not_polled(node):
    infos = node.start(plan("a", "jobs", enabled=False))
    assert (shown(infos), infos[0].options, polled(node)) == ([("a", "jobs", True)], "batch 10, disabled", [])


def test_an_arn_names_the_local_queue(node):
    node.start(plan("a", "arn:aws:sqs:eu-west-1:999999999999:jobs"))
    (mapping,) = node.polling.mappings
    assert mapping.queue_arn == "arn:aws:sqs:us-east-1:123456789012:jobs"
    assert mapping.function_arn == "arn:aws:lambda:us-east-1:123456789012:function:a"


def test_a_queue_that_cannot_be_made_is_told_of_and_the_others_are_polled(node):
    folder = node.world.host.folder
    (folder.path / "queues").mkdir()
    (folder.path / "queues" / "bad.db").mkdir()
    infos = node.start(plan("a", "bad"), plan("b", "good"))
    assert shown(infos) == [("a", "bad", False), ("b", "good", True)]
    assert polled(node) == [("b", "good")]
    assert any("the queue bad cannot be made: " in text for _, text in node.world.host.notices)


def test_again_makes_what_is_gone_and_polls_nothing_twice(node):
    node.start(plan("a", "jobs"))
    url = node.world.call("GetQueueUrl", QueueName="jobs")["QueueUrl"]
    node.world.call("DeleteQueue", QueueUrl=url)
    assert shown(node.start(plan("a", "jobs"), again=True)) == [("a", "jobs", True)]
    assert polled(node) == [("a", "jobs")]


def test_people_are_told_of_all_that_a_handler_reads_together():
    def info(name: str, stream: str) -> HandlerInfo:
        return HandlerInfo(name=name, place="", stream=stream, shards=0, created=False, options="")

    found = queueinfo.merged([info("a", "s"), info("b", "s")], [info("a", "q"), info("c", "q")], ["a", "b", "c"])
    assert [(each.name, each.stream) for each in found] == [("a", "s"), ("a", "q"), ("b", "s"), ("c", "q")]


def test_options_in_words():
    options = QueueOptions(
        batch_size=20,
        maximum_batching_window_in_seconds=5,
        report_batch_item_failures=True,
        filters=("{}", "{}"),
        maximum_concurrency=3,
    )
    assert queueinfo.describe(QueueTrigger(queue="jobs", options=options)) == (
        "batch 20, window 5 s, reports item failures, at most 3 at once, 2 filters"
    )
