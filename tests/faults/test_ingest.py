"""The node's socket, stepped by hand: what is refused, what waits, what is found again.

The loop runs in the test's own thread, a round at a time, and the test speaks the wire itself.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kflow.broker import handshake, linking, wire, wirecalls
from kflow.broker.encode import Encoder, Part
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.streammap import StreamMap
from kflow.errors import ResourceInUse, StorageError, UsageError
from kflow.runtime.intake.connection import UNANSWERED_BYTES, Connection
from kflow.runtime.intake.ingest import Ingest
from kflow.runtime.loop import Loop
from tests.deadline import eventually
from tests.storing import FaultyFiles, everything


class StuckFiles(FaultyFiles):
    """Writes to one file, or all syncs, do not return before the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.stuck = ""
        self.syncs_stick = False
        self.gate = threading.Event()
        self.syncs = 0

    def fdatasync(self, fd: int) -> None:
        self.syncs += 1
        if self.syncs_stick:
            assert self.gate.wait(30)
        super().fdatasync(fd)

    def pwritev(self, fd: int, buffers: Sequence[Any], offset: int) -> int:
        if self.stuck and self.stuck in os.readlink(f"/proc/self/fd/{fd}"):
            assert self.gate.wait(30)
        return super().pwritev(fd, buffers, offset)


class Speaker:
    """A producer, as raw as it gets: one connection, frames by hand."""

    def __init__(self, node: TestNode, producer: int = 7) -> None:
        self.node = node
        self.socket = socket.socket(socket.AF_UNIX)
        node.speakers.append(self)
        self.socket.connect(str(node.path))
        self.socket.setblocking(False)
        self.buffer = b""
        hello = handshake.own_hello(node.folder.id, producer=producer)
        self.send(wire.json_frame(wire.HELLO, 0, hello))
        self.hello = self.receive()

    def send(self, message: bytes) -> None:
        """Send everything, letting the node read meanwhile."""
        while message:
            try:
                message = message[self.socket.send(message) :]
            except BlockingIOError:
                self.node.round()

    def put(self, number: int, *parts: Part, seen: int = 0, tails: Sequence[int] | None = None) -> None:
        """Send a PUT frame, or with tails a RESEND frame."""
        stream = self.node.stream
        blocks = [(part.shard, part.count, part.body, part.crc, part.flags) for part in parts]
        buffers, _ = wire.put_many(number, stream.id, stream.generation, seen, blocks, tails)
        self.send(b"".join(buffers))

    def receive(self) -> wire.Received:
        """The next frame from the node."""
        found = eventually(self._taken, what="an answer of the node")
        assert found is not None
        return found

    def answer(self) -> tuple[int, list[tuple[int, int, int, int]], list[dict[str, str]]]:
        """The next answer: its number, what it says of each block, its errors."""
        received = self.receive()
        assert received.kind == wire.ANSWERED
        size = received.blocks * wire.ANSWER.size
        errors = msgspec.json.decode(received.payload[size:] or b"[]")
        return received.request, list(wire.ANSWER.iter_unpack(received.payload[:size])), errors

    def statuses(self) -> list[int]:
        """The status of each block of the next answer."""
        return [status for _, _, _, status in self.answer()[1]]

    def is_unanswered(self) -> bool:
        """Whether no answer comes, however often the node goes round."""
        return all(self._taken() is None for _ in range(20))

    def is_closed(self) -> bool:
        """Whether the node has closed the connection."""
        self.node.round()
        try:
            return self.socket.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    def _taken(self) -> wire.Received | None:
        self.node.round()
        with contextlib.suppress(BlockingIOError):
            self.buffer += self.socket.recv(1 << 16)
        if len(self.buffer) < wire.FRAME.size:
            return None
        length, request, kind, count = wire.FRAME.unpack_from(self.buffer)
        end = wire.FRAME.size + length
        if len(self.buffer) < end:
            return None
        payload, self.buffer = self.buffer[wire.FRAME.size : end], self.buffer[end:]
        return wire.Received(kind, request, count, payload)


