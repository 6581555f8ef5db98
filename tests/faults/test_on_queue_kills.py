"""`kill -9` of the runtime and of its workers while `@on_queue` handlers work: nothing is lost, no order is broken."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project import Project, project
from tests.sqsing import BEGIN_MS, World

GROUPS = "abcd"
EACH = 30
APP = """
    import time
    from kflow import Message, on_queue

    @on_queue("turns.fifo")
    def turns(message: Message):
        time.sleep(0.005)
        note(queue="fifo", group=message.group, n=int(message.body))

    @on_queue("jobs")
    def jobs(event, context):
        time.sleep(0.005)
        for record in event["Records"]:
            note(queue="jobs", n=int(record["body"]))
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    for made in project(tmp_path):
        made.handler(APP)
        world = World(made.data_dir)
        world.host.clock.advance(int(time.time() * 1000) - BEGIN_MS)
        turns = world.create("turns.fifo", VisibilityTimeout="1")
        jobs = world.create("jobs", VisibilityTimeout="1")
        for number in range(EACH):
            for group in GROUPS:
                world.send(turns, str(number), group)
                world.send(jobs, str(number * len(GROUPS) + GROUPS.index(group)))
        world.stop()
        yield made


def counts(shop: Project, name: str) -> tuple[int, int, int]:
    world = World(shop.data_dir)
    world.host.clock.advance(int(time.time() * 1000) - BEGIN_MS)
    found = world.counts(world.call("GetQueueUrl", QueueName=name)["QueueUrl"])
    world.stop()
    return found


def check(shop: Project) -> None:
    for group in GROUPS:
        top = -1
        for number in (note["n"] for note in shop.seen(queue="fifo", group=group)):
            assert number <= top + 1, f"{number} of {group} came before {top + 1}"
            top = max(top, number)
        assert top == EACH - 1
    assert {note["n"] for note in shop.seen(queue="jobs")} == set(range(EACH * len(GROUPS)))


def test_the_runtime_is_killed_again_and_again(shop: Project) -> None:
    total = EACH * len(GROUPS)
    for goal in (total // 4, total // 2):
        process = shop.start()
        shop.wait_for(lambda goal=goal: len(shop.seen(queue="fifo")) >= goal, what=f"{goal} messages")
        process.kill()
        process.wait(30)
    shop.run("run", "--drain", "--timeout", "50")
    check(shop)
    assert (counts(shop, "turns.fifo"), counts(shop, "jobs")) == ((0, 0, 0), (0, 0, 0))


def test_workers_are_killed_again_and_again(shop: Project) -> None:
    process = shop.start()
    for goal in itertools.count(15, 30):
        shop.wait_for(lambda goal=goal: len(shop.seen(queue="fifo")) >= goal, what=f"{goal} messages")
        if goal > EACH * len(GROUPS) // 2:
            break
        os.kill(shop.seen()[-1]["pid"], signal.SIGKILL)
    assert shop.stop(process) == 130
    shop.run("run", "--drain", "--timeout", "50")
    check(shop)
    assert (counts(shop, "turns.fifo"), counts(shop, "jobs")) == ((0, 0, 0), (0, 0, 0))
    assert "signal: killed" in shop.logs()
