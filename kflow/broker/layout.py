"""FORMAT: of which layout a data folder is, and how an older one becomes one of today.

    layout 1   kflow 0.1.0
    layout 2   slots have copies of version 2 (`slots`) and lanes, maps a checksum, shards a list of damage

FORMAT carries its own checksum and has a twin (`checked`); one that an earlier kflow wrote has neither.

Every layout in `READABLE` is read as it is. Whoever is about to write, and holds `writer.lock`, first brings the folder
to today's layout: from then on an older kflow refuses it, for it would take for damage what it cannot read. FORMAT is
written last, so that a crash before that leaves the older layout, and the next writer begins anew.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from kflow.broker import checked
from kflow.broker.files import Files, temporary_name
from kflow.errors import Damaged, StorageError

log = logging.getLogger(__name__)

LAYOUT: Final = 2
BLOCK: Final = 1
READABLE: Final = (1, 2)
FILE_NAME: Final = "FORMAT"
_CHECKSUM: Final = b'"crc"'
DEFAULT_REGION: Final = "us-east-1"
DEFAULT_ACCOUNT: Final = "123456789012"


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """What FORMAT holds.

    Attributes:
        layout: version of the layout of the folder.
        block: version of the stored blocks.
        folder_id: 32 hexadecimal digits, made when the folder was made.
        fsync: durability policy of the data.
        region: AWS region that ARNs of this folder name.
        account: AWS account that ARNs of this folder name, 12 digits.
    """

    layout: int
    block: int
    folder_id: str
    fsync: str
    region: str = DEFAULT_REGION
    account: str = DEFAULT_ACCOUNT


# Made once, here: msgspec ends the process where two threads use a type for the first time at the same time.
_read_format = msgspec.json.Decoder(Format).decode


class _Versions(msgspec.Struct, frozen=True):
    """The part of FORMAT that every version of it has."""

    layout: int
    block: int


# Made once, here: msgspec ends the process where two threads use a type for the first time at the same time.
_read_versions = msgspec.json.Decoder(_Versions).decode


def read(path: Path, files: Files) -> Format | None:
    """What FORMAT says; None where there is no data folder and one may be made.

    Raises:
        StorageError: it is no data folder, or of a layout that this kflow cannot read.
        OSError: it cannot be read.
    """
    try:
        text = _text(path, files)
    except NotADirectoryError as error:
        raise StorageError(f"{path} is not a folder; name another data_dir") from error
    return None if text is None else _decode(path, text)


def _text(path: Path, files: Files) -> bytes | None:
    """FORMAT as it is; None where a data folder may be made."""
    try:
        return files.read_bytes(path / FILE_NAME)
    except FileNotFoundError:
        if not files.exists(path):
            return None
    if _refuse_strangers(path, files):
        return None
    return files.read_bytes(path / FILE_NAME)  # somebody has made it meanwhile


def _decode(path: Path, text: bytes) -> Format:
    """What a text says that FORMAT holds, or held."""
    if _CHECKSUM in text:  # older ones have none
        content = checked.unseal(text.rstrip(b"\n"))
        if content is None:
            raise Damaged(
                f"{path / FILE_NAME} fails its checksum: `kflow doctor --repair` restores it where its copy is whole"
            )
        text = content
    try:
        versions = _read_versions(text)
        if versions.layout not in READABLE or versions.block != BLOCK:
            raise StorageError(
                f"{path} is of layout {versions.layout} (blocks {versions.block}), and this kflow reads layouts up to "
                f"{LAYOUT} (blocks {BLOCK}): use the kflow that wrote it, or another data_dir"
            )
        return _read_format(text)
    except ValueError as error:
        raise StorageError(
            f"{path / FILE_NAME} cannot be read ({error}); restore it, or use another data_dir"
        ) from error


def restore(path: Path, files: Files) -> bool:
    """Put the copy of FORMAT in the place of a damaged one. The caller holds `writer.lock`.

    Returns:
        Whether FORMAT is whole now.

    Raises:
        OSError: it cannot be read or written.
    """
    for name in (FILE_NAME, checked.twin_path(FILE_NAME)):
        try:
            found = _decode(path, files.read_bytes(path / name))
        except (FileNotFoundError, StorageError):
            continue
        if name != FILE_NAME:
            write(path, files, found)
        return True
    return False


def _refuse_strangers(path: Path, files: Files) -> bool:
    """Refuse a folder that holds other things than a data folder; whether it has no FORMAT still."""
    listed = files.listdir(path)
    if FILE_NAME in listed:
        return False
    # A data folder of its own in there is no stranger: `kflow demo` keeps its data in `.kflow/demo`.
    names = [name for name in listed if not files.exists(path / name / FILE_NAME)]
    others = [name for name in names if not name.startswith(FILE_NAME + ".")]
    if others:
        raise StorageError(
            f"{path} is not a kflow data folder: it has no FORMAT, and holds {others[0]!r}; "
            "name an empty or a new folder as data_dir"
        )
    return True


def write(path: Path, files: Files, content: Format) -> None:
    """Replace FORMAT, durably, and its copy. The caller holds `writer.lock`.

    Raises:
        OSError: it could not be written; the old one stands.
    """
    checked.write_twice(os.fspath(path / FILE_NAME), _encode(content), files, sync=True)


def _encode(content: Format) -> bytes:
    return checked.seal(msgspec.json.encode(content)) + b"\n"


def create(path: Path, files: Files, *, fsync: str | None, region: str | None, account: str | None) -> Format:
    """Make the folder; of several processes that do so at once, one wins and all use its FORMAT."""
    files.make_folder(path, sync=True)
    made = Format(
        layout=LAYOUT,
        block=BLOCK,
        folder_id=secrets.token_hex(16),
        fsync=fsync or "interval",
        region=region or DEFAULT_REGION,
        account=account or DEFAULT_ACCOUNT,
    )
    temporary = temporary_name(path / FILE_NAME)
    try:
        files.write_new(temporary, _encode(made), sync=True)
        files.link(temporary, path / FILE_NAME)
        files.write_replace(path / checked.twin_path(FILE_NAME), _encode(made), sync=False)
    except FileExistsError:
        found = read(path, files)
        if found is None:
            raise
        made = found
    finally:
        files.discard(temporary)
    if not files.exists(path / ".gitignore"):
        files.write_replace(path / ".gitignore", b"*\n", sync=False)
    files.sync_folder(path)
    return made


def upgrade(path: Path, files: Files) -> tuple[Format, int]:
    """Bring the folder to today's layout. The caller holds `writer.lock`.

    Returns:
        What FORMAT says now, and the layout it was of before.

    Raises:
        StorageError: there is no folder, or it is of a layout that this kflow cannot read.
        OSError: it cannot be written; it still is of the older layout.
    """
    found = read(path, files)  # under the lock: another writer may have done it
    if found is None:
        raise StorageError(f"the data folder {path} was removed")
    before = found.layout
    if before == LAYOUT:
        return found, before
    for layout in range(before, LAYOUT):
        _STEPS[layout](path, files)
    found = msgspec.structs.replace(found, layout=LAYOUT)
    write(path, files, found)
    log.info("data folder brought to a newer layout path=%s from=%d to=%d", path, before, LAYOUT)
    return found, before


def _from_1(path: Path, files: Files) -> None:
    """Nothing to rewrite: a slot becomes one of version 2 when it is stored next, and a map gets its checksum then."""
    del path, files


_STEPS: Final[Mapping[int, Callable[[Path, Files], None]]] = {1: _from_1}
"""By layout: what makes the next one of it. Each may be done again after a crash in the middle."""
