"""The control plane against a model: streams, their shards, tags and consumers, over time and over kills."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.controlling import HOME, TRANSITION_MS, Desk

NAMES = ("orders", "clicks", "jobs")
TOP = (1 << 128) - 1
CODES = ("ResourceNotFoundException", "ResourceInUseException", "LimitExceededException", "InvalidArgumentException")


@dataclass
class Expected:
    """A stream as it should be seen.

    Attributes:
        open: how many open shards it has now.
        until_ms: when its transition is over.
        state: what it is in until then.
        then_open: how many open shards it has after that; -1: it is gone.
    """

    open: int
    until_ms: int
    state: str
    then_open: int
    hours: int = 24
    tags: dict[str, str] = field(default_factory=dict)
    consumers: dict[str, tuple[str, int]] = field(default_factory=dict)

    def begin(self, state: str, then_open: int, now_ms: int) -> None:
        self.state, self.then_open, self.until_ms = state, then_open, now_ms + TRANSITION_MS


class ControlPlane(RuleBasedStateMachine):
    """Every call is answered as the model says, and everything that is shown is what the model has."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="kflow-control-"))
        self.desk = Desk(self.path)
        self.streams: dict[str, Expected] = {}

    def teardown(self) -> None:
        self.desk.log.close()
        shutil.rmtree(self.path)

    @property
    def now_ms(self) -> int:
        return self.desk.clock.epoch_ms

    def asked(self, operation: str, *, works: bool, **given: Any) -> Any:
        """Call, and see that it works, or is refused in a way that AWS knows."""
        answers = self.desk.begin(operation, **given)
        self.desk.host.work()
        (answer,) = answers
        if works:
            assert not isinstance(answer, Exception), (operation, given, answer)
        else:
            assert getattr(answer, "code", "") in CODES, (operation, given, answer)
        return answer

    def at(self, name: str, *states: str) -> bool:
        return name in self.streams and self.streams[name].state in states

    # ------------------------------------------------------------------ time

    @rule(milliseconds=some.sampled_from((1, 100, TRANSITION_MS)))
    def time_passes(self, milliseconds: int) -> None:
        self.desk.host.advance(milliseconds)
        self._pass()

    @rule()
    def it_is_killed(self) -> None:
        self.desk.restart()
        self.desk.host.advance(0)
        self._pass()

    def _pass(self) -> None:
        for name, stream in list(self.streams.items()):
            if stream.state != "ACTIVE" and stream.until_ms <= self.now_ms:
                stream.open, stream.state = stream.then_open, "ACTIVE"
                if stream.open < 0:
                    del self.streams[name]
            for each, (state, until_ms) in list(stream.consumers.items()):
                if until_ms <= self.now_ms and state == "CREATING":
                    stream.consumers[each] = ("ACTIVE", until_ms)
                elif until_ms <= self.now_ms and state == "DELETING":
                    del stream.consumers[each]

    # ------------------------------------------------------------------ streams

    @rule(name=some.sampled_from(NAMES), shards=some.integers(1, 4))
    def create(self, name: str, shards: int) -> None:
        works = name not in self.streams
        self.asked("CreateStream", works=works, StreamName=name, ShardCount=shards, Tags={"made": str(shards)})
        if works:
            self.streams[name] = Expected(0, self.now_ms + TRANSITION_MS, "CREATING", shards)
            self.streams[name].tags["made"] = str(shards)

    @rule(name=some.sampled_from(NAMES), enforce=some.booleans())
    def delete(self, name: str, enforce: bool) -> None:
        works = self.at(name, "ACTIVE", "UPDATING") and (enforce or not self.streams[name].consumers)
        self.asked("DeleteStream", works=works, StreamName=name, EnforceConsumerDeletion=enforce)
        if works:
            self.streams[name].begin("DELETING", -1, self.now_ms)
            self.streams[name].open = 0

    @rule(name=some.sampled_from(NAMES), chosen=some.integers(0, 20))
    def split(self, name: str, chosen: int) -> None:
        works = self.at(name, "ACTIVE")
        found = self.open_ranges(name) if works else [(0, 0, TOP)]
        index, start, end = found[chosen % len(found)]
        works = works and end - start > 4
        middle = str((start + end) // 2)
        self.asked("SplitShard", works=works, StreamName=name, ShardToSplit=str(index), NewStartingHashKey=middle)
        if works:
            self.streams[name].begin("UPDATING", len(found) + 1, self.now_ms)

    @rule(name=some.sampled_from(NAMES), chosen=some.integers(0, 20))
    def merge(self, name: str, chosen: int) -> None:
        works = self.at(name, "ACTIVE")
        found = self.open_ranges(name) if works else [(0, 0, TOP)]
        first, second = found[chosen % len(found)][0], found[(chosen + 1) % len(found)][0]
        works = works and chosen % len(found) + 1 < len(found)
        given = {"ShardToMerge": str(first), "AdjacentShardToMerge": str(second)}
        self.asked("MergeShards", works=works, StreamName=name, **given)
        if works:
            self.streams[name].begin("UPDATING", len(found) - 1, self.now_ms)

    @rule(name=some.sampled_from(NAMES), wanted=some.integers(1, 9))
    def scale(self, name: str, wanted: int) -> None:
        current = self.streams[name].open if self.at(name, "ACTIVE") else 0
        fits = current != wanted and current <= 2 * wanted and wanted <= 2 * current
        works = bool(current) and fits and self._scalings(name) < 10
        given = {"TargetShardCount": wanted, "ScalingType": "UNIFORM_SCALING"}
        self.asked("UpdateShardCount", works=works, StreamName=name, **given)
        if works:
            self.streams[name].begin("UPDATING", wanted, self.now_ms)

    def _scalings(self, name: str) -> int:
        return len(self.desk.registry.find(HOME, name).attributes.scalings_ms)

    @rule(name=some.sampled_from(NAMES), hours=some.integers(24, 50))
    def keep_longer(self, name: str, hours: int) -> None:
        works = self.at(name, "ACTIVE") and hours >= self.streams[name].hours
        self.asked("IncreaseStreamRetentionPeriod", works=works, StreamName=name, RetentionPeriodHours=hours)
        if works:
            self.streams[name].hours = hours
            self.streams[name].begin("UPDATING", self.streams[name].open, self.now_ms)

    # ------------------------------------------------------------------ what they carry

    @rule(name=some.sampled_from(NAMES), key=some.sampled_from("abc"), value=some.sampled_from("xyz"))
    def tag(self, name: str, key: str, value: str) -> None:
        works = self.at(name, "ACTIVE", "UPDATING")
        self.asked("AddTagsToStream", works=works, StreamName=name, Tags={key: value})
        if works:
            self.streams[name].tags[key] = value

    @rule(name=some.sampled_from(NAMES), key=some.sampled_from("abc"))
    def untag(self, name: str, key: str) -> None:
        works = self.at(name, "ACTIVE", "UPDATING")
        self.asked("RemoveTagsFromStream", works=works, StreamName=name, TagKeys=[key])
        if works:
            self.streams[name].tags.pop(key, None)

    @rule(name=some.sampled_from(NAMES), consumer=some.sampled_from("pqr"))
    def register(self, name: str, consumer: str) -> None:
        works = self.at(name, "ACTIVE", "UPDATING") and consumer not in self.streams[name].consumers
        self.asked("RegisterStreamConsumer", works=works, StreamARN=self.arn(name), ConsumerName=consumer)
        if works:
            self.streams[name].consumers[consumer] = ("CREATING", self.now_ms + TRANSITION_MS)

    @rule(name=some.sampled_from(NAMES), consumer=some.sampled_from("pqr"))
    def deregister(self, name: str, consumer: str) -> None:
        works = name in self.streams and self.streams[name].consumers.get(consumer, ("",))[0] == "ACTIVE"
        self.asked("DeregisterStreamConsumer", works=works, StreamARN=self.arn(name), ConsumerName=consumer)
        if works:
            self.streams[name].consumers[consumer] = ("DELETING", self.now_ms + TRANSITION_MS)

    # ------------------------------------------------------------------ what is shown

    def arn(self, name: str) -> str:
        return f"arn:aws:kinesis:{HOME.region}:{HOME.account}:stream/{name}"

    def open_ranges(self, name: str) -> list[tuple[int, int, int]]:
        """Index, first and last hash key of the open shards that are shown, by range."""
        found = []
        start: dict[str, str] = {}
        more = True
        while more:
            page = self.desk.call("DescribeStream", StreamName=name, **start)["StreamDescription"]
            for shard in page["Shards"]:
                if "EndingSequenceNumber" not in shard["SequenceNumberRange"]:
                    bounds = shard["HashKeyRange"]
                    first, last = int(bounds["StartingHashKey"]), int(bounds["EndingHashKey"])
                    found.append((int(shard["ShardId"][-12:]), first, last))
                start = {"ExclusiveStartShardId": shard["ShardId"]}
            more = page["HasMoreShards"]
        return sorted(found, key=lambda each: each[1])

    @invariant()
    def everything_is_shown_as_it_is(self) -> None:
        desk = self.desk
        assert desk.call("ListStreams")["StreamNames"] == sorted(self.streams)
        for name, expected in self.streams.items():
            found = desk.call("DescribeStreamSummary", StreamName=name)["StreamDescriptionSummary"]
            assert found["StreamStatus"] == expected.state
            assert found["OpenShardCount"] == expected.open
            assert found["RetentionPeriodHours"] == expected.hours
            ranges = self.open_ranges(name)
            assert len(ranges) == expected.open
            if ranges:
                assert (ranges[0][1], ranges[-1][2]) == (0, TOP)
                assert all(one[2] + 1 == other[1] for one, other in pairwise(ranges))
            tags = {each["Key"]: each["Value"] for each in desk.call("ListTagsForStream", StreamName=name)["Tags"]}
            assert tags == ({} if expected.state == "DELETING" else expected.tags)
            if expected.state != "CREATING":
                listed = desk.call("ListStreamConsumers", StreamARN=self.arn(name))["Consumers"]
                states = {each["ConsumerName"]: each["ConsumerStatus"] for each in listed}
                assert states == {each: state for each, (state, _) in expected.consumers.items()}


TestControlPlane = ControlPlane.TestCase
TestControlPlane.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
