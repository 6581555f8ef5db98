"""Bodies in AWS's chunks."""

from __future__ import annotations

import pytest

from kflow.runtime.forwarding.asking import Failed
from kflow.runtime.forwarding.chunked import plain


def test_signatures_between_the_bytes_are_taken_out() -> None:
    headers = {"content-encoding": "aws-chunked", "x-amz-decoded-content-length": "7", "x-amz-acl": "private"}
    body = b"5;chunk-signature=ab\r\nhello\r\n2;chunk-signature=cd\r\n\r\n\r\n0;chunk-signature=ef\r\n\r\n"
    assert plain(headers, body) == b"hello\r\n"
    assert headers == {"x-amz-acl": "private"}


def test_the_checksum_at_the_end_becomes_a_header() -> None:
    headers = {"content-encoding": "aws-chunked,gzip", "x-amz-trailer": "x-amz-checksum-crc32"}
    body = b"A\r\n0123456789\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\nx-amz-trailer-signature:ab\r\n\r\n"
    assert plain(headers, body) == b"0123456789"
    assert headers == {"content-encoding": "gzip", "x-amz-checksum-crc32": "NhCmhg=="}


@pytest.mark.parametrize(
    "body", [b"", b"hello", b"5\r\nhell", b"5\r\nhelloXX0\r\n\r\n", b"-1\r\n\r\n", b"z\r\n", b"5\r\nhello\r\n"]
)
def test_what_is_not_in_chunks_is_refused(body: bytes) -> None:
    with pytest.raises(Failed, match="says that it is in chunks"):
        plain({}, body)
