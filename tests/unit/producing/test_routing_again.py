"""Records that were routed by an old map: sent again in order, and nothing overtakes them."""

from __future__ import annotations

from pathlib import Path

from kflow.broker.resharding import carry_out, split
from kflow.broker.streammap import StreamMap
from kflow.broker.writing import writing
from kflow.producing.channel import Channel
from kflow.producing.direct import append_here
from kflow.producing.frames import Frame
from kflow.producing.pipeline import Entries, Pipeline, Sources
from tests.storing import Store, read_all


class Answers(Channel):
    """A channel that appends a frame only when it is waited for, and notes how each was sent.

    Attributes:
        sent: the generation by which each frame was routed, and how many were under way before it.
    """

    __slots__ = ("sent",)

    def __init__(self, store: Store) -> None:
        super().__init__(store.folder)
        self.sent: list[tuple[int, int]] = []

    def submit(self, frame: Frame) -> None:
        self.sent.append((frame.stream.generation, len(self.unanswered)))
        self.unanswered.append(frame)

    def wait_for(self, frame: Frame) -> None:
        while not frame.answers:
            with writing(self._folder) as log:
                append_here(log, self.unanswered.popleft(), 7, {})


def entries(*numbers: int) -> Entries:
    return Entries(["k"] * len(numbers), [b"%d" % number for number in numbers])


def resharded(store: Store, stream: StreamMap) -> StreamMap:
    with writing(store.folder) as log:
        return carry_out(log, split(stream, stream.open_shards[0].index, None, account="1", region="r"))


def test_what_is_under_way_was_routed_by_one_map_even_where_another_thread_knows_a_newer_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    known = [store.stream]
    channel = Answers(store)
    pipeline = Pipeline(channel, Sources(lambda: known[0], lambda: known[0]), 3)
    pipeline.push(range(2), entries(0, 1))
    known[0] = resharded(store, store.stream)  # another thread of the process has read it
    pipeline.push(range(2, 3), entries(2))
    pipeline.settle()

    assert [generation for generation, _ in channel.sent] == [1, 2, 2]
    assert [before for _, before in channel.sent] == [0, 0, 0]
    assert [data for _, data in read_all(store.folder, known[0])] == [b"0", b"1", b"2"]
    assert pipeline.failures == {}


def test_stale_records_are_sent_again_together_and_in_order(tmp_path: Path) -> None:
    store = Store(tmp_path)
    known = [store.stream]

    def refreshed() -> StreamMap:
        known[0] = store.folder.map("orders")
        return known[0]

    channel = Answers(store)
    pipeline = Pipeline(channel, Sources(lambda: known[0], refreshed), 3)
    for number in range(3):
        pipeline.push(range(number, number + 1), entries(number))
    resharded(store, store.stream)
    pipeline.settle()

    assert [data for _, data in read_all(store.folder, known[0])] == [b"0", b"1", b"2"]
    assert pipeline.failures == {}
    assert [place is not None for place in pipeline.placed] == [True] * 3


def test_a_frame_behind_one_that_failed_is_found_but_never_appended(tmp_path: Path) -> None:
    """The next writer does not know what the one before it has refused."""
    store = Store(tmp_path)
    parts = store.encoder.encode_many(["k"], [b"stored"])
    first, second = Frame(store.stream, parts), Frame(store.stream, store.encoder.encode_many(["k"], [b"not stored"]))
    first.number, second.number = 1, 2
    with writing(store.folder) as log:
        append_here(log, first, 7, {})
    for frame in (first, second):
        frame.answers, frame.sent, frame.is_behind, frame.tails = [], True, True, [0]
        with writing(store.folder) as log:
            append_here(log, frame, 7, {})

    assert first.failures is None
    assert second.failures is not None
    assert second.failures[0].status == "stale"
    assert second.generation == 0
    assert store.datas() == [b"stored"]
