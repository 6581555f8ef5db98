"""Putting and reading against lists: whatever happens to its shards, a stream has its records, in order."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kflow.broker.sequence import parse
from tests.recordsdesk import Desk

KEYS = st.sampled_from(["a", "b", "c", "ä", "k" * 256])
SIZES = st.one_of(st.integers(0, 300), st.integers(0, 300_000))
Row = tuple[str, str, bytes]


class Records(RuleBasedStateMachine):
    """One stream; beside it, by shard id, a list of what it was told about each of its records."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="kflow-property-"))
        self.desk = Desk(self.path / "data")
        self.stream = self.desk.create(shards=2)
        self.model: dict[str, list[Row]] = {}
        self.readers: list[tuple[str, str, int]] = []  # shard id, token, records before it
        self.pending: list[tuple[list[tuple[str, bytes]], list[Any]]] = []
        self.serial = 0

    def teardown(self) -> None:
        self.desk.parts.reading.close()
        self.desk.log.close()
        shutil.rmtree(self.path)

    # ---------------------------------------------------------------- what may happen

    @rule(entries=st.lists(st.tuples(KEYS, SIZES), min_size=1, max_size=12))
    def put_records(self, entries: list[tuple[str, int]]) -> None:
        rows = [(key, self._data(size)) for key, size in entries]
        records = [{"PartitionKey": key, "Data": data} for key, data in rows]
        self.pending.append((rows, self.desk.start("PutRecords", StreamName="orders", Records=records)))
        self._settle()

    @rule(key=KEYS, size=SIZES, hash_key=st.one_of(st.none(), st.integers(0, 2**128 - 1)))
    def put_record(self, key: str, size: int, hash_key: int | None) -> None:
        data = self._data(size)
        more = {} if hash_key is None else {"ExplicitHashKey": str(hash_key)}
        answers = self.desk.start("PutRecord", StreamName="orders", PartitionKey=key, Data=data, **more)
        self.pending.append(([(key, data)], answers))
        self._settle()

    @rule()
    def slow_down(self) -> None:
        self.desk.host.held = True

    @rule()
    def catch_up(self) -> None:
        self.desk.host.release()
        self.desk.host.run()
        self._settle()
        assert not self.pending

    @precondition(lambda self: len(self.stream.map.shards) < 12)
    @rule(choice=st.integers(0, 100))
    def split(self, choice: int) -> None:
        shards = self.stream.map.open_shards
        self.desk.learn(self.desk.split(self.stream, shards[choice % len(shards)].index))

    @precondition(lambda self: len(self.stream.map.open_shards) > 1 and len(self.stream.map.shards) < 12)
    @rule(choice=st.integers(0, 100))
    def merge(self, choice: int) -> None:
        shards = self.stream.map.open_shards
        at = choice % (len(shards) - 1)
        self.desk.learn(self.desk.merge(self.stream, shards[at].index, shards[at + 1].index))

    @rule(milliseconds=st.integers(1, 5000))
    def wait(self, milliseconds: int) -> None:
        self.desk.clock.advance(milliseconds)

    @rule(on=st.booleans())
    def encrypt(self, on: bool) -> None:
        self.desk.set(self.stream, key_id="key" if on else "")

    @rule(kib=st.integers(1024, 10240))
    def resize(self, kib: int) -> None:
        self.desk.learn(msgspec.structs.replace(self.stream.map, max_record_bytes=kib << 10))

    @rule(choice=st.integers(0, 100), where=st.integers(0, 1000), kind=st.sampled_from(["AT", "AFTER"]))
    def begin_at_a_number(self, choice: int, where: int, kind: str) -> None:
        shard_id, rows = self._chosen(choice)
        if rows:
            at = where % len(rows)
            token = self.desk.iterator(f"{kind}_SEQUENCE_NUMBER", shard_id, StartingSequenceNumber=rows[at][0])
            self.readers.append((shard_id, token, at + (kind == "AFTER")))

    @rule(choice=st.integers(0, 100), where=st.integers(0, 1000))
    def begin_at_a_time(self, choice: int, where: int) -> None:
        shard_id, rows = self._chosen(choice)
        if rows:
            at_s = parse(int(rows[where % len(rows)][0])).arrival_s
            token = self.desk.iterator("AT_TIMESTAMP", shard_id, Timestamp=at_s)
            before = sum(1 for row in rows if parse(int(row[0])).arrival_s < at_s)
            self.readers.append((shard_id, token, before))

    @rule(choice=st.integers(0, 100), latest=st.booleans())
    def begin_at_an_end(self, choice: int, latest: bool) -> None:
        shard_id, rows = self._chosen(choice)
        token = self.desk.iterator("LATEST" if latest else "TRIM_HORIZON", shard_id)
        self.readers.append((shard_id, token, len(rows) if latest else 0))

    @precondition(lambda self: self.readers)
    @rule(choice=st.integers(0, 1000), limit=st.integers(1, 20))
    def read_on(self, choice: int, limit: int) -> None:
        shard_id, token, before = self.readers.pop(choice % len(self.readers))
        answer = self.desk.call("GetRecords", ShardIterator=token, Limit=limit)
        rows = self.model.get(shard_id, [])
        found = self._rows(answer)
        assert found == rows[before : before + len(found)]
        reached = before + len(found)
        ended = "NextShardIterator" not in answer
        assert ended == bool(answer.get("ChildShards"))
        assert len(found) == limit or reached == len(rows)
        if ended:
            assert reached == len(rows)
            assert all(shard_id in child["ParentShards"] for child in answer["ChildShards"])
        else:
            self.readers.append((shard_id, answer["NextShardIterator"], reached))

    # ---------------------------------------------------------------- what always holds

    @invariant()
    def every_shard_has_its_records(self) -> None:
        if self.desk.host.held or self.pending:
            return
        shards = self.desk.call("ListShards", StreamName="orders")["Shards"]
        for shard in shards:
            token = self.desk.iterator("TRIM_HORIZON", shard["ShardId"])
            found = [self._row(record) for record in self.desk.drain(token)]
            assert found == self.model.get(shard["ShardId"], [])
            numbers = [int(number) for number, _, _ in found]
            assert numbers == sorted(set(numbers))

    # ---------------------------------------------------------------- helpers

    def _settle(self) -> None:
        """Take the answers that are there into the model, in the order in which they were stored."""
        if not self.desk.host.held:
            self.desk.host.run()
        stored: list[tuple[int, str, Row]] = []
        for rows, answers in list(self.pending):
            if not answers:
                continue
            self.pending.remove((rows, answers))
            (answer,) = answers
            assert not isinstance(answer, Exception), answer
            for (key, data), place in zip(rows, answer.get("Records", [answer]), strict=True):
                number = place["SequenceNumber"]
                stored.append((int(number), place["ShardId"], (number, key, data)))
        for _, shard_id, row in sorted(stored):
            self.model.setdefault(shard_id, []).append(row)

    def _data(self, size: int) -> bytes:
        self.serial += 1
        return (b"%d." % self.serial).ljust(size, b"x")

    def _chosen(self, choice: int) -> tuple[str, list[Row]]:
        shards = self.stream.map.shards
        shard_id = f"shardId-{shards[choice % len(shards)].index:012d}"
        return shard_id, self.model.get(shard_id, [])

    def _rows(self, answer: dict[str, Any]) -> list[Row]:
        return [self._row(record) for record in answer["Records"]]

    def _row(self, record: dict[str, Any]) -> Row:
        return record["SequenceNumber"], record["PartitionKey"], record["Data"]


Records.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestRecords = Records.TestCase
