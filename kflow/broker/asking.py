"""What readers beside the writer do about damage: they put it to the writer, once, and read on behind it.

    Damaged(offset) --a node runs--> it looks, and lists what it cannot read either as lost
                    --none runs----> the same here, under `writer.lock`

Workers have their own way, through the lease (`kflow.runtime.node.damaged`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from kflow.broker import linking
from kflow.broker.folder import DataFolder
from kflow.broker.quarantine import quarantine
from kflow.broker.streammap import StreamMap
from kflow.broker.writing import writing
from kflow.errors import Damaged, KflowError, NoNode

log = logging.getLogger(__name__)

Read = TypeVar("Read")

_LOCK_S: Final = 1.0
_CALL_S: Final = 30.0


def around_damage(folder: DataFolder, stream: StreamMap, shard: int, read: Callable[[], Read]) -> Read:
    """What `read` returns; where it meets damage, the writer is asked to look, and `read` is called again.

    Args:
        folder: the data folder.
        stream: map of the stream.
        shard: index of the shard.
        read: reads the shard, with a reader of its own.

    Raises:
        Damaged: nobody can say that the records are lost: the folder is read-only or in use, or the writer could not
            write that down; or `read` fails at the same place again.
        StorageError: as `read` raises it.
    """
    tried = -1
    while True:
        try:
            return read()
        except Damaged as error:
            if error.offset is None or error.offset <= tried:
                raise
            tried = error.offset
            try:
                _put_to_writer(folder, stream, shard, tried)
            except KflowError as failure:
                log.info("damage not looked at stream=%s shard=%d error=%s", stream.name, shard, failure)
                raise error from failure


def _put_to_writer(folder: DataFolder, stream: StreamMap, shard: int, offset: int) -> None:
    try:
        linking.call(folder.path, "quarantine", _CALL_S, stream_id=stream.id, shard=shard, offset=offset)
    except NoNode:
        with writing(folder, _LOCK_S) as store:
            quarantine(store, stream, shard, offset)
