"""Output and frames out of one pipe."""

from __future__ import annotations

import pytest

from kflow.runtime.worker.hosted.frames import Frames, Piece


def frame(text: str, kind: int = 0x03) -> bytes:
    data = text.encode()
    return (
        bytes([0xA5, 0x5A, 0x00, kind])
        + len(data).to_bytes(4, "big")
        + (1_700_000_000_000_000).to_bytes(8, "big")
        + data
    )


def fed(data: bytes, step: int) -> tuple[list[Piece], bytes]:
    frames = Frames()
    found: list[Piece] = []
    for at in range(0, len(data), step):
        for piece in frames.feed(data[at : at + step]):
            if found and not piece.is_event and not found[-1].is_event:
                found[-1] = Piece(found[-1].data + piece.data, is_event=False)
            else:
                found.append(piece)
    return found, frames.end()


@pytest.mark.parametrize("step", [1, 3, 16, 1000])
def test_what_was_printed_stays_between_what_was_logged(step):
    data = b"one\n" + frame("[INFO]\tlogged\n") + "zwei å¥Z\n".encode() + frame("two\nlines", 0x17) + b"three\n"
    assert fed(data, step) == (
        [
            Piece(b"one\n", is_event=False),
            Piece(b"[INFO]\tlogged\n", is_event=True),
            Piece("zwei å¥Z\n".encode(), is_event=False),
            Piece(b"two\nlines\n", is_event=True),
            Piece(b"three\n", is_event=False),
        ],
        b"",
    )


@pytest.mark.parametrize(
    "data",
    [
        b"\xa5\x5a\x00\x99 no type of a frame",
        b"\xa5\x5a\x01\x03 nor this",
        b"\xa5\xa5\xa5",
        b"\xa5\x5a\x00\x03\xff\xff\xff\xff too long for one",
    ],
)
def test_what_only_looks_like_a_frame_is_output(data):
    found, rest = fed(b"<" + data + b">\n", 1000)
    assert b"".join(piece.data for piece in found) + rest == b"<" + data + b">\n"
    assert not any(piece.is_event for piece in found)


def test_what_is_left_of_a_frame_is_not_lost():
    found, rest = fed(b"a\n" + frame("cut off")[:-3], 1000)
    assert found == [Piece(b"a\n", is_event=False)]
    assert rest.endswith(b"cut ")
