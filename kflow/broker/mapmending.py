"""A stream's map, when `map.json` is damaged: from its twin, the catalogue, or what the shards' folders tell."""

from __future__ import annotations

import os

from kflow import limits
from kflow.broker import catalogue, checked, streammap
from kflow.broker import segment as segments
from kflow.broker.ctl import CLOSED, Ctl
from kflow.broker.folder import DataFolder
from kflow.broker.hashkeys import even_ranges
from kflow.broker.streammap import ShardInfo, StreamMap
from kflow.errors import Damaged, StorageError


def found(folder: DataFolder, name: str) -> tuple[StreamMap, str] | None:
    """The map that a stream had, as far as anything tells, and where it comes from.

    Args:
        folder: the data folder.
        name: of the stream's folder, `<name>.<id as 16 hexadecimal digits>`.

    Raises:
        OSError: something cannot be read.
    """
    stream, _, digits = name.rpartition(".")
    path = os.fspath(folder.path / "streams" / name)
    twin = checked.read_optional(checked.twin_path(f"{path}/{streammap.FILE_NAME}"), folder.files)
    kept = None if twin is None else streammap.decoded(twin)
    if kept is not None and kept.folder_name == name:
        return kept, f"its copy of generation {kept.generation}"
    kept = catalogue.recall(folder.path, int(digits, 16))
    if kept is not None and kept.folder_name == name:
        return kept, f"the catalogue, generation {kept.generation}"
    made = _from_shards(folder, path, stream, int(digits, 16))
    return None if made is None else (made, "its shards")


def remedy(folder: DataFolder, name: str) -> str:
    """What `found` will put back, for people; empty where it finds nothing."""
    answer = found(folder, name)
    if answer is None:
        return ""
    made, origin = answer
    text = f"put it back from {origin}: {len(made.shards)} shards, retention {made.retention_hours} h"
    if origin == "its shards":
        text += ", hash keys divided evenly, sequence numbers of another creation: compare with what you know"
    return text


def _from_shards(folder: DataFolder, path: str, name: str, stream_id: int) -> StreamMap | None:
    """The last resort: shards that were never split or merged. Keeps records for as long as can be, and large ones."""
    files = folder.files
    indexes = sorted(int(each) for each in files.listdir(path) if each.isdigit())
    if not indexes or indexes != list(range(len(indexes))):
        return None
    created_s = 0
    for index in indexes:
        try:
            if Ctl.open(f"{path}/{index}", files, owner=(stream_id, index), write=False).words[CLOSED]:
                return None  # it was split or merged: nobody knows into what
        except (FileNotFoundError, StorageError):
            continue  # made anew by recovery
        finally:
            created_s = created_s or _first_second(folder, f"{path}/{index}", stream_id, index)
    return StreamMap(
        name=name,
        id=stream_id,
        created_s=created_s or 1,
        retention_hours=limits.RETENTION_HOURS_MAX,
        max_record_bytes=limits.RECORD_BYTES_MAX,
        shards=tuple(
            ShardInfo(index=index, start=start, end=end, created_s=created_s or 1)
            for index, (start, end) in enumerate(even_ranges(len(indexes)))
        ),
    )


def _first_second(folder: DataFolder, path: str, stream_id: int, index: int) -> int:
    """The second in which the oldest record there came, which is none before the stream's creation."""
    for base in segments.bases(path, folder.files):
        try:
            opened = segments.open_segment(path, folder.files, base, stream_id=stream_id, shard=index)
        except Damaged:
            continue
        folder.files.close(opened.fd)
        return opened.created_ms // 1000
    return 0
