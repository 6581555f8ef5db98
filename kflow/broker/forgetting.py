"""What goes with a stream that is deleted: where its consumers stood, their windows, and what was parked of it."""

from __future__ import annotations

from kflow.broker.checkpoints import slots_path
from kflow.broker.folder import DataFolder
from kflow.broker.parked import ParkedStore
from kflow.broker.streammap import StreamMap
from kflow.broker.windows import windows_path


def forget(folder: DataFolder, stream: StreamMap) -> None:
    """Remove the positions and parked records that belong to a stream which is no more; nobody reads it any longer."""
    checkpoints = folder.path / "checkpoints"
    for function in sorted(each.name for each in checkpoints.iterdir()) if checkpoints.is_dir() else []:
        folder.files.discard(slots_path(folder.path, function, stream.id))
        folder.files.remove_tree(windows_path(folder.path, function, stream.id))
    parked = ParkedStore(folder.path, folder.files, folder.fsync)
    for entry in parked.list():
        if entry.stream_id == stream.id:
            parked.drop(entry.number)