class TestNode:
    """A node in the test's own thread."""

    __test__ = False

    def __init__(self, path: Path, fsync: str = "none") -> None:
        self.files = StuckFiles()
        self.folder = DataFolder.open(path, create=True, fsync=fsync, files=self.files)
        self.log = Log(self.folder)
        self.stream: StreamMap = self.log.create_stream("orders", 2)
        self.encoder = Encoder(self.stream)
        self.loop = Loop()
        self.speakers: list[Speaker] = []
        self.appended: list[int] = []
        self.ends: list[tuple[int, int]] = []
        self.asked: list[tuple[Connection, int, dict[str, Any]]] = []
        self.reply: Callable[[dict[str, Any]], Any] = lambda message: message
        self.ingest = Ingest(
            self.log,
            loop=self.loop,
            on_append=self._appended,
            on_control=self._control,
            hello=handshake.own_hello(self.folder.id),
        )
        self.path = self.folder.make_socket_path()
        self.ingest.listen(self.path)

    def round(self) -> None:
        """One round of the loop."""
        self.loop.round(0)

    def part(self, data: bytes, shard: int = 0) -> Part:
        """One record as a block for one shard."""
        return self.encoder.encode_one(data, "k", self.stream.shards[shard].start)

    def datas(self, shard: int = 0) -> list[bytes]:
        """All payloads of a shard."""
        from kflow.broker.reader import ShardReader

        return everything(ShardReader(self.folder, self.stream, shard))

    def stick(self, shard: int) -> None:
        """From now on writes of this shard do not return, and its next append goes to its thread."""
        self.files.gate.clear()
        self.files.stuck = f"{self.folder.shard_dir(self.stream, shard)}/"

    def _appended(self, stream: StreamMap, shard: int, tail: int, next_counter: int) -> None:
        assert stream.id == self.stream.id
        self.appended.append(shard)
        self.ends.append((tail, next_counter))

    def _control(self, connection: Connection, request: int, message: dict[str, Any]) -> Any:
        self.asked.append((connection, request, message))
        return self.reply(message)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[TestNode]:
    made = TestNode(tmp_path / "data")
    yield made
    made.files.gate.set()
    made.ingest.close()
    made.loop.close()
    made.log.close()
    for speaker in made.speakers:
        speaker.socket.close()


LARGE = bytes(100_000)
"""More than is ever appended on the loop."""


