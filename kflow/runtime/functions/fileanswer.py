"""A file as an answer: read by a thread, a piece whenever the peer has taken the one before."""

from __future__ import annotations

import os
from typing import Final

from kflow.broker.files import Files, storage_error
from kflow.errors import KflowError
from kflow.interfaces import Loop
from kflow.web.exchange import LOW_BYTES, Exchange, ResponseStream

_PIECE: Final = 256 * 1024
_GONE: Final = (404, [(b"content-type", b"application/json")], b'{"error":"there is no such code any more"}\n')


def send(exchange: Exchange, path: str, content_type: bytes, host: Loop, files: Files) -> None:
    """Answer with a file; 404 where it is gone. Belongs to the loop's thread."""

    def look() -> tuple[int, int]:
        try:
            fd = files.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise storage_error(error, f"read {path}") from error
        return fd, files.fstat(fd).st_size

    def found(result: tuple[int, int] | KflowError) -> None:
        if isinstance(result, KflowError):
            exchange.respond(*_GONE)
            return
        fd, size = result
        headers = [(b"content-type", content_type), (b"cache-control", b"no-store")]
        _Sending(exchange.stream(200, headers, size), fd, size, host, files).go_on()

    host.submit(look, found)


class _Sending:
    """One file on its way."""

    def __init__(self, stream: ResponseStream, fd: int, size: int, host: Loop, files: Files) -> None:
        self._stream = stream
        self._fd = fd
        self._left = size
        self._offset = 0
        self._host = host
        self._files = files
        self._is_reading = False
        stream.on_drain = stream.on_close = self.go_on

    def go_on(self) -> None:
        """Read and send the next piece; let go of the file where there is none, or nobody to send it to."""
        if self._is_reading:
            return
        if not self._left or self._stream.is_closed:
            self._end()
            return
        self._is_reading = True
        offset, count = self._offset, min(_PIECE, self._left)

        def read() -> bytes:
            try:
                return self._files.pread(self._fd, count, offset)
            except OSError as error:
                raise storage_error(error, "read a file that is being sent") from error

        self._host.submit(read, self._have)

    def _have(self, piece: bytes | KflowError) -> None:
        self._is_reading = False
        if isinstance(piece, KflowError) or not piece:  # cut off meanwhile
            self._stream.abort()
            self._left = 0
            self._close()
            return
        self._offset += len(piece)
        self._left -= len(piece)
        self._stream.write(piece)
        if not self._left or self._stream.is_closed or self._stream.buffered <= LOW_BYTES:
            self.go_on()

    def _end(self) -> None:
        if self._fd >= 0:
            self._close()
            self._stream.end()

    def _close(self) -> None:
        self._stream.on_drain = self._stream.on_close = None
        fd, self._fd = self._fd, -1
        self._host.submit(lambda: self._files.close(fd), lambda _: None)
