"""All zips of functions and layers, by the hash of their content: kept, and unpacked once, however many use them.

    lambda/code/<sha256>.zip     as it came
    lambda/code/<sha256>/        unpacked

      add: a thread                       hold                drop, the last one
    ---------------> held by its adder ---------> by functions -------------------> due --a while, nobody--> removed

A zip is there when its folder is: both come by a rename, the zip first. What a kill leaves half made is removed at the
next start, and so is what no function names any more.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from kflow.broker.files import storage_error
from kflow.errors import KflowError, StorageError
from kflow.lambda_.control import unzip
from kflow.lambda_.control.facts import Code
from kflow.lambda_.control.host import Host
from kflow.lambda_.control.unzip import CannotUnzip

FOLDER: Final = "lambda/code"
DELAY_S: Final = 30.0
"""Code that nobody names any more stays so much longer than a function may run, which may import some of it still."""
AT_ONCE: Final = 2
"""So many zips are unpacked at the same time: the node has eight threads for files, and other work for them. chosen."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")

Added = Callable[[Code | KflowError], object]


class Packages:
    """Belongs to the loop's thread; what its threads share is under its lock.

    Args:
        host: the node.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._root = os.path.join(host.folder.path, FOLDER)
        self._files = host.folder.files
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Callable[[], bytes], Added]] = deque()
        self._busy = 0

    def folder(self, code: Code) -> str:
        """Where it is unpacked."""
        return f"{self._root}/{code.digest}"

    def zip(self, digest: str) -> str | None:
        """Path of a zip that somebody holds; None: nobody does."""
        if not _DIGEST.fullmatch(digest):
            return None
        with self._lock:
            return f"{self._root}/{digest}.zip" if self._held[digest] > 0 else None

    def add(self, read: Callable[[], bytes], added: Added) -> None:
        """Take in a zip. What was added is held once; whoever asked drops it.

        Args:
            read: its content; called in a thread; raises the `KflowError` that says why there is none.
            added: told on the loop.
        """
        self._waiting.append((read, added))
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and self._busy < AT_ONCE:
            read, added = self._waiting.popleft()
            self._busy += 1
            self._host.submit(partial(self._add, read), partial(self._over, added))

    def _over(self, added: Added, result: Code | KflowError) -> None:
        self._busy -= 1
        self._go_on()
        if isinstance(result, CannotUnzip):  # the caller is told no more than AWS says
            self._host.notice("warning", f"a zip was refused: {ascii(result.why)[1:-1]}")
        added(result)

    def hold(self, codes: Iterable[Code]) -> None:
        """Something uses these from now on."""
        with self._lock:
            self._held.update(code.digest for code in codes)

    def drop(self, codes: Iterable[Code], running_s: int = 0) -> None:
        """Something uses these no more; what nobody uses is removed after a while.

        Args:
            codes: which.
            running_s: how long what runs from them may go on.
        """
        gone = []
        with self._lock:
            for code in codes:
                self._held[code.digest] -= 1
                if self._held[code.digest] <= 0:
                    del self._held[code.digest]
                    gone.append(code.digest)
        if gone:
            self._host.call_later(running_s + DELAY_S, lambda: self._remove(gone))

    def is_there(self, code: Code) -> bool:
        """Whether it is unpacked."""
        return self._files.is_folder(self.folder(code))

    def restore(self, code: Code) -> None:
        """At the start: unpack again what somebody removed, from its zip.

        Raises:
            KflowError: its zip is gone, too, or is another one now.
        """
        path = f"{self.folder(code)}.zip"
        try:
            content = self._files.read_bytes(path)
        except OSError as error:
            raise storage_error(error, f"read {path}") from error
        if hashlib.sha256(content).hexdigest() != code.digest:
            raise StorageError(f"{path} is not what was uploaded: upload it again")
        self._add(lambda: content)
        with self._lock:
            self._held[code.digest] -= 1

    def clean(self) -> None:
        """At the start, when all that is used is held: remove what a kill left, and what nobody uses, in a thread."""
        try:
            names = self._files.listdir(self._root)
        except FileNotFoundError:
            return
        except OSError as error:
            raise storage_error(error, f"list {self._root}") from error
        digests = {name.removesuffix(".zip") for name in names if _DIGEST.fullmatch(name.removesuffix(".zip"))}
        left = [name for name in names if not _DIGEST.fullmatch(name.removesuffix(".zip"))]
        unused = [digest for digest in digests if self._held[digest] <= 0]
        if left:
            found = [self._set_aside(name) for name in left]
            self._host.submit(lambda: self._clean(found), self._removed)
        if unused:
            self._remove(unused)

    def _set_aside(self, name: str) -> str:
        """Under a name that nothing new has: what is new may be called like what an earlier process left."""
        beside = self._beside()
        try:
            self._files.rename(f"{self._root}/{name}", beside)
        except OSError as error:
            raise storage_error(error, f"move {self._root}/{name}") from error
        return beside

    def _beside(self) -> str:
        return f"{self._root}/.{secrets.token_hex(8)}"

    # ------------------------------------------------------------------ in threads

    def _add(self, read: Callable[[], bytes]) -> Code:
        content = read()
        digest = hashlib.sha256(content).hexdigest()
        with self._lock:
            self._held[digest] += 1
        try:
            return self._unpacked(content, digest)
        except OSError as error:
            self._let_go(digest)
            raise storage_error(error, f"keep a zip in {self._root}") from error
        except BaseException:
            self._let_go(digest)
            raise

    def _unpacked(self, content: bytes, digest: str) -> Code:
        files, syncs = self._files, self._host.folder.syncs
        folder, path = f"{self._root}/{digest}", f"{self._root}/{digest}.zip"
        files.make_folder(self._root, sync=syncs)
        if files.is_folder(folder) and files.exists(path):
            return Code(digest, len(content), unzip.size(content))
        beside = self._beside()
        try:
            size = unzip.unpack(content, beside, sync=syncs)
            files.write_replace(path, content, sync=syncs)
            if not files.is_folder(folder):
                try:
                    files.rename(beside, folder)
                except OSError:
                    if not files.is_folder(folder):  # else somebody was quicker, with the same
                        raise
            if syncs:
                files.sync_folder(self._root)
        finally:
            files.remove_tree(beside)
        return Code(digest, len(content), size)

    def _let_go(self, digest: str) -> None:
        with self._lock:
            self._held[digest] -= 1
            if self._held[digest] <= 0:
                del self._held[digest]

    def _clean(self, paths: Iterable[str]) -> None:
        for path in paths:
            try:
                self._files.remove_tree(path)
            except OSError as error:
                raise storage_error(error, f"remove {path}") from error

    def _remove(self, digests: Iterable[str]) -> None:
        """On the loop: have those removed that nobody holds."""

        def work() -> None:
            for digest in digests:
                beside = self._beside()
                with self._lock:
                    if self._held[digest] > 0:
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        # The folder first: a zip alone is removed at the next start.
                        self._files.rename(f"{self._root}/{digest}", beside)
                    self._files.discard(f"{self._root}/{digest}.zip")
                self._files.remove_tree(beside)

        self._host.submit(work, self._removed)

    def _removed(self, failure: KflowError | None) -> None:
        if failure is not None:
            self._host.notice("warning", f"code that nobody uses is left in {self._root}: {failure}")
