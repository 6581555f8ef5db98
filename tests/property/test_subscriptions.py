"""However puts, pauses, slow peers, lost connections, splits and the clock mix: a consumer misses and repeats nothing.

The client is the simplest there is: it subscribes, takes what comes, and subscribes again behind the last
ContinuationSequenceNumber, or to the children, when a subscription ends.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.subscribing import FAST, Call, Desk


class Consuming(RuleBasedStateMachine):
    """One shard, until it is split; one consumer."""

    @initialize(limited=st.booleans(), before=st.integers(0, 3))
    def begin(self, limited: bool, before: int) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="kflow-subscriptions-"))
        self.desk = Desk(self.path, enforce_limits=limited)
        self.put_datas: list[bytes] = []
        self.got: list[bytes] = []
        self.numbers: list[int] = []
        self.is_split = False
        self.is_complete = False
        self.call: Call | None = None
        self.put(before, 10)
        self.subscribe("TRIM_HORIZON")

    def teardown(self) -> None:
        if hasattr(self, "path"):
            shutil.rmtree(self.path)

    def put(self, count: int, size: int) -> None:
        datas = [b"%d." % (len(self.put_datas) + each) + b"x" * size for each in range(count)]
        self.put_datas += datas
        if datas:
            self.desk.put(*datas)

    def subscribe(self, kind: str, number: str | None = None) -> None:
        self.call = self.desk.subscribe(kind, number, arn=FAST)
        self.taken = 0

    def take(self) -> None:
        """Read what has come."""
        call = self.call
        if call is None or call.out is None:
            return
        for event in call.out.events[self.taken :]:
            if event["Records"]:
                self.got += event["Records"].members["Data"]
            if event.get("ChildShards"):
                assert "ContinuationSequenceNumber" not in event
                self.is_complete = True
            else:
                self.numbers.append(int(event["ContinuationSequenceNumber"]))
        self.taken = len(call.out.events)

    @rule(count=st.integers(1, 600), size=st.sampled_from([0, 10, 3_000]))
    @precondition(lambda self: not self.is_split)
    def puts(self, count: int, size: int) -> None:
        self.put(count, size)

    @rule(milliseconds=st.sampled_from([1, 1_000, 5_000, 60_000, 301_000]))
    def time_passes(self, milliseconds: int) -> None:
        self.desk.host.advance(milliseconds)

    @rule()
    @precondition(lambda self: self.call is not None and not self.call.out.is_closed)
    def the_peer_takes_nothing(self) -> None:
        self.call.out.buffered = 1 << 20

    @rule()
    @precondition(lambda self: self.call is not None and self.call.out.buffered and self.call.out.on_drain)
    def the_peer_takes_all(self) -> None:
        self.call.out.buffered = 0
        self.call.out.on_drain()
        self.desk.host.settle()

    @rule()
    @precondition(lambda self: self.call is not None and not self.call.out.is_closed)
    def the_connection_is_lost(self) -> None:
        self.take()
        self.call.out.hang_up()

    @rule(by=st.sampled_from(["AFTER_SEQUENCE_NUMBER", "AT_SEQUENCE_NUMBER"]))
    @precondition(lambda self: self.call is not None and self.call.out.is_closed and not self.is_complete)
    def subscribes_again(self, by: str) -> None:
        self.take()
        if self.is_complete:
            return
        self.desk.host.advance(5_000)
        if not self.numbers:
            self.subscribe("TRIM_HORIZON")
            return
        self.subscribe(by, str(self.numbers[-1]))
        if by == "AT_SEQUENCE_NUMBER" and self.got:
            assert self.call is not None
            first = self.call.datas[:1]
            if first == self.got[-1:]:  # the record with that very number: it was wanted
                self.got.pop()

    @rule()
    @precondition(lambda self: not self.is_split)
    def splits(self) -> None:
        self.is_split = True
        self.desk.split()

    @invariant()
    def nothing_is_missed_or_repeated(self) -> None:
        if not hasattr(self, "got"):
            return
        self.take()
        assert self.got == self.put_datas[: len(self.got)]
        assert self.numbers == sorted(self.numbers)
        if self.is_complete:
            assert self.got == self.put_datas

    @invariant()
    def an_open_subscription_with_a_brisk_peer_is_at_the_tip(self) -> None:
        if not hasattr(self, "got") or self.call is None or self.call.out is None:
            return
        self.take()
        out = self.call.out
        if not out.is_closed and not out.buffered and not self.desk.fanout.parts.enforce_limits:
            assert self.got == self.put_datas


TestConsuming = Consuming.TestCase
TestConsuming.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
