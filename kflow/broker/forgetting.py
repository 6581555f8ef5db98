"""What goes with a stream that is deleted: where its consumers stood, their windows, and what was parked of it."""

from __future__ import annotations

import os

from kflow.broker.checkpoints import slots_path
from kflow.broker.files import storage_error
from kflow.broker.folder import DataFolder
from kflow.broker.parked import ParkedStore
from kflow.broker.streammap import StreamMap
from kflow.broker.windows import windows_path


def forget(folder: DataFolder, stream: StreamMap) -> None:
    """Remove the positions and parked records that belong to a stream which is no more; nobody reads it any longer.

    Raises:
        StorageError: something cannot be removed; call it again.
    """
    files = folder.files
    checkpoints = os.fspath(folder.path / "checkpoints")
    try:
        for function in sorted(files.listdir(checkpoints)) if files.exists(checkpoints) else []:
            if files.is_folder(os.path.join(checkpoints, function)):
                files.discard(slots_path(folder.path, function, stream.id))
                files.remove_tree(windows_path(folder.path, function, stream.id))
    except OSError as error:
        raise storage_error(error, f"forget where the consumers of stream {stream.name} stood") from error
    ParkedStore(folder.path, files, folder.fsync).drop_all(stream.id)
