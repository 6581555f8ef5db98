"""A request's body as it arrives: by its length, or in chunks."""

from __future__ import annotations

from kflow.web.heads import Refused

LINES = 64
"""So many chunks are decoded at once, so that tiny ones do not hold up the loop (each takes some 2 us)."""
_PIECES = 64
"""So many pieces are kept as they came; more are put together, so that a body in tiny pieces takes its own size."""
_LINE_BYTES = 1024
"""Of a chunk's size with its extensions, which are ignored; chosen."""
_TRAILER_BYTES = 16 * 1024
"""Of the lines after the last chunk, which are ignored; chosen."""


class Pieces:
    """Bytes that are put together once, at the end."""

    __slots__ = ("_pieces", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes | bytearray] = []
        self.size = 0

    def add(self, piece: bytes) -> None:
        """Take one more."""
        self._pieces.append(piece)
        self.size += len(piece)
        if len(self._pieces) > _PIECES:
            first = self._pieces[0]
            together = first if isinstance(first, bytearray) else bytearray(first)
            together += b"".join(self._pieces[1:])
            self._pieces = [together]

    def join(self) -> bytes:
        """All of them."""
        pieces = self._pieces
        if len(pieces) == 1 and isinstance(pieces[0], bytes):
            return pieces[0]
        return b"".join(pieces)


class Chunks:
    """Decodes a body in chunks, strictly: it says exactly where the body ends, so that a request behind it is one.

    Args:
        body_bytes: a longer body is refused with 413.
    """

    __slots__ = ("_begun", "_left", "_limit", "_trailers", "is_done", "pieces")

    def __init__(self, body_bytes: int) -> None:
        self.pieces = Pieces()
        self.is_done = False
        self._limit = body_bytes
        self._left = -1  # bytes of the chunk and its line end; -1: a size is next; -2: trailers are next
        self._begun = b""  # of a line
        self._trailers = 0

    def take(self, data: bytes | bytearray, at: int) -> int:
        """Take from `data[at:]` what belongs to the body, of `LINES` chunks at most; returns where that ends.

        Raises:
            Refused: it is no body in chunks, or too long a one.
        """
        size = len(data)
        lines = 0
        while at < size and not self.is_done:
            if self._left > 0:
                at = self._take_chunk(data, at)
                continue
            lines += 1
            if lines > LINES:
                break
            end = data.find(b"\n", at)
            line = self._begun + data[at : size if end < 0 else end + 1]
            if len(line) > _LINE_BYTES and self._left == -1:
                raise Refused(400, "the size of a chunk is written too long")
            if end < 0:
                self._begun = bytes(line)
                self._count_trailer(len(line))
                return size
            self._begun = b""
            at = end + 1
            if not line.endswith(b"\r\n"):
                raise Refused(400, "a line of a body in chunks must end with CR LF")
            if self._left == -1:
                self._start_chunk(bytes(line[:-2]))
            elif line == b"\r\n":
                self.is_done = True
            else:
                self._count_trailer(len(line))
                self._trailers += len(line)
        return at

    def _take_chunk(self, data: bytes | bytearray, at: int) -> int:
        end = min(at + self._left, len(data))
        content = min(end - at, self._left - 2)
        if content > 0:
            self.pieces.add(bytes(data[at : at + content]))
        ending = data[at + max(content, 0) : end]
        if ending and ending != b"\r\n"[2 - min(self._left, 2) :][: len(ending)]:
            raise Refused(400, "a chunk must end with CR LF, right after its bytes")
        self._left -= end - at
        if self._left == 0:
            self._left = -1
        return end

    def _start_chunk(self, line: bytes) -> None:
        digits = line.partition(b";")[0].rstrip(b" \t")
        if not digits or len(digits) > 16 or digits.strip(b"0123456789abcdefABCDEF"):
            raise Refused(400, f"the size of a chunk is a hexadecimal number, not {line[:40]!r}")
        count = int(digits, 16)
        if count == 0:
            self._left = -2
            return
        if self.pieces.size + count > self._limit:
            raise Refused(413, f"a body has at most {self._limit} bytes")
        self._left = count + 2

    def _count_trailer(self, more: int) -> None:
        if self._trailers + more > _TRAILER_BYTES:
            raise Refused(431, "too much after the last chunk")
