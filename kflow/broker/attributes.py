"""What is kept of a stream beside its map: tags, consumers, policies, encryption, and what it is in the middle of.

Kept as JSON in `attributes.json` in the stream's folder, with a checksum and a twin (`kflow.broker.checked`), replaced
in one step. No file says: all defaults, and the stream is active. The data path never reads it.
"""

from __future__ import annotations

import logging
import os
from typing import Final

import msgspec

from kflow.broker import checked
from kflow.broker.files import Files, storage_error

log = logging.getLogger(__name__)

FILE_NAME: Final = "attributes.json"


LONGEST_MS: Final = 600_000
"""No state lasts longer. One that would was written before the clock was set back, and is over."""


def lasts(until_ms: int, now_ms: int) -> bool:
    """Whether a state that is over at a time, milliseconds since the epoch, lasts still."""
    return 0 < until_ms - now_ms <= LONGEST_MS


class Consumer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A registered consumer: enhanced fan-out.

    Attributes:
        name: 1 to 128 characters.
        created_s: registration, seconds since the epoch, as in its ARN; no two of a name in a stream have the same.
        active_ms: from when on it is ACTIVE, milliseconds since the epoch; CREATING before.
        gone_ms: from when on it is gone; DELETING before; None while nobody deregistered it.
        tags: by key.
        policy: resource policy as JSON text; empty for none.
    """

    name: str
    created_s: int
    active_ms: int = 0
    gone_ms: int | None = None
    tags: dict[str, str] = {}
    policy: str = ""

    def is_gone(self, now_ms: int) -> bool:
        """Whether it was deregistered, and is DELETING no longer."""
        return self.gone_ms is not None and not lasts(self.gone_ms, now_ms)


class Pending(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was asked for and is to happen a moment later; a start finishes what a kill interrupted.

    Attributes:
        kind: `split`, `merge`, `scale` or `delete`.
        due_ms: when, milliseconds since the epoch.
        arguments: of the operation.
    """

    kind: str
    due_ms: int
    arguments: dict[str, str | int] = {}


class Attributes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of it; replaced as a whole.

    Attributes:
        created_ms: creation, milliseconds since the epoch; 0: the map's second counts.
        active_ms: from when on it is ACTIVE; CREATING before.
        updated_ms: until when it is UPDATING after a change that needs no more than this.
        pending: what is to happen still.
        tags: by key.
        policy: resource policy as JSON text; empty for none.
        key_id: key of its encryption, as it was given; empty where it is off.
        metrics: names of its shard-level metrics.
        consumers: registered ones, also those on their way out.
        seconds: by name of a consumer that went: the second of its registration, kept while another could have it.
        warm_mibps: warm throughput that is asked for; None where none is.
        warm_before_mibps: what it was until `updated_ms`.
        distribution: `USER_PARTITION_KEY` or `AUTO`.
        modes_ms: when its mode was changed in the last day.
        scalings_ms: when UpdateShardCount was called in the last day.
        keys_ms: when its encryption was changed in the last day.
    """

    created_ms: int = 0
    active_ms: int = 0
    updated_ms: int = 0
    pending: Pending | None = None
    tags: dict[str, str] = {}
    policy: str = ""
    key_id: str = ""
    metrics: tuple[str, ...] = ()
    consumers: tuple[Consumer, ...] = ()
    seconds: dict[str, int] = {}
    warm_mibps: int | None = None
    warm_before_mibps: int | None = None
    distribution: str = "USER_PARTITION_KEY"
    modes_ms: tuple[int, ...] = ()
    scalings_ms: tuple[int, ...] = ()
    keys_ms: tuple[int, ...] = ()


DEFAULTS: Final = Attributes()


class _Stored(msgspec.Struct, frozen=True):
    version: int
    attributes: Attributes


# Made once, here: msgspec ends the process where two threads use a type for the first time at the same time.
_stored = msgspec.json.Decoder(_Stored).decode


def encode(attributes: Attributes) -> bytes:
    """The text of the file."""
    return checked.seal(msgspec.json.encode(_Stored(1, attributes))) + b"\n"


def decode(text: bytes) -> Attributes:
    """What the text of a file says.

    Raises:
        ValueError: it is none, fails its checksum, or a later kflow wrote it.
    """
    content = checked.unseal(text.rstrip(b"\n"))
    if content is None:
        raise ValueError("its checksum is wrong")
    stored = _stored(content)
    if stored.version != 1:
        raise ValueError(f"it is of version {stored.version}, which this kflow does not know")
    return stored.attributes


def load(folder: str | os.PathLike[str], files: Files) -> Attributes:
    """What is kept of the stream in a folder; where the file is damaged, its twin counts, and where both are: defaults.

    A stream without its tags is better than none, so damage is said aloud and nothing more.

    Raises:
        StorageError: it cannot be read.
    """
    path = os.path.join(folder, FILE_NAME)
    for name in (path, checked.twin_path(path)):
        try:
            text = checked.read_optional(name, files)
        except OSError as error:
            raise storage_error(error, f"read {name}") from error
        if text is None:
            continue
        try:
            return decode(text)
        except ValueError as error:
            log.error("attributes of a stream not believed file=%s: %s", name, error)  # noqa: TRY400  # says it all
    return DEFAULTS


def store(folder: str | os.PathLike[str], attributes: Attributes, files: Files, *, sync: bool) -> None:
    """Replace the file in one step; on return it is durable if `sync`.

    Raises:
        StorageError: it could not be written; the old one stands.
    """
    path = os.path.join(folder, FILE_NAME)
    try:
        checked.write_twice(path, encode(attributes), files, sync=sync)
    except OSError as error:
        raise storage_error(error, f"write {path}") from error


def settle(folder: str | os.PathLike[str], files: Files, *, sync: bool) -> None:
    """At a start: make a file whole that a crash or damage left, where its twin is.

    Raises:
        OSError: it cannot be read or written.
    """
    checked.settle(os.path.join(folder, FILE_NAME), files, sync=sync)
