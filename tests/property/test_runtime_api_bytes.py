"""The reader of a runtime's requests, whatever a runtime sends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kflow.runtime.worker.hosted.requests import Malformed, Parser


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"GET / HTTP/1.1\r\n", b"\r\n", b"Content-Length: 3\r\n"])))
def test_no_bytes_at_all_break_the_reader_of_requests(pieces):
    parser = Parser()
    try:
        for piece in pieces:
            parser.feed(piece)
            while parser.next() is not None:
                pass
    except Malformed:
        pass
