r"""Bodies in AWS's chunks, whose signatures and checksums stand between the bytes: taken out of them.

    5;chunk-signature=ab..\r\nhello\r\n0;chunk-signature=cd..\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n

Source: documented: Amazon S3 API Reference, Signature Calculations: Transferring Payload in Multiple Chunks, and with
trailing headers.
"""

from __future__ import annotations

from typing import Final

from kflow.runtime.forwarding.asking import Failed

_LINE_BYTES: Final = 1024
_TRAILERS_BYTES: Final = 16 * 1024
_OURS: Final = frozenset({"x-amz-trailer", "x-amz-decoded-content-length"})


def plain(headers: dict[str, str], body: bytes) -> bytes:
    """The bytes that are meant. `headers` lose what speaks of chunks, and get the checksum that stood at the end.

    Raises:
        Failed: the body is not in chunks.
    """
    pieces: list[bytes] = []
    at = 0
    while True:
        end = body.find(b"\r\n", at, at + _LINE_BYTES)
        size = body[at:end].partition(b";")[0].strip()
        if end < 0 or not size or size.strip(b"0123456789abcdefABCDEF"):
            raise _broken()
        at = end + 2
        count = int(size, 16)
        if count == 0:
            break
        if body[at + count : at + count + 2] != b"\r\n":
            raise _broken()
        pieces.append(body[at : at + count])
        at += count + 2
    for name in _OURS:
        headers.pop(name, None)
    codings = [each.strip() for each in headers.pop("content-encoding", "").split(",")]
    if left := [each for each in codings if each and each != "aws-chunked"]:
        headers["content-encoding"] = ", ".join(left)
    for line in body[at : at + _TRAILERS_BYTES].split(b"\r\n"):
        name, colon, value = line.decode("latin-1").partition(":")
        if colon and name.strip().lower().startswith("x-amz-checksum-"):
            headers[name.strip().lower()] = value.strip()
    return b"".join(pieces)


def _broken() -> Failed:
    return Failed(403, "InvalidChunks", "the body says that it is in chunks of AWS's, and is not")
