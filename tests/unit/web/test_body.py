"""Bodies as they arrive."""

from __future__ import annotations

import pytest

from kflow.web.body import LINES, Chunks, Pieces
from kflow.web.heads import Refused


def decode(data: bytes, limit: int = 1000) -> tuple[bytes, bytes, bool]:
    """Body, what is left, and whether it is complete."""
    chunks = Chunks(limit)
    at = 0
    while at < len(data) and not chunks.is_done:
        used = chunks.take(data, at)
        assert used > at
        at = used
    return chunks.pieces.join(), data[at:], chunks.is_done


def refused(data: bytes, limit: int = 1000) -> int:
    with pytest.raises(Refused) as caught:
        decode(data, limit)
    return caught.value.status


def test_chunks_are_put_together_and_what_follows_is_left():
    assert decode(b"4\r\nabcd\r\nA;x=y\r\n0123456789\r\n0\r\n\r\nGET /") == (b"abcd0123456789", b"GET /", True)


def test_trailers_are_dropped():
    assert decode(b"1\r\na\r\n0\r\nX-Checksum: 1\r\nY: 2\r\n\r\nrest") == (b"a", b"rest", True)


def test_an_empty_body_is_one():
    assert decode(b"0\r\n\r\n") == (b"", b"", True)
    assert decode(b"000\r\n\r\n") == (b"", b"", True)


def test_any_split_gives_the_same():
    data = b"4\r\nabcd\r\n3;e=1\r\nefg\r\n0\r\nT: u\r\n\r\n"
    for first in range(len(data)):
        for second in range(first, len(data)):
            chunks = Chunks(1000)
            for piece in (data[:first], data[first:second], data[second:]):
                assert chunks.take(piece, 0) == len(piece)
            assert (chunks.pieces.join(), chunks.is_done) == (b"abcdefg", True)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n", 400),
        (b"x\r\n", 400),
        (b"-1\r\n", 400),
        (b"+1\r\n", 400),
        (b"0x1\r\n", 400),
        (b"1_0\r\n", 400),
        (b" 1\r\n", 400),
        (b"11111111111111111\r\n", 400),
        (b"1\na\r\n", 400),
        (b"1\r\nab\r\n", 400),
        (b"1\r\na\n\r", 400),
        (b"1\r\na\rX", 400),
        (b"2000", 0),
        (b"3E9\r\n", 413),
        (b"1;" + b"e" * 1100, 400),
        (b"1;" + b"e" * 1100 + b"\r\n", 400),
        (b"0\r\n" + b"t" * 20_000, 431),
        (b"0\r\n" + b"t: u\r\n" * 4000, 431),
    ],
)
def test_what_is_no_chunk_is_refused(data, status):
    if status:
        assert refused(data) == status
    else:
        assert decode(data)[2] is False


def test_the_limit_counts_all_chunks():
    assert decode(b"4\r\nabcd\r\n6\r\nefghij\r\n0\r\n\r\n", 10)[0] == b"abcdefghij"
    assert refused(b"4\r\nabcd\r\n7\r\n", 10) == 413


def test_tiny_chunks_are_decoded_a_few_at_a_time():
    chunks = Chunks(1000)
    data = b"1\r\na\r\n" * 100 + b"0\r\n\r\n"
    at = chunks.take(data, 0)
    assert (at, chunks.pieces.size) == (LINES * 6, LINES)
    assert not chunks.is_done


def test_a_body_in_tiny_pieces_takes_its_own_size():
    pieces = Pieces()
    for number in range(1000):
        pieces.add(bytes([number % 256]))
    assert len(pieces._pieces) <= 65
    assert pieces.size == 1000
    assert pieces.join() == bytes(number % 256 for number in range(1000))


def test_a_body_in_one_piece_is_not_copied():
    pieces = Pieces()
    body = b"x" * 1000
    pieces.add(body)
    assert pieces.join() is body