def test_readers_are_told_the_counter_that_belongs_to_the_tail(node: TestNode) -> None:
    # By the time the loop hears of the first block, the shard's thread may have appended the next ones.
    speaker = Speaker(node)
    node.stick(0)
    for number in (1, 2, 3):
        speaker.put(number, node.part(LARGE))
    assert speaker.is_unanswered()
    node.files.gate.set()
    eventually(lambda: len(node.datas()) == 3 or None, what="three blocks in the shard")
    for _ in range(3):
        speaker.answer()
    tail = node.log.shard(node.stream, 0).tail
    assert node.ends == [(tail // 3, 2), (2 * tail // 3, 3), (tail, 4)]


def test_a_producer_that_asks_for_all_tails_has_no_shard_opened(
    node: TestNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Opening a thousand would hold the loop up, and throw out those that are appended to.
    speaker = Speaker(node)
    for number, shard in enumerate((0, 1), 1):
        speaker.put(number, node.part(b"one", shard))
        speaker.answer()
    wanted = [node.log.shard(node.stream, shard).tail for shard in (0, 1)]
    node.log.close()
    monkeypatch.setattr(node.log, "shard", lambda *_: pytest.fail("a shard was opened for appending"))
    speaker.send(wire.json_frame(wire.CONTROL, 3, {"op": "tails", "stream_id": node.stream.id}))
    assert msgspec.json.decode(speaker.receive().payload) == {"ok": wanted}
    monkeypatch.undo()


def test_after_a_failed_block_later_ones_of_its_shard_fail_until_the_producer_has_seen_it(node: TestNode) -> None:
    speaker = Speaker(node)
    node.files.errors["pwritev"] = errno.ENOSPC
    speaker.put(1, node.part(b"one"))
    speaker.receive()
    node.files.errors.clear()

    speaker.put(2, node.part(b"behind it"), node.part(b"elsewhere", shard=1))
    assert speaker.statuses() == [wire.REFUSED, wire.OK]
    speaker.put(3, node.part(b"behind that"), seen=1)
    assert speaker.statuses() == [wire.REFUSED]
    speaker.put(4, node.part(b"seen"), seen=3)
    assert speaker.statuses() == [wire.OK]

    assert node.datas() == [b"seen"]
    assert node.datas(1) == [b"elsewhere"]


def test_a_failure_names_its_error_and_other_connections_do_not_suffer_from_it(node: TestNode) -> None:
    speaker, other = Speaker(node), Speaker(node, producer=8)
    node.files.errors["pwritev"] = errno.ENOSPC
    speaker.put(1, node.part(b"one"))
    _, _, (error,) = speaker.answer()
    node.files.errors.clear()
    other.put(1, node.part(b"two"))

    assert other.statuses() == [wire.OK]
    assert error["type"] == "StorageFull"
    assert "disk is full" in error["message"]


def test_a_damaged_block_is_refused_and_nothing_of_it_is_stored(node: TestNode) -> None:
    speaker = Speaker(node)
    part = node.part(b"payload")
    speaker.put(1, part._replace(crc=part.crc ^ 1), part._replace(count=2))

    assert speaker.statuses() == [wire.REFUSED, wire.REFUSED]
    assert node.datas() == []


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff" * 64,
        wire.FRAME.pack(4, 1, 99, 0) + b"what",
        wire.frame(wire.PUT, 1, b"short", 1),
        wire.frame(wire.PUT, 1, wire.PUT_HEAD.pack(1, 1, 0) + wire.BLOCK.pack(0, 1, 99, 0, 0), 1),
        wire.frame(wire.CONTROL, 1, b"no json"),
        wire.frame(wire.HELLO, 0, b"{}"),
    ],
)
def test_garbage_costs_a_connection_and_nothing_else(node: TestNode, garbage: bytes) -> None:
    speaker, other = Speaker(node), Speaker(node, producer=8)
    speaker.send(garbage)

    eventually(speaker.is_closed)
    other.put(1, node.part(b"fine"))
    assert other.statuses() == [wire.OK]
    assert len(node.ingest.connections) == 1


def test_blocks_before_hello_are_not_taken(node: TestNode) -> None:
    speaker = Speaker(node, producer=0)
    speaker.put(1, node.part(b"anonymous"))

    eventually(speaker.is_closed)
    assert node.datas() == []


def test_a_frame_larger_than_the_buffer_arrives_in_pieces_and_is_stored(node: TestNode) -> None:
    speaker = Speaker(node)
    large = bytes(range(256)) * 3000
    speaker.put(1, node.part(b"small"), node.part(large), node.part(large, shard=1))
    speaker.put(2, node.part(b"after it"))

    assert speaker.statuses() == [wire.OK] * 3
    assert speaker.statuses() == [wire.OK]
    assert node.datas() == [b"small", large, b"after it"]
    assert node.datas(1) == [large]


def test_a_lease_is_told_before_the_producer_is_answered(node: TestNode) -> None:
    speaker = Speaker(node)
    for data in (b"on the loop", LARGE):
        node.appended.clear()
        speaker.put(1, node.part(data, shard=1))
        eventually(lambda: node.round() or node.appended)
        assert node.appended == [1]
        assert speaker.statuses() == [wire.OK]


def test_answers_keep_the_order_of_the_frames_and_other_shards_do_not_wait(node: TestNode) -> None:
    speaker, other = Speaker(node), Speaker(node, producer=8)
    node.stick(0)
    speaker.put(1, node.part(LARGE))
    speaker.put(2, node.part(b"quick", shard=1))
    speaker.put(3, node.part(b"behind it"))
    other.put(1, node.part(b"not held up", shard=1))
    assert other.statuses() == [wire.OK]
    eventually(lambda: node.round() or len(node.datas(1)) == 2)
    assert sorted(node.datas(1)) == [b"not held up", b"quick"]
    assert speaker._taken() is None

    node.files.gate.set()
    assert [speaker.answer()[0] for _ in range(3)] == [1, 2, 3]
    assert node.datas() == [LARGE, b"behind it"]


def test_a_producer_far_ahead_is_not_read_until_its_answers_are_due(node: TestNode) -> None:
    speaker = Speaker(node)
    node.stick(0)
    part = node.part(bytes((1 << 20) - 1))
    blocks = [(part.shard, part.count, part.body, part.crc, part.flags)]
    frames = [b"".join(wire.put_many(n, node.stream.id, 1, 0, blocks)[0]) for n in range(1, 41)]
    waiting = b"".join(frames)
    taken = 0
    for _ in range(2000):
        try:
            taken += speaker.socket.send(waiting[taken : taken + (1 << 18)])
        except BlockingIOError:
            node.round()

    assert UNANSWERED_BYTES < taken < UNANSWERED_BYTES + (4 << 20)
    node.files.gate.set()
    speaker.send(waiting[taken:])
    assert [speaker.answer()[0] for _ in range(40)] == list(range(1, 41))
    assert len(node.datas()) == 40


def pour(node: TestNode, speakers: Sequence[Speaker], frames: Sequence[bytes]) -> list[bytes]:
    """Send as much of a stream of frames to each as the node takes; what is left of each."""
    left = [b"".join(frames)] * len(speakers)
    idle = 0
    while idle < 100 and any(left):
        idle += 1
        for number, speaker in enumerate(speakers):
            try:
                sent = speaker.socket.send(left[number][: 1 << 18]) if left[number] else 0
            except BlockingIOError:
                sent = 0
            if sent:
                left[number] = left[number][sent:]
                idle = 0
        node.round()
    return left


@pytest.mark.parametrize("size", [100_000, 1 << 20])
def test_what_is_kept_over_all_connections_is_bounded_and_single_puts_go_on(
    node: TestNode, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = 4 << 20
    monkeypatch.setattr("kflow.runtime.intake.backlog.BACKLOG_BYTES", bound)
    node.stick(0)
    speakers = [Speaker(node, producer=number) for number in range(1, 7)]
    part = node.part(bytes(size - 1))
    blocks = [(part.shard, part.count, part.body, part.crc, part.flags)]
    count = (3 << 20) // size
    frames = [b"".join(wire.put_many(n, node.stream.id, 1, 0, blocks)[0]) for n in range(1, count + 1)]
    left = pour(node, speakers, frames)
    backlog = node.ingest.backlog
    assert bound - 2 * size <= backlog.bytes <= bound + len(speakers) * (size + 100)
    assert any(left)

    single = Speaker(node, producer=99)
    single.put(1, node.part(b"another shard", shard=1))
    assert single.statuses() == [wire.OK]
    gone = speakers.pop()
    gone.socket.close()
    left.pop()
    node.round()

    node.files.gate.set()
    for speaker, rest in zip(speakers, left, strict=True):
        speaker.send(rest)
    for speaker in speakers:
        assert [speaker.answer()[0] for _ in range(count)] == list(range(1, count + 1))
    eventually(lambda: node.round() or not backlog.bytes)
    assert len(node.datas()) >= len(speakers) * count


def test_a_resent_block_is_found_or_else_stored(node: TestNode) -> None:
    first = Speaker(node)
    tail = node.log.shard(node.stream, 0).tail
    first.put(1, node.part(b"answered"), node.part(b"by halves", shard=1))
    _, before, _ = first.answer()
    again = Speaker(node)
    again.put(1, node.part(b"answered"), node.part(b"by halves", shard=1), tails=[tail, 0])
    again.put(2, node.part(b"never arrived"), tails=[tail])

    _, after, _ = again.answer()
    assert [place[:2] for place in after] == [place[:2] for place in before]
    assert again.statuses() == [wire.OK]
    assert node.datas() == [b"answered", b"never arrived"]
    assert node.datas(1) == [b"by halves"]


def test_a_producer_that_comes_again_ends_its_old_connection_first(node: TestNode) -> None:
    old = Speaker(node)
    node.stick(0)
    old.put(1, node.part(LARGE))
    eventually(lambda: node.round() or node.ingest.appender._is_busy(node.stream.id))
    new = Speaker(node)
    new.put(1, node.part(LARGE), tails=[0])
    eventually(old.is_closed)
    node.files.gate.set()

    assert new.statuses() == [wire.OK]
    assert node.datas() == [LARGE]


def test_blocks_routed_by_an_old_map_or_for_a_gone_stream_are_sent_back(node: TestNode) -> None:
    speaker = Speaker(node)
    stream = node.stream
    node.stream = msgspec.structs.replace(stream, generation=stream.generation + 1)
    speaker.put(1, node.part(b"of another generation"))
    assert speaker.statuses() == [wire.STALE]
    node.stream = msgspec.structs.replace(stream, id=stream.id + 1)
    speaker.put(2, node.part(b"of no stream"))
    assert speaker.statuses() == [wire.STALE]
    node.stream = stream
    speaker.put(3, node.part(b"of no shard")._replace(shard=9))
    assert speaker.statuses() == [wire.STALE]

    speaker.put(4, node.part(b"fine"), seen=3)
    assert speaker.statuses() == [wire.OK]
    assert node.datas() == [b"fine"]


def test_no_frame_overtakes_a_stale_one_that_its_producer_has_not_heard_of(node: TestNode) -> None:
    """The node may learn of a map between two frames that were routed by it: the first one is sent back, so is this."""
    speaker = Speaker(node)
    stream = node.stream
    node.stream = msgspec.structs.replace(stream, generation=stream.generation + 1)
    speaker.put(1, node.part(b"of a map to come"))
    assert speaker.statuses() == [wire.STALE]
    node.stream = stream

    speaker.put(2, node.part(b"sent before the answer was read"), node.part(b"for another shard", shard=1))
    speaker.put(3, node.part(LARGE))
    assert [speaker.statuses(), speaker.statuses()] == [[wire.STALE] * 2, [wire.STALE]]
    speaker.put(4, node.part(b"of a map to come"), seen=3)
    assert speaker.statuses() == [wire.OK]
    assert node.datas() == [b"of a map to come"]


def held(node: TestNode) -> list[str]:
    told: list[str] = []
    node.ingest.appender.hold(node.stream, (0,), lambda: told.append("quiet"))
    return told


def test_a_shard_that_is_held_takes_nothing_and_the_others_go_on(node: TestNode) -> None:
    speaker, other = Speaker(node), Speaker(node, producer=8)
    assert held(node) == ["quiet"]
    speaker.put(1, node.part(b"waits"))
    other.put(1, node.part(b"goes on", shard=1))

    assert other.statuses() == [wire.OK]
    assert speaker.is_unanswered()
    assert node.datas() == []


def test_holding_waits_for_what_is_queued(node: TestNode) -> None:
    speaker = Speaker(node)
    node.stick(0)
    speaker.put(1, node.part(LARGE))
    eventually(lambda: node.round() or node.ingest.appender._is_busy(node.stream.id))
    told = held(node)
    speaker.put(2, node.part(b"behind"))
    for _ in range(20):
        node.round()
    assert told == []

    node.files.gate.set()
    assert speaker.statuses() == [wire.OK]
    eventually(lambda: node.round() or told)
    assert node.datas() == [LARGE]


def test_what_was_held_for_a_shard_that_is_closed_by_then_is_sent_back_in_order(node: TestNode) -> None:
    speaker = Speaker(node)
    held(node)
    for number in (1, 2, 3):
        speaker.put(number, node.part(b"waits"))
    assert speaker.is_unanswered()
    node.ingest.appender.release(node.stream, (0,), closed=True)

    assert [speaker.answer()[0] for _ in range(3)] == [1, 2, 3]
    assert node.datas() == []
    assert node.appended == []


def test_what_was_held_for_a_shard_that_stays_open_is_appended_in_order(node: TestNode) -> None:
    speaker = Speaker(node)
    held(node)
    for number in (1, 2, 3):
        speaker.put(number, node.part(b"%d" % number))
    assert speaker.is_unanswered()
    node.ingest.appender.release(node.stream, (0,), closed=False)
    speaker.put(4, node.part(b"4"))

    assert [speaker.statuses() for _ in range(4)] == [[wire.OK]] * 4
    assert node.datas() == [b"1", b"2", b"3", b"4"]


def test_a_block_that_is_sent_again_is_found_in_a_parent_that_is_closed_meanwhile(node: TestNode) -> None:
    first = Speaker(node)
    first.put(1, node.part(b"stored"))
    assert first.statuses() == [wire.OK]
    again = Speaker(node)
    held(node)
    again.put(1, node.part(b"stored"), tails=[0])
    again.put(2, node.part(b"not stored"), tails=[0])
    assert again.is_unanswered()
    node.ingest.appender.release(node.stream, (0,), closed=True)

    assert [again.statuses(), again.statuses()] == [[wire.OK], [wire.STALE]]
    assert node.datas() == [b"stored"]


def test_a_stream_is_retired_only_when_its_shards_are_not_held_any_more(node: TestNode) -> None:
    held(node)
    retired: list[str] = []
    node.ingest.retire(node.stream.id, lambda: retired.append("now"))
    assert retired == []
    node.ingest.appender.release(node.stream, (0,), closed=True)
    eventually(lambda: node.round() or retired)


def test_a_node_that_ends_while_a_shard_is_held_leaves_its_blocks_to_the_next_one(node: TestNode) -> None:
    speaker = Speaker(node)
    held(node)
    speaker.put(1, node.part(b"waits"))
    assert speaker.is_unanswered()
    node.ingest.close()
    assert node.datas() == []
    assert eventually(speaker.is_closed)


def test_a_stream_is_retired_once_its_queued_appends_are_through(node: TestNode) -> None:
    speaker = Speaker(node)
    node.stick(0)
    speaker.put(1, node.part(LARGE))
    eventually(lambda: node.round() or node.ingest.appender._is_busy(node.stream.id))
    retired: list[str] = []
    node.ingest.retire(node.stream.id, lambda: retired.append("now"))
    speaker.put(2, node.part(b"too late"))
    for _ in range(20):
        node.round()
    assert retired == []

    node.files.gate.set()
    assert speaker.statuses() == [wire.OK]
    assert speaker.statuses() == [wire.STALE]
    assert retired == ["now"]


def test_closing_finishes_what_is_queued_and_answers_it(node: TestNode) -> None:
    speaker = Speaker(node)
    speaker.put(1, node.part(LARGE))
    eventually(lambda: node.round() or node.ingest.appender._is_busy(node.stream.id) or node.appended)
    node.ingest.close()

    assert speaker.statuses() == [wire.OK]
    assert node.datas() == [LARGE]
    assert not node.path.exists()


def test_a_socket_that_somebody_removed_is_bound_again(node: TestNode) -> None:
    node.path.unlink()
    node.ingest._watch()

    assert Speaker(node).hello.kind == wire.HELLO


def test_the_socket_of_another_folder_in_the_same_place_is_left_alone(
    node: TestNode, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    at = node.folder.path
    at.rename(tmp_path / "away")
    other = DataFolder.open(at, create=True)
    node.path.parent.mkdir(exist_ok=True)
    node.path.write_text("another runtime's")

    node.ingest._watch()

    assert other.id != node.folder.id
    assert node.path.read_text() == "another runtime's"
    assert "was replaced by another one" in caplog.text


def test_control_requests_are_answered_at_once_or_later_or_refused(node: TestNode) -> None:
    speaker = Speaker(node, producer=0)
    speaker.send(wire.json_frame(wire.CONTROL, 5, {"op": "echo", "x": 1}))
    assert msgspec.json.decode(speaker.receive().payload) == {"ok": {"op": "echo", "x": 1}}

    node.reply = lambda message: None
    speaker.send(wire.json_frame(wire.CONTROL, 6, {"op": "later"}))
    eventually(lambda: node.round() or len(node.asked) == 2)
    connection, request, _ = node.asked[1]
    connection.answer(request, {"at": "last"})
    received = speaker.receive()
    assert (received.request, msgspec.json.decode(received.payload)) == (6, {"ok": {"at": "last"}})

    def refuse(message: dict[str, Any]) -> Any:
        raise ResourceInUse("taken")

    node.reply = refuse
    speaker.send(wire.json_frame(wire.CONTROL, 7, {"op": "create"}))
    answer = msgspec.json.decode(speaker.receive().payload)
    assert answer == {"error": {"type": "ResourceInUse", "message": "taken"}}
    assert str(wirecalls.error_from_json(answer["error"])) == "taken"
    assert type(wirecalls.error_from_json(answer["error"])) is ResourceInUse


def test_calls_of_operations_are_answered_now_or_later_or_refused(node: TestNode) -> None:
    speaker = Speaker(node, producer=0)
    call = wirecalls.Call(
        service="kinesis", operation="PutRecord", parameters={"Data": b"\x00\xff"}, region="eu-west-1"
    )
    speaker.send(wire.packed_frame(wire.CALL, 3, call))
    refused = speaker.receive()
    assert (refused.kind, refused.request) == (wire.CONTROL_ANSWER, 3)
    assert msgspec.json.decode(refused.payload) == {
        "error": {"type": "UsageError", "message": "this runtime serves no kinesis"}
    }

    calls: list[tuple[Connection, int, wirecalls.Call]] = []
    node.ingest.on_call = lambda *asked: calls.append(asked)
    speaker.send(wire.packed_frame(wire.CALL, 4, call))
    eventually(lambda: node.round() or calls)
    connection, request, heard = calls[0]
    assert (request, heard) == (4, call)
    answer = wirecalls.CallAnswer(output={"Data": b"\xff", "At": datetime(2026, 11, 26, tzinfo=UTC)})
    connection.answer_call(request, answer)
    received = speaker.receive()
    assert (received.kind, received.request) == (wire.CALL_ANSWER, 4)
    assert msgspec.msgpack.decode(received.payload, type=wirecalls.CallAnswer) == answer


def test_a_call_that_is_none_costs_its_connection(node: TestNode) -> None:
    speaker = Speaker(node, producer=0)
    speaker.send(wire.frame(wire.CALL, 1, b"\xc1"))
    eventually(lambda: node.round() or not node.ingest.connections)


def test_an_operation_that_breaks_is_an_internal_error_and_the_node_goes_on(
    node: TestNode, caplog: pytest.LogCaptureFixture
) -> None:
    speaker = Speaker(node, producer=0)
    node.reply = lambda message: message["missing"]
    speaker.send(wire.json_frame(wire.CONTROL, 1, {"op": "broken"}))

    assert msgspec.json.decode(speaker.receive().payload)["error"]["type"] == "InternalError"
    assert "control request failed" in caplog.text


def test_what_hello_says_decides_who_may_talk(tmp_path: Path, node: TestNode) -> None:
    ours = handshake.own_hello(node.folder.id)
    with pytest.raises(UsageError, match=r"protocol 1-1.*protocol 7-9"):
        handshake.check_hello(ours, msgspec.structs.replace(ours, protocol=(7, 9)))
    with pytest.raises(UsageError, match=r"blocks 1\) cannot talk to .*blocks 2\)"):
        handshake.check_hello(ours, msgspec.structs.replace(ours, block=2))

    failures: list[Exception] = []

    def connect() -> None:
        try:
            linking.connect(node.path, handshake.own_hello("another folder"))
        except StorageError as error:
            failures.append(error)

    thread = threading.Thread(target=connect)
    thread.start()
    eventually(lambda: node.round() or failures)
    thread.join()
    assert "serves another data folder" in str(failures[0])
