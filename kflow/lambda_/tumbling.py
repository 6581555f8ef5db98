"""Tumbling windows: which window a record belongs to, and the state that goes from one invocation to the next.

    no window --first intent of a batch--> open --accepted: the state returned, with the checkpoint--> open
    open --a later record is at hand, or its end and a grace have passed, or the shard has ended--> FINAL call --> none
    open --the state returned is above 1 MiB--> FINAL and EARLY call with the last one accepted --> open, fresh state

A batch lies in one window, decided by arrival; a record that is older than the open window is put into it. The slot
names the state by number, length and checksum, and the state lies in a side file that was durable before.

Source: documented: Lambda Developer Guide, tumbling windows; chosen: when a window ends, what a partial response and a
state that is too large come to, and that a state is a JSON object.
"""

from __future__ import annotations

import logging
from typing import Final

import msgspec
from crc32c import crc32c
from msgspec.structs import replace

from kflow.broker.checkpoints import Slot, WindowFlag
from kflow.broker.windows import names
from kflow.declarations import MappingOptions
from kflow.errors import StorageError
from kflow.lambda_.consumer import Consumer
from kflow.lambda_.grants import Windows
from kflow.lambda_.pieces import Piece
from kflow.records import Window

log = logging.getLogger(__name__)

STATE_BYTES: Final = 1 << 20
"""The largest state, as JSON. Source: documented: Lambda Developer Guide, tumbling windows: 1 MB per shard."""

_GRACE_MS: Final = 1_000
_EVENT_BYTES: Final = 400
"""What a window adds to an event besides its state, with the longest ARN of a stream."""

_FRESH: Final = b"{}"


class Tumbling:
    """The tumbling windows of one lease.

    Attributes:
        grace_ms: how long after its end a window is closed where nothing later arrives: records may be on their way.
    """

    def __init__(self, options: MappingOptions, store: Windows, consumer: Consumer) -> None:
        """Make it.

        Args:
            options: of the mapping.
            store: where states are kept.
            consumer: whose they are.
        """
        self.grace_ms = options.maximum_batching_window_in_seconds * 1_000 + _GRACE_MS
        self._seconds = options.tumbling_window_in_seconds
        self._store = store
        self._key = (consumer.function, consumer.stream_id, consumer.shard)
        self._source_arn = consumer.shape.source_arn
        self._loaded: tuple[int, bytes] = (0, _FRESH)

    def start_s(self, arrival_ms: int) -> int:
        """Where the window of an arrival begins, seconds since the epoch."""
        return arrival_ms // 1_000 // self._seconds * self._seconds

    def end_ms(self, slot: Slot, arrival_ms: int = 0) -> int:
        """Where the open window ends, milliseconds since the epoch; where none is open, that of an arrival.

        A window that began under another length ends with the window of today's length that its beginning lies in.
        """
        start = slot.window_start_s or arrival_ms // 1_000
        return (start // self._seconds + 1) * self._seconds * 1_000

    def event_bytes(self, slot: Slot) -> int:
        """What the window adds to an event."""
        return _EVENT_BYTES + slot.state_bytes

    def opened(self, slot: Slot, piece: Piece) -> Slot:
        """The slot with the window of a batch that is about to be tried, or with the flag of the call that ends it."""
        if not piece.count:
            return replace(slot, window_flags=slot.window_flags | WindowFlag.FINAL)
        return slot if slot.window_start_s else replace(slot, window_start_s=self.start_s(piece.arrival_ms))

    def window(self, slot: Slot) -> Window:
        """What the invocation is told that the slot is the intent of; `find` came before."""
        number, state = self._loaded
        if not slot.state_bytes:
            state = _FRESH
        elif number != slot.state_number:
            raise ValueError("the state of the window has not been read")
        return Window(
            start_s=slot.window_start_s,
            end_s=self.end_ms(slot) // 1_000,
            state=msgspec.json.decode(state),
            is_final=bool(slot.window_flags & WindowFlag.FINAL),
            is_terminated_early=bool(slot.window_flags & WindowFlag.EARLY),
            source_arn=self._source_arn,
        )

    def find(self, slot: Slot) -> bool:
        """Read the state that a slot names, where it is not at hand; False where it is gone or damaged.

        Raises:
            StorageError: it cannot be read.
        """
        if not slot.state_bytes:
            return True
        if self._loaded[0] == slot.state_number and names(slot, self._loaded[1]):
            return True
        state = self._store.get(*self._key, slot.state_number)
        if state is None or not names(slot, state):
            return False
        self._loaded = (slot.state_number, state)
        return True

    def accepted(self, slot: Slot, state: bytes) -> tuple[Slot, bytes | None]:
        """The slot with the state that a response returned (as JSON), and the state where it is to be kept first.

        A state that is too large is not taken: the window is to end early, and says so by its flags.
        """
        if len(state) > STATE_BYTES:
            return replace(slot, window_flags=WindowFlag.FINAL | WindowFlag.EARLY), None
        if state == _FRESH:
            return replace(slot, state_crc=0, state_bytes=0), None
        if names(slot, state):
            return slot, None
        number = slot.state_number + 1
        return replace(slot, state_number=number, state_crc=crc32c(state), state_bytes=len(state)), state

    def ended(self, slot: Slot) -> Slot:
        """The slot after the call that ends the window: with no window, or after an early end with a fresh state."""
        goes_on = slot.window_flags & WindowFlag.EARLY
        return replace(
            slot, window_start_s=slot.window_start_s if goes_on else 0, state_crc=0, state_bytes=0, window_flags=0
        )

    def keep(self, slot: Slot, state: bytes) -> None:
        """Make a state durable, before the slot that names it is stored.

        Raises:
            OSError, StorageError: it cannot be written.
        """
        self._store.put(*self._key, slot.state_number, state)
        self._loaded = (slot.state_number, state)

    def tidy(self, slot: Slot) -> None:
        """Forget the states that neither copy of the slot names any more. `slot` has just been stored."""
        try:
            self._store.prune(*self._key, (slot.state_number, slot.state_number - 1))
        except (OSError, StorageError) as error:
            log.warning("an old window state stays for now function=%s: %s", self._key[0], error)


def tumbling_for(options: MappingOptions, consumer: Consumer, store: Windows | None) -> Tumbling | None:
    """The tumbling windows of a mapping; None where it has none."""
    if not options.tumbling_window_in_seconds:
        return None
    if store is None:
        raise ValueError("a mapping with tumbling windows needs a place for their states")
    return Tumbling(options, store, consumer)


def redriven(options: MappingOptions, arrival_ms: int, source_arn: str) -> Window | None:
    """The window of parked records that are sent again, None without windows: a fresh state, which is not kept.

    Source: chosen: their window may have ended long ago, and nothing of it is left.
    """
    seconds = options.tumbling_window_in_seconds
    if not seconds:
        return None
    start_s = arrival_ms // 1_000 // seconds * seconds
    return Window(start_s=start_s, end_s=start_s + seconds, source_arn=source_arn)


def dropped(slot: Slot) -> Slot:
    """The slot of a mapping that has no windows any more."""
    return replace(slot, window_start_s=0, state_crc=0, state_bytes=0, window_flags=0)
