"""One producer's line to the writer of a data folder: frames out in order, numbers back in order, nothing twice.

                       submit                       answer
    (a frame) NEW ----------------> UNANSWERED ----------------> ANSWERED (the caller waits for it)
                                     |   ^   |
         the connection is lost, or  |   |   |  10 s without a writer: refused, or unknown if it was ever sent
         no node runs                v   |   v
              connect and send again what has no answer; or, where no node runs, append it here
              under the writer lock, after a look for what an earlier writer may have stored

A frame keeps its number however often it is sent. With the producer's id and a block's place in the frame it stands in
the stored block's header, and the frame names the tail that each shard had before it was first sent: so whoever writes
next finds what was stored, and a kill of the node neither loses nor doubles a put.
"""

from __future__ import annotations

import os
import random
import time
import weakref
from collections import deque

import msgspec

from kflow.broker import handshake, linking, wire, wirecalls
from kflow.broker.encode import Encoder, Part
from kflow.broker.folder import DataFolder
from kflow.broker.linking import Link
from kflow.broker.streammap import StreamMap
from kflow.broker.writing import writing
from kflow.errors import DataFolderBusy, KflowError, NoNode, NotDurable, ResourceNotFound, StaleMap, StorageError
from kflow.producing.direct import append_here
from kflow.producing.frames import Failure, Frame

PATIENCE_S = 10.0
"""How long a put waits for a writer, and for a sign of life of the node it is connected to."""
DIRECT_PATIENCE_S = 0.02
"""How long one try for the writer lock takes; between two of them the node's socket is tried again."""
_PAUSE_S = (0.001, 0.02)
_LAST_NUMBER = (1 << 32) - 1
_ONE_BYTES = 64 << 10
"""A single put with a larger body goes the way of frames: a socket may take it in pieces."""


