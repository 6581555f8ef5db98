"""Frames of event streams, with botocore's reader as a second opinion."""

import uuid
from struct import pack
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer

from kflow.aws.frames import HEADERS_BYTES_MAX, BrokenFrame, Decoder, Frame, Kind, encode, header, headers


@pytest.mark.parametrize(
    ("coded", "payload", "frame"),
    [
        (b"", b"", "000000100000000005c248eb7d98c8ff"),
        (b"", b"{'foo':'bar'}", "0000001d00000000fd528c5a7b27666f6f273a27626172277dc3653936"),
        (
            headers({"content-type": "application/json"}),
            b"{'foo':'bar'}",
            (
                "0000003d00000020"
                "07fd8396"
                "0c636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e"
                "7b27666f6f273a27626172277d"
                "8d9c08b1"
            ),
        ),
    ],
)
def test_a_frame_has_the_bytes_of_the_published_examples(coded, payload, frame):
    assert encode(coded, payload).hex() == frame
    assert Decoder().feed(bytes.fromhex(frame))[0].payload == payload


def test_botocore_reads_every_kind_of_header():
    several = (
        header("yes", None, Kind.TRUE)
        + header("no", None, Kind.FALSE)
        + header("byte", -5, Kind.BYTE)
        + header("short", -500, Kind.SHORT)
        + header("integer", 70_000, Kind.INTEGER)
        + header("long", 1 << 40, Kind.LONG)
        + header("bytes", b"\0\xff", Kind.BYTES)
        + header("text", "grün")
        + header("when", 1459799926480, Kind.TIMESTAMP)
        + header("id", uuid.UUID(int=7), Kind.UUID)
    )
    buffer = EventStreamBuffer()
    buffer.add_data(encode(several, b"payload"))
    (message,) = buffer

    assert message.payload == b"payload"
    assert message.headers == {
        "yes": True,
        "no": False,
        "byte": -5,
        "short": -500,
        "integer": 70_000,
        "long": 1 << 40,
        "bytes": b"\0\xff",
        "text": "grün",
        "when": 1459799926480,
        "id": uuid.UUID(int=7).bytes,
    }


def test_every_kind_of_header_comes_back():
    frame = encode(
        header("yes", None, Kind.TRUE) + header("no", None, Kind.FALSE) + header("id", uuid.UUID(int=7), Kind.UUID), b""
    )

    assert Decoder().feed(frame) == [Frame({"yes": True, "no": False, "id": uuid.UUID(int=7)}, b"")]


def test_frames_come_out_as_soon_as_they_are_complete():
    decoder = Decoder()
    stream = encode(headers({"a": "1"}), b"one") + encode(headers({"b": "2"}), b"two")

    assert decoder.feed(stream[:10]) == []
    assert decoder.feed(stream[10:40]) == [Frame({"a": "1"}, b"one")]
    assert not decoder.is_between_frames
    assert decoder.feed(stream[40:]) == [Frame({"b": "2"}, b"two")]
    assert decoder.is_between_frames


@pytest.mark.parametrize("at", [0, 5, 9, 14, 20, -1])
def test_a_changed_byte_is_noticed(at):
    frame = bytearray(encode(headers({"a": "1"}), b"payload"))
    frame[at] ^= 1

    with pytest.raises(BrokenFrame, match="checksum"):
        Decoder().feed(bytes(frame) + bytes(200))


@pytest.mark.parametrize(
    ("total", "size"), [(15, 0), (30, 20), ((24 << 20) + 17, 0), (HEADERS_BYTES_MAX + 17, HEADERS_BYTES_MAX + 1)]
)
def test_impossible_lengths_are_refused_before_memory_is_used_for_them(total, size):
    head = pack(">II", total, size)

    with pytest.raises(BrokenFrame, match="no frame has"):
        Decoder().feed(head + pack(">I", crc32(head)))


@pytest.mark.parametrize(
    "broken",
    [
        b"\x05abc",  # a name that is cut off
        b"\x01a\x0a",  # no such kind
        b"\x01a\x07\x00\x05abc",  # a text that is cut off
        b"\x01a\x04\x00\x00",  # a number that is cut off
        b"\x01a\x09\x00\x00",  # an id that is cut off
        b"\x01\xff\x00",  # a name that is no UTF-8
        b"\x01a\x07\x00\x01\xff",  # a text that is no UTF-8
    ],
)
def test_headers_that_cannot_be_read_are_refused(broken):
    with pytest.raises(BrokenFrame, match="headers of a frame cannot be read"):
        Decoder().feed(encode(broken, b""))


def test_headers_that_do_not_fit_are_not_sent():
    with pytest.raises(BrokenFrame, match="takes 1 to 255 bytes"):
        header("", "x")
    with pytest.raises(BrokenFrame, match="takes 32768 bytes, and 32767 are allowed"):
        header("a", "x" * 32_768)
    with pytest.raises(BrokenFrame, match="is no byte"):
        header("a", 128, Kind.BYTE)
