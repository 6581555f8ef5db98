"""TLS between a socket and the protocol over it, by `ssl` in memory: bytes in, bytes out, and no socket of its own."""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections import deque
from pathlib import Path

from kflow.errors import UsageError
from kflow.web.exchange import LOW_BYTES
from kflow.web.frames import PREFACE
from kflow.web.http1 import Http1
from kflow.web.hub import Hub, Speaker, Wire
from kflow.web.options import HIGH_BYTES, Tls

log = logging.getLogger(__name__)

_RECORD_BYTES = 16384
"""Of one TLS record."""


def make_context(tls: Tls) -> ssl.SSLContext:
    """Read the certificate, or make one, and offer HTTP/2 and HTTP/1.1.

    Raises:
        UsageError: there is no certificate that can be used; the text says what to do.
    """
    certificate, key = tls.certificate, tls.key
    if certificate is None:
        if key is not None:
            raise UsageError("a key without its certificate is of no use: give both (--tls-cert and --tls-key)")
        if tls.folder is None:
            raise UsageError("TLS needs a certificate: give one (--tls-cert), or a folder to keep a self-made one in")
        from kflow.web.certificate import keep_certificate

        certificate = keep_certificate(tls.folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"])
    for path in (certificate, key):
        if path is not None and not Path(path).is_file():
            raise UsageError(f"there is no file {path}: TLS needs the certificate and its key as PEM files")
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise UsageError(
            f"cannot use the certificate {certificate} with the key {key or certificate}: {error}; "
            "both must be PEM files, belong together, and the key must have no password"
        ) from error
    return context


def _no_password() -> str:
    raise ValueError("the key has a password")


def secure(wire: Wire, hub: Hub, context: ssl.SSLContext) -> Speaker:
    """What speaks TLS over a wire whose first byte says so."""
    return TlsLayer(wire, hub, context)


class TlsLayer:
    """A speaker to the socket below it, a wire to the protocol above it."""

    __slots__ = (
        "_began",
        "_hub",
        "_incoming",
        "_is_closing",
        "_is_full",
        "_is_shaken",
        "_out",
        "_outgoing",
        "_sniffed",
        "_speaker",
        "_ssl",
        "_waiting",
        "_wire",
        "is_secure",
    )

    def __init__(self, wire: Wire, hub: Hub, context: ssl.SSLContext) -> None:
        self.is_secure = True
        self._wire = wire
        self._hub = hub
        self._began = hub.now
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_shaken = False
        self._is_closing = False
        self._is_full = False
        self._speaker: Speaker | None = None
        self._sniffed = b""
        self._out: deque[memoryview] = deque()  # plain, not encrypted yet
        self._waiting = 0

    # a speaker

    def receive(self, data: bytes) -> None:
        """Decrypt, and pass on."""
        if self._is_closing:
            return
        self._incoming.write(data)
        try:
            if not self._is_shaken:
                self._ssl.do_handshake()
                self._is_shaken = True
                if self._ssl.selected_alpn_protocol() == "h2":
                    self._speak_http2()
            while plain := self._ssl.read(_RECORD_BYTES):
                if not self._pass_on(plain):
                    return
        except ssl.SSLWantReadError:
            self._push_encrypted()
            return
        except ssl.SSLError as error:
            log.info("a peer breaks TLS, its connection is closed error=%s", error)
            self._push_encrypted()  # an alert
            self._is_closing = True
            self._wire.finish()
            return
        self.ended()  # the peer has closed its side: close_notify

    def ended(self) -> None:
        """The peer sends nothing more."""
        if self._speaker is None:
            self._wire.abort()
        else:
            self._speaker.ended()

    def drained(self) -> None:
        """The socket takes more."""
        self._encrypt()
        if self._is_full and not self._is_closing and self.buffered <= LOW_BYTES:
            self._is_full = False
            if self._speaker is not None:
                self._speaker.drained()

    def lost(self) -> None:
        """The socket is gone."""
        self._is_closing = True
        self._out.clear()
        self._waiting = 0
        self._hub.backlog.note(self, 0)
        speaker, self._speaker = self._speaker, None
        if speaker is not None:
            speaker.lost()

    def stop(self) -> None:
        """Finish what is under way."""
        if self._speaker is None:
            self.finish()
        else:
            self._speaker.stop()

    def sweep(self, now: float) -> None:
        """Look for what takes too long, the handshake among it."""
        if self._speaker is not None:
            self._speaker.sweep(now)
        elif now - self._began > self._hub.options.request_s:
            self._wire.abort()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._waiting and (self._speaker is None or self._speaker.is_idle)

    @property
    def is_open_ended(self) -> bool:
        """Whether an answer is going on whose end its handler decides."""
        return self._speaker is not None and self._speaker.is_open_ended

    # a wire

    @property
    def buffered(self) -> int:
        """Bytes not encrypted yet, and those that the kernel has not taken."""
        return self._waiting + self._wire.buffered

    def send(self, data: bytes, more: bytes = b"") -> None:
        """Queue bytes."""
        if self._is_closing:
            return
        for piece in (data, more) if more else (data,):
            self._out.append(memoryview(piece))
            self._waiting += len(piece)
        self._encrypt()
        if self.buffered > LOW_BYTES:
            self._is_full = True

    def pause(self) -> None:
        """Read nothing for now."""
        self._wire.pause()

    def resume(self) -> None:
        """Read again."""
        self._wire.resume()

    def finish(self) -> None:
        """Close once everything is sent."""
        self._is_closing = True
        if not self._waiting:
            self._say_goodbye()

    def abort(self) -> None:
        """Close now."""
        self._wire.abort()

    # inside

    def _pass_on(self, plain: bytes) -> bool:
        """Give decrypted bytes to the protocol; returns whether it takes more."""
        if self._speaker is None:
            plain = self._sniffed + plain
            self._sniffed = b""
            if PREFACE.startswith(plain[: len(PREFACE)]):
                if len(plain) < len(PREFACE):
                    self._sniffed = plain
                    return True
                self._speak_http2()
            else:
                self._speaker = Http1(self, self._hub)
        if self._speaker is not None:
            self._speaker.receive(plain)
        return not self._is_closing

    def _speak_http2(self) -> None:
        from kflow.web.http2 import Http2

        self._speaker = Http2(self, self._hub)

    def _encrypt(self) -> None:
        """Some of what waits: a long answer is encrypted bit by bit, while its beginning is read."""
        left = HIGH_BYTES
        try:
            while self._out and left > 0 and self._wire.buffered < HIGH_BYTES:
                piece = self._out.popleft()
                if len(piece) < _RECORD_BYTES and self._out:
                    piece = self._together(piece)
                elif len(piece) > left:
                    self._out.appendleft(piece[left:])
                    piece = piece[:left]
                left -= len(piece)
                self._waiting -= len(piece)
                self._ssl.write(piece)
                self._push_encrypted()
        except ssl.SSLError as error:
            log.info("nothing can be sent over TLS any more, the connection is closed error=%s", error)
            self._is_closing = True
            self._hub.later(self._wire.abort)  # whoever writes is in the middle of something
            return
        self._hub.backlog.note(self, self._waiting)
        if self._out and self._wire.buffered <= LOW_BYTES:
            self._hub.later(self.drained)
        elif self._is_closing and not self._out:
            self._say_goodbye()

    def _together(self, piece: memoryview) -> memoryview:
        """Little pieces make one record."""
        pieces = [piece]
        size = len(piece)
        while self._out and size + len(self._out[0]) <= _RECORD_BYTES:
            pieces.append(self._out.popleft())
            size += len(pieces[-1])
        return memoryview(b"".join(pieces))

    def _push_encrypted(self) -> None:
        if self._outgoing.pending:
            self._wire.send(self._outgoing.read())

    def _say_goodbye(self) -> None:
        """A close_notify: without it the peer could not tell a complete answer from a broken one."""
        with contextlib.suppress(ssl.SSLError):  # the peer has not said so yet, and need not
            self._ssl.unwrap()
        self._push_encrypted()
        self._wire.finish()
