"""HTTP/2 over one wire: many requests at once, flow control both ways, each stream's troubles its own.

`h2` knows frames, states, windows and header compression. What is decided here: which requests are well formed, how
much may be under way, and which piece of which answer is sent next.
"""

from __future__ import annotations

import logging
from collections import deque

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

from kflow.web.answers2 import Http2Exchange, Http2Stream
from kflow.web.exchange import LOW_BYTES
from kflow.web.frames import FRAME_BYTES, HEADER_BYTES, PREFACE, Prefix, goaway
from kflow.web.heads import Refused
from kflow.web.heads2 import read_fields
from kflow.web.hub import Hub, Wire
from kflow.web.options import HIGH_BYTES, UNREAD_BYTES, WebOptions

log = logging.getLogger(__name__)

STREAM_WINDOW = 1024 * 1024
"""What a peer may send of one body before it hears of it; half of it is given back at a time."""
CONNECTION_WINDOW = 8 * 1024 * 1024
"""The same of all bodies of a connection."""
CREDIT = 1000
"""Frames that bring nothing (PING, SETTINGS, RST_STREAM, WINDOW_UPDATE, empty ones ...) between two sweeps: above it
the connection is closed. Peers that keep a connection alive send one in some seconds; chosen."""
_EARNED = 4
"""Credit for each frame of an answer, which may be followed by a WINDOW_UPDATE of its stream and of its connection."""

_DROPPED = 4
"""So many times the longest body a refused stream may go on sending, before it is reset."""


class _Connection(H2Connection):
    MAX_CLOSED_STREAMS = 1000  # remembered; 65,536 would take megabytes on a connection that lives long


