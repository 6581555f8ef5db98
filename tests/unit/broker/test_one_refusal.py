"""Whichever single file call the disk refuses: it is said, and what was there is there, or what was meant.

`ENOENT` is not among the errors: whoever asks for a file that may be missing takes it for an answer.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from kflow.broker import documents
from kflow.broker.checkpoints import SlotFile
from kflow.broker.encode import Encoder
from kflow.broker.files import FILES, Files
from kflow.broker.folder import DataFolder
from kflow.broker.forgetting import forget
from kflow.broker.log import Log
from kflow.broker.objecterrors import NoSuchKey
from kflow.broker.objects import About, Objects
from kflow.broker.parked import ParkedStore
from kflow.broker.resharding import carry_out, split
from kflow.broker.windows import WindowStore
from kflow.errors import KflowError
from tests.storing import OneRefusal, Store, read_all
from tests.unit.broker.test_parked import batch

OLD, NEW = About(content_type="text/old"), About(content_type="text/new")


class Number(msgspec.Struct):
    value: int


_number = msgspec.json.Decoder(Number)


class Deed(NamedTuple):
    """Something that is done to a data folder.

    Attributes:
        before: prepares it, and gives what the deed is done to.
        do: does it.
        seen: what a reader sees, afterwards and with whole files.
        old: what it sees where the deed was not done.
        new: where it was.
    """

    before: Callable[[Path, Files], Any]
    do: Callable[[Any], object]
    seen: Callable[[Path], object]
    old: object
    new: object


def _bucket(path: Path, files: Files) -> Objects:
    made = Objects(FILES, path / "s3")
    made.ensure_bucket("code")
    made.put("code", "in/zip", b"old", OLD)
    return Objects(files, path / "s3")


def _object(path: Path) -> object:
    try:
        found, content = Objects(FILES, path / "s3").get("code", "in/zip")
    except NoSuchKey:
        return None
    return content, found.about


def _parked(path: Path, files: Files) -> ParkedStore:
    ParkedStore(path, FILES).park(batch(1))
    return ParkedStore(path, files, "always")


def _batches(path: Path) -> list[tuple[int, int]]:
    return [(each.number, each.first_counter) for each in ParkedStore(path, FILES).list()]


def _document(path: Path, files: Files) -> tuple[str, DataFolder]:
    name = str(path / "functions" / "a.json")
    documents.keep(name, Number(1), DataFolder.open(path, create=True))
    return name, DataFolder.open(path, files=files)


def _documents(path: Path) -> list[object]:
    return [each for _, each in documents.load_all(str(path / "functions"), _number, FILES)]


def _store(path: Path, files: Files) -> Store:
    return Store(path, shards=2, files=files, fsync="always")


def _log(path: Path) -> Log:
    log = Log(DataFolder.open(path))
    log.recover_all(threads=1)
    return log


def _streams(path: Path) -> list[tuple[str, int, int]]:
    return [(each.name, each.retention_hours, len(each.shards)) for each in _log(path).folder.maps()]


def _append(store: Store) -> None:
    store.log.append(store.stream, Encoder(store.stream).encode_many(["k"], [b"1"]))
    store.log.sync(threads=1)


def _records(path: Path) -> list[tuple[str, bytes]]:
    log = _log(path)
    return read_all(log.folder, log.folder.map("orders"))


def _slots(path: Path, files: Files) -> Callable[[], None]:
    SlotFile.open(path, "bill", 7, files=FILES, create_for=[0]).close()
    return lambda: SlotFile.open(path, "bill", 7, files=files, create_for=[0, 1], factor=2).close()


def _lanes(path: Path) -> list[tuple[int, int]]:
    slots = SlotFile.open(path, "bill", 7, files=FILES, create_for=[0])
    slots.close()
    return [key for key in slots.keys() if key[0] == 0]  # noqa: SIM118  # not a dict


def _split(store: Store) -> None:
    carry_out(store.log, split(store.stream, 0, None, account="1", region="r"), clock=store.clock)


ORDERS = ("orders", 24, 2)
DEEDS = {
    "put": Deed(_bucket, lambda it: it.put("code", "in/zip", b"new", NEW), _object, (b"old", OLD), (b"new", NEW)),
    "delete": Deed(_bucket, lambda it: it.delete("code", "in/zip"), _object, (b"old", OLD), None),
    "park": Deed(_parked, lambda it: it.park(batch(2)), _batches, [(1, 1)], [(1, 1), (2, 2)]),
    "claim": Deed(_parked, lambda it: it.claim(1, 5), _batches, [(1, 1)], [(1, 1)]),
    "drop": Deed(_parked, lambda it: it.drop(1), _batches, [(1, 1)], []),
    "keep": Deed(_document, lambda it: documents.keep(it[0], Number(2), it[1]), _documents, [Number(1)], [Number(2)]),
    "remove": Deed(_document, lambda it: documents.keep(it[0], None, it[1]), _documents, [Number(1)], []),
    "alter": Deed(
        _store,
        lambda it: it.log.alter_stream(it.stream, retention_hours=48),
        _streams,
        [ORDERS],
        [("orders", 48, 2)],
    ),
    "reset": Deed(_store, lambda it: it.log.reset_stream("orders"), _streams, [ORDERS], [ORDERS]),
    "split": Deed(_store, _split, _streams, [ORDERS], [("orders", 24, 4)]),
    "append": Deed(_store, _append, _records, [], [("k", b"1")]),
    "forget": Deed(_store, lambda it: forget(it.folder, it.stream), _streams, [ORDERS], [ORDERS]),
    "slots": Deed(_slots, lambda it: it(), _lanes, [(0, 0)], [(0, 0), (0, 1)]),
    "window": Deed(
        WindowStore,
        lambda it: it.put("bill", 7, 0, 1, b"state"),
        lambda path: WindowStore(path, FILES).get("bill", 7, 0, 1),
        None,
        b"state",
    ),
}


@pytest.mark.parametrize("name", DEEDS)
def test_whichever_call_is_refused_it_is_done_or_not_done_and_said(tmp_path: Path, name: str) -> None:
    deed = DEEDS[name]
    codes = (errno.ENOSPC, errno.EIO, errno.EACCES)
    for at in range(200):
        path, files = tmp_path / "data", OneRefusal()
        path.mkdir()
        to = deed.before(path, files)
        files.refuse(at, codes[at % 3])
        try:
            deed.do(to)
        except KflowError:
            wanted = (deed.old, deed.new)
        else:
            wanted = (deed.new,)
        was_refused = files.refused
        files.refuse(1 << 60, 0)
        assert deed.seen(path) in wanted, was_refused
        shutil.rmtree(path)
        if not was_refused:
            return
    pytest.fail("it never came to an end")
