"""Making committed bytes durable: one sync of a shard at a time, whoever asks for it, in any thread or process.

A sync covers every segment that overlaps [durable tail, tail as noted at its start), oldest first, and the shard's
folder where one of them was made there; only then is the durable tail stored. Who wants to sync a shard holds a lock on
its control page for that long: whoever waited behind a sync that covered its own records has nothing left to do, and
so syncs are shared (group commit), between threads, scripts and a node alike.

A sync that fails is never tried again as if it could succeed: the kernel may have marked the lost pages clean. The
shard is poisoned instead (`recovery` says what then).
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from kflow.broker import segment as segments
from kflow.broker.ctl import COUNTER, DURABLE, DURABLE_COUNTER, FILE_NAME, HORIZON, POISONED, SEGMENT, TAIL, Ctl
from kflow.broker.files import Files, storage_error
from kflow.errors import KflowError, NotDurable, ResourceNotFound, StorageError

log = logging.getLogger(__name__)

THREADS: Final = 8
"""How many syncs run at once: more only queue up in the device."""

Committed = tuple[int, int]
"""A tail, and the counter of the first record at or behind it."""


Held = tuple[Ctl, Callable[[], Committed]]
"""Of a shard that is open: its page, and what tells its tail and counter as of one moment."""


def not_held() -> None:
    """Of a shard that is not open."""


class SyncTask:
    """Makes one shard durable up to its tail. Call it once, in any thread."""

    __slots__ = ("_done", "_files", "_folder", "_held", "name")

    def __init__(
        self,
        folder: str,
        held: Callable[[], Held | None],
        files: Files,
        name: str,
        done: Callable[[], bool],
    ) -> None:
        # Asked for when the task runs: a thousand waiting tasks hold no descriptor. None: the page is opened then.
        self._folder = folder
        self._held = held
        self._files = files
        self._done = done
        self.name = name

    def __call__(self) -> None:
        """Sync; again, where more was asked for meanwhile.

        Raises:
            StorageError: a sync failed; the shard takes no more records.
        """
        again = True
        while again:
            try:
                self._run()
            except BaseException:
                while self._done():
                    continue
                raise
            again = self._done()

    def _run(self) -> None:
        try:
            ctl, committed = self._held() or (None, None)
            make_durable(self._folder, self._files, self.name, ctl, committed)
        except ResourceNotFound:
            return  # the stream was deleted meanwhile


def make_durable(
    folder: str,
    files: Files,
    name: str,
    ctl: Ctl | None = None,
    committed: Callable[[], Committed] | None = None,
    *,
    wanted: int | None = None,
) -> Committed:
    """Sync what a shard has committed up to now, and store how far that is. Any thread; waits for another one's sync.

    Args:
        folder: of the shard.
        files: file calls.
        name: of the shard, for people.
        ctl: its page, opened for writing; None opens it.
        committed: tells its tail and counter as of one moment; None reads the page, which is exact while nobody
            appends.
        wanted: offset that is enough to be durable: where it is already, nothing is synced.

    Returns:
        The durable tail, and the counter that goes with it.

    Raises:
        NotDurable: the sync failed, or one before it; the shard takes no more records.
        StorageError: it could not be begun: nothing is known to be lost, and it may be tried again.
        ResourceNotFound: the shard is gone.
    """
    try:
        with _turn(folder, files):
            page = ctl or Ctl.open(folder, files, write=True)
            return _sync_once(folder, files, name, page, committed or _as_stored(page), wanted)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not files.exists(folder):
            raise ResourceNotFound(f"{name} was deleted.") from error
        raise storage_error(error, f"sync {name}") from error


@contextmanager
def _turn(folder: str, files: Files) -> Iterator[None]:
    """Nobody else syncs this shard meanwhile. Closing the descriptor gives the lock back."""
    fd = files.open(f"{folder}/{FILE_NAME}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        files.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        files.close(fd)


def _as_stored(ctl: Ctl) -> Callable[[], Committed]:
    words = ctl.words

    def committed() -> Committed:
        counter = words[COUNTER]  # first: a counter that is too low leaves out records, one too high makes some up
        return words[TAIL], counter

    return committed


def _sync_once(
    folder: str, files: Files, name: str, ctl: Ctl, committed: Callable[[], Committed], wanted: int | None
) -> Committed:
    words = ctl.words
    if words[POISONED]:
        raise _poisoned(name)
    durable = words[DURABLE]
    if wanted is not None and durable >= wanted:
        return durable, words[DURABLE_COUNTER]
    noted, counter = committed()
    if durable >= noted:
        return durable, words[DURABLE_COUNTER]
    # Read after the tail: where the segment that is appended to begins at or below the durable tail, it holds all.
    current = words[SEGMENT]
    spans = [(current, noted)] if current <= durable else segments.spans(folder, files, durable, noted)
    made = False
    for base, following in spans:
        try:
            _sync(segments.segment_path(folder, base), files.fdatasync, files, ctl, name)
        except FileNotFoundError:
            if following > words[HORIZON]:
                raise
            continue  # it expired meanwhile
        made = made or base >= durable
    if made:
        _sync(folder, files.fsync, files, ctl, name)
    words[DURABLE_COUNTER] = counter
    words[DURABLE] = noted
    return noted, counter


def _sync(path: str, sync: Callable[[int], None], files: Files, ctl: Ctl, name: str) -> None:
    """Sync a file or folder. That it cannot be opened says nothing of what was written: only a failed sync poisons."""
    fd = files.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(fd)
    except OSError as error:
        ctl.words[POISONED] = 1
        log.error("sync failed shard=%s error=%s", name, error)  # noqa: TRY400  # raised with all it knows
        raise NotDurable(str(storage_error(error, f"sync {name}"))) from error
    finally:
        files.close(fd)


def _poisoned(name: str) -> NotDurable:
    return NotDurable(
        f"{name}: a sync of its files failed, so it takes no more records; look at the disk, then restart kflow"
    )


def run_all(tasks: Sequence[Callable[[], object]], *, threads: int = THREADS) -> None:
    """Run tasks and wait for them.

    Args:
        tasks: of different shards.
        threads: how many at once; 1 runs them in this thread, as at exit, when no thread can be started any more.

    Raises:
        StorageError: of the first that failed; the others have run all the same. ResourceNotFound: as that.
    """
    if threads == 1 or len(tasks) < 2:
        failure: KflowError | None = None
        for task in tasks:
            try:
                task()
            except (StorageError, ResourceNotFound) as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return
    from concurrent.futures import ThreadPoolExecutor  # weight: only who syncs several shards needs it

    with ThreadPoolExecutor(min(threads, len(tasks)), thread_name_prefix="sync") as pool:
        futures = [pool.submit(task) for task in tasks]
    for future in futures:
        future.result()