class Channel:
    """Belongs to one thread at a time.

    Attributes:
        unanswered: frames without an answer, oldest first.
    """

    __slots__ = (
        "__weakref__",
        "_encoders",
        "_folder",
        "_link",
        "_number",
        "_patience_s",
        "_producer",
        "_seen",
        "_socket_path",
        "_tails",
        "unanswered",
    )

    def __init__(self, folder: DataFolder, *, patience_s: float = PATIENCE_S) -> None:
        self._folder = folder
        self._patience_s = patience_s
        self._socket_path = folder.socket_path
        self._link: Link | None = None
        self._encoders: dict[str, Encoder] = {}
        self._tails: dict[int, list[int]] = {}
        self.unanswered: deque[Frame] = deque()
        self._become_new()
        _CHANNELS.add(self)

    def _become_new(self) -> None:
        """Become a producer that nobody has heard of."""
        self._producer = int.from_bytes(os.urandom(8), "little") or 1
        self._number = 0
        self._seen = 0

    def encoder(self, stream: StreamMap) -> Encoder:
        """This channel's encoder for a map; it remembers the keys it has seen."""
        known = self._encoders.get(stream.name)
        if known is None or known.map is not stream:
            known = self._encoders[stream.name] = Encoder(stream)
        return known

    def check(self) -> None:
        """See that the connection is still ours; to be called first wherever user code may have run meanwhile."""
        link = self._link
        if link is not None and not link.is_intact():
            self.close()

    def put_one(self, stream: StreamMap, part: Part) -> tuple[int, int] | Frame:
        """Submit one part and wait for its answer, with nothing else in flight: the way of single puts.

        Returns:
            First counter and arrival; or, where it was not as simple as that, the frame with its answers.
        """
        link = self._link
        tails = self._tails.get(stream.id)
        shard, _, count, body, crc, flags = part
        if (
            link is None
            or tails is None
            or len(body) > _ONE_BYTES
            or shard >= len(tails)
            or self._number == _LAST_NUMBER
        ):
            frame = Frame(stream, (part,))
            self.submit(frame)
            self.wait_for(frame)
            return frame
        number = self._number = self._number + 1
        try:
            message = wire.put_one(number, stream.id, stream.generation, self._seen, shard, count, body, crc, flags)
            answer = link.exchange_one(message)
        except OSError as error:
            return self._finish_one(stream, part, error)
        except BaseException:
            self.close()
            raise
        if answer is None or answer[0] != number:
            return self._finish_one(stream, part, None)
        self._seen = number
        tails[shard] = answer[3]
        return answer[1], answer[2]

    def _finish_one(self, stream: StreamMap, part: Part, error: OSError | None) -> Frame:
        """Go on with a single put as with any frame that was sent."""
        frame = Frame(stream, (part,))
        frame.number = self._number
        frame.sent = True
        frame.note_tails(self._tails[stream.id])
        self.unanswered.append(frame)
        if isinstance(error, TimeoutError):
            self._give_up(StorageError(str(error)))
        elif error is not None:
            self._renew()
        self.wait_for(frame)
        return frame

    def submit(self, frame: Frame) -> None:
        """Number a frame and hand it to the writer; `wait_for` it to learn what came of it.

        The first frame for a stream may be submitted only while nothing is unanswered.
        """
        if self._number == _LAST_NUMBER:
            while self.unanswered:
                self._receive(wait=True)
            self.close()
            self._become_new()
        self._number = frame.number = self._number + 1
        self.unanswered.append(frame)
        link = self._link
        tails = self._tails.get(frame.stream.id)
        try:
            if link is None or tails is None:
                self._renew()
            else:
                frame.note_tails(tails)
                self._send(link, frame)
        except BaseException:
            self.close()  # half a frame may be out: whoever goes on begins with a new connection
            raise

    def wait_for(self, frame: Frame) -> None:
        """Wait until a frame that was submitted here has its answers."""
        while not frame.answers:
            if not self.unanswered:  # an interrupt came before it was submitted
                frame.fail_all(Failure("refused", StorageError("interrupted before it was sent")))
                return
            self._receive(wait=True)

    def poll(self) -> None:
        """Take the answers that are there, without waiting."""
        while self.unanswered and self._receive(wait=False):
            continue

    def close(self) -> None:
        """Give the connection up. What is unanswered has no further say."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def forget(self) -> None:
        """In a forked child: nothing of the parent's is ours to send, and its connection is not ours to use."""
        self.close()
        self.unanswered.clear()
        self._become_new()

    def _send(self, link: Link, frame: Frame) -> None:
        stream = frame.stream
        frame.sent = True
        try:
            if len(frame.parts) == 1:
                (block,) = frame.blocks()
                message = wire.put_one(frame.number, stream.id, stream.generation, self._seen, *block)
                link.send((message,), len(message))
            else:
                blocks = frame.blocks()
                link.send(*wire.put_many(frame.number, stream.id, stream.generation, self._seen, blocks))
        except TimeoutError as error:
            self._give_up(StorageError(str(error)))
        except OSError:
            self._renew()

    def _receive(self, *, wait: bool) -> bool:
        """Take one answer; False where not waiting and there is none."""
        link = self._link
        if link is None:
            self._renew()
            return True
        try:
            received = link.receive(wait=wait)
            if received is None:
                return False
            self._settle(received)
        except TimeoutError as error:
            self._give_up(StorageError(str(error)))
        except (OSError, msgspec.DecodeError):
            self._renew()
        except BaseException:
            self.close()
            raise
        return True

    def _settle(self, received: wire.Received) -> None:
        frame = self.unanswered[0]
        count = len(frame.parts)
        if received.kind != wire.ANSWERED or received.request != frame.number or received.blocks != count:
            raise ConnectionResetError("the node answered something else than what was sent")
        tails = self._tails[frame.stream.id]
        payload = received.payload
        answers: list[tuple[int, int]] = []
        failed: list[tuple[int, int]] = []
        for part, (first_counter, arrival_ms, tail, status) in zip(
            frame.parts, wire.ANSWER.iter_unpack(payload[: count * wire.ANSWER.size]), strict=True
        ):
            if status == wire.OK:
                if part[0] >= len(tails):  # a child's: until its first answer it is looked through from its beginning
                    tails.extend([0] * (part[0] + 1 - len(tails)))
                tails[part[0]] = tail
            else:
                failed.append((len(answers), status))
            answers.append((first_counter, arrival_ms))
        if failed:
            errors = iter(msgspec.json.decode(payload[count * wire.ANSWER.size :] or b"[]"))
            for place, status in failed:
                if status == wire.STALE:
                    frame.fail(place, Failure("stale", StaleMap("the stream's shards have changed")))
                else:
                    error = wirecalls.error_from_json(next(errors))
                    frame.fail(place, Failure("unknown" if isinstance(error, NotDurable) else "refused", error))
        frame.answers = answers
        self._seen = frame.number
        self.unanswered.popleft()
        if failed:  # the node knows, but not the one that comes after it
            for behind in self.unanswered:
                behind.is_behind = True

    def _renew(self) -> None:
        """Bring everything unanswered to a writer: the node, or this process itself."""
        self.close()
        deadline = 0.0
        pause, longest = _PAUSE_S
        while self.unanswered:
            try:
                if self._try_node(deadline):
                    return
                busy = self._try_here()
            except KflowError as error:  # the folder cannot be used, or the node is of another version
                self._give_up(error)
                return
            if busy is None:
                return
            now = time.monotonic()
            if not deadline:
                deadline = now + self._patience_s
            elif now > deadline:
                self._give_up(StorageError(f"no writer within {self._patience_s:g} s: {busy}"))
                return
            self._socket_path = self._folder.socket_path  # a long path is named only once a node has started
            time.sleep(pause * (0.5 + random.random()))  # noqa: S311  # spreads waiting producers, keeps no secret
            pause = min(2 * pause, longest)

    def _try_node(self, deadline: float) -> bool:
        """Connect and send everything unanswered, in order."""
        patience_s = max(0.1, deadline - time.monotonic()) if deadline else self._patience_s
        try:
            hello = handshake.own_hello(self._folder.id, producer=self._producer)
            link = linking.connect(self._socket_path, hello, timeout_s=patience_s)
        except (NoNode, OSError):
            return False
        self._link = link
        try:
            self._learn_tails(link)
            for frame in self.unanswered:
                tails = frame.tails if frame.sent else None
                frame.sent = True
                stream, blocks = frame.stream, frame.blocks()
                link.send(*wire.put_many(frame.number, stream.id, frame.generation, self._seen, blocks, tails))
            link.set_patience(self._patience_s)
        except OSError:
            self.close()
            return False
        return True

    def _learn_tails(self, link: Link) -> None:
        """Ask where the shards of streams end that this channel has not sent to yet; gone streams are settled."""
        kept: deque[Frame] = deque()
        for frame in self.unanswered:
            stream = frame.stream
            if stream.id not in self._tails:
                try:
                    self._tails[stream.id] = link.ask(0, "tails", {"stream_id": stream.id})
                except ResourceNotFound as error:
                    frame.fail_all(Failure("stale", error))
                    continue
            if not frame.sent:
                frame.note_tails(self._tails[stream.id])
            kept.append(frame)
        self.unanswered = kept

    def _try_here(self) -> DataFolderBusy | None:
        """Append everything unanswered under the writer lock; who holds it, where somebody does."""
        appended: list[Frame] = []
        try:
            with writing(self._folder, timeout_s=DIRECT_PATIENCE_S) as log:
                failed: dict[int, KflowError] = {}
                while self.unanswered:
                    append_here(log, self.unanswered[0], self._producer, failed)
                    appended.append(self.unanswered.popleft())
        except DataFolderBusy as error:
            return error
        except NotDurable as error:  # of the sync behind the block: they have answers that nobody has read
            for frame in appended:
                frame.doubt(error)
        return None

    def _give_up(self, error: KflowError) -> None:
        """Nobody took or answered it in time: refused where it was never sent, else unknown."""
        self.close()
        while self.unanswered:
            frame = self.unanswered.popleft()
            frame.fail_all(Failure("unknown" if frame.sent else "refused", error))


_CHANNELS: weakref.WeakSet[Channel] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for channel in list(_CHANNELS):
        channel.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
