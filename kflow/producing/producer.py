"""`Producer`: puts that do not wait; records gather for a few milliseconds and go out by the frame."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from kflow import limits
from kflow.errors import KflowError, StorageError, UsageError
from kflow.producing.frames import Failure
from kflow.producing.local import put_failed
from kflow.producing.outlets import outlet
from kflow.producing.payload import as_bytes
from kflow.producing.pipeline import Entries
from kflow.producing.targets import target as find_target

log = logging.getLogger(__name__)

FRAME_RECORDS = 500
"""A producer sends when it holds this many records,"""
FRAME_BYTES = 1 << 20
"""or this many bytes of data, or when the oldest has waited for `linger_ms`."""
AGGREGATED_RECORDS = 5000
"""Of user records it may hold more, for they share records."""
_LINGER_MS_MAX = 60_000
_KEY_BYTES = 4 * limits.PARTITION_KEY_CHARACTERS


class Outlet(Protocol):
    """Where a producer's records go: a pipeline to the local log, or AWS.

    Attributes:
        failures: why records have no place, by their number; emptied by whoever raises them.
        record_bytes: largest data and key together.
    """

    failures: dict[int, Failure]
    record_bytes: int

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        ...

    def check(self, data: bytes, key: str) -> None:
        """Raise what the stream has against a record."""
        ...

    def push(self, numbers: Sequence[int], entries: Entries) -> None:
        """Send some records; may wait while much is under way."""
        ...

    def poll(self) -> None:
        """Take note of what has been answered, without waiting."""
        ...

    def settle(self) -> None:
        """Wait until nothing is under way."""
        ...

    def refuse(self, numbers: Sequence[int], error: KflowError) -> None:
        """Note that records were not sent."""
        ...

    def forget(self) -> None:
        """In a forked child: nothing of the parent's is under way here."""
        ...

    def close(self) -> None:
        """Give connections up."""
        ...


