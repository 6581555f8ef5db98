"""One accepted socket: reads when it is ready, sends what its protocol queued, closes so that the last answer arrives.

```
sniffing ── first bytes ──> speaking ── finish ──> sending the rest ──> lingering ── end of file, or too long ──> closed
    └──────────────────────────┴── abort, or the peer is gone ──> closed
```
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Callable

from kflow.web.exchange import LOW_BYTES
from kflow.web.frames import PREFACE
from kflow.web.http1 import Http1
from kflow.web.hub import Hub, Speaker
from kflow.web.options import HIGH_BYTES

log = logging.getLogger(__name__)

READ = 1
WRITE = 2
PRIORITY = 2
"""After workers and producers."""
_PARTING_S = 0.25
"""Chosen: by then a peer that reads has its last answer, and what it sent meanwhile has been taken off it."""
_PIECES = 32
"""Sent at once at most."""


class Connection:
    """Owns a socket, and is the wire of whatever protocol its first bytes speak.

    Args:
        hub: what it shares with others.
        accepted: the socket, which does not block.
        scratch: where bytes are received; used between two statements only, so all connections share it.
        secure: makes TLS of it where its first byte says so; None: this server has no certificate.
        closed: called once, when it is gone.
    """

    __slots__ = (
        "_accepted",
        "_closed",
        "_fd",
        "_hub",
        "_is_broken",
        "_is_corked",
        "_is_finishing",
        "_is_full",
        "_is_noted",
        "_lingering",
        "_mask",
        "_out",
        "_progress",
        "_reads",
        "_scratch",
        "_secure",
        "_sniffed",
        "_speaker",
        "buffered",
        "is_open",
        "is_secure",
        "since",
    )

    def __init__(
        self,
        hub: Hub,
        accepted: socket.socket,
        scratch: bytearray,
        secure: Callable[[Connection], Speaker] | None,
        closed: Callable[[Connection], object],
    ) -> None:
        self._hub = hub
        self._accepted = accepted
        self._fd = accepted.fileno()
        self._scratch = scratch
        self._secure = secure
        self._closed = closed
        self._speaker: Speaker | None = None
        self._sniffed = b""
        self._out: deque[bytes | memoryview] = deque()
        self.buffered = 0
        self.is_secure = False
        self.is_open = True
        self.since = hub.now  # when something last arrived
        self._progress = hub.now  # when the peer last took something
        self._lingering = -1.0  # since when; -1: not yet
        self._reads = True
        self._is_corked = False
        self._is_full = False  # the protocol is to be told when less is buffered
        self._is_noted = False  # the hub counts what is buffered
        self._is_finishing = False
        self._is_broken = False  # the peer takes nothing any more
        self._mask = READ
        hub.loop.add(self._fd, self._ready, priority=PRIORITY, mask=READ)

    # the wire

    def send(self, data: bytes, more: bytes = b"") -> None:
        """Queue bytes; sent at the end of the current callback, or at once outside of one."""
        if not self.is_open or self._is_broken:
            return
        if not self._out:
            self._progress = self._hub.now
        self._out.append(data)
        self.buffered += len(data)
        if more:
            self._out.append(more)
            self.buffered += len(more)
        if self._is_corked or self._mask & WRITE:
            if self.buffered > LOW_BYTES:
                self._is_full = True
            if self._is_noted:
                self._note()
        else:
            self._flush()

    def pause(self) -> None:
        """Read nothing for now."""
        self._reads = False
        self._watch()

    def resume(self) -> None:
        """Read again."""
        self._reads = True
        self._watch()

    def finish(self) -> None:
        """Close once everything is sent."""
        self._is_finishing = True
        if self.is_open and not self._out and not self._is_corked:
            self._linger()

    def abort(self) -> None:
        """Close now; what was not sent is lost, and the peer notices."""
        if not self.is_open:
            return
        self.is_open = False
        self._out.clear()
        self.buffered = 0
        self._note()
        if self._mask:
            self._hub.loop.remove(self._fd)
        self._accepted.close()
        speaker, self._speaker = self._speaker, None
        if speaker is not None:
            speaker.lost()
        self._closed(self)

    # the server's business

    def stop(self) -> None:
        """Take nothing new; finish what is under way. Where nothing is, the peer is not waited for."""
        was_idle = self.is_idle
        if self._lingering >= 0:
            self._part()
        elif self._speaker is None:
            self.finish()
        else:
            self._speaker.stop()
        if was_idle and not self._out:
            self.abort()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._out and not self._is_finishing and (self._speaker is None or self._speaker.is_idle)

    def sweep(self, now: float) -> None:
        """Close what takes too long."""
        options = self._hub.options
        speaker = self._speaker
        if self._lingering >= 0:
            if now - self._lingering > options.linger_s:
                self.abort()
        elif self._out and now - self._progress > options.write_s and not (speaker and speaker.is_open_ended):
            log.info("a peer reads nothing, its connection is closed buffered=%d", self.buffered)
            self.abort()
        elif speaker is not None:
            speaker.sweep(now)
        elif now - self.since > (options.request_s if self._sniffed else options.idle_s):
            self.finish()

    # readiness

    def _ready(self, mask: int) -> None:
        try:
            if mask & WRITE and self._out:
                self._flush()
            if mask & READ and self.is_open:
                self._receive()
        except Exception:  # a bug in a protocol costs its connection, never the loop that serves everybody
            log.exception("a connection broke, and is closed")
            self._hub.call(self.abort)

    def _receive(self) -> None:
        scratch = self._scratch
        speaker = self._speaker
        try:
            count = self._accepted.recv_into(scratch)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.abort()
            return
        self.since = self._hub.now
        if self._lingering >= 0:
            if count == 0:
                self.abort()
            return
        self._is_corked = True
        if count == 0:
            self._end()
        elif speaker is not None:
            speaker.receive(bytes(memoryview(scratch)[:count]))
        else:
            self._sniff(bytes(memoryview(scratch)[:count]))
        self._is_corked = False
        if self.is_open:
            if self._out:
                if not self._mask & WRITE:
                    self._flush()
            elif self._is_finishing:
                self._linger()

    def _end(self) -> None:
        if self._speaker is None or self._is_finishing:
            self.abort()
            return
        self.pause()  # an end of file stays readable for ever
        self._speaker.ended()

    def _sniff(self, data: bytes) -> None:
        data = self._sniffed + data
        if data[0] == 0x16 and self._secure is not None:
            speaker = self._secure(self)
        elif data[0] == 0x16:
            log.info("a TLS client at a port that has no certificate, its connection is closed: see --tls")
            self.finish()
            return
        elif PREFACE.startswith(data[: len(PREFACE)]):
            if len(data) < len(PREFACE):
                self._sniffed = data
                return
            from kflow.web.http2 import Http2

            speaker = Http2(self, self._hub)
        else:
            speaker = Http1(self, self._hub)
        self._sniffed = b""
        self._speaker = speaker
        speaker.receive(data)

    # sending

    def _flush(self) -> None:
        out = self._out
        piece = out[0]
        try:
            count = self._accepted.send(piece) if len(out) == 1 and len(piece) <= HIGH_BYTES else self._send_several()
        except (BlockingIOError, InterruptedError):
            count = 0
        except OSError:
            # whoever writes is in the middle of something, and is told in the next round
            self._out.clear()
            self.buffered = 0
            self._note()
            self._is_broken = True
            self._hub.later(self.abort)
            return
        if count:
            self._progress = self._hub.now
            self.buffered -= count
            if self.buffered:
                self._drop(count)
            else:
                out.clear()
        if self.buffered or self._is_noted:
            self._note()
        if out or self._mask & WRITE:
            self._watch()
        if self.buffered > LOW_BYTES:
            self._is_full = True
        elif self._is_full:
            self._is_full = False
            if self._speaker is not None:
                self._speaker.drained()
        if self._is_finishing and not self._out and self.is_open:
            self._linger()

    def _note(self) -> None:
        """Tell the hub what the kernel has not taken."""
        self._is_noted = self.buffered > 0
        self._hub.backlog.note(self, self.buffered)

    def _send_several(self) -> int:
        pieces: list[bytes | memoryview] = []
        left = HIGH_BYTES
        for piece in self._out:
            if left <= 0 or len(pieces) == _PIECES:
                break
            pieces.append(piece if len(piece) <= left else memoryview(piece)[:left])
            left -= len(piece)
        return self._accepted.sendmsg(pieces)

    def _drop(self, count: int) -> None:
        out = self._out
        while count:
            piece = out[0]
            if len(piece) > count:
                out[0] = memoryview(piece)[count:]
                return
            count -= len(piece)
            out.popleft()

    def _linger(self) -> None:
        """Everything is sent: say so, and wait for the peer to say so too.

        Closing at once would reset the connection if the peer has sent more, and could cost it the last answer.
        """
        if self._lingering >= 0 or not self.is_open:
            return
        self._lingering = self._hub.now
        try:
            self._accepted.shutdown(socket.SHUT_WR)
        except OSError:
            self.abort()
            return
        self._reads = True
        self._watch()
        if self._hub.is_stopping:
            self._part()

    def _part(self) -> None:
        """The server stops: a peer that keeps its end open, as SDKs do, is waited for a moment only."""
        self._hub.loop.call_later(_PARTING_S, lambda: self._hub.call(self.abort))

    def _watch(self) -> None:
        if not self.is_open:
            return
        mask = (READ if self._reads else 0) | (WRITE if self._out else 0)
        if mask == self._mask:
            return
        before, self._mask = self._mask, mask
        if not before:
            self._hub.loop.add(self._fd, self._ready, priority=PRIORITY, mask=mask)
        elif not mask:
            self._hub.loop.remove(self._fd)
        else:
            self._hub.loop.modify(self._fd, mask)
