"""What tools do to a data folder: through the node if one runs on it, else by themselves under the writer's lock.

A node that starts or ends in between is met on one of the two ways: the node is asked first, and the writer's lock
(which a node holds for its life) names the holder where it is busy.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kflow import limits
from kflow.broker.checkpoints import SlotFile, slots_path
from kflow.broker.files import Files
from kflow.broker.folder import DataFolder
from kflow.broker.forgetting import forget
from kflow.broker.layout import LAYOUT
from kflow.broker.linking import call
from kflow.broker.locks import FileLock
from kflow.broker.parked import ParkedStore
from kflow.broker.reader import ShardReader
from kflow.broker.slots import Slot
from kflow.broker.streammap import StreamMap
from kflow.broker.windows import windows_path
from kflow.broker.writing import writing
from kflow.errors import DataFolderBusy, NoNode, UsageError
from kflow.records import Position
from kflow.runtime.lifeline import identify

REDRIVE_SECONDS = 960.0
"""The longest a function may run is 900 s; a redrive may also wait for a place."""
_LOOK_SECONDS = 0.05
_CALL_SECONDS = 30.0


def create_stream(
    folder: DataFolder,
    name: str,
    shards: int,
    *,
    retention_hours: int = limits.RETENTION_HOURS,
    max_record_bytes: int = limits.RECORD_BYTES,
) -> StreamMap:
    """Create a stream; on return it exists.

    Raises:
        ResourceInUse: it exists already.
        ValidationFailed: a name or number out of its range.
    """
    try:
        call(
            folder.path,
            "create_stream",
            _CALL_SECONDS,
            name=name,
            shards=shards,
            retention_hours=retention_hours,
            max_record_bytes=max_record_bytes,
        )
    except NoNode:
        with writing(folder) as log:
            return log.create_stream(name, shards, retention_hours=retention_hours, max_record_bytes=max_record_bytes)
    return folder.map(name)


def delete_stream(folder: DataFolder, name: str) -> None:
    """Delete a stream with its records, the positions of its handlers and their parked records.

    Raises:
        ResourceNotFound: there is none.
    """
    stream = folder.map(name)
    try:
        call(folder.path, "delete_stream", _CALL_SECONDS, name=name)
    except NoNode:
        with writing(folder) as log:
            log.delete_stream(name)
    forget(folder, stream)


def reset(folder: DataFolder, stream: str | None = None) -> None:
    """Empty one home stream, or all of all places: deleted and made anew, with their positions and parked records.

    Raises:
        ResourceNotFound: there is no such stream.
    """
    gone = folder.live_maps() if stream is None else [folder.map(stream)]
    try:
        call(folder.path, "reset", _CALL_SECONDS, **({} if stream is None else {"stream": stream}))
    except NoNode:
        with writing(folder) as log:
            for each in gone:
                log.reset(each)
    for each in gone:
        forget(folder, each)


def redrive(folder: DataFolder, number: int) -> dict[str, Any]:
    """Send a parked entry to its handler once more, and wait for the outcome.

    Returns:
        `{"number": int, "error": None | the failure's fields}`.

    Raises:
        UsageError: no runtime runs, or there is no such entry.
    """
    ParkedStore(folder.path, folder.files, folder.fsync).show(number)
    try:
        answer: dict[str, Any] = call(folder.path, "redrive", REDRIVE_SECONDS, number=number)
    except NoNode as error:
        raise UsageError("a redrive needs the handler: start the runtime with `kflow run`, then try again") from error
    return answer


def drop(folder: DataFolder, number: int) -> None:
    """Remove a parked entry for good.

    Raises:
        UsageError: there is none of that number.
    """
    try:
        call(folder.path, "drop", _CALL_SECONDS, number=number)
    except NoNode:
        ParkedStore(folder.path, folder.files, folder.fsync).drop(number)


def node_status(data_dir: Path) -> dict[str, Any] | None:
    """What the node says of itself; None where none runs."""
    try:
        answer: dict[str, Any] = call(data_dir, "status")
    except NoNode:
        return None
    return answer


def stop(data_dir: Path, *, kill: bool = False, timeout_s: float = 60.0) -> int | None:
    """Stop the node of a data folder and wait until it is gone.

    Args:
        data_dir: the folder.
        kill: whether running batches are cut off.
        timeout_s: how long to wait, seconds.

    Returns:
        Its process id; None where none ran.

    Raises:
        DataFolderBusy: it is still there after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    pid = lock_holder(data_dir)
    while True:
        try:
            call(data_dir, "stop", kill=kill)
            break
        except NoNode:  # none; or one that starts or ends: it holds the lock, and does not listen
            if lock_holder(data_dir) is None:
                return pid
            _wait(deadline, f"process {pid} holds {data_dir} and does not answer; end it with `kill {pid}`")
    while lock_holder(data_dir) is not None:
        _wait(deadline, f"process {pid} still runs: a handler takes long; `kflow stop --kill` cuts it off")
    return pid