class Producer:
    """Puts without waiting for each; what failed is raised by `flush` and `close`.

    Records of a key keep their order. Records are sent when 500 of them or 1 MiB have gathered, or after `linger_ms`.
    Up to four frames are in flight; then `put` waits, so memory is bounded. Any thread may use it. One thread of its
    own sends what lingers. In a forked child it begins empty: what the parent gathered is the parent's to send.

    Use it in a `with` block, or `close` it; an interpreter that exits flushes what is open and logs what failed.
    """

    def __init__(
        self, stream: str, *, linger_ms: float = 5, aggregate: bool = False, target: str | None = None
    ) -> None:
        """Prepare to put to `stream`.

        Args:
            stream: name or ARN; it must exist.
            linger_ms: longest time a record waits for others, milliseconds, 0 to 60,000; 0 sends each at once.
            aggregate: put many records into one, as the Kinesis Producer Library does: cheaper on AWS, and readers
                must take them apart (`kflow.deaggregate`; AWS's consumer library does). Up to 5,000 are sent together.
            target: `local`, `aws` or a URL; see `kflow.target`.

        Raises:
            ResourceNotFound: there is no such stream.
            UsageError: nothing says where to put.
        """
        if not 0 <= linger_ms <= _LINGER_MS_MAX:
            raise UsageError(f"linger_ms must be from 0 to {_LINGER_MS_MAX} milliseconds, not {linger_ms!r}")
        self.stream = stream
        self._linger_s = linger_ms / 1000
        together = AGGREGATED_RECORDS if aggregate else FRAME_RECORDS
        self._limit = together if linger_ms else 1
        self._outlet: Outlet = outlet(stream, find_target(target), aggregate=aggregate)
        self._fits = self._outlet.record_bytes - _KEY_BYTES
        self._closed = False
        self._begin()
        _PRODUCERS.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._keys: list[str] = []
        self._datas: list[bytes] = []
        self._hash_keys: list[int | None] | None = None
        self._bytes = 0
        self._count = 0
        self._reported = 0
        self._since = 0.0
        self._sending: range | None = None
        self._resting = False
        self._thread: threading.Thread | None = None

    def put(self, data: Any, partition_key: str, explicit_hash_key: int | None = None) -> None:
        """Hand over one record.

        Args:
            data: bytes, str (UTF-8), a model, or what JSON holds.
            partition_key: 1 to 256 characters.
            explicit_hash_key: 0 to 2**128 - 1; used in place of the key's MD5.

        Raises:
            ValidationFailed, InvalidArgument, UsageError: the record is not acceptable; it was not taken.
        """
        if type(data) is not bytes:
            data = as_bytes(data)
        if type(partition_key) is not str or not 0 < len(partition_key) <= 256 or len(data) > self._fits:
            self._outlet.check(data, partition_key)
        with self._lock:
            keys = self._keys
            if not keys:
                self._start()
            keys.append(partition_key)
            self._datas.append(data)
            if explicit_hash_key is not None or self._hash_keys is not None:
                self._note_hash_key(explicit_hash_key)
            self._bytes += len(data)
            if len(keys) >= self._limit or self._bytes >= FRAME_BYTES:
                self._send()

    def flush(self) -> None:
        """Send everything and wait until it is stored.

        Raises:
            PutFailed: some records since the last flush are not; an entry's index counts the puts of this producer.
        """
        with self._lock:
            interrupted, self._sending = self._sending, None
            self._send()
            self._outlet.settle()
            if interrupted is not None:
                doubt = Failure("unknown", StorageError("interrupted while it was being sent"))
                self._outlet.failures.update(dict.fromkeys(interrupted, doubt))
            failures, self._outlet.failures = self._outlet.failures, {}
            total, self._reported = self._count - self._reported, self._count
        if failures:
            raise put_failed(self.stream, total, failures)

    def close(self) -> None:
        """Flush, then give threads and connections up. Closing twice does nothing.

        Raises:
            PutFailed: as `flush` does; it is closed all the same.
        """
        if self._closed:
            return
        try:
            self.flush()
        finally:
            with self._lock:
                self._closed = True
                self._changed.notify()
                thread, self._thread = self._thread, None
            if thread is not None:
                thread.join()
            self._outlet.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        """The first record of a frame: see that somebody sends it in time."""
        if self._closed:
            raise UsageError("this producer is closed")
        if self._limit == 1:
            return
        self._since = time.monotonic()
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._linger, name=f"linger {self.stream}", daemon=True)
            self._thread.start()
        elif self._resting:
            self._resting = False
            self._changed.notify()

    def _note_hash_key(self, hash_key: int | None) -> None:
        if self._hash_keys is None:
            self._hash_keys = [None] * (len(self._keys) - 1)
        self._hash_keys.append(hash_key)

    def _send(self) -> None:
        """Send what has gathered; under the lock."""
        if not self._keys:
            return
        entries = Entries(self._keys, self._datas, self._hash_keys)
        self._keys, self._datas, self._hash_keys, self._bytes = [], [], None, 0
        numbers = self._sending = range(self._count, self._count + len(entries.keys))
        self._count = numbers.stop
        try:
            self._outlet.push(numbers, entries)
        except KflowError as error:
            self._outlet.refuse(numbers, error)
        self._sending = None

    def _linger(self) -> None:
        """The producer's thread."""
        with self._lock:
            while not self._closed and self._thread is threading.current_thread():
                if not self._keys and self._outlet.is_idle:
                    self._resting = True
                    self._changed.wait()
                    continue
                due_s = self._since + self._linger_s - time.monotonic() if self._keys else self._linger_s
                if due_s > 0:
                    self._changed.wait(due_s)
                else:
                    self._send()
                try:
                    self._outlet.poll()
                except KflowError as error:
                    log.warning("answers are late stream=%s error=%s", self.stream, error)

    def _forget(self) -> None:
        self._begin()
        self._outlet.forget()


_PRODUCERS: weakref.WeakSet[Producer] = weakref.WeakSet()


def _flush_at_exit() -> None:
    for producer in list(_PRODUCERS):
        try:
            producer.close()
        except KflowError as error:
            log.error("records lost at exit: %s", error)  # noqa: TRY400  # the text says all


def _after_fork_in_child() -> None:
    for producer in list(_PRODUCERS):
        producer._forget()  # noqa: SLF001


atexit.register(_flush_at_exit)
os.register_at_fork(after_in_child=_after_fork_in_child)