class Http2:
    """Speaks HTTP/2 over `wire`."""

    def __init__(self, wire: Wire, hub: Hub) -> None:
        self.wire = wire
        self.hub = hub
        self._h2 = _Connection(
            H2Configuration(
                client_side=False,
                header_encoding=None,
                # requests are looked at in `heads2`, where a bad one costs its stream, not its connection
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        options = hub.options
        self._h2.local_settings = _settings(options, options.streams)
        self._h2.decoder.max_header_list_size = options.header_bytes
        self._streams: dict[int, Http2Exchange] = {}
        self._ready: deque[Http2Exchange] = deque()  # arrived, and not handed over
        self._wanting: dict[int, Http2Exchange] = {}  # with something to send
        self._full: dict[int, Http2Stream] = {}  # with too much to send
        self._rest = bytearray()
        self._credit = CREDIT
        self._has_begun = False  # the preface is there
        self._last_stream_id = 0
        self._held = 0
        self.unsent = 0  # bytes of answers that are in no frame yet
        self._rested = hub.now
        self._is_due = False
        self._is_paused = False
        self._is_leaving = False  # a GOAWAY was sent or received
        self._is_peers_turn = False  # to close: it knows of the GOAWAY, and its answers are complete or on their way
        self._is_finished = False
        self._is_busy = False  # within `receive`: what is queued is sent at its end
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW)
        # a stream above the limit is refused here: `h2` would end the connection, though the peer may not know it yet
        self._h2.local_settings = _settings(options, 2 * options.streams + 100)

    # what the wire tells

    def receive(self, data: bytes) -> None:
        """Work through some frames."""
        if self._is_finished:
            return
        self._rest += data
        if not self._is_due:
            self._go_on()
        if len(self._rest) > UNREAD_BYTES and not self._is_paused and not self._is_finished:
            self._is_paused = True
            self.wire.pause()

    def ended(self) -> None:
        """HTTP/2 has no half-closed connection: the peer is gone."""
        self.wire.abort()

    def drained(self) -> None:
        """Frames may follow."""
        self.push()
        self._tell_drained()

    def lost(self) -> None:
        """Nobody is there any more."""
        self._is_finished = True
        self._give_up()

    def stop(self) -> None:
        """Say that no further stream is served, and finish once none is left."""
        self._leave(ErrorCodes.NO_ERROR)

    def abort(self) -> None:
        """Close the connection."""
        self.wire.abort()

    def sweep(self, now: float) -> None:
        """Reset what takes too long, close who has rested long enough."""
        if self._is_finished:
            return
        self._credit = CREDIT
        options = self.hub.options
        for exchange in list(self._streams.values()):
            age_s = now - exchange.began
            stream = exchange.outgoing
            if exchange.is_arriving:
                if age_s > options.request_s:
                    self.reset(exchange, ErrorCodes.CANCEL)
            elif stream is not None and stream.is_ended and age_s > options.write_s:
                log.info("a peer opens no window for its answer, the stream is reset")
                self.reset(exchange, ErrorCodes.CANCEL)
        rested_s = now - self._rested
        if self._streams or self.wire.buffered:
            return
        if self._is_peers_turn and rested_s > options.sweep_s + options.linger_s:
            self.wire.abort()
        elif rested_s > options.idle_s:
            self._leave(ErrorCodes.NO_ERROR)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._streams

    @property
    def is_open_ended(self) -> bool:
        """Whether an answer is going on whose end its handler decides."""
        return any(
            exchange.outgoing is not None and not exchange.outgoing.is_ended for exchange in self._streams.values()
        )

    # what exchanges tell

    def send_headers(self, exchange: Http2Exchange, block: list[tuple[bytes, bytes]], *, is_whole: bool) -> None:
        """Send the head of an answer."""
        self._h2.send_headers(exchange.stream_id, block, end_stream=is_whole)
        if is_whole:
            self._done(exchange)

    def want(self, exchange: Http2Exchange) -> None:
        """There is something to send."""
        if exchange.stream_id not in self._wanting and exchange.stream_id in self._streams:
            exchange.began = self.hub.now
            self._wanting[exchange.stream_id] = exchange

    def limit(self, stream_id: int, stream: Http2Stream) -> None:
        """Remember to tell a stream that has too much waiting when it has less."""
        if stream.buffered > LOW_BYTES:
            self._full[stream_id] = stream

    def push(self) -> None:
        """Put what windows allow into frames, a frame of each stream in turn, and send them."""
        if self._is_busy:
            return
        try:
            ahead = self._frame()
        except H2Error:  # a mistake of ours: the timer or the thread that writes must not suffer from it
            log.exception("an answer cannot be put into frames, the connection is closed")
            self._break(ErrorCodes.INTERNAL_ERROR)
            return
        data = self._h2.data_to_send()
        if data:
            self.wire.send(data)
        self.hub.backlog.note(self, self.unsent)
        if self._is_leaving and not self._streams and not self._is_peers_turn:
            self._finish()
        elif self._wanting and ahead >= HIGH_BYTES and self.wire.buffered <= LOW_BYTES:
            self._go_on_later()  # all that was taken at once: `drained` is not called

    def reset(self, exchange: Http2Exchange, error: ErrorCodes) -> None:
        """Give a stream up."""
        if exchange.stream_id not in self._streams:
            return
        self._h2.reset_stream(exchange.stream_id, error)
        self._done(exchange)
        self._tell_closed(exchange)
        self.push()

    # inside

    def _go_on(self) -> None:
        """Work through some frames, hand over one request, send what there is to send."""
        self._is_due = False
        if self._is_finished:
            return
        self._is_busy = True
        is_cut = self._work()
        if self._ready:
            exchange = self._ready.popleft()
            if not exchange.is_closed and exchange.pieces is not None:
                exchange.body = exchange.pieces.join()
                self._release(exchange)
                self.hub.serve(exchange)
        self._is_busy = False
        self.push()
        self._tell_drained()
        self._look_ahead(is_cut)

    def _look_ahead(self, is_cut: bool) -> None:
        if self._is_finished:
            return
        if self._is_paused and len(self._rest) <= UNREAD_BYTES:
            self._is_paused = False
            self.wire.resume()
        if self._ready or is_cut:
            self._go_on_later()

    def _go_on_later(self) -> None:
        if not self._is_due:
            self._is_due = True
            self.hub.later(self._go_on)

    def _work(self) -> bool:
        """Give `h2` the next frames; returns whether there are more."""
        rest = self._rest
        if not self._has_begun:
            if len(rest) < len(PREFACE) and PREFACE.startswith(rest):
                return False
            self._has_begun = True
            data = bytes(rest[: len(PREFACE)])
            del rest[: len(PREFACE)]
            if not self._feed(data):
                return False
        prefix = Prefix(rest)
        self._credit -= prefix.idle
        if self._credit < 0:
            log.info("a peer sends frames that bring nothing, its connection is closed")
            self._break(ErrorCodes.ENHANCE_YOUR_CALM)
            return False
        if prefix.count:
            data = bytes(rest[: prefix.size])
            del rest[: prefix.size]
            if not self._feed(data):
                return False
        if prefix.goaway_size:
            del rest[: prefix.goaway_size]
            self._is_leaving = self._is_peers_turn = True
        elif prefix.is_overlong:
            self._break(ErrorCodes.FRAME_SIZE_ERROR)
            return False
        return prefix.is_cut or bool(prefix.goaway_size and rest)

    def _feed(self, data: bytes) -> bool:
        """Let `h2` work; returns whether the connection goes on."""
        try:
            events = self._h2.receive_data(data)
        except H2Error as error:
            log.info("a peer breaks HTTP/2, its connection is closed error=%r", error)
            self._end()
            return False
        except Exception:
            log.exception("HTTP/2 cannot be read, the connection is closed")
            self._break(ErrorCodes.INTERNAL_ERROR)
            return False
        # a stream that is reset by now can be neither answered nor refused, whatever came before its reset
        gone = {event.stream_id for event in events if isinstance(event, StreamReset)}
        for event in events:
            if isinstance(event, DataReceived):
                self._take_data(event, gone)
            elif isinstance(event, RequestReceived):
                if event.stream_id not in gone:
                    self._take_request(event)
            elif isinstance(event, StreamEnded) and event.stream_id not in gone:
                self._take_end(event.stream_id)
        for stream_id in gone:
            exchange = self._streams.get(stream_id)
            if exchange is not None:
                self._done(exchange)
                self._tell_closed(exchange)
        return True

    def _take_request(self, event: RequestReceived) -> None:
        stream_id = event.stream_id
        if self._is_leaving or len(self._streams) >= self.hub.options.streams:
            self._h2.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        self._last_stream_id = stream_id
        try:
            method, target, headers = read_fields(event.headers, self.hub.options.header_count)
        except Refused as error:
            self._refuse(Http2Exchange(self, stream_id, "", "", {}), error)
            return
        exchange = self._streams[stream_id] = Http2Exchange(self, stream_id, method, target, headers)
        length = headers.get("content-length", "0")
        expect = headers.get("expect")
        limit = self.hub.options.most(target)
        if int(length) > limit:  # `h2` has seen that it is a number
            refusal = self.hub.options.refusal(method, target)
            if expect is not None or int(length) > _DROPPED * limit:
                self._refuse(exchange, refusal)
            else:
                self._refuse_at_end(exchange, refusal)
        elif expect is not None and expect.lower() != "100-continue":
            self._refuse(exchange, Refused(417, f"unknown expectation {expect[:40]!r}: only 100-continue is known"))
        elif expect is not None and length != "0":
            self._h2.send_headers(stream_id, [(b":status", b"100")])

    def _take_data(self, event: DataReceived, gone: set[int]) -> None:
        self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        exchange = self._streams.get(event.stream_id)
        if exchange is None or event.stream_id in gone:
            return
        if exchange.pieces is None:
            exchange.dropped += len(event.data)
            if exchange.dropped > _DROPPED * self.hub.options.body_bytes and event.stream_ended is None:
                self.reset(exchange, ErrorCodes.NO_ERROR)
            return
        exchange.pieces.add(event.data)
        self._held += len(event.data)
        self.hub.held += len(event.data)
        options, size = self.hub.options, exchange.pieces.size
        if size > options.body_bytes and size > options.most(exchange.target):
            exchange.dropped = size
            self._refuse_at_end(exchange, options.refusal(exchange.method, exchange.target))
        elif self.hub.held > self.hub.options.held_bytes:
            self._refuse(exchange, Refused(503, "too many requests are arriving at once: try again"))

    def _take_end(self, stream_id: int) -> None:
        exchange = self._streams.get(stream_id)
        if exchange is None:
            return
        exchange.is_arriving = False
        if exchange.refusal is not None:
            self._refuse(exchange, exchange.refusal)
        elif not exchange.is_refused:
            self._ready.append(exchange)
        elif exchange.outgoing is None or not exchange.outgoing.waiting:
            self._done(exchange)

    def _refuse_at_end(self, exchange: Http2Exchange, error: Refused) -> None:
        """Drop the body, and then answer: Node takes no answer while more than 10 MB of its request are unsent."""
        self._release(exchange)
        exchange.refusal = error

    def _refuse(self, exchange: Http2Exchange, error: Refused) -> None:
        """Answer at once, and drop what still arrives.

        Resetting the stream would stop the peer sooner (documented: RFC 9113 8.1), but curl and Node then lose the
        answer.
        """
        text = error.body
        block = [(b":status", b"%d" % error.status), (b"content-length", b"%d" % len(text)), (b"date", self.hub.date)]
        block += error.headers
        self._streams[exchange.stream_id] = exchange
        self._release(exchange)
        exchange.is_refused = True
        exchange.is_closed = True
        self._h2.send_headers(exchange.stream_id, block, end_stream=not text)
        if text:
            exchange.send_whole([text])
        elif not exchange.is_arriving:
            self._done(exchange)

    def _frame(self) -> int:
        """Put what windows allow into frames; returns how much the wire would have waiting."""
        ahead = self.wire.buffered
        while self._wanting and ahead < HIGH_BYTES:
            before = ahead
            for exchange in list(self._wanting.values()):
                ahead += self._push_one(exchange)
                if ahead >= HIGH_BYTES:
                    break
            if ahead == before:
                break
        return ahead

    def _push_one(self, exchange: Http2Exchange) -> int:
        """Send one frame of an answer; returns what it takes of the buffer, 0 where its window is shut."""
        stream = exchange.outgoing
        stream_id = exchange.stream_id
        if stream is None or not (stream.waiting or stream.is_ended):
            del self._wanting[stream_id]
            return 0
        connection = self._h2
        size = 0
        if stream.waiting:
            size = min(connection.local_flow_control_window(stream_id), connection.max_outbound_frame_size, FRAME_BYTES)
            if size <= 0:
                return 0
            piece = stream.take(size)
            size = len(piece)
            connection.send_data(stream_id, piece, end_stream=stream.is_ended and not stream.waiting)
        else:
            connection.end_stream(stream_id)
        self._credit += _EARNED
        exchange.began = self.hub.now  # the peer takes it
        if not stream.waiting:
            del self._wanting[stream_id]
            if stream.is_ended and not (exchange.is_refused and exchange.is_arriving):
                self._done(exchange)
        return size + HEADER_BYTES

    def _done(self, exchange: Http2Exchange) -> None:
        """Nothing more happens on this stream."""
        self._release(exchange)
        if exchange.outgoing is not None:
            exchange.outgoing.drop_all()
        self._wanting.pop(exchange.stream_id, None)
        self._full.pop(exchange.stream_id, None)
        if self._streams.pop(exchange.stream_id, None) is not None and not self._streams:
            self._rested = self.hub.now

    def _release(self, exchange: Http2Exchange) -> None:
        """Its body is complete, or given up."""
        pieces, exchange.pieces = exchange.pieces, None
        if pieces is not None:
            self._held -= pieces.size
            self.hub.held -= pieces.size

    def _tell_drained(self) -> None:
        """Whoever had too much waiting may write again."""
        for stream_id, stream in list(self._full.items()):
            if stream.buffered <= LOW_BYTES:
                del self._full[stream_id]
                if not stream.is_closed and stream.on_drain is not None:
                    self.hub.call(stream.on_drain)

    def _tell_closed(self, exchange: Http2Exchange) -> None:
        exchange.is_closed = True
        stream = exchange.outgoing
        if stream is None:
            if exchange.on_close is not None:
                self.hub.call(exchange.on_close)
        elif not stream.is_closed:
            stream.is_closed = True
            if stream.on_close is not None:
                self.hub.call(stream.on_close)

    def _leave(self, error: ErrorCodes) -> None:
        """Take no further stream; where none is left, finish, else let the peer close.

        Node.js destroys its streams as soon as a connection ends, with what of their answers was not read yet.
        """
        if self._is_leaving:
            return
        self._is_leaving = True
        self._is_peers_turn = bool(self._streams)
        data = self._h2.data_to_send()
        self.wire.send((data or b"") + goaway(self._last_stream_id, error))
        self.push()

    def _break(self, error: ErrorCodes) -> None:
        """The connection cannot go on."""
        self.wire.send((self._h2.data_to_send() or b"") + goaway(self._last_stream_id, error))
        self._end()

    def _end(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self.wire.send(data)
        self._finish()
        self._give_up()

    def _give_up(self) -> None:
        """Nobody under way is answered any more."""
        streams, self._streams = self._streams, {}
        self._ready.clear()
        self._wanting.clear()
        self._full.clear()
        self._rest.clear()
        for exchange in streams.values():
            self._release(exchange)
            if exchange.outgoing is not None:
                exchange.outgoing.drop_all()
            self._tell_closed(exchange)
        self.hub.backlog.note(self, 0)

    def _finish(self) -> None:
        if not self._is_finished:
            self._is_finished = True
            self.wire.finish()


def _settings(options: WebOptions, streams: int) -> Settings:
    return Settings(
        client=False,
        initial_values={
            SettingCodes.MAX_CONCURRENT_STREAMS: streams,
            SettingCodes.MAX_HEADER_LIST_SIZE: options.header_bytes,
            SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
        },
    )