def _wait(deadline: float, complaint: str) -> None:
    if time.monotonic() > deadline:
        raise DataFolderBusy(complaint)
    time.sleep(_LOOK_SECONDS)


def lock_holder(data_dir: Path) -> int | None:
    """Process id of the runtime that holds a data folder; None where none does. Takes no lock itself."""
    path = data_dir / "runtime.lock"
    pid = FileLock(path, Files()).holder() if path.exists() else None
    return pid if pid is not None and identify(pid) is not None else None


@contextmanager
def no_runtime(folder: DataFolder) -> Iterator[None]:
    """Hold the place of a runtime, so that none runs meanwhile; the folder is of the newest layout then.

    Raises:
        UsageError: one runs.
        StorageError: the folder is of an older layout, and cannot be brought to the newest.
    """
    lock = FileLock(folder.path / "runtime.lock", folder.files)
    try:
        lock.acquire(0, announce=True)
    except DataFolderBusy as error:
        pid = lock_holder(folder.path)
        raise UsageError(f"a runtime (process {pid}) runs on {folder.path}: `kflow stop` first") from error
    try:
        if folder.format.layout != LAYOUT:
            with writing(folder):  # a writer's first act is to upgrade; slots are about to be written, too
                pass
            folder.recheck()
        yield
    finally:
        lock.release()


def move(
    folder: DataFolder, function: str, stream: StreamMap, reader: ShardReader, shard: int, position: Position
) -> None:
    """Make `position` the next one that a consumer reads in a shard, in all its lanes.

    What it had begun there is void: a batch, an open window. Totals stay.

    The caller holds `no_runtime`.
    """
    position = reader.clamp(position)
    first = next(iter(reader.read(position.offset, 1)), None) if position.offset < reader.tail else None
    if first is not None and first.offset != position.offset:  # what lay there is lost
        position = Position(first.offset, 0)
    counter = first.first_counter + position.index if first is not None else reader.next_counter
    slots = SlotFile.open(folder.path, function, stream.id, files=folder.files)
    try:
        for _, lane in [key for key in slots.keys() if key[0] == shard]:  # noqa: SIM118  # a method of its own
            before = slots.load(shard, lane)
            slots.store(
                shard,
                lane,
                Slot(
                    checkpoint=position,
                    checkpoint_counter=counter,
                    succeeded=before.succeeded,
                    delivered=before.delivered,
                    invocations=before.invocations,
                    failures=before.failures,
                    parked=before.parked,
                    dropped=before.dropped,
                    lost=before.lost,
                    state_number=before.state_number,  # rises as long as the slot lives
                ),
            )
    finally:
        slots.close()


def forget_positions(folder: DataFolder, function: str, stream: StreamMap) -> None:
    """Remove a consumer's slots. The caller holds `no_runtime`."""
    folder.files.discard(slots_path(folder.path, function, stream.id))
    folder.files.remove_tree(windows_path(folder.path, function, stream.id))
