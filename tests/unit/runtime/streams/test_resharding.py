"""Changes of shards in a node: who waits for whom, one step after the other, with threads that the test runs."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from kflow.broker.folder import DataFolder
from kflow.broker.reshardplan import planner
from kflow.broker.streammap import StreamMap
from kflow.errors import (
    InternalError,
    InvalidArgument,
    KflowError,
    ResourceInUse,
    ResourceNotFound,
    StorageError,
    StorageFull,
)
from kflow.runtime.errands import Errands, guarded
from kflow.runtime.streams.resharding import Resharding, summary
from tests.storing import FaultyFiles, Store


class Threads:
    """Work that is done when the test says so."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Callable[[], Any], Callable[[Any], object]]] = deque()

    def submit(self, work: Callable[[], Any], then: Callable[[Any], object]) -> None:
        self.waiting.append((work, then))

    def run(self) -> None:
        """Do the next piece of work."""
        work, then = self.waiting.popleft()
        try:
            result = work()
        except KflowError as error:
            result = error
        then(result)

    def run_all(self) -> None:
        while self.waiting:
            self.run()


class Node:
    """The parts of a node that resharding meets, and what it did to them."""

    def __init__(self, path: Path, files: FaultyFiles | None = None) -> None:
        self.store = Store(path, files=files or FaultyFiles(), shards=2)
        self.threads = Threads()
        self.errands = Errands()
        self.did: list[str] = []
        self.quiet: Callable[[], None] | None = None
        self.resharding = Resharding(self.store.log, self, self.threads, self.errands, self.changed)
        self.told: list[Any] = []

    @property
    def folder(self) -> DataFolder:
        return self.store.folder

    def hold(self, stream: StreamMap, indexes: Sequence[int], then: Callable[[], None]) -> None:
        self.did.append(f"hold {list(indexes)}")
        self.quiet = then

    def release(self, stream: StreamMap, indexes: Sequence[int], *, closed: bool) -> None:
        self.did.append(f"release {list(indexes)} {'closed' if closed else 'open'}")

    def changed(self, old: StreamMap, new: StreamMap) -> None:
        assert self.folder.map(new.name) == new
        self.did.append(f"changed to {new.generation}")

    def change(self, kind: str, name: str = "orders", **arguments: Any) -> None:
        plan = planner((self.folder.account, self.folder.region), kind, name, arguments)
        self.resharding.change(self.folder.map(name), plan, self.told.append)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_parents_are_held_only_from_when_the_children_are_there_to_when_the_map_is(node: Node) -> None:
    node.change("split", shard="0")
    assert node.did == []
    node.threads.run()
    assert node.did == ["hold [0]"]
    assert not node.threads.waiting  # something is still under way in the parent

    assert node.quiet is not None
    node.quiet()
    assert node.folder.map("orders").generation == 1
    node.threads.run()
    assert node.did == ["hold [0]", "changed to 2", "release [0] closed"]
    assert node.told == []
    node.threads.run()
    assert node.told == [
        {
            "stream": "orders",
            "closed": ["shardId-000000000000"],
            "opened": ["shardId-000000000002", "shardId-000000000003"],
            "open_shards": 3,
        }
    ]


def test_a_stream_whose_shards_are_being_changed_is_not_active(node: Node) -> None:
    node.change("split", shard="0")
    with pytest.raises(ResourceInUse) as refused:
        node.change("merge", shard="0", adjacent="1")
    assert str(refused.value) == "Stream orders under account 123456789012 not ACTIVE, instead in state UPDATING"


def test_the_form_of_a_shard_id_is_looked_at_before_the_stream(node: Node) -> None:
    with pytest.raises(ResourceNotFound, match="Could not find shard x in stream nothing"):
        node.change("split", "nothing", shard="x")
    with pytest.raises(ResourceNotFound, match="Stream nothing under account"):
        node.change("split", "nothing", shard="0")


