"""Pages of records, read on the loop where they are in memory, else in a thread."""

import errno
import os

import pytest

from kflow.broker.files import Files
from kflow.errors import KflowError
from kflow.kinesis.page import Page, trim_ms
from kflow.kinesis.reading import READERS, Reading
from kflow.records import Position
from tests.damaging import flip
from tests.recordsdesk import Desk

BEGIN = Position(0, 0)


class CachedFiles(Files):
    """Files of which some bytes are in memory.

    Attributes:
        cached: how many bytes of a read are; None: all of them.
        reads: how often the disk was read.
    """

    def __init__(self):
        self.cached = None
        self.reads = 0

    def pread(self, fd, length, offset):
        self.reads += 1
        return os.pread(fd, length, offset)

    def pread_cached(self, fd, buffer, offset):
        if self.cached == 0:
            raise BlockingIOError(errno.EAGAIN, "not in memory")
        return os.preadv(fd, [buffer if self.cached is None else buffer[: self.cached]], offset)


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path / "data", files=CachedFiles())


def read(desk, reading, stream, position=BEGIN, shard=0, **options):
    """A page, and whether a thread was needed for it."""
    told = []
    before = desk.host.submitted
    page = reading.read(stream.map, shard, position, told.append, **options)
    if page is None:
        desk.host.run()
        (page,) = told
    if isinstance(page, KflowError):
        raise page
    return page, desk.host.submitted > before


def put(desk, *datas, key="k"):
    records = [{"Data": data, "PartitionKey": key} for data in datas]
    return desk.call("PutRecords", StreamName="orders", Records=records)["Records"]


def test_the_first_page_opens_a_reader_in_a_thread_and_the_next_ones_need_none(desk):
    stream, reading = desk.create(), Reading(desk.host)
    put(desk, b"1", b"2")
    first, by_thread = read(desk, reading, stream)
    assert (first.datas, by_thread) == ([b"1", b"2"], True)
    put(desk, b"3")
    second, by_thread = read(desk, reading, stream, first.position)
    assert (second.datas, by_thread) == ([b"3"], False)
    third, by_thread = read(desk, reading, stream, second.position)
    assert (third.datas, third.is_behind, by_thread) == ([], False, False)


def test_what_is_not_in_memory_is_read_in_a_thread(desk):
    stream, reading = desk.create(), Reading(desk.host)
    read(desk, reading, stream)
    put(desk, b"1")
    put(desk, b"2")
    desk.folder.files.cached = 0
    assert read(desk, reading, stream)[1]
    desk.folder.files.cached = 10  # not even a header
    assert read(desk, reading, stream)[1]
    desk.folder.files.cached = 100  # the first block
    page, by_thread = read(desk, reading, stream)
    assert (page.datas, by_thread) == ([b"1", b"2"], False)


def test_a_page_ends_in_front_of_what_is_not_in_memory(desk):
    stream, reading = desk.create(), Reading(desk.host)
    read(desk, reading, stream)
    put(desk, b"1")
    put(desk, b"2" * 200)
    put(desk, b"3")
    read(desk, reading, stream)
    desk.folder.files.cached = 100
    page, by_thread = read(desk, reading, stream)
    assert (page.datas, page.is_behind, by_thread) == ([b"1"], True, False)
    page, by_thread = read(desk, reading, stream, page.position)
    assert (page.datas, page.is_behind, by_thread) == ([b"2" * 200, b"3"], False, True)


def test_numbers_arrivals_and_positions_follow_from_the_spans(desk):
    stream, reading = desk.create(), Reading(desk.host)
    given = put(desk, b"1", b"2")
    began = desk.clock.epoch_ms
    desk.clock.advance(1500)
    given += put(desk, b"3")
    page, _ = read(desk, reading, stream)
    assert page.numbers() == [record["SequenceNumber"] for record in given]
    assert str(page.last_number) == given[-1]["SequenceNumber"]
    assert page.arrivals() == [began, began, began + 1500]
    assert page.next_counter == 4
    first, second, third = page.positions()
    assert (first, second) == (BEGIN, Position(0, 1))
    assert read(desk, reading, stream, second, limit=1)[0].datas == [b"2"]
    assert read(desk, reading, stream, third)[0].datas == [b"3"]


def test_a_limit_ends_a_page_within_a_block_and_the_next_one_goes_on_there(desk):
    stream, reading = desk.create(), Reading(desk.host)
    put(desk, *[b"%d" % number for number in range(10)])
    position, found = BEGIN, []
    while True:
        page, _ = read(desk, reading, stream, position, limit=3)
        found += page.datas
        position = page.position
        assert page.next_counter == len(found) + 1
        if not page.is_behind:
            break
    assert found == [b"%d" % number for number in range(10)]


