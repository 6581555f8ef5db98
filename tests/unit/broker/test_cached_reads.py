"""Reads by who must not wait for a disk."""

import errno
import os

import pytest

from kflow.broker.block import KMS, well_formed
from kflow.broker.files import FILES
from kflow.broker.reader import READ_BYTES
from tests.damaging import flip
from tests.storing import FaultyFiles, Store


class Memory(FaultyFiles):
    """Of each file so many bytes from the offset on are in memory."""

    def __init__(self):
        super().__init__()
        self.cached = READ_BYTES

    def pread_cached(self, fd, buffer, offset):
        if not self.cached:
            raise BlockingIOError(errno.EAGAIN, "not in memory")
        return os.preadv(fd, [buffer[: self.cached]], offset)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "data", files=Memory())


def cached(reader, offset=0, size=READ_BYTES):
    blocks = reader.read_cached(offset, memoryview(bytearray(size)))
    return None if blocks is None else [data for block in blocks for data in block.columns()[0]]


def test_what_is_in_memory_is_read_as_it_is_from_the_disk(store):
    store.put(b"1", b"2")
    store.put(b"3")
    reader = store.reader()
    assert cached(reader) is None  # no segment is open
    blocks = reader.read(0)
    assert cached(reader) == [b"1", b"2", b"3"]
    assert cached(reader, blocks[0].end) == [b"3"]
    assert cached(reader, blocks[1].end) == []
    assert all(type(data) is bytes for data in cached(reader))


def test_whole_blocks_are_returned_where_the_rest_is_not_in_memory(store):
    store.put(b"1")
    store.put(b"2" * 500)
    reader = store.reader()
    reader.read(0)
    store.files.cached = 200
    assert cached(reader) == [b"1"]
    store.files.cached = 40
    assert cached(reader) is None
    store.files.cached = 0
    assert cached(reader) is None


def test_a_block_that_is_larger_than_the_buffer_is_for_a_thread(store):
    store.put(b"x" * 1000)
    reader = store.reader()
    reader.read(0)
    assert cached(reader, size=500) is None


def test_no_more_blocks_are_read_than_so_many_records_take(store):
    for _ in range(5):
        store.put(b"1", b"2")
    reader = store.reader()
    reader.read(0)
    blocks = reader.read_cached(0, memoryview(bytearray(READ_BYTES)), 3)
    assert [block.first_counter for block in blocks] == [1, 3]


def test_a_damaged_block_is_for_a_thread(store):
    store.put(b"1" * 50)
    store.put(b"2" * 50)
    reader = store.reader()
    first = reader.read(0)[0]
    flip(store.shard_path / store.segments()[0], 64 + first.end + 64 + 30)
    assert cached(reader) == [b"1" * 50]
    assert cached(reader, first.end) is None


def test_the_next_segment_is_for_a_thread(store):
    store.put(b"1")
    reader = store.reader()
    (block,) = reader.read(0)
    store.clock.advance(3_600_001)  # a segment a twenty-fourth of the retention
    store.put(b"2")
    assert len(store.segments()) == 2
    assert cached(reader, block.end) is None
    reader.read(block.end)
    assert cached(reader, block.end) == [b"2"]
    assert cached(reader, 0) is None


def test_the_file_system_says_what_is_in_memory_or_that_it_cannot_tell(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    fd = os.open(path, os.O_RDONLY)
    try:
        buffer = bytearray(20)
        try:
            have = FILES.pread_cached(fd, memoryview(buffer), 0)
        except OSError as error:
            have = -error.errno
        assert have in (-errno.EAGAIN, -errno.EOPNOTSUPP) or buffer[:have] == b"content"[:have]
    finally:
        os.close(fd)


def test_a_block_of_encrypted_records_is_well_formed_and_no_other_flag_is():
    body = b"\1\0\0\0\1\0\0kd"
    assert well_formed(body, 1, KMS)
    assert not well_formed(body, 1, 8)


def test_the_size_of_a_block_is_that_of_its_keys_and_payloads(store):
    store.put(b"12", b"345", key="key")
    (block,) = store.reader().read(0)
    assert block.size == 2 + 3 + 2 * 3