def test_what_aws_refuses_is_told_and_the_stream_is_active_again(node: Node) -> None:
    node.change("merge", shard="1", adjacent="0")
    node.change("scale", shards=4)
    (refused,) = node.told
    assert isinstance(refused, InvalidArgument)
    assert len(node.threads.waiting) == 1


def test_two_streams_are_changed_one_after_the_other(node: Node) -> None:
    node.store.log.create_stream("other", 1)
    node.change("split", shard="0")
    node.change("split", "other", shard="0")
    assert len(node.threads.waiting) == 1
    node.threads.run()
    assert node.quiet is not None
    node.quiet()
    node.threads.run()
    node.threads.run()
    assert [told["stream"] for told in node.told] == ["orders"]
    node.threads.run()
    assert node.did[-1] == "hold [0]"


def test_what_cannot_be_prepared_holds_nobody(tmp_path: Path) -> None:
    files = FaultyFiles()
    node = Node(tmp_path, files)
    files.errors, files.only = {"replace": errno.ENOSPC}, "ctl"
    node.change("split", shard="0")
    node.threads.run_all()
    assert node.did == []
    assert [type(told) for told in node.told] == [StorageFull]
    assert not node.folder.shard_dir(node.store.stream, 2).exists()


def test_what_cannot_be_published_goes_on_as_it_was(tmp_path: Path) -> None:
    files = FaultyFiles()
    node = Node(tmp_path, files)
    node.change("split", shard="0")
    node.threads.run()
    files.errors, files.only = {"replace": errno.EIO}, "map.json"
    assert node.quiet is not None
    node.quiet()
    node.threads.run()
    assert node.did == ["hold [0]", "release [0] open"]
    files.errors = {}
    node.threads.run()
    assert isinstance(node.told[0], StorageError)
    assert node.folder.map("orders") == node.store.stream
    assert not node.folder.shard_dir(node.store.stream, 2).exists()
    node.change("split", shard="0")  # it is active again
    assert len(node.threads.waiting) == 1


def test_readers_that_cannot_be_told_hold_no_producer_up(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(old: StreamMap, new: StreamMap) -> None:
        raise StorageError("no room for slots")

    node.resharding = Resharding(node.store.log, node, node.threads, node.errands, refuse)
    node.change("split", shard="0")
    node.threads.run()
    assert node.quiet is not None
    node.quiet()
    node.threads.run_all()
    assert node.did[-1] == "release [0] closed"
    assert node.told[0]["open_shards"] == 3


def test_an_errand_that_breaks_a_promise_ends_and_the_next_one_begins() -> None:
    def broken() -> None:
        raise ZeroDivisionError("never")

    with pytest.raises(InternalError, match="ZeroDivisionError: never; please report it"):
        guarded(broken)()
    errands, begun = Errands(), []
    overs: list[Callable[[], None]] = []
    for name in ("first", "second"):
        errands.add(lambda over, name=name: (begun.append(name), overs.append(over)))  # type: ignore[misc]
    assert begun == ["first"]
    overs[0]()
    assert begun == ["first", "second"]


@pytest.mark.parametrize("shards", ["three", None, [1]])
def test_a_request_that_makes_no_sense_is_answered_and_holds_nothing_up(node: Node, shards: object) -> None:
    node.change("scale", shards=shards)
    node.change("scale", shards=1)
    node.threads.run_all()
    if node.quiet is not None:
        node.quiet()
    node.threads.run_all()
    assert isinstance(node.told[0], InternalError)
    assert len(node.folder.map("orders").open_shards) == 1


def test_the_summary_names_what_stays_open_and_leaves_out_what_lies_between(node: Node) -> None:
    stream = node.store.log.create_stream("four", 4)
    plan = planner(("123456789012", "us-east-1"), "scale", "four", {"shards": 3})(stream)
    told = summary(plan)
    assert told["open_shards"] == 3
    assert [each[-2:] for each in told["closed"]] == ["00", "01", "02", "03"]
    assert [each[-2:] for each in told["opened"]] == ["08", "09", "10"]
