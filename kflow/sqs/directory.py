"""All queues of a data folder: found, made and deleted here, each with the desk where it is asked.

    queues/<name>.db                         of the folder's own account and region
    queues/<region>.<account>/<name>.db      of others

A queue exists when its file does. Nothing is read before somebody asks for the first time; then all files are, by a
thread. Two files of one name are what a kill leaves of a queue that was deleted and made again: the newer one stands.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from kflow.aws.calls import Place
from kflow.broker import tablefile
from kflow.broker.host import Host
from kflow.broker.messagequeues import Message, MessageStore, NeverMade
from kflow.desk import Told
from kflow.errors import KflowError, StorageError
from kflow.sqs import attributes, facts
from kflow.sqs.asking import Accept, Ask, Drop, Keep, Moved, Nothing, Purge, Reply, Return, Terms
from kflow.sqs.desk import Desk
from kflow.sqs.errors import QueueDoesNotExist
from kflow.sqs.facts import Facts
from kflow.sqs.turns import Turns

log = logging.getLogger(__name__)

FOLDER: Final = "queues"
_SUFFIX: Final = ".db"
_HINTS: Final = 100
"""So many queues that are elsewhere are told of: who invents names must not fill the log."""
_OPEN: Final = 64
"""So many files are kept open where nobody waits: each costs two descriptors and up to 512 KiB."""


class Queue:
    """One queue; the same object for as long as it exists. Belongs to the loop's thread.

    Attributes:
        facts: what is kept of it; changed by the directory alone.
        place: account and region.
        arn: its ARN.
        path: of its file.
        desk: where it is asked.
    """

    __slots__ = ("arn", "desk", "facts", "path", "place", "stored")

    def __init__(self, facts: Facts, place: Place, path: str) -> None:
        self.facts = facts
        self.stored = facts
        self.place = place
        self.path = path
        self.arn = attributes.arn(place.region, place.account, facts.name)
        self.desk: Desk


class Directory:
    """Belongs to the loop's thread.

    Args:
        host: whose folder, loop and threads it uses.
        home: the folder's own account and region.
    """

    def __init__(self, host: Host, home: Place) -> None:
        self._host = host
        self._home = home
        self._folder = os.fspath(host.folder.path / FOLDER)
        self._files = host.folder.files
        self._queues: dict[tuple[Place, str], Queue] = {}
        self._paths: set[str] = set()
        self._damaged: list[str] = []
        self._hinted: set[tuple[Place, str]] = set()
        self._waiting: list[Callable[[KflowError | None], object]] = []
        self._is_loading = False
        self.is_loaded = False
        self.loaded: Callable[[], object] = lambda: None
        """Called once, when it is."""
        self.made: Callable[[Queue], object] = lambda _: None
        """Called with each queue that is made from then on."""
        self.counted: Callable[[Queue, Ask, Reply | KflowError], object] = lambda _queue, _ask, _reply: None
        """Told what came of each that a queue was asked."""

    # ------------------------------------------------------------------ loading

    def when_loaded(self, then: Callable[[KflowError | None], object]) -> None:
        """Call back, on the loop, when all queues are known, or with why they cannot be; the next call tries again."""
        if self.is_loaded:
            then(None)
            return
        self._waiting.append(then)
        if not self._is_loading:
            self._is_loading = True
            self._host.submit(self._read, self._learn)

    def _read(self) -> list[tuple[str, Facts | str]]:
        """In a thread: the files there are, each with its facts or what is wrong with it."""
        found: list[tuple[str, Facts | str]] = []
        for path in sorted(self._listed(self._folder)):
            try:
                store = MessageStore(path, fsync=self._host.folder.fsync)
                try:
                    found.append((path, facts.decode(store.fact("queue"))))
                finally:
                    store.close()
            except NeverMade:
                tablefile.remove(path, self._files)
            except (StorageError, msgspec.MsgspecError, TypeError) as error:
                found.append((path, str(error)))
        return found

    def _listed(self, folder: str) -> Iterable[str]:
        try:
            entries = list(os.scandir(folder))
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"cannot list the queues in {folder}: {error.strerror}") from error
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and folder == self._folder:
                yield from self._listed(entry.path)
            elif entry.name.endswith(_SUFFIX):
                yield entry.path

    def _learn(self, found: list[tuple[str, Facts | str]] | KflowError) -> None:
        self._is_loading = False
        waiting, self._waiting = self._waiting, []
        if isinstance(found, KflowError):
            for then in waiting:
                then(found)
            return
        for path, each in sorted(found, key=_age):
            self._paths.add(path.casefold())
            if isinstance(each, str):
                self._host.notice("error", f"a queue cannot be read and is not served: {each}")
                self._damaged.append(path)
                continue
            place = Place(each.account or self._home.account, each.region or self._home.region)
            older = self._queues.get((place, each.name))
            if older is not None and _folder_of(older.path) != _folder_of(path):
                self._host.notice(
                    "error", f"queue {each.name} of {place.region} is there twice, and served from {older.path} only: "
                    f"move {path} away, or set region and account back",
                )  # fmt: skip
                continue
            if older is not None:
                self._remove_file(older.path, lambda _: None)
            self._add(each, place, path, is_new=False)
        self.is_loaded = True
        self.loaded()
        for then in waiting:
            then(None)

    # ------------------------------------------------------------------ finding

    def find(self, place: Place, name: str) -> Queue:
        """A queue by its name.

        Raises:
            QueueDoesNotExist: there is none.
        """
        queue = self._queues.get((place, name))
        if queue is None:
            self._hint(place, name)
            raise QueueDoesNotExist
        return queue

    def has(self, place: Place, name: str) -> bool:
        """Whether there is a queue of a name."""
        return (place, name) in self._queues

    def by_arn(self, arn: str) -> Queue | None:
        """A queue by its ARN; None: there is none."""
        named = attributes.parse_arn(arn)
        return None if named is None else self._queues.get((Place(named.account, named.region), named.name))

    def of(self, place: Place) -> list[Queue]:
        """The queues of a place, by name."""
        return sorted((each for (there, _), each in self._queues.items() if there == place), key=_name)

    def sources_of(self, queue: Queue) -> list[Queue]:
        """The queues whose dead letters go to a queue, by name."""
        return sorted((each for each in self._queues.values() if each.facts.dead_arn == queue.arn), key=_name)

    def everywhere(self) -> Sequence[Queue]:
        """All there are."""
        return list(self._queues.values())

    # ------------------------------------------------------------------ changing

    def create(self, place: Place, name: str, made: Callable[[Facts], Facts], told: Told) -> Queue:
        """Make a queue. Its name is taken at once; `told` is told when it is kept.

        Args:
            place: where.
            name: its name; none has it.
            made: gives it its attributes; may raise.
            told: told None, or why it could not be made.
        """
        now_ms = self._host.now_ms()
        is_home = place == self._home
        account, region = ("", "") if is_home else place
        plain = Facts(
            id=uuid.uuid4().hex[:16], name=name, account=account, region=region, created_ms=now_ms, changed_ms=now_ms
        )
        folder = self._folder if is_home else f"{self._folder}/{place.region}.{place.account}"
        queue = self._add(made(plain), place, self._free_path(folder, name), is_new=True)

        def over(reply: Any) -> None:
            if isinstance(reply, KflowError) and self._queues.get((place, name)) is queue:
                del self._queues[place, name]
            told(reply)

        queue.desk.ask(Nothing(), over)
        self.made(queue)
        return queue

    def change(self, queue: Queue, changed: Facts, told: Told, *, purge: bool = False) -> None:
        """Keep other facts of a queue: in memory now, on the disk by a thread.

        Args:
            queue: which.
            changed: its facts from now on.
            told: told None when they are kept; or why they are not, and did not change.
            purge: whether all its messages go, too.
        """
        queue.facts = changed

        def over(reply: Any) -> None:
            if isinstance(reply, KflowError):
                queue.facts = queue.stored
            else:
                queue.stored = changed
            told(reply)

        queue.desk.ask(Purge(changed) if purge else Keep(changed), over)

    def delete(self, queue: Queue, told: Told) -> None:
        """Delete a queue: at once nobody finds it, and `told` is told when nothing of it is left."""
        del self._queues[queue.place, queue.facts.name]
        queue.desk.close(QueueDoesNotExist(), lambda: self._remove_file(queue.path, told))

    def clear(self, then: Callable[[], object]) -> None:
        """Delete all queues, for whoever empties the folder; calls back when that is over."""
        left, damaged = self.everywhere(), self._damaged
        remaining = len(left) + len(damaged)
        if not remaining:
            then()
            return

        def gone(_: Any) -> None:
            nonlocal remaining
            remaining -= 1
            if not remaining:
                then()

        self._damaged = []
        for path in damaged:
            self._remove_file(path, gone)
        for queue in left:
            self.delete(queue, gone)

    def close(self, then: Callable[[], object]) -> None:
        """Stop serving: who waits is answered with nothing, and all files are closed; calls back then."""
        remaining = len(self._queues)
        if not remaining:
            then()
            return

        def closed() -> None:
            nonlocal remaining
            remaining -= 1
            if not remaining:
                then()

        for queue in self.everywhere():
            queue.desk.send_home()
        for queue in self.everywhere():
            queue.desk.close(StorageError("the queue is closed, for kflow stops: try again when it runs"), closed)

    def bring(
        self, queue: Queue, messages: Sequence[Message], target: Queue | None, then: Callable[[bool], object], *,
        dead_of: str = "",
    ) -> None:  # fmt: skip
        """Bring messages that are set aside in a queue to another one; where that fails, they are back in their place.

        Args:
            queue: where they are.
            messages: which.
            target: where to; None: it is gone.
            then: called on the loop when it is over: with whether they are there.
            dead_of: ARN of the queue where they are dead letters; empty: they are moved back, and become new messages.
        """
        numbers = [each.state.number for each in messages]

        def arrived(reply: Any) -> None:
            is_there = not isinstance(reply, KflowError)
            if not is_there and not isinstance(reply, QueueDoesNotExist):
                log.warning("messages stay in their queue queue=%s error=%s", queue.facts.name, reply)
            queue.desk.ask(
                Drop(numbers) if is_there else Return(numbers, are_dead=bool(dead_of)), lambda _: then(is_there)
            )

        if target is None:
            arrived(QueueDoesNotExist())
        else:
            target.desk.ask(Accept([Moved(each, queue.facts.id, dead_of) for each in messages]), arrived)

    # ------------------------------------------------------------------ inside

    def _add(self, made: Facts, place: Place, path: str, *, is_new: bool) -> Queue:
        queue = Queue(made, place, path)
        to_make = [facts.encode(made)] if is_new else []

        def opened() -> Turns:
            """In a thread."""
            if to_make:
                self._files.make_folder(self._folder, sync=self._host.folder.syncs)
                self._files.make_folder(_folder_of(path), sync=self._host.folder.syncs)
            store = MessageStore(path, fsync=self._host.folder.fsync, create=to_make[0] if to_make else None)
            if to_make and self._host.folder.syncs:
                self._files.sync_folder(_folder_of(path))
            to_make.clear()
            return Turns(store)

        def bury(messages: Sequence[Message], then: Callable[[bool], object]) -> None:
            self.bring(queue, messages, self.by_arn(queue.facts.dead_arn), then, dead_of=queue.arn)

        queue.desk = Desk(self._host, opened, lambda: self._terms(queue), bury, self._is_crowded)
        queue.desk.counted = lambda ask, reply: self.counted(queue, ask, reply)
        self._queues[place, made.name] = queue
        return queue

    def _terms(self, queue: Queue) -> Terms:
        """What holds now. Where its dead-letter queue is gone, a message that fails stays (chosen)."""
        kept = queue.facts
        is_limited = bool(kept.dead_arn) and self.by_arn(kept.dead_arn) is not None
        return Terms(self._host.now_ms(), kept, queue.arn, kept.max_receives if is_limited else None)

    def _hint(self, place: Place, name: str) -> None:
        """Somebody asked for a queue that is not in this place: perhaps for one that is in another."""
        others = [there for there, found in self._queues if found == name]
        if not others or (place, name) in self._hinted or len(self._hinted) >= _HINTS:
            return
        self._hinted.add((place, name))
        where = ", ".join(f"{there.region} of account {there.account}" for there in others)
        self._host.notice(
            "warning",
            f"queue {name} was asked for in {place.region} of account {place.account}, and is in {where}: "
            "the client's region or access key decides where it looks",
        )

    def _is_crowded(self) -> bool:
        return len(self._queues) > _OPEN and sum(each.desk.is_open for each in self._queues.values()) > _OPEN

    def _free_path(self, folder: str, name: str) -> str:
        """Where no other queue's file is: not even one whose name differs in case alone, or that is being removed."""
        path, number = f"{folder}/{name}{_SUFFIX}", 1
        while path.casefold() in self._paths:
            number += 1
            path = f"{folder}/{name}~{number}{_SUFFIX}"
        self._paths.add(path.casefold())
        return path

    def _remove_file(self, path: str, told: Told) -> None:
        def remove() -> None:
            try:
                tablefile.remove(path, self._files)
            except OSError as error:
                raise StorageError(f"cannot remove the queue's file {path}: {error.strerror}") from error

        def removed(failure: KflowError | None) -> None:
            if failure is None:
                self._paths.discard(path.casefold())
            else:
                log.error("a deleted queue comes back at the next start error=%s", failure)
            told(failure)

        self._host.submit(remove, removed)


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0]


def _name(queue: Queue) -> str:
    return queue.facts.name


def _age(found: tuple[str, Facts | str]) -> int:
    return 0 if isinstance(found[1], str) else found[1].created_ms
