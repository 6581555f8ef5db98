"""Queues of SQS against a model: who may be received, in which order, how often, and what each handle still does."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kflow.sqs import limits
from kflow.sqs.errors import SqsError
from tests.sqsing import World

RETENTION_MS = 600_000


@dataclass
class Tracked:
    """What the model knows of a message that was accepted.

    Attributes:
        number: in the order of arrival.
        group: empty in a standard queue.
        sent_ms: when it was sent.
        visible_ms: from when on it may be received.
        receives: how often it was.
        received_ms: when it was last.
        handle: of its last delivery.
        where: `jobs`, `dead` or `gone`.
    """

    number: int
    group: str
    sent_ms: int
    visible_ms: int
    receives: int = 0
    received_ms: int = 0
    handle: str = ""
    where: str = "jobs"


@dataclass
class Kept:
    """A duplicate's model."""

    until_ms: int
    message_id: str
    number: int = field(default=0)


class Delivery(RuleBasedStateMachine):
    """Sends, receives, settles, waits and restarts in any order. Subclasses say which kind of queue."""

    suffix = ""

    @initialize(most=st.sampled_from([None, 1, 2, 3]))
    def begin(self, most: int | None) -> None:
        self.path = tempfile.mkdtemp(prefix="kflow-sqs-")
        self.world = World(Path(self.path) / "data")
        self.most = most
        more = {"VisibilityTimeout": "10", "MessageRetentionPeriod": str(RETENTION_MS // 1000)}
        if most is None:
            self.url = self.world.create(f"jobs{self.suffix}", **more)
            self.dead = ""
        else:
            self.url, self.dead = self.world.pair(most, self.suffix, **more)
        self.messages: dict[str, Tracked] = {}
        self.handles: list[tuple[str, str, int]] = []
        self.lately: dict[str, Kept] = {}

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.stop()
            shutil.rmtree(self.path)

    # ------------------------------------------------------------------ the model

    @property
    def now_ms(self) -> int:
        return self.world.host.now_ms()

    def live(self) -> list[tuple[str, Tracked]]:
        """Messages in the queue, the oldest first."""
        for each in self.messages.values():
            if each.where == "jobs" and each.sent_ms < self.now_ms - RETENTION_MS:
                each.where = "gone"
        found = [(body, each) for body, each in self.messages.items() if each.where == "jobs"]
        return sorted(found, key=lambda pair: pair[1].number)

    def is_spent(self, each: Tracked) -> bool:
        return self.most is not None and each.receives >= self.most

    def line(self, line: list[tuple[str, Tracked]], limit: int) -> tuple[list[str], list[str]]:
        """What a scan of messages in an order gives, and what it buries."""
        found: list[str] = []
        buried: list[str] = []
        for body, each in line:
            if len(found) == limit:
                break
            (buried if self.is_spent(each) else found).append(body)
        return found, buried

    def received(self, messages: list[dict[str, Any]], hidden_s: int) -> None:
        for message in messages:
            tracked = self.messages[message["Body"]]
            tracked.receives += 1
            tracked.received_ms = self.now_ms
            tracked.visible_ms = self.now_ms + hidden_s * 1000
            tracked.handle = message["ReceiptHandle"]
            assert message["Attributes"]["ApproximateReceiveCount"] == str(tracked.receives)
            self.handles.append((message["Body"], message["ReceiptHandle"], tracked.receives))

    def expect(self, bodies: list[str], limit: int) -> list[str]:
        """Check what was received; what was buried on the way."""
        raise NotImplementedError

    # ------------------------------------------------------------------ what happens

    @rule(limit=st.integers(1, 10), hidden_s=st.sampled_from([0, 1, 10, 30]))
    def receive(self, limit: int, hidden_s: int) -> None:
        limit = 10 if self.suffix and self.most is not None else limit
        messages = self.world.receive(self.url, limit, VisibilityTimeout=hidden_s, AttributeNames=["All"])
        for body in self.expect([each["Body"] for each in messages], limit):
            self.messages[body].where = "dead"
        self.received(messages, hidden_s)

    @precondition(lambda self: self.handles)
    @rule(pick=st.integers(0, 1000))
    def delete(self, pick: int) -> None:
        body, handle, receives = self.handles[-1 - pick % min(len(self.handles), 6)]
        self.live()
        tracked = self.messages[body]
        failure = ""
        try:
            self.world.delete(self.url, {"ReceiptHandle": handle})
        except SqsError as error:
            failure = str(error)
        is_refused = "The receipt handle has expired." in failure
        assert is_refused or not failure
        is_current = tracked.receives == receives and tracked.visible_ms > self.now_ms
        assert is_refused is (bool(self.suffix) and tracked.where == "jobs" and not is_current)
        if not is_refused and tracked.where == "jobs":
            tracked.where = "gone"

    @precondition(lambda self: self.handles)
    @rule(pick=st.integers(0, 1000), seconds=st.sampled_from([0, 1, 5, 60]))
    def hide(self, pick: int, seconds: int) -> None:
        body, handle, receives = self.handles[-1 - pick % min(len(self.handles), 6)]
        self.live()
        tracked = self.messages[body]
        is_current = tracked.where == "jobs" and tracked.receives == receives
        if self.suffix:
            is_current = is_current and tracked.visible_ms > self.now_ms
        try:
            self.world.hide(self.url, {"ReceiptHandle": handle}, seconds)
        except SqsError:
            assert not is_current
        else:
            assert is_current
            tracked.visible_ms = self.now_ms + seconds * 1000

    @rule(milliseconds=st.sampled_from([1, 999, 1000, 5000, 10_000, 61_000, 300_000]))
    def wait(self, milliseconds: int) -> None:
        self.world.host.advance(milliseconds)

    @rule()
    def restart(self) -> None:
        self.world.restart()

    @rule()
    def kill(self) -> None:
        for queue in self.world.service.directory.everywhere():
            if queue.desk._turns is not None:
                queue.desk._turns.close()
        self.world.start()

    @precondition(lambda self: self.dead)
    @rule()
    def look_at_the_dead(self) -> None:
        messages = self.world.receive(self.dead, 10, AttributeNames=["All"], VisibilityTimeout=0)
        dead = {body for body, each in self.messages.items() if each.where == "dead"}
        assert {each["Body"] for each in messages} <= dead
        assert len(messages) == min(10, len(dead)) or self.suffix
        for each in messages:
            tracked = self.messages[each["Body"]]
            assert int(each["Attributes"]["ApproximateReceiveCount"]) > tracked.receives
            if not self.suffix:
                self.world.delete(self.dead, each)
                tracked.where = "gone"

    @invariant()
    def all_are_counted(self) -> None:
        if not hasattr(self, "world"):
            return
        live = [each for _, each in self.live()]
        hidden = [each for each in live if each.visible_ms > self.now_ms]
        delayed = [each for each in hidden if not each.received_ms]
        wanted = (len(live) - len(hidden), len(hidden) - len(delayed), len(delayed))
        assert self.world.counts(self.url) == wanted
        if self.dead:
            assert self.world.counts(self.dead)[0] == sum(each.where == "dead" for each in self.messages.values())


class StandardDelivery(Delivery):
    """Of a standard queue: the longest waiting first."""

    @rule(count=st.integers(1, 4), delay_s=st.sampled_from([0, 0, 0, 2, 20]))
    def send(self, count: int, delay_s: int) -> None:
        for _ in range(count):
            number = len(self.messages)
            self.world.send(self.url, f"m{number}", DelaySeconds=delay_s)
            self.messages[f"m{number}"] = Tracked(number, "", self.now_ms, self.now_ms + delay_s * 1000)

    def expect(self, bodies: list[str], limit: int) -> list[str]:
        line = [(body, each) for body, each in self.live() if each.visible_ms <= self.now_ms]
        line.sort(key=lambda pair: (pair[1].visible_ms, pair[1].number))
        found, buried = self.line(line, limit)
        assert bodies == found
        return buried


class FifoDelivery(Delivery):
    """Of a FIFO queue: each group a line, and no duplicates."""

    suffix = ".fifo"

    @precondition(lambda self: len(self.live()) < 9)
    @rule(group=st.sampled_from("abc"), duplicate=st.sampled_from(["", "", "", "x", "y"]))
    def send(self, group: str, duplicate: str) -> None:
        number = len(self.messages)
        key = duplicate or f"only-{number}"
        sent = self.world.send(self.url, f"m{number}", group, MessageDeduplicationId=key)
        known = self.lately.get(key)
        if known is not None and known.until_ms > self.now_ms:
            assert (sent["MessageId"], int(sent["SequenceNumber"])) == (known.message_id, known.number)
            return
        kept = Kept(self.now_ms + limits.DEDUPLICATION_MS, sent["MessageId"], int(sent["SequenceNumber"]))
        assert all(kept.number > each.number for each in self.lately.values())
        self.lately[key] = kept
        self.messages[f"m{number}"] = Tracked(number, group, self.now_ms, self.now_ms)

    def expect(self, bodies: list[str], limit: int) -> list[str]:
        lines: dict[str, list[tuple[str, Tracked]]] = {group: [] for group in "abc"}
        closed: set[str] = set()
        for body, each in self.live():
            if each.visible_ms > self.now_ms:
                closed.add(each.group)
            if each.group not in closed:
                lines[each.group].append((body, each))
        order = list(dict.fromkeys(self.messages[body].group for body in bodies))
        order += [group for group in lines if group not in order]
        left, wanted, buried = limit, [], []
        for group in order:
            found, over = self.line(lines[group], left)
            left -= len(found)
            wanted += found
            buried += over if left or found else []
        assert bodies == wanted
        return buried


TestStandard = StandardDelivery.TestCase
TestStandard.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestFifo = FifoDelivery.TestCase
TestFifo.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
