"""Making committed bytes durable (`fsync = "interval"`): one task a shard, run in any thread.

A task covers every segment that overlaps [durable tail, tail as noted at its start), oldest first, and the shard's
folder where one of them was made there; only then is the durable tail stored. A sync that fails is never tried again as
if it could succeed: the kernel may have marked the lost pages clean. The shard is poisoned instead (`recovery` says
what then).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Final

from kflow.broker import segment as segments
from kflow.broker.ctl import DURABLE, POISONED, TAIL, Ctl
from kflow.broker.files import Files, storage_error
from kflow.errors import StorageError

log = logging.getLogger(__name__)

THREADS: Final = 8
"""How many syncs run at once: more only queue up in the device."""


class SyncTask:
    """Makes one shard durable up to its tail. Call it once, in any thread; not two of one shard at a time."""

    __slots__ = ("_ctl", "_done", "_files", "_folder", "name")

    def __init__(self, folder: str, ctl: Ctl | None, files: Files, name: str, done: Callable[[], bool]) -> None:
        # Without a control page it is opened when the task runs: a thousand waiting tasks hold no descriptor.
        self._folder = folder
        self._ctl = ctl
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
            ctl = self._ctl or Ctl.open(self._folder, self._files, write=True)
            self._sync_once(ctl)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not os.path.exists(self._folder):
                return  # the stream was deleted meanwhile
            raise storage_error(error, f"sync {self.name}") from error

    def _sync_once(self, ctl: Ctl) -> None:
        words = ctl.words
        durable, noted = words[DURABLE], words[TAIL]
        if durable >= noted or words[POISONED]:
            return
        try:
            self._sync(durable, noted)
        except OSError as error:
            if os.path.exists(self._folder):
                words[POISONED] = 1
                log.error("sync failed shard=%s error=%s", self.name, error)  # noqa: TRY400  # raised with all it knows
            raise
        words[DURABLE] = max(words[DURABLE], noted)

    def _sync(self, durable: int, noted: int) -> None:
        files = self._files
        made = False
        for base, _ in segments.spans(self._folder, files, durable, noted):
            fd = files.open(segments.segment_path(self._folder, base), os.O_RDONLY | os.O_CLOEXEC)
            try:
                files.fdatasync(fd)
            finally:
                files.close(fd)
            made = made or base >= durable
        if made:
            files.sync_folder(self._folder)


def run_all(tasks: Sequence[SyncTask], *, threads: int = THREADS) -> None:
    """Run tasks and wait for them.

    Args:
        tasks: of different shards.
        threads: how many at once; 1 runs them in this thread, as at exit, when no thread can be started any more.

    Raises:
        StorageError: of the first that failed; the others have run all the same.
    """
    if threads == 1 or len(tasks) < 2:
        failure: StorageError | None = None
        for task in tasks:
            try:
                task()
            except StorageError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return
    from concurrent.futures import ThreadPoolExecutor  # weight: only who syncs several shards needs it

    with ThreadPoolExecutor(min(threads, len(tasks)), thread_name_prefix="sync") as pool:
        futures = [pool.submit(task) for task in tasks]
    for future in futures:
        future.result()