def test_small_pages_of_a_block_do_not_read_it_each_time(desk):
    stream, reading = desk.create(), Reading(desk.host)
    put(desk, *[b"x"] * 100)
    page, _ = read(desk, reading, stream, limit=10)
    before = desk.folder.files.reads
    desk.folder.files.cached = 0
    for _ in range(8):
        page, by_thread = read(desk, reading, stream, page.position, limit=10)
        assert (page.rows, by_thread) == (10, False)
    assert desk.folder.files.reads == before


def test_bytes_end_a_page_but_never_before_its_first_record(desk):
    stream, reading = desk.create(), Reading(desk.host)
    put(desk, b"x" * 99, b"x" * 99, b"x" * 199)  # with a key of one byte each
    assert read(desk, reading, stream, max_bytes=200)[0].rows == 2
    assert read(desk, reading, stream, max_bytes=199)[0].rows == 1
    page, _ = read(desk, reading, stream, max_bytes=1)
    assert (page.rows, page.size) == (1, 100)
    assert read(desk, reading, stream, max_bytes=1, first_bytes=99)[0].rows == 0
    assert read(desk, reading, stream, max_bytes=1, first_bytes=100)[0].rows == 1
    assert read(desk, reading, stream)[0].size == 400


def test_records_before_the_oldest_that_is_wanted_are_left_out(desk):
    stream, reading = desk.create(), Reading(desk.host)
    for number in range(4):
        put(desk, b"%d" % number)
        desk.clock.advance(1000)
    oldest = desk.clock.epoch_ms - 2000
    assert read(desk, reading, stream, oldest_ms=oldest)[0].datas == [b"2", b"3"]
    assert read(desk, reading, stream, oldest_ms=desk.clock.epoch_ms)[0].datas == []
    assert trim_ms(stream.map, 86_400_001) == 1


def test_how_far_behind_a_page_is(desk):
    stream, reading = desk.create(), Reading(desk.host)
    put(desk, b"1")
    put(desk, b"2")
    desk.clock.advance(700)
    now_ms = desk.clock.epoch_ms
    assert read(desk, reading, stream, limit=1)[0].behind_ms(now_ms) == 700
    assert read(desk, reading, stream, limit=2)[0].behind_ms(now_ms) == 0
    assert Page(stream.map.shards[0], [], [], [], 0, BEGIN, 0, is_behind=True).behind_ms(now_ms) == 0


def test_a_damaged_block_is_read_around_where_the_writer_can_say_that_it_is_lost(desk):
    stream, reading = desk.create(), Reading(desk.host)
    put(desk, b"1" * 50)
    put(desk, b"2" * 50)
    put(desk, b"3" * 50)
    first, _ = read(desk, reading, stream, limit=1)
    (segment,) = desk.folder.shard_dir(stream.map, 0).glob("*.seg")
    flip(segment, 64 + first.position.offset + 64 + 20)
    page, by_thread = read(desk, reading, stream)
    assert (page.datas, page.is_behind, by_thread) == ([b"1" * 50], True, False)
    page, by_thread = read(desk, reading, stream, page.position)
    assert (page.datas, page.is_behind, by_thread) == ([b"3" * 50], False, True)


def test_readers_that_were_not_used_for_longest_are_closed(desk):
    stream, reading = desk.create(shards=READERS + 2), Reading(desk.host)
    for shard in range(READERS + 2):
        read(desk, reading, stream, shard=shard)
    assert len(reading._readers) == READERS
    assert read(desk, reading, stream, shard=READERS + 1)[1] is False
    assert read(desk, reading, stream, shard=0)[1] is True


def test_two_pages_of_a_shard_at_the_same_time_have_readers_of_their_own(desk):
    stream, reading = desk.create(), Reading(desk.host)
    put(desk, b"1")
    told = []
    for _ in range(2):
        assert reading.read(stream.map, 0, BEGIN, told.append) is None
    desk.host.run()
    assert [page.datas for page in told] == [[b"1"], [b"1"]]
    assert len(reading._readers) == 1


def test_a_stream_that_is_gone_leaves_no_descriptor_open(desk):
    stream, reading = desk.create(), Reading(desk.host)
    put(desk, b"1")
    read(desk, reading, stream)
    told = []
    reading.find(stream.map, 0, lambda reader: BEGIN, told.append)  # under way while it goes
    desk.delete(stream)
    reading.forget(stream.id)
    desk.host.run()
    assert told == [BEGIN]
    assert len(reading._readers) == 0


def test_an_error_is_told_and_the_next_read_begins_anew(desk):
    stream, reading = desk.create(), Reading(desk.host)
    path = desk.folder.stream_dir(stream.map)
    path.rename(desk.folder.path / "away")
    with pytest.raises(KflowError):
        read(desk, reading, stream)
    (desk.folder.path / "away").rename(path)
    assert read(desk, reading, stream)[0].datas == []
