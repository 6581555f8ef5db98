"""What is kept of a queue beside its ledger: name, stream, attributes, tags, and what state it is in until when.

    CREATING --active_ms--> ACTIVE --UpdateQueue--> UPDATING --updated_ms--> ACTIVE
                              +--DeleteQueue--> DELETING --gone_ms--> no more

Kept as JSON in `kinesis-queues/<id>.json`, with a checksum and a twin (`kflow.broker.checked`); a queue exists when its
file does. States that only time ends are not written again, so a start finds them as they are then.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator
from typing import Final

import msgspec

from kflow.broker import checked
from kflow.broker.attributes import lasts
from kflow.broker.files import Files, storage_error

log = logging.getLogger(__name__)

FOLDER: Final = "kinesis-queues"
_SUFFIX: Final = ".json"
_ID: Final = re.compile("[0-9a-f]{32}")


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """QueueAttributes.

    Attributes:
        visibility_s: how long a record that is received is in flight, seconds.
        max_receives: after so many receives it is a dead letter; None where dead letters are off.

    Source: documented: CreateQueue, the defaults.
    """

    visibility_s: int = 30
    max_receives: int | None = 6


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of it; replaced as a whole.

    Attributes:
        id: 32 hexadecimal digits, also the end of its ARN, which is generated, and not derived from the name. Source:
            documented: QueueDescription.
        name: unique in its place.
        account: as a stream's map has it: empty for the folder's own.
        region: likewise.
        stream_id: id of its stream, 16 hexadecimal digits.
        stream_name: its name.
        stream_created_ms: its creation, milliseconds since the epoch.
        created_ms: creation of the queue.
        active_ms: CREATING until then.
        position: `LATEST`, `TRIM_HORIZON` or `AT_TIMESTAMP`.
        asked_ms: the time stamp that was asked for, for `AT_TIMESTAMP`.
        begins_ms: when the records arrived that come first, about.
        rules: what holds.
        before: what holds until `updated_ms`; None where nothing else does.
        updated_ms: UPDATING until then.
        gone_ms: DELETING until then; None where nobody deleted it.
        tags: by key.
        policy: resource policy as JSON text; empty for none.
    """

    id: str
    name: str
    account: str = ""
    region: str = ""
    stream_id: str
    stream_name: str
    stream_created_ms: int
    created_ms: int
    active_ms: int
    position: str
    asked_ms: int | None = None
    begins_ms: int
    rules: Rules = Rules()
    before: Rules | None = None
    updated_ms: int = 0
    gone_ms: int | None = None
    tags: dict[str, str] = {}
    policy: str = ""

    def status(self, now_ms: int) -> str:
        """Its state. Source: documented: QueueStatus."""
        if self.gone_ms is not None:
            return "DELETING"
        if lasts(self.active_ms, now_ms):
            return "CREATING"
        return "UPDATING" if lasts(self.updated_ms, now_ms) else "ACTIVE"

    def holds(self, now_ms: int) -> Rules:
        """The rules for what is received now: new ones hold once the update is complete."""
        return self.before if self.before is not None and lasts(self.updated_ms, now_ms) else self.rules


class _Stored(msgspec.Struct, frozen=True):
    version: int
    queue: Facts


# Made once, here: msgspec ends the process where two threads use a type for the first time at the same time.
_read_stored = msgspec.json.Decoder(_Stored).decode


def path_of(folder: str, queue_id: str) -> str:
    """Where a queue's file lies."""
    return f"{folder}/{queue_id}{_SUFFIX}"


def store(folder: str, facts: Facts, files: Files, *, sync: bool) -> None:
    """Write a queue's file; on return it is durable if `sync`.

    Raises:
        StorageError: it could not be written; the old one stands.
    """
    path = path_of(folder, facts.id)
    try:
        checked.write_twice(path, checked.seal(msgspec.json.encode(_Stored(1, facts))) + b"\n", files, sync=sync)
    except OSError as error:
        raise storage_error(error, f"write {path}") from error


def remove(folder: str, queue_id: str, files: Files, *, sync: bool) -> None:
    """Remove a queue's file: the queue is no more.

    Raises:
        OSError: it could not be removed.
    """
    path = path_of(folder, queue_id)
    files.discard(checked.twin_path(path))
    files.discard(path)
    if sync:
        files.sync_folder(folder)


def load_all(folder: str, files: Files) -> Iterator[tuple[str, Facts | None]]:
    """The queues of a folder with their ids, in no order; None for one whose file and twin are both damaged.

    Raises:
        StorageError: they cannot be read.
    """
    # A twin alone is no leftover: it is written last, and removed first.
    suffixes = (_SUFFIX, checked.twin_path(_SUFFIX))
    for queue_id in {_id_of(name) for name in _names(folder, files) if name.endswith(suffixes)}:
        path = path_of(folder, queue_id)
        try:
            found = _decoded(checked.read_optional(path, files))
            if found is None:
                found = _decoded(checked.read_optional(checked.twin_path(path), files))
                log.warning("queue's file is damaged file=%s twin=%s", path, "good" if found else "damaged too")
        except OSError as error:
            raise storage_error(error, f"read {path}") from error
        yield queue_id, found


def settle(folder: str, queue_id: str, files: Files, *, sync: bool) -> None:
    """At a start: make a queue's file whole that a crash or damage left, where its twin is.

    A copy that cannot be written is no reason not to start.
    """
    try:
        checked.settle(path_of(folder, queue_id), files, sync=sync)
    except OSError as error:
        log.warning("queue's file not made whole file=%s error=%s", path_of(folder, queue_id), error)


def sweep(folder: str, known: Collection[str], files: Files) -> None:
    """At a start: remove what a kill left of queues that were never made, or were being removed, and of writes.

    Args:
        folder: of all queues.
        known: ids of the queues that exist.
        files: file calls.

    Raises:
        OSError: something cannot be removed.
    """
    for name in _names(folder, files):
        if name.endswith(".tmp") or (_ID.fullmatch(_id_of(name)) and _id_of(name) not in known):
            files.discard(f"{folder}/{name}")


def _names(folder: str, files: Files) -> list[str]:
    try:
        return files.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error(error, f"list {folder}") from error


def _id_of(name: str) -> str:
    return name.partition(".")[0]


def _decoded(text: bytes | None) -> Facts | None:
    content = None if text is None else checked.unseal(text.rstrip(b"\n"))
    if content is None:
        return None
    try:
        return _read_stored(content).queue
    except msgspec.DecodeError:
        return None
